//go:build linux

package linear

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ipcd/ipcd/client"
)

// action is what an operation does. The last five are no calls of a client: they are what time and the daemon's end do.
type action uint8

const (
	send action = iota
	receive
	ack
	nack
	touch
	release
	bury
	kick
	empty  // somebody saw that no message is left
	crash  // the daemon was killed and started again
	expire // a lease ends
	due    // a delay ends
)

var kindNames = [...]string{"send", "receive", "ack", "nack", "touch", "release", "bury", "kick", "empty", "crash", "expire", "due"}

// nobody is whom nothing was handed to.
const nobody = -1

// input is what an operation asks for.
type input struct {
	kind action
	// unknown: the daemon ended before it answered, so that it may have been done, or not, or been done and be undone by
	// the crash. Of expire and due: it may have happened, or not.
	unknown bool
	number  int // of the operation

	messages []sent          // send
	selector client.Selector // receive
	max      int             // receive
	atOnce   bool            // receive: they count as consumed
	hand     int             // settlements and expire: the delivery they are of
	delay    time.Duration   // send and nack: before the messages are ready; 0: none
	deadline int64           // expire: of the lease that ends
	message  int             // due: which message
	delayed  int             // due: the operation that delayed it
}

// sent is one message of a send.
type sent struct {
	message  int // its number in the history, which its body carries
	typ      int64
	priority uint16
	delayed  bool
}

// output is what an operation was answered.
type output struct {
	first    uint64 // send: the first sequence
	got      []got  // receive
	stale    bool   // settlements
	deadline int64  // touch
	count    int    // kick
}

// got is one message of a receive.
type got struct {
	message  int
	sequence uint64
	attempts int
	hand     int   // the number of the delivery
	deadline int64 // of its lease
}

// stage is the state of a message.
type stage uint8

const (
	ready stage = iota
	delayed
	leased
	buried
	gone // consumed, which a crash may undo
)

// message is one that the queue holds.
type message struct {
	number   int
	typ      int64
	priority uint16
	sequence uint64 // 0: not known yet, since its send was not answered
	stage    stage
	// What was done to it may be undone by a crash: then it becomes this.
	undo   bool
	undone stage
	// Failed attempts: after a crash they are not known exactly, since that of an expiry is on disk a little later.
	least, attempts, unsure int

	hand     int   // leased: the delivery
	deadline int64 // leased
	delayed  int   // delayed: the operation that did it
}

// state is a queue: its messages in the order in which they were sent.
type state struct {
	messages []message
	last     uint64 // the highest sequence given out
}

// rules are a queue's settings that the model goes by.
type rules struct {
	maxAttempts int
	durable     bool
}

// model is one queue, as a sequential machine that may go more than one way where an outcome is unknown.
func (r rules) model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{state{}} },
		Step: func(s, in, out any) []any {
			var next []any
			for _, n := range r.step(s.(state), in.(input), out.(output)) {
				next = append(next, n)
			}
			return next
		},
		Equal: func(a, b any) bool {
			x, y := a.(state), b.(state)
			return x.last == y.last && slices.Equal(x.messages, y.messages)
		},
		Hash: func(s any) uint64 {
			var h maphash.Hash
			h.SetSeed(hashSeed)
			x := s.(state)
			maphash.WriteComparable(&h, x.last)
			for i := range x.messages {
				maphash.WriteComparable(&h, x.messages[i])
			}
			return h.Sum64()
		},
		DescribeOperation: func(in, out any) string { return describe(in.(input), out.(output)) },
	}
	return m.ToModel()
}

var hashSeed = maphash.MakeSeed()

// step returns the states that an operation may lead to, none if it cannot be answered so.
func (r rules) step(s state, in input, out output) []state {
	switch in.kind {
	case send:
		return s.send(in, out)
	case receive:
		return s.receive(in, out)
	case ack, nack, touch, release, bury:
		return r.settle(s, in, out)
	case kick:
		return s.kick(in, out)
	case empty:
		return when(len(s.messages) == 0, s)
	case crash:
		return []state{r.crash(s)}
	case expire:
		return r.expire(s, in)
	case due:
		return s.due(in)
	}
	return nil
}

func when(holds bool, s state) []state {
	if holds {
		return []state{s}
	}
	return nil
}

// change returns a copy of the state in which the i-th message is another.
func (s state) change(i int, f func(m *message)) state {
	s.messages = slices.Clone(s.messages)
	f(&s.messages[i])
	return s
}

