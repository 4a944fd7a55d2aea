package broker

import (
	"context"
	"math"
	"strconv"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Move moves messages to another queue. What arrives in the source meanwhile is left to the next call. Where the destination
// takes no more, the call ends with what was moved and a cursor; only one that moves nothing returns the error.
// See transport.Broker.
func (b *Broker) Move(ctx context.Context, id identity.Identity, r MoveRequest) (messages int64, cursor string, err error) {
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return 0, "", err
	}
	m, err := b.newMover(id, r.From, r.To, r.DryRun)
	if err != nil {
		return 0, "", err
	}
	if r.Filter.Selector, err = r.Filter.Selector.Check(); err != nil {
		return 0, "", on(m.from, err)
	}
	if r.Max < 0 {
		return 0, "", reason.Invalid("limit", "limit %d: it must be 0 (all) or more", r.Max)
	}
	next := uint64(1)
	if r.Cursor != "" {
		if next, err = strconv.ParseUint(r.Cursor, 10, 64); err != nil || next == 0 {
			return 0, "", reason.Invalid("cursor", "cursor %.60q: pass on what the call before returned", r.Cursor)
		}
	}
	if !r.DryRun {
		defer m.from.recall(ctx)() // what waits in the kernel queue goes too
	}
	left := int64(math.MaxInt64)
	if r.Max > 0 {
		left = int64(r.Max)
	}
	messages, next, err = m.move(ctx, m.from.until(r.Filter), next, left)
	if awaitErr := b.Await(ctx, m.ticket); awaitErr != nil {
		return messages, "", awaitErr
	}
	if next != 0 {
		cursor = strconv.FormatUint(next, 10)
	}
	if messages > 0 && ctx.Err() == nil {
		err = nil
	}
	return messages, cursor, err
}

// until narrows a filter to what is there now: a move or redrive that ran after what arrives might never end.
func (s *served) until(f queue.Filter) queue.Filter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := max(1, s.q.Published()); f.MaxSequence == 0 || f.MaxSequence > last {
		f.MaxSequence = last
	}
	return f
}

// mover moves messages from one queue to another, for one call.
type mover struct {
	b        *Broker
	id       identity.Identity
	from, to *served
	dryRun   bool
	home     bool   // dead letters go back
	ticket   Ticket // of what was moved
}

// newMover checks whether the caller may move messages from one queue to the other at all.
func (b *Broker) newMover(id identity.Identity, from, to string, dryRun bool) (*mover, error) {
	s, err := b.find(id, from, access.Receive)
	if err != nil {
		return nil, err
	}
	return b.newMoverFrom(id, s, to, dryRun)
}

func (b *Broker) newMoverFrom(id identity.Identity, from *served, to string, dryRun bool) (*mover, error) {
	d, err := b.find(id, to, access.Send)
	switch {
	case err != nil:
		return nil, err
	case d == from:
		return nil, reason.Invalid("destination", "the messages are in %s already: name another queue", to).On(to)
	case from.durable && !d.durable:
		return nil, reason.New(reason.DurabilityMismatch,
			"messages of the journal queue %s would go to %s, which is kept in memory: name a journal queue", from.name, to).On(to)
	}
	return &mover{b: b, id: id, from: from, to: d, dryRun: dryRun}, nil
}

// move moves what a filter means, from a sequence on, in steps of which each is one frame of the journal. It returns the sequence to
// go on from, 0 at the end. What was moved before an error stays moved.
func (m *mover) move(ctx context.Context, f queue.Filter, first uint64, most int64) (total int64, next uint64, err error) {
	messages, size := m.b.moveStep()
	step := queue.Moving{Filter: &f, First: first, Bytes: size, DryRun: m.dryRun, Home: m.home}
	for step.First != 0 && total < most {
		if err := ctx.Err(); err != nil {
			return total, step.First, err
		}
		if m.dryRun {
			messages = limits.PeekScan
		} else if err := m.admit(ctx, messages, step.Bytes); err != nil {
			return total, step.First, err
		}
		step.Messages = int(min(most-total, int64(messages)))
		m.lock()
		done, w, err := m.stepLocked(step)
		m.unlock()
		if w != nil {
			m.from.fetch(w)
		}
		total += int64(done.Messages)
		if err != nil {
			return total, done.Next, err
		}
		step.First, step.Bytes = done.Next, max(size, done.Needs)
		if err := m.b.adminTurn(ctx, m.id, workOf(done.Messages, 0)); err != nil {
			return total, step.First, err
		}
	}
	return total, step.First, nil
}

// moveStep is how much is moved in one frame: with small segments of the journal less fits.
func (b *Broker) moveStep() (messages, bytes int) {
	messages, bytes = limits.MoveMessages, limits.MoveBytes
	if b.journal != nil {
		half := max(0, b.maxFrame-frameRest) / 2
		messages, bytes = max(1, min(messages, int(half/(frameMessage+limits.Headers*frameHeader)))), min(bytes, int(half))
	}
	return messages, bytes
}

// admit sees to it that there is room on disk for a step.
func (m *mover) admit(ctx context.Context, messages, bytes int) error {
	if !m.to.durable {
		return nil
	}
	if size := int64(bytes) + frameMessage + frameRest; size > m.b.maxFrame {
		return reason.New(reason.MessageTooLarge, "a message of %d bytes: it must fit a segment of the journal, which takes %d; raise segment_size", bytes, m.b.maxFrame).On(m.to.name)
	}
	return on(m.to, m.b.admitBytes(ctx, int64(bytes+messages*frameOverhead)+frameOverhead))
}

// lock takes both queues' locks, in the order of their ids. Their records are one frame.
func (m *mover) lock() {
	first, second := m.from, m.to
	if second.id < first.id {
		first, second = second, first
	}
	first.mu.Lock()
	second.mu.Lock()
	m.to.joined = m.from
}

func (m *mover) unlock() {
	m.to.joined = nil
	m.to.mu.Unlock()
	m.from.mu.Unlock()
}

// stepLocked moves some messages. It also returns payloads that have to be fetched before the next step.
func (m *mover) stepLocked(step queue.Moving) (queue.Moved, *wanted, error) {
	stay := queue.Moved{Next: step.First}
	for s, right := range map[*served]access.Right{m.from: access.Receive, m.to: access.Send} {
		if err := s.mayLocked(m.id, right); err != nil {
			return stay, nil, err
		}
		if s.damaged.Load() != nil {
			return stay, nil, damagedError(s)
		}
	}
	if err := m.to.inLine(); err != nil && !step.DryRun {
		return stay, nil, on(m.to, err)
	}
	now := m.b.now()
	m.to.paid = m.to.owner == m.from.owner // what moves stays charged to the same
	done, err := m.from.q.Move(now, m.to.q, step, func(batch queue.Batch) (queue.Stored, error) { return m.to.storeLocked(now, batch) })
	m.to.paid = false
	w := m.from.missingLocked()
	if done.Messages > 0 && !step.DryRun {
		m.from.revoked++ // leased ones may have been among them
		m.to.publishLocked()
		m.to.afterLocked(now)
	}
	m.from.afterLocked(now)
	m.ticket = max(m.ticket, m.from.last, m.to.last)
	return done, w, on(m.to, err)
}
