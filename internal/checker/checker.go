package checker

import (
	"sync"
)

// QueueRules says what a queue's history can be held to, beyond what holds for every queue.
type QueueRules struct {
	// Volatile: a crash may take all messages along. Sequences are never reused all the same.
	Volatile bool
	// Ordered: one receiver records its deliveries in the order in which it got them.
	Ordered bool
	// Settled: leases end by recorded settlements and by crashes, in no other way. No client breaks off
	// its stream, no lease expires.
	Settled bool
}

// Message is a message as its sender hands it in.
type Message struct {
	ID       uint64 // chosen by the test, in the body or where the receiver finds it; unique for each message meant
	Queue    string
	Type     int64
	Priority uint16
	DedupID  string // "": none. All of a history is taken to lie within the queue's window.
	Delayed  bool   // it may come after later ones
}

// Outcome is where a message was stored.
type Outcome struct {
	Sequence  uint64
	Duplicate bool // an earlier message with its dedup id was
}

// Mark is a moment of a history.
type Mark struct {
	at  uint64 // recorded events before it
	run int    // of the broker
}

// Checker records a history. Its methods may be called concurrently.
type Checker struct {
	mu       sync.Mutex // guards all below
	at       uint64
	run      int
	crashing bool
	queues   map[string]*history
	sends    map[uint64]*message // by id
	batches  []*Batch
	seen     Counts
	found    []Violation
	dropped  int // violations beyond those in found
}

// history is what is known of one queue.
type history struct {
	QueueRules
	slots map[uint64]*slot // by sequence
	// The highest sequence that a sender was told.
	told  uint64
	dedup map[string]*dedup
	first map[class]uint64 // the highest sequence delivered, where the queue is ordered
}

// class is what has an order of its own.
type class struct {
	kind     int64
	priority uint16
}

// dedup is a dedup id.
type dedup struct {
	sequence uint64 // of the one message stored under it, 0: not known yet
	// A sender was told that its message, the latest of which is id, is a duplicate of it.
	told    bool
	toldRun int
	id      uint64
}

// message is a message that was attempted.
type message struct {
	Message
	attempts  int // sends of it
	refused   int // of those
	sequences []uint64
}

// slot is one sequence of a queue.
type slot struct {
	id       uint64
	toldRun  int  // the run in which the send began that was told so
	told     bool // a sender was
	seen     bool // it was delivered, or was there at the end
	left     bool // it was there at the end
	latest   *Delivery
	nacks    []Mark // confirmed
	nacking  int    // nacks attempted
	consumed Mark   // when an ack was first confirmed; at 0: none was
	byTold   bool   // an ack was confirmed
	maybe    bool   // an ack has an unknown outcome
	in       []*Batch
}

// New returns an empty history.
func New() *Checker {
	return &Checker{queues: map[string]*history{}, sends: map[uint64]*message{}}
}

// Queue says what is true of a queue. It comes before anything else about it.
func (c *Checker) Queue(name string, rules QueueRules) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queueLocked(name).QueueRules = rules
}

func (c *Checker) queueLocked(name string) *history {
	q := c.queues[name]
	if q == nil {
		q = &history{slots: map[uint64]*slot{}, dedup: map[string]*dedup{}, first: map[class]uint64{}}
		c.queues[name] = q
	}
	return q
}

// Mark returns the present moment. A receiver takes one before it asks for messages.
func (c *Checker) Mark() Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.markLocked()
}

// Broken returns the moment at which a receiver sees that a crash broke its connection: what it gets
// from here on comes from the next run.
func (c *Checker) Broken() Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.markLocked()
	if c.crashing {
		m.run++
	}
	return m
}

func (c *Checker) markLocked() Mark {
	c.at++
	return Mark{c.at, c.run}
}

// Crashing says that the broker is about to be ended.
func (c *Checker) Crashing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashing = true
}

// Crashed says that it is gone.
func (c *Checker) Crashed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.run++
	c.crashing = false
	c.seen.Crashes++
}

// Left says that a message was there at the end, in whatever state.
func (c *Checker) Left(queue string, sequence, id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.metLocked(queue, sequence, id); s != nil {
		s.left = true
		if s.byTold {
			c.addLocked(Redelivered, queue, sequence, id, "it is still there although its ack was confirmed")
		}
	}
}

// metLocked notes that a message was met at a sequence, and returns its slot; nil: nobody sent it there.
func (c *Checker) metLocked(queue string, sequence, id uint64) *slot {
	q := c.queueLocked(queue)
	m := c.sends[id]
	switch {
	case m == nil || m.Queue != queue:
		c.addLocked(Unexpected, queue, sequence, id, "nobody sent it there")
		return nil
	case m.attempts == m.refused:
		c.addLocked(Unexpected, queue, sequence, id, "its send was refused")
	}
	s := c.placeLocked(q, m, sequence)
	if s != nil {
		s.seen = true
	}
	return s
}

// placeLocked notes that a message is stored under a sequence. It returns nil if that is another's.
func (c *Checker) placeLocked(q *history, m *message, sequence uint64) *slot {
	s := q.slots[sequence]
	if s == nil {
		s = &slot{id: m.ID}
		q.slots[sequence] = s
	} else if s.id != m.ID {
		c.addLocked(Reused, m.Queue, sequence, m.ID, "message %d had that sequence", s.id)
		return nil
	}
	known := false
	for _, other := range m.sequences {
		known = known || other == sequence
	}
	if !known {
		m.sequences = append(m.sequences, sequence)
		if stored := max(1, m.attempts-m.refused); len(m.sequences) > stored {
			c.addLocked(Duplicated, m.Queue, sequence, m.ID, "it was sent %d times and stored as %v", stored, m.sequences)
		}
	}
	if m.DedupID != "" {
		c.dedupLocked(q, m, sequence)
	}
	return s
}

// dedupLocked holds a sequence against the others of the same dedup id.
func (c *Checker) dedupLocked(q *history, m *message, sequence uint64) {
	d := q.dedup[m.DedupID]
	if d == nil {
		d = new(dedup)
		q.dedup[m.DedupID] = d
	}
	if d.sequence == 0 {
		d.sequence = sequence
	}
	if d.sequence != sequence {
		c.addLocked(DedupBroken, m.Queue, sequence, m.ID, "dedup id %q is also that of sequence %d", m.DedupID, d.sequence)
	}
}
