package queue

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// model is a queue as one would write it with no thought of speed: a slice of messages, searched from
// one end to the other.
type model struct {
	name      string
	s         Settings
	paused    bool
	msgs      []*modelMessage // by sequence
	next      uint64
	ids       []modelID
	producers []*modelProducer // the one that sent last at the end
	stats     Stats            // the counters; what it holds is counted when asked
	reserved  [2]int64         // messages, bytes
	step      int              // rises with each operation
}

type modelMessage struct {
	Message
	seq      uint64
	sentAt   int64
	state    State
	due      int64 // delayed: wall time
	expires  int64 // wall time; 0: never
	attempts int
	delivery uint32
	lease    int64 // ms; 0: without an end
	ends     int64 // monotonic time
	why      string
	bury     bool // when it is committed
	moved    int  // step of the last change of state or deadline
}

type modelID struct {
	id  string
	seq uint64
	at  int64
}

type modelProducer struct {
	id      string
	sentAt  int64
	answers map[uint64]Stored
}

func newModel(name string, s Settings) *model { return &model{name: name, s: s, next: 1} }

func (m *model) in(state State) (found []*modelMessage) {
	for _, x := range m.msgs {
		if x.state == state {
			found = append(found, x)
		}
	}
	return found
}

func (m *model) bySeq(seq uint64) *modelMessage {
	for _, x := range m.msgs {
		if x.seq == seq {
			return x
		}
	}
	return nil
}

func (m *model) remove(x *modelMessage) {
	m.msgs = slices.DeleteFunc(m.msgs, func(y *modelMessage) bool { return x == y })
}

func (m *model) bytes() (sum int64) {
	for _, x := range m.msgs {
		sum += int64(x.Bytes())
	}
	return sum
}

func (m *model) room(messages, bytes int64) bool {
	return int64(len(m.msgs))+m.reserved[0]+messages <= m.s.MaxMessages && m.bytes()+m.reserved[1]+bytes <= m.s.MaxBytes
}

// inOrder sorts by the order of receipt.
func inOrder(msgs []*modelMessage) []*modelMessage {
	slices.SortFunc(msgs, func(a, b *modelMessage) int {
		return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.seq, b.seq))
	})
	return msgs
}

