package queue

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Peeker makes one page of messages in bounded steps, so that the queue's lock can be given up in
// between. Between pages, and steps, a message may be missed; none is shown twice.
//
// Ready messages come in the order of receipt, delayed ones by due time, leased ones by the end of
// their lease, buried ones by sequence; states in this order. Or all come by sequence, whatever their state.
type Peeker struct {
	Filter  Filter
	Max     int // messages of the page
	MaxBody int // where to cut bodies; 0: not

	Page []Peeked

	// When the first page began: the number of the last record and the last visible sequence. What
	// came later, or became delayed, leased or buried since, is not shown: it may have been already.
	begun  bool
	number uint64
	last   uint64

	state State // being shown, bySequence or numStates: all were
	ready ReadyCursor
	// Delayed, leased: what was shown last. Buried, by sequence: the sequence to go on from.
	after deadlineKey
	// A pass over all messages, where too many are delayed or leased to be sorted under one hold of the lock.
	passing bool
	passed  uint64 // sequence to go on from
	nearest []deadlineKey
	showing bool // the nearest were found, and are being shown
	all     bool // there are no others
	stop    halt // of this step
	bodies  bodyBuffer
	bytes   int
}

const numStates = Buried + 1

// bySequence stands for all states that are asked for, in the order of sequences.
const bySequence = uncommitted

// deadlineKey orders messages by deadline and then sequence.
type deadlineKey struct {
	deadline int64
	seq      uint64
}

func (k deadlineKey) compare(o deadlineKey) int {
	if c := cmp.Compare(k.deadline, o.deadline); c != 0 {
		return c
	}
	return cmp.Compare(k.seq, o.seq)
}

// NewPeeker starts a page where the page before, in the same order, ended, or at the beginning if cursor is "".
func NewPeeker(f Filter, max, maxBody int, inSequence bool, cursor string) (*Peeker, error) {
	if len(f.States) == 0 {
		f.States = []State{Ready}
	}
	p := &Peeker{Filter: f, Max: max, MaxBody: maxBody, state: Ready}
	if inSequence {
		p.state = bySequence
	}
	if cursor == "" {
		return p, nil
	}
	var state int
	var a int64
	var b uint64
	n, err := fmt.Sscanf(cursor, cursorFormat, &p.number, &p.last, &state, &a, &b)
	if n != 5 || err != nil || state < int(bySequence) || state > int(Buried) || (State(state) == bySequence) != inSequence || fmt.Sprintf(cursorFormat, p.number, p.last, state, a, b) != cursor {
		return nil, reason.Invalid("cursor", "cursor %.60q: pass on what the page before returned, with the same order", cursor)
	}
	p.begun, p.state = true, State(state)
	if p.state == Ready {
		p.ready = ReadyCursor{set: true, priority: uint16(a), seq: b}
	} else {
		p.after = deadlineKey{a, b}
	}
	return p, nil
}

// cursorFormat: number, last, state, and the place within the state.
const cursorFormat = "%d.%d.%d.%d.%d"

// Cursor is where the next page begins, "" at the end.
func (p *Peeker) Cursor() string {
	a, b := p.after.deadline, p.after.seq
	switch {
	case p.state == numStates:
		return ""
	case p.state == Ready && p.ready.set:
		a, b = int64(p.ready.priority), p.ready.seq
	case p.state == Ready:
		a, b = limits.PriorityMax, 0
	}
	return fmt.Sprintf(cursorFormat, p.number, p.last, p.state, a, b)
}

// Last is the highest sequence that was visible when the first page began.
func (p *Peeker) Last() uint64 { return p.last }

// Step looks at about limits.PeekScan messages of the queue. It reports true when the page is done. It
// stops before a message whose payload is missing, and goes on with it when it is called again.
func (p *Peeker) Step(q *Queue, now Instant) bool {
	if p.full() {
		return true
	}
	p.stop = halt{}
	if !p.begun {
		p.begun, p.number, p.last = true, q.number, q.published
	}
	for p.state != bySequence && p.state < numStates && !slices.Contains(p.Filter.States, p.state) {
		p.advance()
	}
	switch p.state {
	case bySequence:
		p.stepBySequence(q, now)
	case Ready:
		var stopped ReadyCursor
		next, more := q.scanReady(p.ready, p.Filter.MinSequence, p.lastWanted(), limits.PeekScan, func(n uint32, s *slot) bool {
			before := p.stop.seq
			goOn := p.show(q, s, now)
			if before == 0 && p.stop.seq != 0 {
				stopped = ReadyCursor{set: true, priority: q.classes.at(s.class).priority, seq: s.seq}
			}
			return goOn
		})
		switch {
		case stopped.set:
			p.ready = stopped
		case more:
			p.ready = next
		default:
			p.ready = next
			p.advance()
		}
	case Delayed:
		p.stepByDeadline(q, &q.delays, now)
	case Leased:
		p.stepByDeadline(q, &q.leases, now)
	case Buried:
		p.stepBuried(q, now)
	}
	return p.full() || p.state == numStates
}

// lastWanted is the highest sequence that may be shown.
func (p *Peeker) lastWanted() uint64 {
	if p.Filter.MaxSequence != 0 {
		return min(p.Filter.MaxSequence, p.last)
	}
	return p.last
}

func (p *Peeker) full() bool { return len(p.Page) >= p.Max || p.bytes >= limits.PeekPageBytes }

func (p *Peeker) advance() {
	p.state++
	p.after, p.passing, p.nearest, p.showing = deadlineKey{}, false, nil, false
}

