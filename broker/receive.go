package broker

import (
	"context"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// receiver is a Receive call, or a consumer, that waits in line.
type receiver struct {
	caller   identity.Identity
	want     queue.LeaseRequest
	consumer *Consumer // nil: a Receive call

	// A Receive call's outcome, valid once done is closed.
	done       chan struct{}
	deliveries []queue.Delivery
	err        error
}

// selector is what the receiver wants.
func (r *receiver) selector() queue.Selector {
	if r.consumer != nil {
		return r.consumer.want.Selector
	}
	return r.want.Selector
}

// end answers a Receive call, or wakes a consumer.
func (r *receiver) end(deliveries []queue.Delivery, err error) {
	if r.consumer != nil {
		r.consumer.failLocked(err)
		return
	}
	r.deliveries, r.err = deliveries, err
	close(r.done)
}

// Receive hands out what is ready, or waits for it. See transport.Broker.
func (b *Broker) Receive(ctx context.Context, id identity.Identity, r ReceiveRequest) (out []queue.Delivery, err error) {
	s, err := b.findInTurn(ctx, id, r.Queue, access.Receive, callWork)
	if err != nil {
		return nil, err
	}
	want, err := r.leaseRequest()
	if err != nil {
		return nil, on(s, err)
	}
	if r.Wait < 0 || r.Wait > limits.WaitMax {
		return nil, reason.Invalid("wait", "wait %v: it must be 0 (not at all) to %v", r.Wait, limits.WaitMax)
	}
	defer func() {
		if err == nil {
			b.fair.granted(id.Principal(), s.id, deliveryWork(out))
		}
	}()
	var now queue.Instant
	var got []queue.Delivery
	for {
		s.mu.Lock()
		now = b.now()
		if s.overdueLocked(now) {
			s.mu.Unlock()
			s.expire(now.Mono)
			s.mu.Lock()
		}
		if err := s.mayLocked(id, access.Receive); err != nil {
			s.mu.Unlock()
			if len(got) > 0 {
				return s.handOver(ctx, got, want.Consume, nil)
			}
			return nil, err
		}
		// Nobody in line matches what is ready: see served.
		before := len(got)
		got, err = s.q.Lease(now, want, got)
		if before > 0 {
			err = nil // what came first is handed out
		}
		for i := before; i < len(got); i++ {
			want.MaxBytes -= got[i].Bytes()
			want.Max--
		}
		var w *wanted
		if err == nil && want.Max > 0 && want.MaxBytes > 0 && (before == 0 || len(got) > before) {
			w = s.missingLocked() // there is more, on disk
		}
		if w == nil {
			break
		}
		s.flushLocked()
		s.mu.Unlock()
		s.fetch(w)
		if ctx.Err() != nil {
			return s.handOver(ctx, got, want.Consume, nil)
		}
	}
	if err != nil || len(got) > 0 || r.Wait == 0 && (s.doorHeld == 0 || s.q.Paused()) {
		s.afterLocked(now)
		s.mu.Unlock()
		return s.handOver(ctx, got, want.Consume, on(s, err))
	}
	if s.receivers.len >= limits.WaitingReceivers {
		s.mu.Unlock()
		return nil, reason.New(reason.QuotaExceeded, "%d receivers wait already, all that may", limits.WaitingReceivers).On(s.name)
	}
	if err := b.quotas.Take(id.Principal(), quota.Receivers, 1); err != nil {
		s.mu.Unlock()
		return nil, on(s, err)
	}
	defer b.quotas.Give(id.Principal(), quota.Receivers, 1)
	w := &waiting[*receiver]{value: &receiver{caller: id, want: want, done: make(chan struct{})}}
	s.receivers.push(w)
	recall := s.doorHeld > 0
	s.flushLocked()
	s.mu.Unlock()
	if recall {
		s.recall(ctx)()
	}
	timer := time.NewTimer(r.Wait)
	defer timer.Stop()
	select {
	case <-w.value.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.receivers.remove(w)
	s.mu.Unlock()
	// Out of line: nobody writes the outcome any more.
	return s.handOver(ctx, w.value.deliveries, want.Consume, on(s, w.value.err))
}

// handOver releases what was leased for a caller that is gone.
func (s *served) handOver(ctx context.Context, got []queue.Delivery, consumed bool, err error) ([]queue.Delivery, error) {
	if err == nil {
		err = ctx.Err()
	}
	if consumed && len(got) > 0 {
		s.mu.Lock()
		ticket := s.last
		s.mu.Unlock()
		// It is gone from the queue: that the caller may be gone does not keep it.
		return got, s.b.Await(context.WithoutCancel(ctx), ticket)
	}
	if err == nil || consumed {
		if len(got) > 0 {
			return got, nil
		}
		return nil, err
	}
	receipts := make([]queue.Receipt, len(got))
	for i := range got {
		receipts[i] = got[i].Receipt
	}
	s.release(receipts)
	return nil, err
}

// release gives leases back, uncounted. Stale receipts are passed over.
func (s *served) release(receipts []queue.Receipt) {
	if len(receipts) == 0 {
		return
	}
	done := 0
	s.settle(true, func(t queue.Settlements) (missing bool) {
		for ; done < len(receipts); done++ {
			if t.Release(receipts[done]) == queue.ErrMissing {
				return true
			}
		}
		return false
	})
}

func (r *ReceiveRequest) leaseRequest() (queue.LeaseRequest, error) {
	sel, err := r.Selector.Check()
	if err != nil {
		return queue.LeaseRequest{}, err
	}
	if r.Max == 0 {
		r.Max = 1
	}
	if r.Max < 0 || r.Max > limits.ReceiveMessages {
		return queue.LeaseRequest{}, reason.Invalid("max_messages", "max_messages %d: it must be 1 to %d", r.Max, limits.ReceiveMessages)
	}
	if r.MaxBody < 0 || r.Truncate && r.MaxBody == 0 {
		return queue.LeaseRequest{}, reason.Invalid("max_body_bytes", "truncate needs max_body_bytes above 0")
	}
	if err := checkLease(r.Lease, r.Consume); err != nil {
		return queue.LeaseRequest{}, err
	}
	return queue.LeaseRequest{
		Selector: sel, Max: r.Max, MaxBytes: limits.ReceiveBytes, Duration: r.Lease,
		Consume: r.Consume, MaxBody: r.MaxBody, Truncate: r.Truncate,
	}, nil
}

func checkLease(lease time.Duration, consume bool) error {
	if lease == 0 {
		return nil
	}
	if consume {
		return reason.Invalid("lease", "a lease of %v for messages that are consumed at once: leave one of them out", lease)
	}
	return queue.CheckLease(lease)
}

// on adds the queue's name to an error that may be shown.
func on(s *served, err error) error { return named(err, s.name) }

// named is on for a queue that is not there yet.
func named(err error, name string) error {
	if e, ok := err.(*reason.Error); ok {
		mine := *e // one error may be told to several who wait
		return mine.On(name)
	}
	return err
}
