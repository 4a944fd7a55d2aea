package broker

import (
	"context"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Settle settles deliveries by receipt, each for itself. See transport.Broker.
func (b *Broker) Settle(ctx context.Context, id identity.Identity, all []Settlement) (Settled, error) {
	if len(all) > limits.SettlementsPerFrame {
		return Settled{}, reason.Invalid("settlements", "%d settlements: a request may have %d", len(all), limits.SettlementsPerFrame)
	}
	if err := b.checkSettlements(len(all)); err != nil {
		return Settled{}, err
	}
	var out Settled
	var ticket Ticket
	for i := 0; i < len(all); {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		// Neighbours of one queue are settled under one hold of its lock.
		end := i + 1
		for end < len(all) && all[end].Receipt.Queue == all[i].Receipt.Queue {
			end++
		}
		ticket = max(ticket, b.settleRun(id, all, i, end, &out))
		i = end
	}
	switch failed := len(out.Failures); {
	case failed == len(all): // no room was made
		if _, err := b.fair.enter(ctx, id.Principal(), workOf(failed, 0)); err != nil {
			return out, err
		}
	case failed > 0:
		b.fair.count(id.Principal(), workOf(failed, 0))
	}
	return out, b.Await(ctx, ticket)
}

// settlementBytes is what a settlement takes at most in the journal.
const settlementBytes = 16

// checkSettlements says whether so many fit a frame of the journal: with segments of the default size any do.
func (b *Broker) checkSettlements(n int) error {
	if b.journal != nil && int64(n)*settlementBytes+frameRest > b.maxFrame {
		return reason.Invalid("settlements", "%d settlements: with this segment_size a request may have %d", n, (b.maxFrame-frameRest)/settlementBytes)
	}
	return nil
}

func (b *Broker) settleRun(id identity.Identity, all []Settlement, i, end int, out *Settled) Ticket {
	b.mu.RLock()
	s := b.byID[all[i].Receipt.Queue]
	b.mu.RUnlock()
	fail := func(i int, err error) {
		for j := i; j < end; j++ {
			out.Failures = append(out.Failures, SettleFailure{Index: j, Err: err})
		}
	}
	gone := func() error {
		return reason.New(reason.StaleReceipt, "receipt %v is of a queue that is not there (any more)", all[i].Receipt)
	}
	if s == nil {
		fail(i, gone())
		return 0
	}
	if err := b.check(id, s, access.Receive); err != nil {
		fail(i, err)
		return 0
	}
	run := all[i:end]
	done, failed := 0, len(out.Failures)
	defer func() {
		if len(out.Failures)-failed < len(run) {
			work := workOf(len(run), 0)
			if i > 0 {
				work -= callWork // the call's first run stands for it
			}
			s.b.fair.granted(id.Principal(), s.id, work)
		}
	}()
	return s.settle(needsDead(run, func(t *Settlement) Outcome { return t.Outcome }), func(t queue.Settlements) (missing bool) {
		if s.deleted {
			fail(i+done, gone())
			return false
		}
		for ; done < len(run); done++ {
			if s.apply(t, run[done].Receipt, &run[done].Verdict, i+done, 0, out) {
				return true
			}
		}
		return false
	})
}

// needsDead reports whether something may be dead-lettered.
func needsDead[T any](all []T, outcome func(*T) Outcome) bool {
	for i := range all {
		if o := outcome(&all[i]); o == Nack || o == Release {
			return true
		}
	}
	return false
}

// settle runs settlements under the queue's lock, with its dead-letter queue if it is needed. Where run
// reports that a payload is missing it is fetched, and run called again to go on. The ticket stands for
// all that was settled.
func (s *served) settle(withDead bool, run func(queue.Settlements) (missing bool)) Ticket {
	for {
		var dead *served
		if withDead {
			dead = s.lockWithDead()
		} else {
			s.mu.Lock()
		}
		now := s.b.now()
		t := s.q.Begin(now, dead.queue())
		again := run(t)
		t.End()
		var w *wanted
		if again {
			w = s.missingLocked()
		}
		s.finishWithDeadLocked(dead, now)
		ticket := s.last
		s.unlockWithDead(dead)
		if !again || s.b.Failure() != nil {
			return ticket // after a failure nobody is told an outcome
		}
		if w != nil {
			s.fetch(w)
		}
	}
}

// apply carries out one settlement and notes what is to be said about it. It reports true, and changes
// nothing, if a payload must be fetched first.
func (s *served) apply(t queue.Settlements, receipt queue.Receipt, v *Verdict, index int, tag uint64, out *Settled) (missing bool) {
	var err error
	switch v.Outcome {
	case Ack:
		err = t.Ack(receipt)
	case Nack:
		err = t.Nack(receipt, v.Delay, v.Reason)
	case Touch:
		var ends int64
		if ends, err = t.Touch(receipt, v.Lease); err == nil {
			out.Touched = append(out.Touched, Touched{Index: index, LeaseEnds: ends})
		}
	case Release:
		err = t.Release(receipt)
	case Bury:
		err = t.Bury(receipt, v.Reason)
	default:
		err = reason.Invalid("outcome", "a settlement without an outcome: say ack, nack, touch, release or bury")
	}
	if err == queue.ErrMissing {
		return true
	}
	if err != nil {
		out.Failures = append(out.Failures, SettleFailure{Index: index, Tag: tag, Err: on(s, err)})
	}
	return false
}
