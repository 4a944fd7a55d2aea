package broker

import (
	"context"
	"io"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

const (
	// What is leased for a consumer and not yet fetched by Next is bounded, whatever the credit.
	outboxMessages = 512
	outboxBytes    = 1 << 20
	// turnMessages is how many messages a consumer gets before others in line have their turn.
	turnMessages = 128
	// sweepHeldMin is how many deliveries are held at least before stale ones are looked for.
	sweepHeldMin = 4096
)

// Consumer is one stream of deliveries. Its methods may be called concurrently.
type Consumer struct {
	s    *served
	id   identity.Identity
	want queue.LeaseRequest

	wake chan struct{} // told when Next has something to look at

	// Guarded by the queue's mu.
	place       *waiting[*receiver] // in line
	messages    uint64              // credit left
	bytes       int64               // credit left, if bytesLimited
	wholeBytes  int64               // the credit as it was last granted: one larger message passes alone
	bounded     bool                // bytes are limited
	credited    bool
	outbox      []queue.Delivery
	outboxBytes int
	nextTag     uint64 // of the first in the outbox
	outboxAge   uint64 // the queue's revoked when the outbox was last known to hold only live leases
	held        held
	sweepHeldAt uint64 // how many may be held before those whose leases ended are looked for
	draining    bool
	closed      bool
	err         error // why it ended
}

// Consume opens a Consumer. See transport.Broker.
func (b *Broker) Consume(ctx context.Context, id identity.Identity, r ConsumeRequest) (*Consumer, error) {
	s, err := b.find(id, r.Queue, access.Receive)
	if err != nil {
		return nil, err
	}
	sel, err := r.Selector.Check()
	if err == nil {
		err = checkLease(r.Lease, r.Consume)
	}
	if err != nil {
		return nil, on(s, err)
	}
	c := &Consumer{
		s: s, id: id, wake: make(chan struct{}, 1), nextTag: 1, sweepHeldAt: sweepHeldMin,
		want: queue.LeaseRequest{Selector: sel, Duration: r.Lease, Consume: r.Consume},
	}
	c.place = &waiting[*receiver]{value: &receiver{caller: id, consumer: c}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayLocked(id, access.Receive); err != nil {
		return nil, err
	}
	if len(s.consumers) >= limits.WaitingReceivers {
		return nil, reason.New(reason.QuotaExceeded, "the queue has %d consumers, all that it may", limits.WaitingReceivers).On(s.name)
	}
	if err := b.quotas.Take(id.Principal(), quota.Receivers, 1); err != nil {
		return nil, on(s, err)
	}
	s.consumers[c] = struct{}{}
	return c, nil
}

// Lease is the lease in force; 0 if deliveries are consumed at once.
func (c *Consumer) Lease() time.Duration {
	if c.want.Consume {
		return 0
	}
	if c.want.Duration > 0 {
		return c.want.Duration
	}
	return c.s.settings.Load().Lease
}

// Outstanding is how many messages are delivered and not settled.
func (c *Consumer) Outstanding() uint64 {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return uint64(max(0, int(c.held.live)-len(c.outbox)))
}

// Credit allows more deliveries.
func (c *Consumer) Credit(messages, bytes uint64) error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.messages+messages > limits.ConsumeCreditMax || messages > limits.ConsumeCreditMax {
		return reason.Invalid("credit.messages", "credit for %d more messages: at most %d may be outstanding", messages, limits.ConsumeCreditMax).On(s.name)
	}
	if bytes > 1<<40 || c.bytes+int64(bytes) > 1<<40 {
		return reason.Invalid("credit.bytes", "credit for %d more bytes: at most %d may be outstanding", bytes, int64(1)<<40).On(s.name)
	}
	if !c.credited {
		c.credited, c.bounded = true, bytes > 0
	} else if bytes > 0 && !c.bounded {
		return reason.Invalid("credit.bytes", "the first credit did not limit bytes: leave bytes out, or give them from the start").On(s.name)
	}
	c.messages += messages
	c.bytes += int64(bytes)
	c.wholeBytes = max(c.wholeBytes, c.bytes)
	c.lineUpLocked()
	s.afterLocked(s.b.now())
	return nil
}

// lineUpLocked joins those who wait, if the consumer may be served.
func (c *Consumer) lineUpLocked() {
	if c.held.live >= limits.ConsumeCreditMax {
		c.sweepHeldLocked()
	}
	if !c.place.in && c.mayTakeLocked() {
		c.s.receivers.push(c.place)
		if c.s.doorHeld > 0 {
			c.wakeLocked() // Next is to recall what the door holds
		}
	}
}

// sweepHeldLocked forgets deliveries whose leases are over: they ended, or were settled by receipt.
func (c *Consumer) sweepHeldLocked() {
	c.held.each(func(tag uint64, r queue.Receipt) {
		if tag < c.nextTag && !c.s.q.Holds(r) {
			c.held.remove(tag)
		}
	})
	c.sweepHeldAt = max(sweepHeldMin, min(2*c.held.live, limits.ConsumeCreditMax))
}

func (c *Consumer) mayTakeLocked() bool {
	return !c.closed && !c.draining && c.err == nil && c.messages > 0 && (!c.bounded || c.bytes > 0) &&
		len(c.outbox) < outboxMessages && c.outboxBytes < outboxBytes && c.held.live < limits.ConsumeCreditMax
}

// serveLocked takes a turn and reports whether it got something. The consumer goes to the back of the
// line, or out of it.
func (c *Consumer) serveLocked(n *waiting[*receiver], now queue.Instant) bool {
	s := c.s
	want := c.want
	want.Max = int(min(c.messages, turnMessages, uint64(outboxMessages-len(c.outbox))))
	want.MaxBytes = outboxBytes - c.outboxBytes
	if c.bounded {
		want.MaxBytes = int(min(int64(want.MaxBytes), c.bytes))
		if c.bytes < c.wholeBytes {
			want.MaxBody = int(c.bytes) // a message larger than all credit passes only when that is whole
		}
	}
	before := len(c.outbox)
	if before == 0 {
		c.outboxAge = s.revoked
	}
	got, err := s.q.Lease(now, want, c.outbox)
	c.outbox = got
	if err != nil {
		return false // too large for the credit that is left: somebody else may take it, or credit comes
	}
	if len(got) == before {
		return false
	}
	for i := before; i < len(got); i++ {
		size := got[i].Bytes()
		c.outboxBytes += size
		c.messages--
		if c.bounded {
			c.bytes -= int64(size)
		}
		if !want.Consume {
			c.held.add(c.nextTag+uint64(i), got[i].Receipt)
		}
	}
	if c.held.live >= c.sweepHeldAt {
		c.sweepHeldLocked()
	}
	s.receivers.remove(n)
	c.lineUpLocked()
	c.wakeLocked()
	return true
}

func (c *Consumer) wakeLocked() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// failLocked ends the consumer: its queue was deleted, or the daemon stops.
func (c *Consumer) failLocked(err error) {
	if c.err == nil {
		c.err = err
	}
	c.wakeLocked()
}

// dropStaleLocked takes out of the outbox what is no longer leased to the consumer, because its lease
// ended there or it was purged, and gives the credit back.
func (c *Consumer) dropStaleLocked() {
	c.outboxAge = c.s.revoked
	if c.want.Consume {
		return
	}
	kept := c.outbox[:0]
	for i := range c.outbox {
		d, tag := c.outbox[i], c.nextTag+uint64(i)
		c.held.remove(tag)
		if c.s.q.Holds(d.Receipt) {
			c.held.add(c.nextTag+uint64(len(kept)), d.Receipt) // tags follow each other without a gap
			kept = append(kept, d)
			continue
		}
		size := d.Bytes()
		c.outboxBytes -= size
		c.messages++
		if c.bounded {
			c.bytes += int64(size)
		}
	}
	clear(c.outbox[len(kept):])
	c.outbox = kept
}

// Next waits for deliveries. After Drain, or when the daemon stops, and once nothing more comes, it
// returns io.EOF.
func (c *Consumer) Next(ctx context.Context) (Deliveries, error) {
	s := c.s
	recalled := false
	if _, err := s.b.fair.enter(ctx, c.id.Principal(), callWork, s.id); err != nil {
		return Deliveries{}, err
	}
	for {
		s.mu.Lock()
		now := s.b.now()
		if s.overdueLocked(now) {
			s.mu.Unlock()
			s.expire(now.Mono)
			s.mu.Lock()
		}
		if c.outboxAge != s.revoked && len(c.outbox) > 0 {
			c.dropStaleLocked()
			c.lineUpLocked()
			s.afterLocked(now)
		}
		// What was consumed is nobody else's; what is leased Close gives back.
		if len(c.outbox) > 0 && !c.closed && (c.err == nil || c.want.Consume) {
			out := Deliveries{First: c.nextTag, Deliveries: c.outbox}
			c.nextTag += uint64(len(c.outbox))
			c.outbox, c.outboxBytes = nil, 0
			c.lineUpLocked()
			s.afterLocked(now)
			ticket := s.last
			s.mu.Unlock()
			s.b.fair.granted(c.id.Principal(), s.id, deliveryWork(out.Deliveries))
			if c.want.Consume {
				if err := s.b.Await(context.WithoutCancel(ctx), ticket); err != nil {
					return Deliveries{}, err
				}
			}
			return out, nil
		}
		err := c.err
		if err == nil && (c.closed || c.draining) {
			err = io.EOF
		}
		recall := err == nil && !recalled && s.doorHeld > 0 && c.place.in && !s.q.Paused()
		s.mu.Unlock()
		if err != nil {
			return Deliveries{}, err
		}
		if recall {
			recalled = true
			s.recall(ctx)()
			continue
		}
		select {
		case <-c.wake:
			recalled = false
		case <-ctx.Done():
			return Deliveries{}, ctx.Err()
		}
	}
}

// Settle settles deliveries by tag. Its outcome may be told after Await of the ticket.
func (c *Consumer) Settle(all []TagSettlement) (Settled, Ticket, error) {
	var out Settled
	total := uint64(0)
	for i := range all {
		if all[i].First == 0 || all[i].Last < all[i].First || all[i].Last-all[i].First >= limits.SettlementsPerFrame {
			return out, 0, reason.Invalid("settlements", "settlement %d: tags %d to %d: they count from 1 and a range has at most %d", i, all[i].First, all[i].Last, limits.SettlementsPerFrame)
		}
		total += all[i].Last - all[i].First + 1
	}
	if total > limits.SettlementsPerFrame {
		return out, 0, reason.Invalid("settlements", "settlements of %d deliveries: a frame may have %d", total, limits.SettlementsPerFrame)
	}
	if err := c.s.b.checkSettlements(int(total)); err != nil {
		return out, 0, err
	}
	if err := c.s.b.check(c.id, c.s, access.Receive); err != nil {
		return out, 0, err
	}
	var err error
	i, n := 0, uint64(0) // the settlement to go on with, and the delivery in its range
	ticket := c.s.settle(needsDead(all, func(t *TagSettlement) Outcome { return t.Outcome }), func(t queue.Settlements) (missing bool) {
		if c.s.deleted {
			err = c.s.goneLocked()
			return false
		}
		for ; i < len(all); i, n = i+1, 0 {
			for ; n <= all[i].Last-all[i].First; n++ { // Last may be the highest number there is
				if c.settleTagLocked(t, all[i].First+n, &all[i].Verdict, i, &out) {
					return true
				}
			}
		}
		c.lineUpLocked()
		return false
	})
	if work := workOf(int(total), 0); len(out.Failures) < int(total) {
		c.s.b.fair.granted(c.id.Principal(), c.s.id, work) // not held up: it makes room
	} else {
		c.s.b.fair.count(c.id.Principal(), work)
	}
	return out, ticket, err
}

// settleTagLocked reports true, and changes nothing, if a payload must be fetched first.
func (c *Consumer) settleTagLocked(t queue.Settlements, tag uint64, v *Verdict, index int, out *Settled) (missing bool) {
	receipt, ok := c.held.get(tag)
	if !ok || tag >= c.nextTag { // in the outbox it is not delivered yet
		err := reason.New(reason.StaleReceipt, "tag %d of this stream was settled, or never delivered", tag).On(c.s.name)
		out.Failures = append(out.Failures, SettleFailure{Index: index, Tag: tag, Err: err})
		return false
	}
	failures := len(out.Failures)
	if c.s.apply(t, receipt, v, index, tag, out) {
		return true
	}
	stale := len(out.Failures) > failures && reason.Of(out.Failures[failures].Err) == reason.StaleReceipt
	if stale || v.Outcome != Touch && len(out.Failures) == failures {
		c.held.remove(tag)
	}
	return false
}

// Drain ends deliveries. What was delivered can still be settled.
func (c *Consumer) Drain() {
	c.s.mu.Lock()
	c.stopLocked()
	c.s.mu.Unlock()
}

// stopLocked ends deliveries after those that are on their way.
func (c *Consumer) stopLocked() {
	c.draining = true
	c.s.receivers.remove(c.place)
	c.wakeLocked()
}

// Close ends the consumer. What is still leased is returned: uncounted if graceful is true, or if it
// never left the outbox; else as a failed attempt.
func (c *Consumer) Close(graceful bool) {
	s := c.s
	s.mu.Lock()
	closed := c.closed
	c.closed = true
	s.receivers.remove(c.place)
	delete(s.consumers, c)
	s.mu.Unlock()
	if closed {
		return
	}
	s.b.quotas.Give(c.id.Principal(), quota.Receivers, 1)
	// Nothing is added to what is held any more.
	s.settle(true, func(t queue.Settlements) (missing bool) {
		c.held.each(func(tag uint64, r queue.Receipt) {
			var err error
			if graceful || tag >= c.nextTag {
				err = t.Release(r) // stale ones are settled otherwise
			} else {
				err = t.Break(r)
			}
			missing = missing || err == queue.ErrMissing
		})
		return missing
	})
	s.mu.Lock()
	c.held, c.outbox = held{}, nil
	c.wakeLocked()
	s.mu.Unlock()
}
