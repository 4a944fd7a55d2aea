package broker

import (
	"context"
	"sync"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// receiver is a Receive call, or a consumer, that waits in line: a Receive call perhaps in those of several queues.
type receiver struct {
	caller   identity.Identity
	want     queue.LeaseRequest
	consumer *Consumer // nil: a Receive call

	// A Receive call's outcome. The first queue that ends it is the only one: no other leases anything for it any more. It may
	// be read when done is closed, or the call has left all lines.
	mu         sync.Mutex // taken after a queue's lock
	done       chan struct{}
	by         *served // who ended it, nil: nobody yet
	deliveries []queue.Delivery
	err        error
}

// newReceiver returns a Receive call that is to wait.
func newReceiver(id identity.Identity, want queue.LeaseRequest) *receiver {
	return &receiver{caller: id, want: want, done: make(chan struct{})}
}

// selector is what the receiver wants.
func (r *receiver) selector() queue.Selector {
	if r.consumer != nil {
		return r.consumer.want.Selector
	}
	return r.want.Selector
}

// fail ends a Receive call, or tells a consumer, that a queue is not for them any more.
func (r *receiver) fail(s *served, err error) {
	if r.consumer != nil {
		r.consumer.failLocked(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.endLocked(s, nil, err)
	}
}

// endLocked answers a Receive call that is not over.
func (r *receiver) endLocked(s *served, deliveries []queue.Delivery, err error) {
	r.by, r.deliveries, r.err = s, deliveries, err
	close(r.done)
}

// await waits until a queue has ended the call, or for too long.
func (r *receiver) await(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Receive hands out what is ready, or waits for it. See transport.Broker.
func (b *Broker) Receive(ctx context.Context, id identity.Identity, r ReceiveRequest) (out []queue.Delivery, err error) {
	if len(r.Queues) > 0 {
		return b.receiveAny(ctx, id, &r)
	}
	s, err := b.findInTurn(ctx, id, r.Queue, access.Receive, callWork)
	if err != nil {
		return nil, err
	}
	want, err := r.leaseRequest()
	if err != nil {
		return nil, on(s, err)
	}
	defer func() {
		if err == nil {
			b.fair.granted(id.Principal(), s.id, deliveryWork(out))
		}
	}()
	// Nobody in line matches what is ready: see served.
	got, now, err := s.lockAndLease(ctx, id, &want, nil)
	if err != nil || len(got) > 0 || r.Wait == 0 && (s.doorHeld == 0 || s.q.Paused()) {
		s.afterLocked(now)
		s.mu.Unlock()
		return s.handOver(ctx, got, want.Consume, on(s, err))
	}
	if err := b.quotas.Take(id.Principal(), quota.Receivers, 1); err != nil {
		s.mu.Unlock()
		return nil, on(s, err)
	}
	defer b.quotas.Give(id.Principal(), quota.Receivers, 1)
	w := &waiting[*receiver]{value: newReceiver(id, want)}
	if err := s.lineUpLocked(w); err != nil {
		s.mu.Unlock()
		return nil, err
	}
	recall := s.doorHeld > 0
	s.flushLocked()
	s.mu.Unlock()
	if recall {
		s.recall(ctx)()
	}
	w.value.await(ctx, r.Wait)
	s.leaveLine(w)
	return s.handOver(ctx, w.value.deliveries, want.Consume, on(s, w.value.err))
}

// lockAndLease takes the queue's lock, leases what is ready, adds it to what there is already and takes it off what is wanted.
// Where payloads have to be read first it gives the lock up meanwhile. An error is why this queue gave nothing, or the
// context's. The lock is held when it returns.
func (s *served) lockAndLease(ctx context.Context, id identity.Identity, want *queue.LeaseRequest, got []queue.Delivery) (_ []queue.Delivery, now queue.Instant, err error) {
	had := len(got)
	for {
		s.mu.Lock()
		now = s.b.now()
		if s.overdueLocked(now) {
			s.mu.Unlock()
			s.expire(now.Mono)
			s.mu.Lock()
		}
		before := len(got)
		if err = s.mayLocked(id, access.Receive); err == nil {
			want.Strict = before > 0
			got, err = s.q.Lease(now, *want, got)
		}
		for i := before; i < len(got); i++ {
			want.MaxBytes -= got[i].Bytes()
			want.Max--
		}
		if before > had {
			err = nil // what came first is handed out
		}
		if err != nil || want.Max <= 0 || want.MaxBytes <= 0 || before > had && len(got) == before {
			return got, now, err
		}
		w := s.missingLocked() // there is more, on disk
		if w == nil {
			return got, now, nil
		}
		s.flushLocked()
		s.mu.Unlock()
		s.fetch(w)
		if err := ctx.Err(); err != nil {
			s.mu.Lock()
			return got, now, err
		}
	}
}

// lineUpLocked puts a Receive call at the back of the line.
func (s *served) lineUpLocked(w *waiting[*receiver]) error {
	if s.receivers.len >= limits.WaitingReceivers {
		return reason.New(reason.QuotaExceeded, "%d receivers wait already, all that may", limits.WaitingReceivers).On(s.name)
	}
	s.receivers.push(w)
	return nil
}

func (s *served) leaveLine(w *waiting[*receiver]) {
	s.mu.Lock()
	s.receivers.remove(w)
	s.mu.Unlock()
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
	s.release(receiptsOf(got))
	return nil, err
}

func receiptsOf(got []queue.Delivery) []queue.Receipt {
	receipts := make([]queue.Receipt, len(got))
	for i := range got {
		receipts[i] = got[i].Receipt
	}
	return receipts
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
	if r.Wait < 0 || r.Wait > limits.WaitMax {
		return queue.LeaseRequest{}, reason.Invalid("wait", "wait %v: it must be 0 (not at all) to %v", r.Wait, limits.WaitMax)
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
