package client

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Handler works on one delivery. If it returns nil the message is acked, else nacked, with the error as
// the reason; the delay is the queue's back-off, or that of NackAfter. A handler may also settle the delivery
// itself; its result then counts for nothing.
//
// While it works the lease is prolonged for it. Its context outlives the end of Consume's, so that it can
// finish; it ends when the message is no longer the handler's, because the connection broke, and
// after ConsumeOptions.Grace.
type Handler func(ctx context.Context, d *Delivery) error

// ConsumeOptions says what Consume takes and how. The zero value works on one message at a time.
type ConsumeOptions struct {
	Selector    Selector
	Lease       time.Duration // 0: the queue's
	Concurrency int           // handlers at the same time; 0 stands for 1
	Prefetch    int           // messages delivered and not yet done, those in handlers included; 0: the larger of 512 and twice Concurrency
	MaxBytes    int           // of those messages, unless one is larger; 0: 16 MiB
	AtOnce      bool          // the messages count as consumed when they are handed out; nothing is settled
	Receipts    bool          // fill in Delivery.Receipt, for settling elsewhere
	Grace       time.Duration // how long handlers may go on once ctx ended, before their context ends too; 0: as long as they need
	// OnError is told of settlements that failed, and of handlers that failed where nothing can be
	// nacked. It may be called concurrently and must not wait for a settlement. nil: such errors are
	// ignored, for the message comes again.
	OnError func(d *Delivery, err error)
	// OnReconnect is told why the connection broke before it is made again. It may be nil.
	OnReconnect func(err error)
}

const (
	consumePrefetch = 512
	consumeBytes    = 16 << 20
)

// NackAfter returns an error that wraps err and lets Consume nack with this delay instead of the queue's
// back-off; 0 is at once.
func NackAfter(err error, delay time.Duration) error { return &nackAfter{err, max(0, delay)} }

type nackAfter struct {
	error
	delay time.Duration
}

func (n *nackAfter) Unwrap() error { return n.error }

// Consume hands the queue's messages to h until ctx ends, and then stops gracefully: it takes no more,
// gives back what no handler has begun, waits for the handlers, settles, and returns nil.
//
// It fails with ErrUnreachable where no daemon answers, and when the daemon refuses: the queue does not
// exist, or is deleted. A connection that breaks later is made again, unless the certificate is not accepted any more
// (ErrUnauthenticated); the deliveries of the
// broken one come again and can no longer be settled (ErrStaleReceipt). Should it break while stopping,
// the error says so.
func (q *Queue) Consume(ctx context.Context, h Handler, o ConsumeOptions) error {
	if e := o.complete(); e != nil {
		return e.on(q.name)
	}
	work := newBacklog()
	defer work.start(o.Concurrency, h)()
	return (&consumer{q: q, o: o, work: work.lineUp()}).run(ctx)
}

// complete sets what was left to its default.
func (o *ConsumeOptions) complete() *Error {
	if o.Concurrency < 0 || o.Prefetch < 0 || o.MaxBytes < 0 || o.Lease < 0 || o.Grace < 0 {
		return newError(reason.InvalidArgument, "concurrency %d, prefetch %d, bytes %d, lease %v, grace %v: they must not be negative",
			o.Concurrency, o.Prefetch, o.MaxBytes, o.Lease, o.Grace)
	}
	o.Concurrency = max(o.Concurrency, 1)
	o.Prefetch = cmpOr(o.Prefetch, min(max(consumePrefetch, 2*o.Concurrency), limits.ConsumeCreditMax))
	o.MaxBytes = cmpOr(o.MaxBytes, consumeBytes)
	if o.Prefetch > limits.ConsumeCreditMax || o.Concurrency > o.Prefetch {
		return newError(reason.InvalidArgument, "prefetch %d: it must be between the concurrency, %d, and %d", o.Prefetch, o.Concurrency, limits.ConsumeCreditMax)
	}
	return nil
}

// consumer takes the messages of one queue, in one stream after the other.
type consumer struct {
	q    *Queue
	o    ConsumeOptions
	work *lineUp
}

// run keeps a stream open until ctx ends or the daemon refuses.
func (c *consumer) run(ctx context.Context) error {
	for try, first := 0, true; ; try++ {
		s := newConsumeStream(ctx, c)
		e := s.run(ctx)
		switch {
		case e == nil && ctx.Err() != nil:
			return nil
		case e != nil && ctx.Err() != nil:
			if s.opened && !e.is(reason.Cancelled) {
				return e
			}
			return nil
		case e != nil && (first && !s.opened || !e.broken()):
			return e
		}
		if s.opened {
			first, try = false, 0
		}
		if e == nil {
			e = newError(reason.Unreachable, "the daemon ended the stream")
		}
		if c.o.OnReconnect != nil {
			c.o.OnReconnect(e)
		}
		if pause(ctx, try) != nil {
			return nil
		}
		if err := c.q.c.awaitAccepted(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

func (c *consumer) report(d *held, err error) {
	if c.o.OnError != nil {
		c.o.OnError(&d.Delivery, err)
	}
}

// verdictOf is what a handler's result means for its delivery.
func verdictOf(err error) verdict {
	if err == nil {
		return verdict{outcome: OutcomeAck}
	}
	v := verdict{outcome: OutcomeNack, delay: Backoff, reason: strings.ToValidUTF8(err.Error(), "?")}
	if len(v.reason) > limits.ReasonLength {
		v.reason = cutText(v.reason, limits.ReasonLength)
	}
	var after *nackAfter
	if errors.As(err, &after) {
		v.delay = after.delay
	}
	return v
}

// cutText cuts a text to at most n bytes without cutting a character.
func cutText(s string, n int) string {
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
