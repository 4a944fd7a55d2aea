package queue

import (
	"slices"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Moving says what one step moves.
type Moving struct {
	Filter   *Filter // without states in it leased messages are left alone
	First    uint64  // sequence to begin with
	Messages int     // at most so many
	Bytes    int     // of bodies, headers and ids, at most
	DryRun   bool    // count only
	Home     bool    // dead letters go back: what made them dead letters is taken off them
}

// Moved is what a step came to.
type Moved struct {
	Messages int
	Next     uint64 // sequence to go on from; 0: the end
	// Needs is how many bytes the message at Next has, where that alone is more than the step was allowed. Else 0.
	Needs int
}

// Move moves messages that the filter means to another queue, by sequence, looking at no more than limits.PeekScan. store
// is the other queue's Send, or calls it; both queues' records belong together. Messages keep their time of send, delay and
// end of TTL; they have no failed attempts, and buried ones become ready. Those whose TTL has ended stay, to expire, and so
// do damaged ones.
//
// A step stops before a message whose payload is missing, and before one that the other queue does not take: that
// is an error only if nothing was moved before it. To make room there nothing is dropped.
func (q *Queue) Move(now Instant, to *Queue, m Moving, store func(Batch) (Stored, error)) (Moved, error) {
	batch := Batch{Internal: true}
	var chosen []uint32
	var stop halt
	var resume uint64
	var refused error
	count, bytes, needs := 0, 0, 0
	next := q.slots.scan(m.First, q.published, limits.PeekScan, func(n uint32, s *slot) bool {
		v := q.movable(now, s, m.Filter)
		if v == unmeant {
			return true
		}
		payload, ok := []byte(nil), v != unknown
		if !m.DryRun && ok {
			payload, ok = q.payload(s)
		}
		switch {
		case !ok:
			return stop.at(q, s)
		case stop.seq != 0 || s.flags&flagDamaged != 0: // which may have turned out just now
			return true
		}
		if !m.DryRun {
			message, past := q.handOver(s, payload, m.Home)
			charge := message.Bytes()
			if bytes+charge > m.Bytes {
				if resume = s.seq; count == 0 {
					needs = charge
				}
				return false
			}
			if refused = to.takes(&message, count+1, bytes+charge); refused != nil {
				if resume = s.seq; reason.Of(refused) == reason.MessageTooLarge {
					refused = reason.New(reason.MessageTooLarge, "message %d: %v", s.seq, refused)
				}
				return false
			}
			batch.Messages, batch.Past = append(batch.Messages, message), append(batch.Past, past)
			chosen = append(chosen, n)
			bytes += charge
		}
		count++
		return count < m.Messages
	})
	if resume == 0 {
		resume = stop.seq
	}
	if resume != 0 {
		next = resume
	}
	if len(chosen) == 0 {
		return Moved{Messages: count, Next: next, Needs: needs}, refused
	}
	if _, err := store(batch); err != nil {
		return Moved{Next: q.slots.at(chosen[0]).seq}, err
	}
	t := q.Begin(now, nil)
	for _, n := range chosen {
		q.settle(q.settling(now, recRemove, byMove, 0, 0, ""), n)
	}
	t.End()
	return Moved{Messages: count, Next: next}, nil
}

// movable says whether a message is meant by a filter and can be moved.
func (q *Queue) movable(now Instant, s *slot, f *Filter) verdict {
	if !f.touches(s.state) || s.flags&flagDamaged != 0 {
		return unmeant
	}
	if expires := q.expiresOf(s); expires != 0 && expires <= now.Wall {
		return unmeant
	}
	return q.matches(s, f)
}

// handOver is a message as another queue gets it. Its bytes belong to this queue, and are valid until it changes.
func (q *Queue) handOver(s *slot, payload []byte, home bool) (Message, Past) {
	c := q.classes.at(s.class)
	m := Message{Type: q.kinds[c.kind].typ, Priority: c.priority, Body: payload}
	if s.flags&flagExtras != 0 {
		m.Body = decodeExtras(payload, &m)
	}
	if home {
		m.Headers = withoutDeadHeaders(m.Headers, 0)
	}
	past := Past{SentAt: s.sentAt, Expires: q.expiresOf(s)}
	if s.state == Delayed {
		past.Due = q.dueOf(s)
	}
	return m, past
}

// takes says what keeps the queue from taking a message, with which it would get so many of so many bytes in all.
func (q *Queue) takes(m *Message, messages, bytes int) error {
	if len(m.Body) > q.settings.MaxMessageSize {
		return reason.New(reason.MessageTooLarge, "a body of %d bytes: %s takes at most %d; raise its max_message_size, or leave the message out by its sequence or type",
			len(m.Body), q.name, q.settings.MaxMessageSize)
	}
	if q.hasRoom(int64(messages), int64(bytes)) {
		return nil
	}
	if err := q.CheckEverFits(1, int64(m.Bytes())); err != nil {
		return err
	}
	return q.full()
}

// Origins tells which queues the dead letters come from that a filter means and that can be moved, in the order of their
// first ones, looking at most at so many messages with sequences from first on. next is the sequence to go on from, 0 at
// the end. It stops before a message whose payload is missing.
func (q *Queue) Origins(now Instant, f *Filter, first uint64, most int) (names []string, next uint64) {
	var stop halt
	next = q.slots.scan(first, q.published, most, func(n uint32, s *slot) bool {
		v := q.movable(now, s, f)
		if v == unmeant || s.flags&flagExtras == 0 { // no dead letter is without headers
			return true
		}
		payload, ok := q.payload(s)
		switch {
		case !ok:
			return stop.at(q, s)
		case stop.seq != 0 || s.flags&flagDamaged != 0:
			return true
		}
		var m Message
		decodeExtras(payload, &m)
		if name := m.origin(); CheckName(name) == nil && !slices.Contains(names, name) { // others' headers may say anything
			names = append(names, name)
		}
		return true
	})
	if stop.seq != 0 {
		next = stop.seq
	}
	return names, next
}
