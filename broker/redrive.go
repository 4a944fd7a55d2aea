package broker

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// redriveWindow is how many messages are looked at together: few enough that their payloads stay in memory while they are
// moved, queue by queue.
const redriveWindow = limits.MoveMessages

// Redrive moves dead letters back. See transport.Broker.
func (b *Broker) Redrive(ctx context.Context, id identity.Identity, r RedriveRequest) ([]Redriven, error) {
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return nil, err
	}
	s, err := b.find(id, r.Queue, access.Receive)
	if err != nil {
		return nil, err
	}
	if r.Filter.Selector, err = r.Filter.Selector.Check(); err != nil {
		return nil, on(s, err)
	}
	if r.Max < 0 {
		return nil, reason.Invalid("limit", "limit %d: it must be 0 (all) or more", r.Max)
	}
	if !r.DryRun {
		defer s.recall(ctx)()
	}
	d := redrive{b: b, id: id, from: s, dryRun: r.DryRun, left: math.MaxInt64, ways: map[string]*way{}}
	if r.Max > 0 {
		d.left = int64(r.Max)
	}
	err = d.run(ctx, s.until(r.Filter))
	if awaitErr := b.Await(ctx, d.ticket()); awaitErr != nil {
		err = awaitErr
	}
	return d.outcome(), err
}

// redrive is one call of Redrive.
type redrive struct {
	b      *Broker
	id     identity.Identity
	from   *served
	dryRun bool
	left   int64 // messages that may still go
	ways   map[string]*way
}

// way is a queue that dead letters go back to.
type way struct {
	mover *mover // nil: there is no way
	done  int64
	err   error // nothing more goes there
}

// run goes through the queue once, a window at a time.
func (d *redrive) run(ctx context.Context, f queue.Filter) error {
	for next := max(1, f.MinSequence); next != 0 && d.left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		first := next
		var origins []string
		var err error
		if origins, next, err = d.window(f, first); err != nil {
			return err
		}
		in := f
		if in.MinSequence = first; next != 0 {
			in.MaxSequence = min(f.MaxSequence, next-1)
		}
		for _, name := range origins {
			if d.left <= 0 {
				break
			}
			if err := d.home(ctx, name, in); err != nil {
				return err
			}
		}
		if err := d.b.adminTurn(ctx, d.id, workOf(redriveWindow, 0)); err != nil {
			return err
		}
	}
	return nil
}

// window finds out where the dead letters of the next few messages come from.
func (d *redrive) window(f queue.Filter, first uint64) ([]string, uint64, error) {
	s := d.from
	s.mu.Lock()
	err := s.mayLocked(d.id, access.Receive)
	if err == nil && s.damaged.Load() != nil {
		err = damagedError(s)
	}
	if err != nil {
		s.mu.Unlock()
		return nil, 0, err
	}
	origins, next := s.q.Origins(s.b.now(), &f, first, redriveWindow)
	w := s.missingLocked()
	s.mu.Unlock()
	if w != nil {
		s.fetch(w)
	}
	return origins, next, nil
}

// home moves those dead letters of a window that come from one queue. Errors of that queue are not the call's.
func (d *redrive) home(ctx context.Context, name string, f queue.Filter) error {
	way := d.way(name)
	if way.err != nil {
		return nil
	}
	f.Headers = append(slices.Clone(f.Headers), queue.Header{Key: queue.HeaderDeadQueue, Value: []byte(name)})
	done, _, err := way.mover.move(ctx, f, f.MinSequence, d.left)
	way.done += done
	d.left -= done
	if ctx.Err() != nil {
		return ctx.Err()
	}
	way.err = err
	return nil
}

// way is the way back to a queue.
func (d *redrive) way(name string) *way {
	if known := d.ways[name]; known != nil {
		return known
	}
	if len(d.ways) == limits.RedriveQueues {
		name = "" // all others, which a further call looks at
	}
	w := d.ways[name]
	if w == nil {
		w = &way{}
		d.ways[name] = w
	}
	switch {
	case w.err != nil:
	case name == "":
		w.err = reason.New(reason.QuotaExceeded, "the dead letters come from more than %d queues: once these are gone, redrive again, or narrow the filter", limits.RedriveQueues)
	default:
		if w.mover, w.err = d.b.newMoverFrom(d.id, d.from, name, d.dryRun); w.mover == nil {
			break
		}
		w.mover.home = true
		if to := w.mover.to; to.settings.Load().DeadLetter != d.from.name {
			// The header alone proves nothing: whoever may send here can write it.
			w.mover, w.err = nil, reason.New(reason.AccessDenied, "%s is not its dead-letter queue (any more): move the messages by name, if they are meant to go there", d.from.name).On(name)
		}
	}
	return w
}

func (d *redrive) ticket() (t Ticket) {
	for _, w := range d.ways {
		if w.mover != nil {
			t = max(t, w.mover.ticket)
		}
	}
	return t
}

// outcome is what went where, by name.
func (d *redrive) outcome() []Redriven {
	out := make([]Redriven, 0, len(d.ways))
	for name, w := range d.ways {
		out = append(out, Redriven{Queue: name, Messages: w.done, Err: w.err})
	}
	slices.SortFunc(out, func(a, b Redriven) int { return cmp.Compare(a.Queue, b.Queue) })
	return out
}