func (s state) without(i int) state {
	s.messages = slices.Delete(slices.Clone(s.messages), i, i+1)
	return s
}

// find returns the place of the first message of which something holds, or -1.
func (s state) find(holds func(m *message) bool) int {
	for i := range s.messages {
		if holds(&s.messages[i]) {
			return i
		}
	}
	return -1
}

func (s state) send(in input, out output) []state {
	done := state{messages: slices.Clone(s.messages), last: s.last}
	for i, m := range in.messages {
		n := message{number: m.message, typ: m.typ, priority: m.priority, hand: nobody, delayed: nobody}
		if m.delayed {
			n.stage, n.delayed = delayed, in.number
		}
		if !in.unknown {
			n.sequence = out.first + uint64(i)
			done.last = n.sequence
		}
		done.messages = append(done.messages, n)
	}
	if in.unknown {
		return []state{s, done}
	}
	return when(out.first > s.last, done)
}

// choose returns the places of the messages that a receive is to get, in order.
func (s state) choose(in input) []int {
	var all []int
	for i := range s.messages {
		if m := &s.messages[i]; m.stage == ready && matches(in.selector, m.typ) {
			all = append(all, i)
		}
	}
	slices.SortStableFunc(all, func(i, j int) int {
		a, b := &s.messages[i], &s.messages[j]
		if in.selector.Kind() == client.SelectUpTo && a.typ != b.typ {
			return cmp.Compare(a.typ, b.typ)
		}
		return cmp.Compare(b.priority, a.priority)
	})
	return all[:min(len(all), in.max)]
}

func matches(s client.Selector, typ int64) bool {
	types := s.Types()
	switch s.Kind() {
	case client.SelectType, client.SelectOneOf:
		return slices.Contains(types, typ)
	case client.SelectUpTo:
		return typ <= types[0]
	case client.SelectNot:
		return typ != types[0]
	default:
		return true
	}
}

func (s state) receive(in input, out output) []state {
	chosen := s.choose(in)
	taken := state{messages: slices.Clone(s.messages), last: s.last}
	if in.unknown {
		// Nobody knows that they are leased, until the crash.
		for _, i := range chosen {
			taken.messages[i].stage, taken.messages[i].hand = leased, unknownHand(in.number)
		}
		all := []state{s, taken}
		if in.atOnce {
			all = append(all, taken.consume(chosen))
		}
		return all
	}
	if len(chosen) != len(out.got) {
		return nil
	}
	for k, i := range chosen {
		m, g := &taken.messages[i], out.got[k]
		if m.sequence == 0 && taken.fits(i, g.sequence) {
			m.sequence, taken.last = g.sequence, max(taken.last, g.sequence)
		}
		if m.number != g.message || m.sequence != g.sequence || g.attempts < m.least || g.attempts > m.attempts {
			return nil
		}
		m.least, m.attempts, m.unsure = g.attempts, g.attempts, min(m.unsure, g.attempts)
		m.stage, m.hand, m.deadline = leased, g.hand, g.deadline
	}
	if in.atOnce {
		taken = taken.consume(chosen)
	}
	return []state{taken}
}

// unknownHand is the hand of an unanswered receive.
func unknownHand(operation int) int { return -2 - operation }

// fits reports whether a message whose sequence was not known may have that one.
func (s state) fits(i int, sequence uint64) bool {
	for j := range s.messages {
		if other := s.messages[j].sequence; other != 0 && (j < i && other >= sequence || j > i && other <= sequence) {
			return false
		}
	}
	return true
}

func (s state) consume(places []int) state {
	var left []message
	for i := range s.messages {
		if !slices.Contains(places, i) {
			left = append(left, s.messages[i])
		}
	}
	s.messages = left
	return s
}

func (r rules) settle(s state, in input, out output) []state {
	i := s.find(func(m *message) bool { return m.stage == leased && m.hand == in.hand })
	switch {
	case i < 0:
		return when(in.unknown || out.stale, s)
	case in.unknown:
		done := r.settled(s, i, in, out, true)
		all := []state{s, done}
		if r.durable {
			undone := s.change(i, func(m *message) { m.undo, m.undone = true, ready })
			if in.kind == ack {
				undone.messages[i].stage, undone.messages[i].hand = gone, nobody
			} else {
				undone = r.settled(undone, i, in, out, true)
			}
			all = append(all, undone)
		}
		return all
	case out.stale:
		return nil
	default:
		return []state{r.settled(s, i, in, out, false)}
	}
}

