package queue

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/ipcd/ipcd/internal/limits"
)

// ReadyCursor is a place in the order of receipt: before the first message of that priority with at
// least that sequence. The zero cursor is before the first of all.
type ReadyCursor struct {
	set      bool
	priority uint16
	seq      uint64
	typ      int64 // Fit, for the selector of the lowest type: the type it is at
}

// scanReady visits ready messages with sequences from first to last in the order of receipt until visit
// returns false or about budget were looked at, and returns where to go on; more is false at the end.
//
// A priority with few messages is sorted on the spot. One with many is dense, so that walking all
// messages by sequence meets one soon.
func (q *Queue) scanReady(from ReadyCursor, first, last uint64, budget int, visit func(n uint32, s *slot) bool) (next ReadyCursor, more bool) {
	at := 0
	if from.set {
		at, _ = q.findLevel(from.priority)
	}
	for ; at < len(q.levels); at++ {
		p := q.levels[at].priority
		if !from.set || p != from.priority {
			from = ReadyCursor{set: true, priority: p}
		}
		if budget <= 0 {
			return from, true
		}
		few, low := q.fewOf(q.levels[at], max(from.seq, first))
		if few != nil {
			budget -= len(few)
			for _, n := range few {
				if s := q.slots.at(n); s.seq > last {
					break
				} else if !visit(n, s) {
					return ReadyCursor{set: true, priority: p, seq: s.seq + 1}, true
				}
			}
			continue
		}
		onward := q.slots.scan(max(from.seq, first, low), min(last, q.published), budget, func(n uint32, s *slot) bool {
			budget--
			if s.state != Ready || q.classes.at(s.class).priority != p {
				return true
			}
			return visit(n, s)
		})
		if onward != 0 {
			return ReadyCursor{set: true, priority: p, seq: onward}, true
		}
	}
	return ReadyCursor{}, false
}

// fewOf returns the messages of a priority from a sequence on, sorted, if it has at most limits.PeekScan
// in all; else nil and, where it is easily known, the lowest sequence it has.
func (q *Queue) fewOf(l level, first uint64) (few []uint32, low uint64) {
	total, classes := 0, 0
	for c := l.classes; c != 0 && classes < limits.PeekScan; c = q.classes.at(c).levelNext {
		total += q.classes.at(c).ready
		classes++
		if head := q.classHead(q.classes.at(c)).seq; low == 0 || head < low {
			low = head
		}
	}
	if total > limits.PeekScan || classes == limits.PeekScan {
		if classes == limits.PeekScan {
			low = 0
		}
		return nil, low
	}
	few = make([]uint32, 0, total)
	add := func(n uint32, s *slot) bool {
		few = append(few, n)
		return true
	}
	for n := l.classes; n != 0; n = q.classes.at(n).levelNext {
		c := q.classes.at(n)
		for m := c.head; m != 0; m = q.slots.at(m).right {
			if s := q.slots.at(m); s.seq >= first {
				add(m, s)
			}
		}
		q.slots.treeWalk(c.root, first, add)
	}
	slices.SortFunc(few, func(a, b uint32) int { return cmp.Compare(q.slots.at(a).seq, q.slots.at(b).seq) })
	return few, low
}

// verdict is what is known about whether a filter means a message.
type verdict uint8

const (
	unmeant verdict = iota
	meant
	unknown // its payload is missing
)

// matches says whether a message is meant by a filter, its states aside.
func (q *Queue) matches(s *slot, f *Filter) verdict {
	if s.seq < f.MinSequence || f.MaxSequence != 0 && s.seq > f.MaxSequence ||
		f.SentBefore != 0 && s.sentAt > f.SentBefore ||
		!f.Selector.Matches(q.kinds[q.classes.at(s.class).kind].typ) {
		return unmeant
	}
	if len(f.Headers) == 0 {
		return meant
	}
	if s.flags&flagExtras == 0 {
		return unmeant
	}
	payload, ok := q.payload(s)
	if !ok {
		return unknown
	}
	var m Message
	decodeExtras(payload, &m)
	for _, want := range f.Headers {
		if !slices.ContainsFunc(m.Headers, func(h Header) bool { return h.Key == want.Key && bytes.Equal(h.Value, want.Value) }) {
			return unmeant
		}
	}
	return meant
}

// halt is where an operation that goes over many messages has to stop for a payload.
type halt struct{ seq uint64 } // 0: nowhere

// at notes a message whose payload is missing: the first one is where to stop, those after it are read
// ahead. It reports whether it is worth while to look for more.
func (h *halt) at(q *Queue, s *slot) bool {
	if h.seq == 0 {
		h.seq = s.seq
		q.want(s)
		return true
	}
	return q.wantAhead(s)
}

// touches reports whether an operation on messages in that state is meant: without states leased ones are left alone.
func (f *Filter) touches(state State) bool {
	if len(f.States) > 0 {
		return slices.Contains(f.States, state)
	}
	return state == Ready || state == Delayed || state == Buried
}

// Purge removes messages that the filter means, by sequence from first on: up to max of them, looking
// at no more than limits.PeekScan. With dryRun it only counts. It returns how many, and where to go on:
// 0 at the end. It stops at a message whose payload is missing and is needed to tell whether it is meant.
// Without states in the filter leased messages are left alone.
func (q *Queue) Purge(now Instant, f *Filter, first uint64, max int, dryRun bool) (count int, next uint64) {
	t := q.Begin(now, nil)
	defer t.End()
	if max == 0 {
		return 0, first
	}
	var stop halt
	next = q.slots.scan(first, q.published, limits.PeekScan, func(n uint32, s *slot) bool {
		if !f.touches(s.state) {
			return true
		}
		switch v := q.matches(s, f); {
		case v == unknown:
			return stop.at(q, s)
		case v == meant && stop.seq == 0:
			count++
			if !dryRun {
				q.settle(q.settling(now, recRemove, byPurge, 0, 0, ""), n)
			}
		}
		return count < max
	})
	if stop.seq != 0 {
		next = stop.seq
	}
	return count, next
}

// Kick returns buried messages that the filter means to ready, as Purge removes them.
func (q *Queue) Kick(now Instant, f *Filter, first uint64, max int, dryRun bool) (count int, next uint64) {
	if max == 0 {
		return 0, first
	}
	var chosen []uint32
	var stop halt
	seen := 0
	q.slots.treeWalk(q.buried, first, func(n uint32, s *slot) bool {
		if seen == limits.PeekScan || len(chosen) == max {
			next = s.seq
			return false
		}
		seen++
		switch v := q.matches(s, f); {
		case v == unknown:
			return stop.at(q, s)
		case v == meant && stop.seq == 0:
			chosen = append(chosen, n)
		}
		return true
	})
	if stop.seq != 0 {
		next = stop.seq
	}
	if !dryRun {
		t := q.Begin(now, nil)
		for _, n := range chosen {
			q.settle(q.settling(now, recReady, 0, 0, 0, ""), n)
		}
		t.End()
	}
	return len(chosen), next
}
