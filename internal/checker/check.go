package checker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kind is which promise is broken.
type Kind string

// The kinds of violations.
const (
	Lost           Kind = "lost"            // an acknowledged message is neither consumed nor there
	Unexpected     Kind = "unexpected"      // a message that nobody sent so, or whose send was refused
	Redelivered    Kind = "redelivered"     // a message came after its ack was confirmed
	Duplicated     Kind = "duplicated"      // one send was stored twice
	OutOfOrder     Kind = "out of order"    // a later message of the same type and priority came first
	Reused         Kind = "sequence reused" // one sequence stands for two messages, or does not rise
	Partial        Kind = "partial"         // a batch or transaction was done in part
	AttemptsFell   Kind = "attempts fell"   // confirmed nacks are not counted
	AttemptsRose   Kind = "attempts rose"   // more is counted than there were nacks
	DedupBroken    Kind = "dedup broken"    // one dedup id stands for two messages
	LeasedTwice    Kind = "leased twice"    // two receivers have a message at the same time
	AckedTwice     Kind = "acked twice"     // two acks of one message were confirmed
	ReceiptRefused Kind = "receipt refused" // a receipt did not hold although nothing happened
	TooLittle      Kind = "too little"      // the history is too short to show anything
)

// Violation is a broken promise.
type Violation struct {
	Kind     Kind
	Queue    string
	Sequence uint64
	ID       uint64 // of the message
	Why      string
}

// String says all of it.
func (v Violation) String() string {
	if v.Queue == "" {
		return fmt.Sprintf("%s: %s", v.Kind, v.Why)
	}
	return fmt.Sprintf("%s: message %d, sequence %d of %s: %s", v.Kind, v.ID, v.Sequence, v.Queue, v.Why)
}

// Counts is how much a history has of what. As the argument of Check it is how much it must have at least.
type Counts struct {
	Batches      int // attempted
	Acked        int // messages
	Refused      int // messages
	Unknown      int // messages
	Duplicates   int // messages acked as duplicates
	Delivered    int // deliveries
	Redelivered  int // deliveries of messages that were delivered before
	Settled      int // settlements confirmed
	Stale        int // settlements refused
	Consumed     int // messages whose ack was confirmed
	Transactions int // confirmed, with acks
	Crashes      int
}

// foundMost is how many violations are kept word for word.
const foundMost = 100

func (c *Checker) addLocked(k Kind, queue string, sequence, id uint64, why string, args ...any) {
	if len(c.found) >= foundMost {
		c.dropped++
		return
	}
	c.found = append(c.found, Violation{k, queue, sequence, id, fmt.Sprintf(why, args...)})
}

// Counts returns how much was recorded so far.
func (c *Checker) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Broke reports whether a violation was found while recording, so that a long run may end early.
func (c *Checker) Broke() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.found) > 0
}

// Check ends the history and returns its violations, at most about a hundred. Every message was drained
// or reported as Left before. A history with less than least of anything is a violation too.
func (c *Checker) Check(least Counts) []Violation {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.littleLocked(least)
	for _, b := range c.batches {
		c.batchLocked(b)
	}
	for _, name := range slices.Sorted(maps.Keys(c.queues)) {
		c.lostLocked(name, c.queues[name])
	}
	if c.dropped > 0 {
		c.found = append(c.found, Violation{Kind: c.found[len(c.found)-1].Kind, Why: fmt.Sprintf("and %d more violations", c.dropped)})
		c.dropped = 0
	}
	return slices.Clone(c.found)
}

func (c *Checker) littleLocked(least Counts) {
	for _, n := range []struct {
		what       string
		got, least int
	}{
		{"batches", c.seen.Batches, least.Batches}, {"acked", c.seen.Acked, least.Acked}, {"refused", c.seen.Refused, least.Refused},
		{"unknown", c.seen.Unknown, least.Unknown}, {"duplicates", c.seen.Duplicates, least.Duplicates},
		{"delivered", c.seen.Delivered, least.Delivered}, {"redelivered", c.seen.Redelivered, least.Redelivered},
		{"settled", c.seen.Settled, least.Settled}, {"stale", c.seen.Stale, least.Stale}, {"consumed", c.seen.Consumed, least.Consumed},
		{"transactions", c.seen.Transactions, least.Transactions}, {"crashes", c.seen.Crashes, least.Crashes},
	} {
		if n.got < n.least {
			c.addLocked(TooLittle, "", 0, 0, "%d %s, want at least %d", n.got, n.what, n.least)
		}
	}
	if c.seen.Acked == 0 || c.seen.Delivered == 0 {
		c.addLocked(TooLittle, "", 0, 0, "an idle run shows nothing: %d messages acked, %d delivered", c.seen.Acked, c.seen.Delivered)
	}
}

// batchLocked: a batch whose outcome nobody knows was stored as a whole or not at all. Acked ones are
// looked at message by message.
func (c *Checker) batchLocked(b *Batch) {
	if b.state == acked || b.state == refused {
		return
	}
	var there, gone []string
	for _, m := range b.messages {
		// A repeated send and a dedup id leave open which attempt it was.
		if m.attempts > 1 || m.DedupID != "" || c.queues[m.Queue].Volatile {
			continue
		}
		if c.metAnywhereLocked(m) {
			there = append(there, fmt.Sprint(m.ID))
		} else {
			gone = append(gone, fmt.Sprint(m.ID))
		}
	}
	if len(there) > 0 && len(gone) > 0 {
		c.addLocked(Partial, "", 0, 0, "of a batch of %d messages, %s were stored and %s not", len(b.messages), strings.Join(there, " "), strings.Join(gone, " "))
	}
}

func (c *Checker) metAnywhereLocked(m *message) bool {
	q := c.queues[m.Queue]
	for _, sequence := range m.sequences {
		if s := q.slots[sequence]; s.seen {
			return true
		}
	}
	return false
}

// tookEffectLocked reports whether a transaction was done: it was answered so, or its messages were met.
func (c *Checker) tookEffectLocked(b *Batch) bool {
	if b.state == acked || b.state == refused {
		return b.state == acked
	}
	return slices.ContainsFunc(b.messages, c.metAnywhereLocked)
}

// lostLocked looks for messages that should be there, and for sources of transactions that were not acked
// together with what the transactions sent.
func (c *Checker) lostLocked(name string, q *history) {
	for _, sequence := range slices.Sorted(maps.Keys(q.slots)) {
		s := q.slots[sequence]
		done := 0
		for _, b := range s.in {
			if c.tookEffectLocked(b) {
				done++
			}
		}
		gone := s.byTold || s.maybe || done > 0
		switch {
		case done > 1:
			c.addLocked(Partial, name, sequence, s.id, "%d transactions that ack it were done", done)
		case done == 1 && s.left:
			c.addLocked(Partial, name, sequence, s.id, "a transaction that acks it was done, and it is still there")
		case gone || s.left || !s.told && !s.seen:
		case q.Volatile && (!s.told || s.toldRun < c.run):
		case len(s.in) > 0:
			c.addLocked(Partial, name, sequence, s.id, "it is gone, and none of the %d transactions that ack it was done", len(s.in))
		default:
			c.addLocked(Lost, name, sequence, s.id, "it is neither consumed nor there")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(q.dedup)) {
		d := q.dedup[id]
		if d.told && q.slots[d.sequence] == nil && (!q.Volatile || d.toldRun == c.run) {
			c.addLocked(Lost, name, d.sequence, d.id, "it was called a duplicate of a message that was never there")
		}
	}
}
