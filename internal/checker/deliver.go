package checker

import "fmt"

// Received is a delivery as a receiver gets it.
type Received struct {
	ID       uint64
	Queue    string
	Sequence uint64
	Type     int64
	Priority uint16
	Attempts int
	// Since is a moment before the delivery was made: when the receiver asked for messages, or opened
	// its stream.
	Since Mark
}

// Delivery is a recorded delivery, for settling it.
type Delivery struct {
	c     *Checker
	slot  *slot // nil: nobody sent the message
	queue string
	seq   uint64
	run   int  // in which it was made, if sure
	sure  bool // it was made in that run
	open  bool // no settlement was attempted
}

// Settlement is what a receiver does with a delivery.
type Settlement uint8

// The settlements.
const (
	Ack     Settlement = iota // the message is done
	Nack                      // it failed and comes again
	Release                   // it comes again uncounted
)

// String returns the settlement's name.
func (s Settlement) String() string {
	switch s {
	case Ack:
		return "ack"
	case Nack:
		return "nack"
	case Release:
		return "release"
	}
	return fmt.Sprintf("Settlement(%d)", uint8(s))
}

// Delivered says that a receiver got a message.
func (c *Checker) Delivered(r Received) *Delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &Delivery{c: c, queue: r.Queue, seq: r.Sequence, run: c.run, sure: r.Since.run >= c.run, open: true}
	c.seen.Delivered++
	s := c.metLocked(r.Queue, r.Sequence, r.ID)
	if s == nil {
		return d
	}
	d.slot = s
	m := c.sends[r.ID]
	if m.Type != r.Type || m.Priority != r.Priority {
		c.addLocked(Unexpected, r.Queue, r.Sequence, r.ID, "it was sent with type %d, priority %d, and came with %d, %d", m.Type, m.Priority, r.Type, r.Priority)
	}
	// after: the delivery was made after that moment.
	after := func(m Mark) bool { return d.sure || r.Since.at >= m.at }
	if s.byTold && after(s.consumed) {
		c.addLocked(Redelivered, r.Queue, r.Sequence, r.ID, "its ack was confirmed before (in run %d, now %d)", s.consumed.run, c.run)
	}
	q := c.queueLocked(r.Queue)
	c.attemptsLocked(q, s, r, d, after)
	if l := s.latest; l == nil {
		c.orderLocked(q, m, r)
	} else {
		c.seen.Redelivered++
		if q.Settled && l.open && l.sure && d.sure && l.run == d.run {
			c.addLocked(LeasedTwice, r.Queue, r.Sequence, r.ID, "another receiver has it")
		}
	}
	s.latest = d
	return d
}

// attemptsLocked holds a delivery's attempts against the nacks of the message.
func (c *Checker) attemptsLocked(q *history, s *slot, r Received, d *Delivery, after func(Mark) bool) {
	least := 0
	for _, m := range s.nacks {
		if after(m) {
			least++
		}
	}
	if r.Attempts < least {
		c.addLocked(AttemptsFell, r.Queue, r.Sequence, r.ID, "%d attempts after %d confirmed nacks", r.Attempts, least)
	}
	if q.Settled && r.Attempts > s.nacking {
		c.addLocked(AttemptsRose, r.Queue, r.Sequence, r.ID, "%d attempts after %d nacks", r.Attempts, s.nacking)
	}
}

// orderLocked holds the first delivery of a message against those of its class.
func (c *Checker) orderLocked(q *history, m *message, r Received) {
	if !q.Ordered || m.Delayed {
		return
	}
	k := class{r.Type, r.Priority}
	if r.Sequence <= q.first[k] {
		c.addLocked(OutOfOrder, r.Queue, r.Sequence, r.ID, "sequence %d of type %d, priority %d came first", q.first[k], r.Type, r.Priority)
		return
	}
	q.first[k] = r.Sequence
}

// Settling is a settlement under way. One of Confirmed, Stale and Unknown ends it.
type Settling struct {
	d    *Delivery
	kind Settlement
}

// Settle says that the delivery is about to be settled.
func (d *Delivery) Settle(kind Settlement) *Settling {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.open = false
	if kind == Nack && d.slot != nil {
		d.slot.nacking++
	}
	return &Settling{d, kind}
}

// Confirmed says that it is done.
func (s *Settling) Confirmed() {
	c := s.d.c
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.markLocked()
	c.seen.Settled++
	switch {
	case s.d.slot == nil:
	case s.kind == Ack:
		s.d.consumedLocked(now)
	case s.kind == Nack:
		s.d.slot.nacks = append(s.d.slot.nacks, now)
	}
}

// Stale says that it was refused, for the delivery is over, and changed nothing.
func (s *Settling) Stale() {
	d := s.d
	c := d.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.Stale++
	if d.slot != nil && c.queueLocked(d.queue).Settled && d.sure && d.run == c.run && !c.crashing {
		c.addLocked(ReceiptRefused, d.queue, d.seq, d.slot.id, "a %v was refused, and there was no crash since the delivery", s.kind)
	}
}

// Unknown says that nobody can tell what came of it.
func (s *Settling) Unknown() {
	c := s.d.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.d.slot != nil && s.kind == Ack {
		s.d.slot.maybe = true
	}
}

// consumedLocked notes that the message is gone.
func (d *Delivery) consumedLocked(now Mark) {
	s := d.slot
	if s == nil {
		return
	}
	if s.byTold {
		d.c.addLocked(AckedTwice, d.queue, d.seq, s.id, "two acks of it were confirmed")
		return
	}
	s.byTold, s.consumed = true, now
	d.c.seen.Consumed++
}