// settled is what the settlement of the i-th message leads to.
func (r rules) settled(s state, i int, in input, out output, unsure bool) state {
	if in.kind == ack {
		return s.without(i)
	}
	return s.change(i, func(m *message) {
		if !unsure {
			m.undo, m.undone = false, ready // what was answered is on disk, and all before it
		}
		switch in.kind {
		case touch:
			m.deadline = out.deadline
		case release:
			m.end(ready)
		case bury:
			m.end(buried)
		case nack:
			r.fail(m, unsure)
			if in.delay > 0 && m.stage == ready {
				m.stage, m.delayed = delayed, in.number
			}
		}
	})
}

// end ends a message's lease.
func (m *message) end(to stage) { m.stage, m.hand, m.deadline = to, nobody, 0 }

// fail ends a message's lease as a failed attempt.
func (r rules) fail(m *message, unsure bool) {
	m.end(ready)
	m.least++
	m.attempts++
	if unsure {
		m.unsure++
	}
	if m.attempts >= r.maxAttempts {
		m.stage = buried
	}
}

func (s state) kick(in input, out output) []state {
	done, undone := state{messages: slices.Clone(s.messages), last: s.last}, state{messages: slices.Clone(s.messages), last: s.last}
	count := 0
	for i := range s.messages {
		if s.messages[i].stage == buried {
			count++
			done.messages[i].stage = ready
			undone.messages[i].stage, undone.messages[i].undo, undone.messages[i].undone = ready, true, buried
		}
	}
	if in.unknown {
		return []state{s, done, undone}
	}
	return when(count == out.count, done)
}

// crash ends all leases, uncounted, and takes back what was not on disk yet. A memory queue is empty after it.
func (r rules) crash(s state) state {
	if !r.durable {
		return state{last: s.last}
	}
	s.messages = slices.Clone(s.messages)
	for i := range s.messages {
		m := &s.messages[i]
		if m.stage == leased {
			m.end(ready)
		}
		if m.undo {
			m.end(m.undone)
			m.delayed = nobody
		}
		m.undo, m.undone = false, ready
		m.least, m.unsure = max(0, m.attempts-m.unsure), 0
	}
	return s
}

func (r rules) expire(s state, in input) []state {
	i := s.find(func(m *message) bool {
		return m.stage == leased && m.hand == in.hand && (in.unknown || m.deadline == in.deadline)
	})
	if i < 0 {
		return when(in.unknown, s)
	}
	// An unanswered receive may have got more than one.
	done := s
	for ; i < len(s.messages); i++ {
		if s.messages[i].stage == leased && s.messages[i].hand == in.hand {
			done = done.change(i, func(m *message) { r.fail(m, true) })
		}
	}
	if in.unknown {
		return []state{s, done}
	}
	return []state{done}
}

func (s state) due(in input) []state {
	i := s.find(func(m *message) bool {
		return m.stage == delayed && m.delayed == in.delayed && m.number == in.message
	})
	if i < 0 {
		return when(in.unknown, s)
	}
	done := s.change(i, func(m *message) { m.stage, m.delayed = ready, nobody })
	if in.unknown {
		return []state{s, done}
	}
	return []state{done}
}

func describe(in input, out output) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s", in.number, kindNames[in.kind])
	switch in.kind {
	case send:
		for _, m := range in.messages {
			fmt.Fprintf(&b, " m%d(type %d, priority %d, delayed %v)", m.message, m.typ, m.priority, m.delayed)
		}
		fmt.Fprintf(&b, ": from sequence %d", out.first)
	case receive:
		fmt.Fprintf(&b, " %d of %v at once %v:", in.max, in.selector, in.atOnce)
		for _, g := range out.got {
			fmt.Fprintf(&b, " m%d(sequence %d, attempts %d, delivery %d, until %d)", g.message, g.sequence, g.attempts, g.hand, g.deadline)
		}
	case ack, nack, touch, release, bury:
		fmt.Fprintf(&b, " delivery %d delayed %v: stale %v, until %d", in.hand, in.delay, out.stale, out.deadline)
	case kick:
		fmt.Fprintf(&b, ": %d", out.count)
	case expire:
		fmt.Fprintf(&b, " delivery %d", in.hand)
	case due:
		fmt.Fprintf(&b, " m%d, of operation %d", in.message, in.delayed)
	}
	if in.unknown {
		b.WriteString(" (outcome unknown)")
	}
	return b.String()
}
