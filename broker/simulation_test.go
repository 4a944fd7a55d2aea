package broker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

var (
	simSeeds = flag.Int("sim.seeds", 1000, "how many seeds the simulation runs")
	simSeed  = flag.Uint64("sim.seed", 0, "the one seed to run, 0: sim.seeds of them")
)

// TestCrashesLoseNothingThatWasAcknowledged_S25 runs random operations on a broker whose file system crashes at a random
// operation, in recovery too; what was not synced is lost in random parts. After each recovery a model,
// which knows only what was acknowledged and what may have happened, is held against what is there.
func TestCrashesLoseNothingThatWasAcknowledged_S25(t *testing.T) {
	base := uint64(time.Now().UnixNano())
	seeds := *simSeeds
	if *simSeed != 0 {
		base, seeds = *simSeed, 1
	}
	if testing.Short() {
		seeds = min(seeds, 50)
	}
	var traffic simTraffic
	for i := range seeds {
		seed := base + uint64(i)
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { simulate(t, seed, &traffic) })
		}) {
			t.Fatalf("reproduce with -sim.seed=%d", seed)
		}
	}
	t.Logf("%+v", traffic)
	if *simSeed == 0 && (traffic.Crashes < seeds || traffic.Sent < 20*seeds || traffic.Acked < 3*seeds || traffic.Compacted < seeds/20 || traffic.Moved < 3*seeds) {
		t.Errorf("too little happened in %d seeds: %+v", seeds, traffic)
	}
}

// simTraffic counts what the simulation did, so that an idle one does not pass.
type simTraffic struct{ Ops, Crashes, RecoveryCrashes, Sent, Acked, Transactions, Compacted, Received, Moved int }

// fate is what is known of a message.
type fate uint8

const (
	maybeSent fate = iota // the send was not answered
	there                 // the send was acknowledged
	maybeGone             // an ack, or what else removes it, was not answered
	gone                  // it was
)

type simMessage struct {
	queue     string
	elsewhere string // where it may have been moved to, by a call that was not answered
	sentAt    int64  // wall time, ns; 0: not known
	body      string
	batch     int // messages of a batch are there together or not at all
	typ       int64
	priority  uint16
	fate      fate
	seq       uint64 // 0: not known
	failures  int    // confirmed nacks
	maybe     int    // nacks that were not answered
	due       int64  // wall time, ns, before which it is delayed
	dedup     string
}

type simulation struct {
	*testing.T
	rng     *rand.Rand
	fs      *vfs.Crash
	b       *Broker
	ctx     context.Context
	traffic *simTraffic

	queues   map[string]bool // that surely exist; false: perhaps
	messages map[string]*simMessage
	highest  map[string]uint64 // sequences seen, by queue
	leases   []queue.Delivery
	halves   []half // transactions that were not answered
	stopped  bool   // the last broker that ran was stopped cleanly
	n        int
	batches  int
	number   uint64 // of the producer's batch
}

// half is a transaction that was not answered: its acks and sends were done together or not at all.
type half struct {
	request TransactRequest
	got     []queue.Delivery
}

func simulate(t *testing.T, seed uint64, traffic *simTraffic) {
	s := &simulation{
		T: t, rng: rand.New(rand.NewPCG(seed, 1)), ctx: t.Context(), traffic: traffic,
		queues: map[string]bool{}, messages: map[string]*simMessage{}, highest: map[string]uint64{},
	}
	s.fs = vfs.NewCrash(s.dice())
	s.open()
	defer func() {
		if s.b != nil {
			s.b.Close()
		}
	}()
	for range 2 + s.rng.IntN(3) { // lives
		s.fs.CrashAfter(1 + s.rng.IntN(200))
		for range 20 + s.rng.IntN(60) {
			traffic.Ops++
			if !s.step() {
				break
			}
		}
		s.crash()
		s.check()
		s.stopped = false
	}
}

