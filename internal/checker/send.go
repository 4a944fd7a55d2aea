package checker

// Batch is a send under way: messages that are stored together or not at all, and, in a transaction,
// deliveries that are acked with it. One of Acked, Refused and Unknown ends it.
type Batch struct {
	c        *Checker
	messages []*message
	acks     []*Delivery
	floor    []uint64 // of each message's queue: its sequence must be above
	began    Mark
	state    batchState
}

type batchState uint8

const (
	underWay batchState = iota
	acked
	refused
	unknown
)

// Send says that messages are about to be sent, together. An id that was sent before stands for a
// sender that tries again as if it were another message; it may then be stored once more.
func (c *Checker) Send(messages ...Message) *Batch { return c.Transact(messages, nil) }

// Transact says that messages are about to be sent and deliveries acked, in one transaction.
func (c *Checker) Transact(messages []Message, acks []*Delivery) *Batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &Batch{c: c, acks: acks, began: c.markLocked()}
	for _, one := range messages {
		m := c.sends[one.ID]
		if m == nil {
			m = &message{Message: one}
			c.sends[one.ID] = m
		}
		m.attempts++
		b.messages = append(b.messages, m)
		b.floor = append(b.floor, c.queueLocked(one.Queue).told)
	}
	for _, d := range acks {
		d.open = false
		if s := d.slot; s != nil {
			s.in = append(s.in, b)
		}
	}
	c.batches = append(c.batches, b)
	c.seen.Batches++
	return b
}

// Acked says that the batch was answered, with an outcome for each message.
func (b *Batch) Acked(outcomes []Outcome) {
	c := b.c
	c.mu.Lock()
	defer c.mu.Unlock()
	b.state = acked
	now := c.markLocked()
	if len(outcomes) != len(b.messages) {
		c.addLocked(Partial, "", 0, 0, "%d messages were sent, the answer is about %d", len(b.messages), len(outcomes))
		return
	}
	for i, o := range outcomes {
		m := b.messages[i]
		q := c.queueLocked(m.Queue)
		c.seen.Acked++
		if o.Duplicate {
			c.duplicateLocked(q, m, o.Sequence)
			continue
		}
		if o.Sequence <= b.floor[i] {
			c.addLocked(Reused, m.Queue, o.Sequence, m.ID, "sequence %d was given before it was sent", b.floor[i])
		}
		if s := c.placeLocked(q, m, o.Sequence); s != nil {
			s.told, s.toldRun = true, b.began.run
		}
		q.told = max(q.told, o.Sequence)
	}
	for _, d := range b.acks {
		d.consumedLocked(now)
	}
	if len(b.acks) > 0 {
		c.seen.Transactions++
	}
}

// duplicateLocked notes that a send was answered with another's sequence.
func (c *Checker) duplicateLocked(q *history, m *message, sequence uint64) {
	c.seen.Duplicates++
	if m.DedupID == "" {
		c.addLocked(DedupBroken, m.Queue, sequence, m.ID, "it was called a duplicate and has no dedup id")
		return
	}
	c.dedupLocked(q, m, sequence)
	d := q.dedup[m.DedupID]
	d.told, d.id, d.toldRun = true, m.ID, c.run
}

// Refused says that for sure nothing was stored or acked.
func (b *Batch) Refused() {
	c := b.c
	c.mu.Lock()
	defer c.mu.Unlock()
	b.state = refused
	c.seen.Refused += len(b.messages)
	for _, m := range b.messages {
		m.refused++
		if m.attempts > m.refused {
			continue
		}
		for _, sequence := range m.sequences {
			if s := c.queueLocked(m.Queue).slots[sequence]; s.seen {
				c.addLocked(Unexpected, m.Queue, sequence, m.ID, "its send was refused")
			}
		}
	}
}

// Unknown says that nobody can tell what became of it.
func (b *Batch) Unknown() {
	c := b.c
	c.mu.Lock()
	defer c.mu.Unlock()
	b.state = unknown
	c.seen.Unknown += len(b.messages)
	if len(b.messages) > 0 {
		return // whether its messages are met will tell
	}
	for _, d := range b.acks {
		if d.slot != nil {
			d.slot.maybe = true
		}
	}
}