// stepBySequence shows messages of all states in one order. What changes its state meanwhile keeps its place in it.
func (p *Peeker) stepBySequence(q *Queue, now Instant) {
	next := q.slots.scan(max(p.after.seq, p.Filter.MinSequence), p.lastWanted(), limits.PeekScan, func(n uint32, s *slot) bool {
		return !slices.Contains(p.Filter.States, s.state) || p.show(q, s, now)
	})
	if p.stop.seq != 0 {
		next = p.stop.seq
	}
	if p.after.seq = next; next == 0 {
		p.state = numStates
	}
}

func (p *Peeker) stepBuried(q *Queue, now Instant) {
	seen := 0
	last := p.lastWanted()
	done := q.slots.treeWalk(q.buried, max(p.after.seq, p.Filter.MinSequence), func(n uint32, s *slot) bool {
		if s.seq > last {
			if p.stop.seq == 0 {
				p.advance()
			}
			return false
		}
		if seen == limits.PeekScan || p.full() {
			return false
		}
		seen++
		goOn := p.show(q, s, now)
		if p.stop.seq == 0 {
			p.after.seq = s.seq + 1
		}
		return goOn
	})
	if done && !p.full() && p.stop.seq == 0 {
		p.advance()
	}
}

// peekNearest is how many of the nearest are looked at together where only their headers tell which of
// them are wanted.
const peekNearest = 256

// stepByDeadline shows the members of a wheel in order.
func (p *Peeker) stepByDeadline(q *Queue, w *wheel, now Instant) {
	if !p.showing && !p.findNearest(q, w) {
		return
	}
	for i, k := range p.nearest {
		if p.full() {
			p.nearest = p.nearest[i:]
			return
		}
		if n := q.slots.find(k.seq); n != 0 && q.slots.at(n).state == p.state {
			goOn := p.show(q, q.slots.at(n), now)
			if !goOn && p.stop.seq != 0 {
				break
			}
		}
		if p.stop.seq == 0 {
			p.after = k
		}
	}
	if p.stop.seq != 0 { // from there on
		at := slices.IndexFunc(p.nearest, func(k deadlineKey) bool { return k.seq == p.stop.seq })
		p.nearest = p.nearest[at:]
		return
	}
	p.showing = false
	if p.all {
		p.advance()
	}
}

// findNearest finds the members of a wheel that come next. It reports false if it has to go on in another step.
func (p *Peeker) findNearest(q *Queue, w *wheel) bool {
	if !p.passing && w.count > limits.PeekScan {
		p.passing, p.passed, p.nearest = true, p.Filter.MinSequence, nil
	}
	cheap := p.Filter
	cheap.Headers = nil
	room := p.Max - len(p.Page)
	if len(p.Filter.Headers) > 0 {
		room = max(room, peekNearest)
	}
	consider := func(n uint32, s *slot) {
		k := deadlineKey{q.dueOf(s), s.seq}
		if k.compare(p.after) <= 0 || p.wants(q, s, &cheap) != meant || len(p.nearest) == room && k.compare(p.nearest[room-1]) > 0 {
			return
		}
		at, _ := slices.BinarySearchFunc(p.nearest, k, deadlineKey.compare)
		if len(p.nearest) == room {
			p.nearest = p.nearest[:room-1]
		}
		p.nearest = slices.Insert(p.nearest, at, k)
	}
	if p.passing {
		p.passed = q.slots.scan(p.passed, p.lastWanted(), limits.PeekScan, func(n uint32, s *slot) bool {
			if s.state == p.state {
				consider(n, s)
			}
			return true
		})
		if p.passed != 0 {
			return false
		}
	} else {
		p.nearest = nil
		q.wheelEach(w, func(n uint32) { consider(n, q.slots.at(n)) })
	}
	p.passing, p.showing, p.all = false, true, len(p.nearest) < room
	return true
}

// wants says whether a message is to be shown.
func (p *Peeker) wants(q *Queue, s *slot, f *Filter) verdict {
	if p.state == bySequence {
		return q.matches(s, f)
	}
	entered := uint32(p.number)
	switch s.state {
	case Delayed, Leased:
		entered = s.right
	case Buried:
		entered = q.timerOfSlot(s).next
	}
	// Low bits alone are known, so only the records since the peek began count as later.
	later := uint64(entered - uint32(p.number))
	if s.seq > p.last || later != 0 && later <= q.number-p.number {
		return unmeant
	}
	return q.matches(s, f)
}

// show adds a message to the page, if it is wanted. Where its payload is missing, and behind that, it only
// notes what to read. It reports whether there is use in going on.
func (p *Peeker) show(q *Queue, s *slot, now Instant) bool {
	v := p.wants(q, s, &p.Filter)
	if v == unmeant {
		return true
	}
	payload, ok := q.payload(s)
	if !ok {
		return p.stop.at(q, s) && len(q.fetch.missing) < p.Max-len(p.Page)
	}
	if p.stop.seq != 0 {
		return true
	}
	p.Page = append(p.Page, Peeked{State: s.state})
	m := &p.Page[len(p.Page)-1]
	q.fill(&m.Delivery, s, payload, &p.bodies, min(p.Max-len(p.Page)+1, int(q.Len())), p.MaxBody)
	p.bytes += len(m.Body)
	p.describe(q, s, m, now)
	return !p.full()
}

// describe adds what a message's state says.
func (p *Peeker) describe(q *Queue, s *slot, m *Peeked, now Instant) {
	m.Expires = q.expiresOf(s)
	due := q.dueOf(s)
	switch s.state {
	case Delayed:
		m.Due = due
	case Leased:
		if s.left != 0 {
			m.LeaseEnds = now.Wall + due - now.Mono
		}
	case Buried:
		if due != 0 {
			m.BuryReason = q.reasons.all[due].text
		}
	}
	if s.flags&flagDamaged != 0 {
		m.BuryReason = reasonDamaged
	}
}