// dice returns a source of randomness for the file system, which is used by several goroutines, of its own.
func (s *simulation) dice() *rand.Rand { return rand.New(rand.NewPCG(s.rng.Uint64(), 2)) }

func (s *simulation) options() Options {
	return Options{
		PayloadMemory: 1 << 20, Instance: "sim",
		Journal: &JournalOptions{FS: s.fs, Dir: "/state/journal", SegmentBytes: 64 << 10},
	}
}

// open opens the broker on what is on disk. It may crash on the way, several times.
func (s *simulation) open() {
	for tries := 0; ; tries++ {
		b, err := Open(s.options())
		if err == nil {
			s.b = b
			return
		}
		if !errors.Is(err, vfs.ErrCrashed) {
			s.Fatalf("open: %v", err)
		}
		s.traffic.RecoveryCrashes++
		s.Logf("crash while opening: %v", err)
		s.fs = s.fs.Crash(s.dice())
		if tries < 3 {
			s.fs.CrashAfter(1 + s.rng.IntN(100))
		}
	}
}

// crash ends the power and brings it back.
func (s *simulation) crash() {
	s.traffic.Crashes++
	s.Logf("crash")
	dead := s.b
	s.fs = s.fs.Crash(s.dice())
	if dead != nil {
		s.traffic.Compacted += int(dead.compactor.freed.Load())
		dead.Close()
	}
	s.leases = nil
	s.fsck()
	if s.rng.IntN(3) == 0 {
		s.fs.CrashAfter(1 + s.rng.IntN(60))
	}
	s.open()
	s.fs.CrashAfter(1 << 30)
}

// fsck finds nothing to complain of, whenever the power went.
func (s *simulation) fsck() {
	found, err := Inspect(s.ctx, InspectOptions{FS: s.fs, Dir: s.options().Journal.Dir, Verify: true})
	if errors.Is(err, fs.ErrNotExist) {
		return // it went before there was a journal
	}
	if err != nil {
		s.Fatalf("fsck: %v", err)
	}
	if damage := found.DamageError(); damage != nil {
		s.Fatalf("fsck: %v", damage)
	}
}

// failed reports that the power is gone. Any other surprise ends the test.
func (s *simulation) failed(err error) bool {
	s.Helper()
	if r := reason.Of(err); r == reason.Unhealthy || r == reason.DiskFull { // no segment can be made without power
		return true
	}
	if err != nil {
		s.Fatalf("unexpected: %v", err)
	}
	return false
}

var simQueues = []string{"/a", "/b", "/c"}

// step does one thing, and reports false if the power went.
func (s *simulation) step() bool {
	name := simQueues[s.rng.IntN(len(simQueues))]
	if !s.queues[name] {
		return s.create(name)
	}
	switch s.rng.IntN(22) {
	case 0, 1, 2, 3, 4, 5, 6:
		return s.send(name)
	case 7, 8, 9, 10:
		return s.receive(name)
	case 11, 12, 13, 14:
		return s.settle()
	case 15, 16:
		return s.transact(name)
	case 17:
		time.Sleep(time.Duration(s.rng.IntN(200)) * time.Millisecond)
	case 18:
		return s.sendMany(name)
	case 19:
		if s.rng.IntN(4) == 0 {
			return s.restart()
		}
		_, err := s.b.PauseQueue(s.ctx, root, name, false)
		return !s.failed(err)
	case 20, 21:
		return s.move(name)
	}
	return true
}

