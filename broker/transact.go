package broker

import (
	"context"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// TransactRequest is sends and acks over any queues: all are done or none.
type TransactRequest struct {
	Sends []TransactSend
	Acks  []queue.Receipt
	// As in SendRequest, for all sends together. A repeat is recognised by its sends.
	Producer string
	Batch    uint64
	Instance string
}

// TransactSend is messages for one queue. Several for the same queue are stored in order.
type TransactSend struct {
	Queue    string
	Messages []queue.Message
}

// work is what the transaction is worth: see fair.
func (r *TransactRequest) work() time.Duration {
	work := workOf(len(r.Acks), 0)
	for i := range r.Sends {
		work += sendWork(r.Sends[i].Messages)
	}
	return work
}

// Transact does all of it or nothing. It never waits for room. Stored has an element for each of the sends.
// An error says by its Queue, and its Index, what was in the way: the index counts sends and then acks.
func (b *Broker) Transact(ctx context.Context, id identity.Identity, r TransactRequest) ([]queue.Stored, error) {
	f, err := b.planInTurn(ctx, id, &r)
	if err != nil {
		return nil, err
	}
	if err := b.checkSettlements(len(r.Acks)); err != nil {
		return nil, err
	}
	for {
		if len(r.Sends) > 0 {
			if err := f.admit(ctx, len(r.Acks)); err != nil {
				return nil, err
			}
		}
		f.lock()
		if f.current() {
			break
		}
		f.unlock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if f, err = b.plan(id, &r); err != nil {
			return nil, err
		}
	}
	stored, err := b.transactLocked(f, id, &r)
	ticket := f.unlock()
	if err != nil {
		return nil, err
	}
	for _, p := range f.parts[:min(len(f.parts), fairQueues)] {
		b.fair.granted(id.Principal(), p.s.id, 0)
	}
	return stored, b.Await(ctx, ticket)
}

// planInTurn is plan that then waits for the transaction's turn.
func (b *Broker) planInTurn(ctx context.Context, id identity.Identity, r *TransactRequest) (*flow, error) {
	f, err := b.plan(id, r)
	var queues []uint64
	if err == nil {
		for _, p := range f.parts {
			queues = append(queues, p.s.id)
		}
	}
	held, turnErr := b.fair.enter(ctx, id.Principal(), r.work(), queues...)
	switch {
	case turnErr != nil:
		return nil, turnErr
	case err == nil && held:
		return b.plan(id, r) // queues may be deleted, and access withdrawn
	}
	return f, err
}

// plan sorts a transaction by queue, in the order of their ids.
func (b *Broker) plan(id identity.Identity, r *TransactRequest) (*flow, error) {
	messages := 0
	bytes := int64(0)
	for i := range r.Sends {
		messages += len(r.Sends[i].Messages)
		bytes += totalBytes(r.Sends[i].Messages)
	}
	switch {
	case len(r.Sends)+len(r.Acks) == 0:
		return nil, reason.Invalid("sends", "a transaction of nothing: it must have sends or receipts")
	case len(r.Sends) > limits.BatchMessages || messages > limits.BatchMessages:
		return nil, reason.Invalid("sends", "a transaction of %d messages in %d sends: it may have %d", messages, len(r.Sends), limits.BatchMessages)
	case bytes > limits.BatchBytes:
		return nil, reason.Invalid("sends", "a transaction of %d bytes: it may have %d", bytes, limits.BatchBytes)
	case len(r.Acks) > limits.SettlementsPerFrame:
		return nil, reason.Invalid("receipts", "a transaction of %d acks: it may have %d", len(r.Acks), limits.SettlementsPerFrame)
	}
	f := newFlow(b, false)
	byID := map[uint64]*part{}
	join := func(s *served) *part {
		p := byID[s.id]
		if p == nil {
			p = &part{s: s, batch: queue.Batch{Producer: r.Producer, Number: r.Batch}}
			byID[s.id] = p
		}
		return p
	}
	for i := range r.Sends {
		s, err := b.find(id, r.Sends[i].Queue, access.Send)
		if err != nil {
			return nil, at(b.late(err, r.Sends[i].Queue), i)
		}
		if len(r.Sends[i].Messages) == 0 {
			return nil, at(reason.Invalid("sends", "a send of no messages").On(s.name), i)
		}
		f.add(join(s), i, r.Sends[i].Messages)
	}
	for i, receipt := range r.Acks {
		b.mu.RLock()
		s := b.byID[receipt.Queue]
		b.mu.RUnlock()
		if s == nil {
			return nil, at(reason.New(reason.StaleReceipt, "receipt %v is of a queue that is not there (any more)", receipt), len(r.Sends)+i)
		}
		if err := b.check(id, s, access.Receive); err != nil {
			return nil, at(err, len(r.Sends)+i)
		}
		p := join(s)
		p.acks = append(p.acks, i)
	}
	var other *part
	for _, p := range byID {
		if other != nil && p.s.durable != other.s.durable {
			return nil, reason.New(reason.DurabilityMismatch, "a transaction over %s and %s: one is a journal queue and one a memory queue; use one kind", other.s.name, p.s.name)
		}
		other = p
	}
	return f, f.plan(byID)
}

// at puts the place in the request into an error.
func at(err error, index int) error {
	if e, ok := err.(*reason.Error); ok {
		return e.At(index)
	}
	return err
}

// transactLocked decides under the locks of all its queues: first it looks whether everything can be done.
func (b *Broker) transactLocked(f *flow, id identity.Identity, r *TransactRequest) ([]queue.Stored, error) {
	now := b.now()
	repeated := 0
	sending := 0
	for _, p := range f.parts {
		if err := p.mayLocked(id, len(r.Sends)); err != nil {
			return nil, err
		}
		if len(p.sends) == 0 {
			continue
		}
		sending++
		stored, ok, err := p.s.q.Repeat(r.Producer, r.Batch)
		if err != nil {
			return nil, at(on(p.s, err), p.sends[0])
		}
		if ok {
			p.stored = stored
			repeated++
		}
	}
	if repeated > 0 {
		if repeated < sending {
			return nil, reason.New(reason.StaleBatch, "batch %d of producer %q was used before, for other sends", r.Batch, r.Producer)
		}
		return split(f.parts, r), nil
	}
	for _, p := range f.parts {
		if err := p.checkAcksLocked(r); err != nil {
			return nil, err
		}
	}
	if _, err := f.checkAllLocked(now); err != nil {
		f.dischargeLocked()
		return nil, err
	}
	f.makeRoomLocked(now)
	for _, p := range f.parts {
		err := p.ackLocked(now, r)
		if err == nil {
			err = f.storeLocked(now, p)
		}
		if err != nil {
			// It was just said to be possible: memory and journal would part company.
			err = reason.New(reason.Internal, "a transaction could not be completed: %v", err).On(p.s.name)
			b.fail(err)
			return nil, err
		}
	}
	for _, p := range f.parts {
		p.s.revoked++
	}
	f.doneLocked(now)
	return split(f.parts, r), nil
}

// mayLocked is an error if the queue is gone or damaged, or access was withdrawn since the operation was planned. sends is how many
// sends the request has.
func (p *part) mayLocked(id identity.Identity, sends int) error {
	s := p.s
	err := s.goneLocked()
	switch {
	case err == nil && s.damaged.Load() != nil && len(p.sends)+len(p.acks) > 0:
		err = damagedError(s)
	case len(p.sends) > 0:
		if err == nil {
			err = s.b.forbids(id, s, access.Send)
		}
		if err != nil {
			return at(s.b.late(err, s.name), p.sends[0])
		}
	}
	if err == nil && len(p.acks) > 0 {
		if err = s.b.forbids(id, s, access.Receive); err != nil {
			return at(err, sends+p.acks[0])
		}
	}
	return err
}

// checkAcksLocked says what is in the way of a part's acks.
func (p *part) checkAcksLocked(r *TransactRequest) error {
	s := p.s
	if len(p.sends)+len(p.acks) > 0 {
		if err := s.knowsProducer(r.Instance); err != nil {
			return on(s, err)
		}
	}
	seen := make(map[queue.Receipt]bool, len(p.acks))
	for _, i := range p.acks {
		charge, err := s.q.CheckAck(r.Acks[i])
		if err == nil && seen[r.Acks[i]] {
			err = reason.New(reason.StaleReceipt, "receipt %v comes twice in the transaction", r.Acks[i])
		}
		if err != nil {
			return at(on(s, err), len(r.Sends)+i)
		}
		seen[r.Acks[i]] = true
		p.freedMessages++
		p.freedBytes += charge
	}
	return nil
}

func (p *part) ackLocked(now queue.Instant, r *TransactRequest) error {
	if len(p.acks) == 0 {
		return nil
	}
	t := p.s.q.Begin(now, nil)
	for _, i := range p.acks {
		if err := t.Ack(r.Acks[i]); err != nil {
			return err
		}
	}
	t.End()
	return nil
}

// split tells for each send what was stored of it.
func split(parts []*part, r *TransactRequest) []queue.Stored {
	out := make([]queue.Stored, len(r.Sends))
	for _, p := range parts {
		first, index := p.stored.First, 0
		duplicates := p.stored.Duplicates
		for _, i := range p.sends {
			n := len(r.Sends[i].Messages)
			o := &out[i]
			o.First, o.Count, o.SentAt = first, n, p.stored.SentAt
			for len(duplicates) > 0 && duplicates[0].Index < index+n {
				o.Duplicates = append(o.Duplicates, queue.Duplicate{Index: duplicates[0].Index - index, Sequence: duplicates[0].Sequence})
				duplicates = duplicates[1:]
			}
			first += uint64(n - len(o.Duplicates))
			index += n
		}
	}
	return out
}
