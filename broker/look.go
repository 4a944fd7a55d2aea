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

// Peek shows a page of messages and changes nothing. See transport.Broker.
func (b *Broker) Peek(ctx context.Context, id identity.Identity, r PeekRequest) (PeekPage, error) {
	if err := b.adminTurn(ctx, id, workOf(limits.PeekPage, 0)); err != nil {
		return PeekPage{}, err
	}
	s, err := b.find(id, r.Queue, access.Look)
	if err != nil {
		return PeekPage{}, err
	}
	if r.Filter.Selector, err = r.Filter.Selector.Check(); err != nil {
		return PeekPage{}, on(s, err)
	}
	if r.Max <= 0 || r.Max > limits.PeekPage {
		r.Max = limits.PeekPage
	}
	p, err := queue.NewPeeker(r.Filter, r.Max, r.MaxBody, r.BySequence, r.Cursor)
	if err != nil {
		return PeekPage{}, on(s, err)
	}
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return PeekPage{}, err
		}
		s.mu.Lock()
		if s.deleted || b.Failure() != nil { // while the daemon stops one can still look
			err = s.goneLocked()
			s.mu.Unlock()
			return PeekPage{}, err
		}
		before := len(p.Page)
		done = p.Step(s.q, b.now())
		s.q.CountPeeked(len(p.Page) - before)
		w := s.missingLocked()
		s.mu.Unlock()
		if w != nil {
			s.fetch(w)
		}
	}
	return PeekPage{Messages: p.Page, Cursor: p.Cursor(), Last: p.Last()}, nil
}

// AwaitArrival waits for a message after that sequence. See transport.Broker.
func (b *Broker) AwaitArrival(ctx context.Context, id identity.Identity, name string, after uint64) error {
	s, err := b.find(id, name, access.Look)
	if err != nil {
		return err
	}
	for {
		s.mu.Lock()
		if err := s.goneLocked(); err != nil {
			s.mu.Unlock()
			return err
		}
		if s.q.Published() > after {
			s.mu.Unlock()
			return nil
		}
		if s.arrived == nil {
			s.arrived = make(chan struct{})
		}
		arrived := s.arrived
		s.mu.Unlock()
		select {
		case <-arrived:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Purge removes messages. See transport.Broker.
func (b *Broker) Purge(ctx context.Context, id identity.Identity, r SelectRequest) (int64, string, error) {
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return 0, "", err
	}
	s, err := b.find(id, r.Queue, access.Receive)
	if err != nil {
		return 0, "", err
	}
	if !r.DryRun {
		defer s.recall(ctx)() // what waits in the kernel queue goes too
	}
	return s.sweep(ctx, &r, func(now queue.Instant, f *queue.Filter, first uint64, max int, dryRun bool) (int, uint64) {
		s.revoked++ // if leased messages are meant
		return s.q.Purge(now, f, first, max, dryRun)
	})
}

// Kick returns buried messages to ready. See transport.Broker.
func (b *Broker) Kick(ctx context.Context, id identity.Identity, r SelectRequest) (int64, string, error) {
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return 0, "", err
	}
	s, err := b.find(id, r.Queue, access.Receive)
	if err != nil {
		return 0, "", err
	}
	return s.sweep(ctx, &r, s.q.Kick)
}

// sweep runs one of the queue's filtered operations over all messages, a bounded number under each
// hold of the lock.
func (s *served) sweep(ctx context.Context, r *SelectRequest, step func(now queue.Instant, f *queue.Filter, first uint64, max int, dryRun bool) (int, uint64)) (total int64, cursor string, err error) {
	if r.Filter.Selector, err = r.Filter.Selector.Check(); err != nil {
		return 0, "", on(s, err)
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
	left := int64(math.MaxInt64)
	if r.Max > 0 {
		left = int64(r.Max)
	}
	var ticket Ticket
	for next != 0 && left > 0 {
		if err := ctx.Err(); err != nil {
			return total, strconv.FormatUint(next, 10), err
		}
		s.mu.Lock()
		if err := s.goneLocked(); err != nil {
			s.mu.Unlock()
			return total, "", err
		}
		now := s.b.now()
		var count int
		count, next = step(now, &r.Filter, next, int(min(left, limits.PeekScan)), r.DryRun)
		w := s.missingLocked() // headers that the filter looks at
		s.afterLocked(now)
		ticket = s.last
		s.mu.Unlock()
		total += int64(count)
		left -= int64(count)
		if w != nil {
			s.fetch(w)
		}
	}
	if err := s.b.Await(ctx, ticket); err != nil {
		return total, "", err
	}
	if next == 0 {
		return total, "", nil
	}
	return total, strconv.FormatUint(next, 10), nil
}
