package broker

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// haul is what a Receive call got from one of its queues.
type haul struct {
	s    *served
	from int // place of the first in the call's deliveries
}

// receiveAny is Receive from several queues.
func (b *Broker) receiveAny(ctx context.Context, id identity.Identity, r *ReceiveRequest) (out []queue.Delivery, err error) {
	queues, err := b.findAnyInTurn(ctx, id, r)
	if err != nil {
		return nil, err
	}
	want, err := r.leaseRequest()
	if err != nil {
		return nil, err
	}
	// All that have something are equally likely to be first, whatever their neighbours have.
	rand.Shuffle(len(queues), func(i, j int) { queues[i], queues[j] = queues[j], queues[i] })
	got, hauls, err := b.leaseAny(ctx, id, queues, want)
	if err == nil && len(got) == 0 && (r.Wait > 0 || anyHeldByDoor(queues)) {
		got, hauls, err = b.awaitAny(ctx, id, queues, want, r)
	}
	if got, err = b.handOverAny(ctx, got, hauls, want.Consume, err); err != nil {
		return nil, err
	}
	for i, h := range hauls[:min(len(hauls), fairQueues)] {
		work := time.Duration(0)
		if i == 0 { // for all of them
			work = deliveryWork(got)
		}
		b.fair.granted(id.Principal(), h.s.id, work)
	}
	return got, nil
}

// findAnyInTurn is findInTurn for a call on several queues.
func (b *Broker) findAnyInTurn(ctx context.Context, id identity.Identity, r *ReceiveRequest) ([]*served, error) {
	queues, err := b.findAny(id, r)
	ids := make([]uint64, len(queues))
	for i, s := range queues {
		ids[i] = s.id
	}
	held, turnErr := b.fair.enter(ctx, id.Principal(), callWork, ids...)
	switch {
	case turnErr != nil:
		return nil, turnErr
	case err == nil && held:
		return b.findAny(id, r) // they may be deleted, and access withdrawn
	}
	return queues, err
}

func (b *Broker) findAny(id identity.Identity, r *ReceiveRequest) ([]*served, error) {
	if r.Queue != "" {
		return nil, reason.Invalid("queues", "both queue and queues: name one queue, or up to %d queues", limits.ReceiveQueues)
	}
	if len(r.Queues) > limits.ReceiveQueues {
		return nil, reason.Invalid("queues", "%d queues: a receive may name %d", len(r.Queues), limits.ReceiveQueues)
	}
	queues := make([]*served, 0, len(r.Queues))
	seen := make(map[*served]bool, len(r.Queues))
	for _, name := range r.Queues {
		s, err := b.find(id, name, access.Receive)
		if err != nil {
			return nil, err
		}
		if seen[s] {
			return nil, reason.Invalid("queues", "queue %s is named twice: name each once", name)
		}
		seen[s] = true
		queues = append(queues, s)
	}
	return queues, nil
}

// leaseAny leases what is ready: first from each queue its share, then what else there is. The error is the first
// queue's that gave nothing for one, if none gave anything; or the context's.
func (b *Broker) leaseAny(ctx context.Context, id identity.Identity, queues []*served, want queue.LeaseRequest) (got []queue.Delivery, hauls []haul, err error) {
	share := (want.Max + len(queues) - 1) / len(queues)
	more := queues // may have more than they gave
	for _, most := range []int{share, want.Max} {
		asked := more
		more = nil
		for _, s := range asked {
			if want.Max <= 0 || want.MaxBytes <= 0 {
				return got, hauls, nil
			}
			before := len(got)
			part := want
			part.Max = min(most, want.Max)
			var now queue.Instant
			var leaseErr error
			got, now, leaseErr = s.lockAndLease(ctx, id, &part, got)
			if n := len(got) - before; n > 0 {
				want.Max -= n
				want.MaxBytes = part.MaxBytes
				hauls = append(hauls, haul{s, before})
				if part.Max == 0 {
					more = append(more, s)
				}
				s.afterLocked(now)
			} else {
				s.flushLocked()
			}
			s.mu.Unlock()
			for i := before; i < len(got); i++ {
				got[i].Queue = s.name
			}
			if err == nil {
				err = on(s, leaseErr)
			}
			if ctx.Err() != nil {
				return got, hauls, ctx.Err()
			}
		}
	}
	if len(got) > 0 {
		err = nil
	}
	return got, hauls, err
}

// anyHeldByDoor reports whether a kernel door holds messages that could be handed out.
func anyHeldByDoor(queues []*served) bool {
	for _, s := range queues {
		s.mu.Lock()
		held := s.doorHeld > 0 && !s.q.Paused()
		s.mu.Unlock()
		if held {
			return true
		}
	}
	return false
}

// awaitAny stands in the lines of all queues until one of them has something.
func (b *Broker) awaitAny(ctx context.Context, id identity.Identity, queues []*served, want queue.LeaseRequest, r *ReceiveRequest) (got []queue.Delivery, hauls []haul, err error) {
	if err := b.quotas.Take(id.Principal(), quota.Receivers, 1); err != nil {
		return nil, nil, err
	}
	defer b.quotas.Give(id.Principal(), quota.Receivers, 1)
	v := newReceiver(id, want)
	places := make([]waiting[*receiver], len(queues))
	lined := 0
	for _, s := range queues {
		places[lined].value = v
		s.mu.Lock()
		if err = s.mayLocked(id, access.Receive); err == nil {
			err = s.lineUpLocked(&places[lined])
		}
		if err != nil {
			s.mu.Unlock()
			break
		}
		lined++
		recall := s.doorHeld > 0
		s.afterLocked(b.now()) // something may have come since it was looked at
		s.mu.Unlock()
		if recall {
			s.recall(ctx)()
		}
		if v.ended() {
			break
		}
	}
	wait := r.Wait
	if err != nil {
		wait = 0
	}
	v.await(ctx, wait)
	for i := range places[:lined] {
		queues[i].leaveLine(&places[i])
	}
	if v.by == nil {
		return nil, nil, err
	}
	for i := range v.deliveries {
		v.deliveries[i].Queue = v.by.name
	}
	if len(v.deliveries) > 0 {
		hauls = []haul{{v.by, 0}}
	}
	return v.deliveries, hauls, on(v.by, v.err)
}

// ended reports whether a queue has ended the call.
func (r *receiver) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// handOverAny is handOver for what came from several queues.
func (b *Broker) handOverAny(ctx context.Context, got []queue.Delivery, hauls []haul, consumed bool, err error) ([]queue.Delivery, error) {
	if err == nil {
		err = ctx.Err()
	}
	if len(got) == 0 {
		return nil, err
	}
	if consumed {
		var ticket Ticket
		for _, h := range hauls {
			ticket = max(ticket, h.s.ticket())
		}
		// It is gone from the queues: that the caller may be gone does not keep it.
		return got, b.Await(context.WithoutCancel(ctx), ticket)
	}
	if err == nil {
		return got, nil
	}
	end := len(got)
	for i := len(hauls) - 1; i >= 0; i-- {
		hauls[i].s.release(receiptsOf(got[hauls[i].from:end]))
		end = hauls[i].from
	}
	return nil, err
}