// move moves some messages to another queue.
func (s *simulation) move(from string) bool {
	to := simQueues[s.rng.IntN(len(simQueues))]
	if to == from || !s.queues[to] {
		return true
	}
	r := MoveRequest{From: from, To: to, Max: s.rng.IntN(6)}
	switch s.rng.IntN(4) {
	case 0:
		r.Filter.Selector = queue.Selector{Kind: queue.TypeIs, Type: 1 + s.rng.Int64N(3)}
	case 1:
		r.Filter.States = []queue.State{queue.Leased, queue.Buried}
	case 2:
		r.Filter.MinSequence = s.highest[from] / 2
	}
	before, ok := s.list(from)
	if !ok {
		return false
	}
	moved, _, err := s.b.Move(s.ctx, root, r)
	s.Logf("moved %d messages from %s to %s: %v", moved, from, to, err)
	if s.failed(err) {
		for key := range before {
			s.messages[key].elsewhere = to
		}
		return false
	}
	left, ok := s.list(from)
	if !ok {
		for key := range before {
			s.messages[key].elsewhere = to
		}
		return false
	}
	for key := range before {
		if left[key] {
			continue
		}
		moved--
		s.messages[key].arrive(to)
	}
	s.leases = slices.DeleteFunc(s.leases, func(d queue.Delivery) bool { return s.messages[keyOf(d.Body)].queue == to && before[keyOf(d.Body)] })
	if moved != 0 {
		s.Fatalf("%d more messages were moved from %s than are missing", moved, from)
	}
	s.traffic.Moved += len(before) - len(left)
	return true
}

// arrive notes that a message is in another queue now, under a sequence that is not known.
func (m *simMessage) arrive(name string) { m.queue, m.seq, m.failures, m.maybe = name, 0, 0, 0 }

// list tells what a queue holds, by key; false if the power went.
func (s *simulation) list(name string) (map[string]bool, bool) {
	found := map[string]bool{}
	r := PeekRequest{Queue: name, BySequence: true, Filter: queue.Filter{States: []queue.State{queue.Ready, queue.Delayed, queue.Leased, queue.Buried}}}
	for {
		page, err := s.b.Peek(s.ctx, root, r)
		if s.failed(err) {
			return nil, false
		}
		for i := range page.Messages {
			found[keyOf(page.Messages[i].Body)] = true
		}
		if r.Cursor = page.Cursor; r.Cursor == "" {
			return found, true
		}
	}
}

func (s *simulation) create(name string) bool {
	_, _, err := s.b.CreateQueue(s.ctx, root, name, func(q *queue.Settings) error {
		q.Lease, q.MaxAttempts = 5*time.Second, 1000
		q.Kernel.Mode = queue.KernelNone
		return nil
	}, false)
	if s.failed(err) {
		s.queues[name] = false
		return false
	}
	s.queues[name] = true
	return true
}

// message makes a message with a body of its own.
func (s *simulation) message(name string) queue.Message {
	s.n++
	m := queue.Message{Type: 1 + s.rng.Int64N(3), Priority: uint16(s.rng.IntN(2)), Body: fmt.Appendf(nil, "%d ", s.n)}
	key := string(m.Body)
	if s.rng.IntN(3) == 0 {
		m.Body = append(m.Body, make([]byte, s.rng.IntN(1500))...)
	}
	k := &simMessage{queue: name, body: key, batch: s.batches, typ: m.Type, priority: m.Priority}
	switch s.rng.IntN(8) {
	case 0:
		m.Delay = time.Duration(1+s.rng.IntN(500)) * time.Millisecond
		k.due = time.Now().Add(m.Delay).UnixNano()
	case 1:
		m.DedupID = "id" + key
		k.dedup = m.DedupID
	case 2:
		m.Headers = []queue.Header{{Key: "n", Value: []byte(key)}}
	}
	s.messages[key] = k
	return m
}

func keysOf(got []queue.Delivery) (keys string) {
	for i := range got {
		keys += keyOf(got[i].Body)
	}
	return keys
}

func keyOf(body []byte) string {
	for i, c := range body {
		if c == ' ' {
			return string(body[:i+1])
		}
	}
	return string(body)
}

