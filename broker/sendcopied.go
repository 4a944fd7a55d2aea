package broker

import (
	"cmp"
	"context"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// submitCopied is Submit to a queue that hands copies on. w is the sender's place in the line of those who wait for room,
// nil if it has none yet, with the timer that bounds the waiting.
func (b *Broker) submitCopied(ctx context.Context, id identity.Identity, s *served, r *SendRequest, w *waiting[*blockedSend], timer *waitTimer) (queue.Stored, Ticket, error) {
	if timer == nil {
		timer = newWaitTimer(r.Wait)
		defer timer.Stop()
	}
	for {
		stored, ticket, waits, err := b.tryCopied(ctx, id, s, r, w)
		if waits == nil {
			return stored, ticket, err
		}
		w = waits
		if stored, err = s.awaitRoom(ctx, w, timer); err != errCopied {
			return stored, s.ticket(), on(s, err)
		}
	}
}

// tryCopied stores a batch and its copies, or lets the sender wait for room in the queue it is sent to: then it returns its place
// in line. Who has one has left it if none is returned.
func (b *Broker) tryCopied(ctx context.Context, id identity.Identity, s *served, r *SendRequest, w *waiting[*blockedSend]) (queue.Stored, Ticket, *waiting[*blockedSend], error) {
	var f *flow
	for {
		f = newFlow(b, true)
		p := &part{s: s, batch: queue.Batch{Producer: r.Producer, Number: r.Batch}}
		f.add(p, 0, r.Messages)
		err := f.plan(map[uint64]*part{s.id: p})
		if err == nil {
			err = cmp.Or(ctx.Err(), f.admit(ctx, 0))
		}
		if err != nil {
			if w != nil {
				stored, err := s.giveUpRoom(w, err)
				return stored, s.ticket(), nil, on(s, err)
			}
			return queue.Stored{}, 0, nil, on(s, err)
		}
		f.lock()
		if f.current() {
			break
		}
		f.unlock()
	}
	stored, waits, err := f.sendLocked(id, s, r, w)
	ticket := f.unlock()
	if err == nil {
		b.fair.granted(id.Principal(), s.id, f.copyWork())
	}
	return stored, ticket, waits, on(s, err)
}

// sendLocked is served.sendLocked with copies.
func (f *flow) sendLocked(id identity.Identity, s *served, r *SendRequest, w *waiting[*blockedSend]) (queue.Stored, *waiting[*blockedSend], error) {
	if w != nil {
		select {
		case <-w.value.done: // the queue is gone, or access was withdrawn
			return w.value.stored, nil, w.value.err
		default:
		}
	}
	stored, waits, err := f.decideLocked(id, s, r, w)
	if waits == nil && w != nil {
		s.unblockLocked(w)
	}
	switch {
	case waits != nil:
		f.dischargeLocked()
	case err != nil:
		f.dischargeLocked()
		if w != nil {
			s.afterLocked(f.b.now()) // those behind it
		}
	default:
		f.doneLocked(f.b.now())
	}
	return stored, waits, err
}

// decideLocked stores what can be stored.
func (f *flow) decideLocked(id identity.Identity, s *served, r *SendRequest, w *waiting[*blockedSend]) (queue.Stored, *waiting[*blockedSend], error) {
	if err := s.mayLocked(id, access.Send); err != nil {
		return queue.Stored{}, nil, err
	}
	if stored, ok, err := s.q.Repeat(r.Producer, r.Batch); ok || err != nil {
		return stored, nil, err
	}
	if err := s.knowsProducer(r.Instance); err != nil {
		return queue.Stored{}, nil, err
	}
	origin := f.order[0]
	lines := s.q.Settings().Overflow == queue.Block
	f.front = !lines || s.blocked.len == 0 || w != nil && s.blocked.first() == w
	now := f.b.now()
	if f.front {
		refused, err := f.checkAllLocked(now)
		if err == nil {
			return f.storeAllLocked(now, origin)
		}
		full, ok := err.(*reason.Error)
		if refused != origin || !lines || r.Wait == 0 || !ok || full.Reason != reason.QueueFull || full.RetryAfter == 0 {
			return queue.Stored{}, nil, err
		}
	} else if err := s.q.CheckFits(origin.batch); err != nil {
		return queue.Stored{}, nil, err
	} else if r.Wait == 0 {
		return queue.Stored{}, nil, s.lineError()
	}
	if w != nil {
		return queue.Stored{}, w, nil
	}
	w, err := s.blockLocked(id, queue.Batch{Messages: r.Messages, Producer: r.Producer, Number: r.Batch}, totalBytes(r.Messages))
	return queue.Stored{}, w, err
}

// storeAllLocked stores what was decided.
func (f *flow) storeAllLocked(now queue.Instant, origin *part) (queue.Stored, *waiting[*blockedSend], error) {
	f.makeRoomLocked(now)
	for _, p := range f.order {
		if err := f.storeLocked(now, p); err != nil {
			// It was just said to be possible: memory and journal would part company.
			err = reason.New(reason.Internal, "copies could not be completed: %v", err).On(p.s.name)
			f.b.fail(err)
			return queue.Stored{}, nil, err
		}
	}
	return origin.stored, nil, nil
}