func (m *model) send(now Instant, b Batch) (Stored, *reason.Error) {
	if p := m.producer(b.Producer); b.Producer != "" && p != nil {
		if stored, ok := p.answers[b.Number]; ok {
			return stored, nil
		}
	}
	if len(b.Messages) == 0 {
		return Stored{}, reason.New(reason.InvalidArgument, "")
	}
	for i := range b.Messages {
		x := &b.Messages[i]
		switch {
		case len(x.Body) > m.s.MaxMessageSize:
			return Stored{}, reason.New(reason.MessageTooLarge, "")
		case x.Type < 1 || x.Priority > limits.PriorityMax:
			return Stored{}, reason.New(reason.InvalidArgument, "")
		}
	}
	m.forgetIDs(now)
	stored := Stored{First: m.next, Count: len(b.Messages), SentAt: now.Wall}
	ids := slices.Clone(m.ids)
	var fresh []*modelMessage
	bytes, lowest := int64(0), uint16(limits.PriorityMax)
	for i, x := range b.Messages {
		if x.DedupID != "" && m.s.DedupWindow > 0 && b.Past == nil {
			if at := slices.IndexFunc(ids, func(known modelID) bool { return known.id == x.DedupID }); at >= 0 {
				stored.Duplicates = append(stored.Duplicates, Duplicate{i, ids[at].seq})
				continue
			}
			if int64(len(ids)) >= m.s.MaxDedupIDs {
				return Stored{}, reason.New(reason.QuotaExceeded, "")
			}
			ids = append(ids, modelID{x.DedupID, m.next + uint64(len(fresh)), now.Wall})
		}
		y := &modelMessage{Message: x, seq: m.next + uint64(len(fresh)), sentAt: now.Wall, state: uncommitted, moved: m.step}
		if y.due = x.NotBefore; x.Delay > 0 {
			y.due = now.Wall + int64(x.Delay)
		}
		if y.due <= now.Wall {
			y.due = 0
		}
		if x.TTL > 0 {
			y.expires = now.Wall + int64(x.TTL)
		}
		if b.Past != nil {
			y.past(&b.Past[i], now)
		}
		y.Delay, y.NotBefore = 0, 0
		bytes += int64(x.Bytes())
		lowest = min(lowest, x.Priority)
		fresh = append(fresh, y)
	}
	if b.Producer != "" {
		m.forgetProducers(now)
	}
	if len(fresh) > 0 {
		if int64(len(fresh)) > m.s.MaxMessages || bytes > m.s.MaxBytes {
			return Stored{}, reason.New(reason.QueueFull, "")
		}
		before := slices.Clone(m.msgs)
		dropped := uint64(0)
		for !m.room(int64(len(fresh)), bytes) {
			ready := m.in(Ready)
			slices.SortFunc(ready, func(a, b *modelMessage) int {
				return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.seq, b.seq))
			})
			if m.s.Overflow != DropOldest || len(ready) == 0 || ready[0].Priority > lowest {
				m.msgs = before
				return Stored{}, reason.New(reason.QueueFull, "").Retry(1)
			}
			m.remove(ready[0])
			dropped++
		}
		m.stats.OverflowDropped += dropped
	}
	m.ids = ids
	m.msgs = append(m.msgs, fresh...)
	m.next += uint64(len(fresh))
	m.stats.Sent += uint64(len(fresh))
	m.stats.Duplicates += uint64(len(stored.Duplicates))
	if b.Producer != "" {
		p := m.producer(b.Producer)
		if p == nil {
			p = &modelProducer{id: b.Producer, answers: map[uint64]Stored{}}
		}
		p.sentAt, p.answers[b.Number] = now.Wall, stored
		m.producers = append(slices.DeleteFunc(m.producers, func(o *modelProducer) bool { return o == p }), p)
	}
	return stored, nil
}