func (s *simulation) send(name string) bool {
	s.batches++
	r := SendRequest{Queue: name}
	for range 1 + s.rng.IntN(4) {
		r.Messages = append(r.Messages, s.message(name))
	}
	if s.rng.IntN(2) == 0 {
		s.number++
		r.Producer, r.Batch = "p", s.number
	}
	stored, err := s.b.Send(s.ctx, root, r)
	if s.failed(err) {
		return false
	}
	s.stored(name, r.Messages, stored)
	if r.Producer != "" && s.rng.IntN(3) == 0 { // once more, as after a broken connection
		again, err := s.b.Send(s.ctx, root, r)
		if s.failed(err) {
			return false
		}
		if again.First != stored.First {
			s.Fatalf("batch %d of %s was stored from %d on, and when it was repeated from %d on", r.Batch, name, stored.First, again.First)
		}
	}
	return true
}

func (s *simulation) stored(name string, messages []queue.Message, stored queue.Stored) {
	s.Logf("stored %d messages in %s from %d on (%s)", len(messages), name, stored.First, keyOf(messages[0].Body))
	s.traffic.Sent += len(messages)
	if stored.First <= s.highest[name] {
		s.Fatalf("sequence %d of %s was given out before (up to %d)", stored.First, name, s.highest[name])
	}
	for i := range messages {
		m := s.messages[keyOf(messages[i].Body)]
		m.fate, m.seq, m.sentAt = there, stored.First+uint64(i), stored.SentAt
		s.highest[name] = m.seq
	}
}

// sendMany sends so much that segments fill.
func (s *simulation) sendMany(name string) bool {
	for range 10 {
		s.batches++
		m := s.message(name)
		m.Body = append(m.Body, make([]byte, 4000)...)
		stored, err := s.b.Send(s.ctx, root, SendRequest{Queue: name, Messages: []queue.Message{m}})
		if s.failed(err) {
			return false
		}
		s.stored(name, []queue.Message{m}, stored)
	}
	for len(s.messages) > 0 { // and consumes most of what is there
		got, err := s.b.Receive(s.ctx, root, ReceiveRequest{Queue: name, Max: 20, Consume: true})
		s.Logf("consumed from %s: %s, %v", name, keysOf(got), err)
		for i := range got {
			s.mark(&got[i], maybeGone)
		}
		if s.failed(err) {
			s.maybeConsumed(name)
			return false
		}
		if len(got) == 0 || s.rng.IntN(10) == 0 {
			break
		}
		for i := range got {
			s.mark(&got[i], gone)
		}
	}
	return true
}

// maybeConsumed notes that any message may have been consumed by a call that was not answered.
func (s *simulation) maybeConsumed(name string) {
	for _, m := range s.messages {
		if m.queue == name && m.fate == there {
			m.fate = maybeGone
		}
	}
}

func (s *simulation) mark(d *queue.Delivery, f fate) {
	m := s.messages[keyOf(d.Body)]
	if m == nil {
		s.Fatalf("message %q was never sent", keyOf(d.Body))
	}
	if m.fate == gone {
		s.Fatalf("message %q of %s comes again after it was consumed", m.body, m.queue)
	}
	if m.seq != 0 && m.seq != d.Sequence {
		s.Fatalf("message %q has sequence %d, and had %d", m.body, d.Sequence, m.seq)
	}
	if d.Attempts < m.failures || d.Attempts > m.failures+m.maybe {
		s.Fatalf("message %q has %d attempts: %d failures were confirmed, %d more may have been", m.body, d.Attempts, m.failures, m.maybe)
	}
	m.fate, m.seq = max(m.fate, f), d.Sequence
	s.highest[m.queue] = max(s.highest[m.queue], d.Sequence)
	if f == gone {
		s.traffic.Acked++
	}
}

func (s *simulation) receive(name string) bool {
	consume := s.rng.IntN(4) == 0
	got, err := s.b.Receive(s.ctx, root, ReceiveRequest{Queue: name, Max: 1 + s.rng.IntN(5), Consume: consume})
	s.Logf("received from %s (consume %v): %s, %v", name, consume, keysOf(got), err)
	if s.failed(err) {
		if consume {
			s.maybeConsumed(name)
		}
		return false
	}
	s.traffic.Received += len(got)
	for i := range got {
		if consume {
			s.mark(&got[i], gone)
		} else {
			s.mark(&got[i], maybeSent)
			s.messages[keyOf(got[i].Body)].maybe++ // the lease may end without our doing
			s.leases = append(s.leases, got[i])
		}
	}
	return true
}

// settle ends some leases. Some of them may have expired.
func (s *simulation) settle() bool {
	for range min(len(s.leases), 1+s.rng.IntN(3)) {
		i := s.rng.IntN(len(s.leases))
		d := s.leases[i]
		s.leases = slices.Delete(s.leases, i, i+1)
		m := s.messages[keyOf(d.Body)]
		v := Verdict{Outcome: Outcome(s.rng.IntN(5))}
		out, err := s.b.Settle(s.ctx, root, []Settlement{{Receipt: d.Receipt, Verdict: v}})
		s.Logf("settled %s with %d: %v, %v", keyOf(d.Body), v.Outcome, out.Failures, err)
		if s.failed(err) {
			if v.Outcome == Ack {
				m.fate = max(m.fate, maybeGone)
			}
			return false
		}
		if len(out.Failures) > 0 {
			if reason.Of(out.Failures[0].Err) != reason.StaleReceipt {
				s.Fatal(out.Failures[0].Err)
			}
			continue
		}
		switch v.Outcome {
		case Ack:
			s.mark(&d, gone)
		case Nack:
			m.failures++
			m.maybe--
		case Touch:
			s.leases = append(s.leases, d)
		}
	}
	return true
}

// transact consumes from one queue and sends to two.
func (s *simulation) transact(name string) bool {
	got, err := s.b.Receive(s.ctx, root, ReceiveRequest{Queue: name, Max: 2})
	if s.failed(err) {
		return false
	}
	s.batches++
	s.number++
	r := TransactRequest{Producer: "t", Batch: s.number}
	for i := range got {
		s.mark(&got[i], maybeSent)
		s.messages[keyOf(got[i].Body)].maybe++
		r.Acks = append(r.Acks, got[i].Receipt)
	}
	for _, to := range simQueues {
		if s.queues[to] && s.rng.IntN(2) == 0 {
			r.Sends = append(r.Sends, TransactSend{Queue: to, Messages: []queue.Message{s.message(to)}})
		}
	}
	if len(r.Sends)+len(r.Acks) == 0 {
		return true
	}
	stored, err := s.b.Transact(s.ctx, root, r)
	s.Logf("transaction: acked %s from %s, sent to %d queues: %v", keysOf(got), name, len(r.Sends), err)
	if s.failed(err) {
		for i := range got {
			m := s.messages[keyOf(got[i].Body)]
			m.fate = max(m.fate, maybeGone)
		}
		s.halves = append(s.halves, half{r, got})
		return false
	}
	for i := range got {
		s.mark(&got[i], gone)
	}
	for i := range r.Sends {
		s.stored(r.Sends[i].Queue, r.Sends[i].Messages, stored[i])
	}
	s.traffic.Transactions++
	return true
}

// restart stops the broker cleanly and starts it again: leases hold.
func (s *simulation) restart() bool {
	s.traffic.Compacted += int(s.b.compactor.freed.Load())
	s.b.Close()
	failed := s.b.Failure() != nil
	s.b = nil
	s.stopped = true // perhaps
	s.Logf("stopped, failed: %v", failed)
	if failed {
		return false
	}
	b, err := Open(s.options())
	if err != nil {
		if errors.Is(err, vfs.ErrCrashed) {
			return false
		}
		s.Fatalf("open after a clean stop: %v", err)
	}
	s.b, s.stopped = b, false
	for _, d := range s.leases {
		if d.LeaseEnds > time.Now().UnixNano() && !s.holds(d) {
			s.Fatalf("the lease on %q did not survive a clean restart", keyOf(d.Body))
		}
	}
	return true
}