func (m *model) producer(id string) *modelProducer {
	for _, p := range m.producers {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (m *model) forgetProducers(now Instant) {
	for len(m.producers) > 0 && m.producers[0].sentAt < now.Wall-int64(limits.ProducerWindow) {
		m.producers = m.producers[1:]
	}
}

func (m *model) forgetIDs(now Instant) {
	for len(m.ids) > 0 && m.ids[0].at < now.Wall-int64(m.s.DedupWindow) {
		m.ids = m.ids[1:]
	}
}

func (m *model) publish(last uint64) {
	for _, x := range m.in(uncommitted) {
		if x.seq <= last {
			switch why := x.why; {
			case x.bury:
				m.move(x, Buried)
				x.why, x.bury = why, false
			case x.due != 0:
				m.move(x, Delayed)
			default:
				m.move(x, Ready)
			}
		}
	}
}

func (m *model) move(x *modelMessage, to State) {
	x.state, x.moved = to, m.step
	if to != Delayed {
		x.due = 0
	}
	if to != Leased {
		x.lease, x.ends = 0, 0
	}
	if to != Buried {
		x.why = ""
	}
}

// pick is the ready message that a selector puts first.
func (m *model) pick(sel Selector) *modelMessage {
	var best *modelMessage
	for _, x := range inOrder(m.in(Ready)) {
		matches := false
		switch sel.Kind {
		case Any:
			matches = true
		case TypeIs:
			matches = x.Type == sel.Type
		case LowestUpTo:
			matches = x.Type <= sel.Type
		case TypeIsNot:
			matches = x.Type != sel.Type
		case TypeIn:
			matches = slices.Contains(sel.Types, x.Type)
		}
		if matches && (best == nil || sel.Kind == LowestUpTo && x.Type < best.Type) {
			best = x
		}
	}
	return best
}

func (m *model) leases(now Instant, l LeaseRequest) ([]Delivery, *reason.Error) {
	if m.paused {
		return nil, nil
	}
	var out []Delivery
	bytes := 0
	for len(out) < l.Max {
		x := m.pick(l.Selector)
		if x == nil {
			break
		}
		if l.MaxBody > 0 && len(x.Body) > l.MaxBody && !l.Truncate {
			if len(out) == 0 {
				return nil, reason.New(reason.BufferTooSmall, "")
			}
			break
		}
		if len(out) > 0 && bytes+x.Bytes() > l.MaxBytes {
			break
		}
		bytes += x.Bytes()
		d := x.delivery0()
		if l.MaxBody > 0 && len(x.Body) > l.MaxBody {
			d.TruncatedFrom, d.Body = len(x.Body), x.Body[:l.MaxBody]
		}
		m.stats.Delivered++
		if l.Consume {
			m.stats.Consumed++
			m.remove(x)
		} else {
			m.lease(now, x, l.Duration, false)
			d.Receipt.Sequence, d.Receipt.Delivery = x.seq, x.delivery
			d.LeaseEnds = now.Wall + x.ends - now.Mono
		}
		out = append(out, d)
	}
	return out, nil
}

// delivery0 is the message as it is handed out, before any lease.
func (x *modelMessage) delivery0() Delivery {
	return Delivery{Message: x.Message, Sequence: x.seq, SentAt: x.sentAt, Attempts: x.attempts}
}

func (m *model) lease(now Instant, x *modelMessage, d time.Duration, endless bool) {
	if d == 0 {
		d = m.s.Lease
	}
	m.move(x, Leased)
	x.delivery++
	if !endless {
		x.lease = int64((d + time.Millisecond - 1) / time.Millisecond)
		x.ends = now.Mono + x.lease*int64(time.Millisecond)
	}
}

// held is the message a receipt holds, nil if its delivery is over.
func (m *model) held(r Receipt) *modelMessage {
	if x := m.bySeq(r.Sequence); x != nil && x.state == Leased && x.delivery == r.Delivery {
		return x
	}
	return nil
}

// end ends a lease; delay < 0 stands for the back-off. dead is nil where there is no dead-letter queue.
func (m *model) end(now Instant, x *modelMessage, c cause, delay time.Duration, why string, dead *model) {
	failed := c == byNack || c == byExpiry
	switch c {
	case byNack:
		m.stats.Nacked++
	case byExpiry:
		m.stats.LeaseExpired++
	}
	if failed {
		x.attempts++
	}
	if failed && x.attempts >= m.s.MaxAttempts {
		detail := fmt.Sprintf("failed %d times", x.attempts)
		if why != "" {
			detail += ": " + why
		}
		m.deadLetter(now, x, "max-attempts", detail, dead)
		return
	}
	if x.expires != 0 && x.expires <= now.Wall {
		m.expire(now, x, dead)
		return
	}
	if delay < 0 {
		delay = m.s.BackoffInitial
		for range x.attempts - 1 {
			delay = min(2*delay, m.s.BackoffMax)
		}
		delay = min(delay, m.s.BackoffMax)
	}
	m.move(x, Ready)
	if delay > 0 {
		m.move(x, Delayed)
		x.due = now.Wall + int64(delay)
	}
}

func (m *model) expire(now Instant, x *modelMessage, dead *model) {
	if m.s.DeadLetterExpired {
		m.deadLetter(now, x, "expired", "its TTL ended", dead)
		return
	}
	m.stats.TTLDropped++
	m.remove(x)
}

func (m *model) deadLetter(now Instant, x *modelMessage, why, detail string, dead *model) {
	if dead != nil {
		y := x.Message
		y.DedupID, y.TTL = "", 0
		y.Headers = slices.DeleteFunc(slices.Clone(y.Headers), func(h Header) bool { return isDeadHeader(h.Key) })
		for _, h := range [][2]string{
			{"ipcd-dead-queue", m.name}, {"ipcd-dead-reason", why}, {"ipcd-dead-detail", detail},
			{"ipcd-dead-attempts", fmt.Sprint(x.attempts)}, {"ipcd-dead-sequence", fmt.Sprint(x.seq)},
		} {
			y.Headers = append(y.Headers, Header{h[0], []byte(h[1])})
		}
		if _, err := dead.send(now, Batch{Messages: []Message{y}}); err == nil {
			m.stats.DeadLettered++
			m.remove(x)
			return
		}
		detail += "; the dead-letter queue did not take it"
	} else if m.s.DeadLetter != "" {
		detail += "; the dead-letter queue " + m.s.DeadLetter + " is not there, or this one's owner may not send to it"
	}
	m.move(x, Buried)
	x.why = detail
}

// restart is what becomes of leases when the daemon starts anew.
func (m *model) restart(stopped, now Instant, clean bool) {
	for _, x := range m.in(Leased) {
		if clean && x.lease != 0 {
			wallEnd := stopped.Wall + x.ends - stopped.Mono
			x.ends = max(now.Mono+wallEnd-now.Wall, 1)
		} else {
			m.move(x, Ready)
		}
	}
}

// isDue says whether time has something to do with the message.
func (x *modelMessage) isDue(now Instant) bool {
	switch x.state {
	case Leased:
		return x.lease != 0 && x.ends <= now.Mono
	case Delayed:
		return x.due <= now.Wall || x.expires != 0 && x.expires <= now.Wall
	case Ready:
		return x.expires != 0 && x.expires <= now.Wall
	}
	return false
}

// pass lets time do what is due, in the order given, which the promises leave open.
func (m *model) pass(now Instant, order []uint64, dead *model) error {
	done := map[uint64]bool{}
	for _, seq := range order {
		if done[seq] {
			continue
		}
		done[seq] = true
		x := m.bySeq(seq)
		if x == nil || !x.isDue(now) {
			return fmt.Errorf("expiry touched %d, which is not due: %+v", seq, x)
		}
		switch {
		case x.state == Leased:
			m.end(now, x, byExpiry, -1, "the lease ended", dead)
		case x.expires != 0 && x.expires <= now.Wall:
			m.expire(now, x, dead)
		default:
			m.move(x, Ready)
		}
	}
	for _, x := range m.msgs {
		if x.isDue(now) {
			return fmt.Errorf("expiry left %d, which is due: %+v", x.seq, x)
		}
	}
	return nil
}

func (x *modelMessage) meant(f *Filter) bool {
	if x.seq < f.MinSequence || f.MaxSequence != 0 && x.seq > f.MaxSequence || f.SentBefore != 0 && x.sentAt > f.SentBefore || !f.Selector.Matches(x.Type) {
		return false
	}
	for _, h := range f.Headers {
		if !slices.ContainsFunc(x.Headers, func(o Header) bool { return o.Key == h.Key && bytes.Equal(o.Value, h.Value) }) {
			return false
		}
	}
	return true
}

// peek is what a peek shows, in its order.
func (m *model) peek(now Instant, f *Filter) []Peeked {
	states := f.States
	if len(states) == 0 {
		states = []State{Ready}
	}
	var page []Peeked
	for _, state := range []State{Ready, Delayed, Leased, Buried} {
		if !slices.Contains(states, state) {
			continue
		}
		msgs := m.in(state)
		switch state {
		case Ready:
			inOrder(msgs)
		case Delayed:
			slices.SortStableFunc(msgs, func(a, b *modelMessage) int { return cmp.Compare(a.due, b.due) })
		case Leased:
			end := func(x *modelMessage) int64 {
				if x.lease == 0 {
					return never
				}
				return x.ends
			}
			slices.SortStableFunc(msgs, func(a, b *modelMessage) int { return cmp.Compare(end(a), end(b)) })
		}
		for _, x := range msgs {
			if x.meant(f) {
				page = append(page, x.peeked(now))
			}
		}
	}
	return page
}

func (x *modelMessage) peeked(now Instant) Peeked {
	p := Peeked{Delivery: x.delivery0(), State: x.state, Due: x.due, Expires: x.expires, BuryReason: x.why}
	if x.lease != 0 {
		p.LeaseEnds = now.Wall + x.ends - now.Mono
	}
	return p
}

func (m *model) purge(f *Filter, first uint64, max int, dryRun bool) (count int) {
	for _, x := range slices.Clone(m.msgs) {
		wanted := x.state == Ready || x.state == Delayed || x.state == Buried
		if len(f.States) > 0 {
			wanted = slices.Contains(f.States, x.state)
		}
		if !wanted || x.state == uncommitted || x.seq < first || !x.meant(f) || count == max {
			continue
		}
		count++
		if !dryRun {
			m.stats.Purged++
			m.remove(x)
		}
	}
	return count
}

// past gives a message what it went through before.
func (x *modelMessage) past(p *Past, now Instant) {
	if p.SentAt != 0 {
		x.sentAt = p.SentAt
	}
	x.due, x.expires, x.attempts, x.bury, x.why = 0, p.Expires, p.Attempts, p.Buried, p.Why
	if x.TTL = 0; p.Expires != 0 {
		x.TTL = time.Duration(p.Expires - x.sentAt)
	}
	if p.Due > now.Wall && !p.Buried {
		x.due = p.Due
	}
}

// moveTo moves one message after the other, until one does not fit.
func (m *model) moveTo(to *model, now Instant, v Moving) (count int, full *reason.Error) {
	bytes := 0
	for _, x := range slices.Clone(m.msgs) {
		if x.seq < v.First || x.state == uncommitted || !v.Filter.touches(x.state) || !x.meant(v.Filter) || x.expires != 0 && x.expires <= now.Wall {
			continue
		}
		if count == v.Messages || !v.DryRun && bytes+x.Bytes() > v.Bytes {
			break
		}
		count++
		if v.DryRun {
			continue
		}
		switch {
		case len(x.Body) > to.s.MaxMessageSize:
			full = reason.New(reason.MessageTooLarge, "")
		case !to.room(1, int64(x.Bytes())):
			full = reason.New(reason.QueueFull, "")
		}
		if full != nil {
			return count - 1, full
		}
		bytes += x.Bytes()
		past := Past{SentAt: x.sentAt, Expires: x.expires}
		if x.state == Delayed {
			past.Due = x.due
		}
		if _, err := to.send(now, Batch{Messages: []Message{x.Message}, Past: []Past{past}}); err != nil {
			panic(err)
		}
		m.stats.Moved++
		m.remove(x)
	}
	return count, nil
}

func (m *model) kick(f *Filter, first uint64, max int, dryRun bool) (count int) {
	for _, x := range m.in(Buried) {
		if x.seq < first || !x.meant(f) || count == max {
			continue
		}
		count++
		if !dryRun {
			m.move(x, Ready)
		}
	}
	return count
}

// statsNow completes the counters with what the queue holds.
func (m *model) statsNow(now Instant) Stats {
	m.forgetIDs(now)
	s := m.stats
	s.Ready, s.Delayed, s.Leased = int64(len(m.in(Ready))), int64(len(m.in(Delayed))), int64(len(m.in(Leased)))
	s.Buried, s.Uncommitted = int64(len(m.in(Buried))), int64(len(m.in(uncommitted)))
	s.Bytes, s.DedupIDs = m.bytes(), int64(len(m.ids))
	for _, x := range m.in(Ready) {
		if s.OldestReady == 0 {
			s.OldestReady = x.sentAt
		}
	}
	return s
}