func (s *simulation) holds(d queue.Delivery) bool {
	q := s.b.byID[d.Receipt.Queue]
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.q.Holds(d.Receipt)
}

// check holds what is there against what must and what may be there.
func (s *simulation) check() {
	pass(time.Millisecond) // what is due happens now, and not while peek looks
	for name, sure := range s.queues {
		if s.b.HasQueue(name) {
			s.queues[name] = true
		} else if sure {
			s.Fatalf("queue %s is lost", name)
		}
	}
	found := map[string]bool{}
	for name := range s.queues {
		if s.b.HasQueue(name) && !s.checkQueue(name, found) {
			s.crash() // the power went again, behind the back of recovery
			s.check()
			return
		}
	}
	for _, h := range s.halves {
		done := map[bool]int{}
		for i := range h.got {
			done[!found[keyOf(h.got[i].Body)]]++
		}
		for _, sent := range h.request.Sends {
			done[found[keyOf(sent.Messages[0].Body)]]++
		}
		if done[true] > 0 && done[false] > 0 {
			s.Fatalf("a transaction was done in part: %d of its acks and sends were, %d were not", done[true], done[false])
		}
	}
	s.halves = nil
	whole := map[int]map[bool]bool{} // by batch, of sends that were not answered: what was found
	for _, key := range slices.Sorted(maps.Keys(s.messages)) {
		m := s.messages[key]
		switch {
		case m.fate == there && !found[key]:
			s.Fatalf("message %q of %s (sequence %d) was acknowledged and is lost", m.body, m.queue, m.seq)
		case m.fate == gone && found[key]:
			s.Fatalf("message %q of %s (sequence %d) was consumed and is there again", m.body, m.queue, m.seq)
		case m.fate == maybeSent:
			if whole[m.batch] == nil {
				whole[m.batch] = map[bool]bool{}
			}
			whole[m.batch][found[key]] = true
		}
		m.elsewhere = ""
		if found[key] {
			m.fate = there
		} else {
			m.fate = gone
		}
	}
	for batch, outcomes := range whole {
		if len(outcomes) > 1 {
			s.Fatalf("batch %d was stored in part", batch)
		}
	}
}

// checkQueue looks at all that a queue holds.
func (s *simulation) checkQueue(name string, found map[string]bool) (done bool) {
	r := PeekRequest{Queue: name, Filter: queue.Filter{States: []queue.State{queue.Ready, queue.Delayed, queue.Leased, queue.Buried}}}
	for {
		page, err := s.b.Peek(s.ctx, root, r)
		if s.failed(err) {
			return false
		}
		for i := range page.Messages {
			p := &page.Messages[i]
			key := keyOf(p.Body)
			if found[key] {
				s.Fatalf("message %q is there twice", key)
			}
			found[key] = true
			if m := s.messages[key]; m != nil && m.elsewhere == name {
				m.arrive(name)
			}
			s.mark(&p.Delivery, maybeSent)
			m := s.messages[key]
			if m.sentAt != 0 && m.sentAt != p.SentAt {
				s.Fatalf("message %q was sent at %d, and says %d", key, m.sentAt, p.SentAt)
			}
			m.failures, m.maybe = p.Attempts, 0
			if m.queue != name || m.typ != p.Type || m.priority != p.Priority {
				s.Fatalf("message %q is in %s with type %d and priority %d: want %+v", key, name, p.Type, p.Priority, m)
			}
			if p.State == queue.Leased && !s.stopped {
				s.Fatalf("message %q is leased after a crash", key)
			}
			if m.due > time.Now().UnixNano() && p.State == queue.Ready && p.Attempts == 0 {
				s.Fatalf("message %q is ready before its delay is over", key)
			}
		}
		if page.Cursor == "" {
			return true
		}
		r.Cursor = page.Cursor
	}
}
