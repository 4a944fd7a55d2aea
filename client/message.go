package client

import (
	"context"
	"time"
)

// Message is what a program hands in: a body and what is said about it.
type Message struct {
	Type          int64             // positive, chosen by the sender, as mtype of msgsnd(2); 0 stands for 1
	Priority      uint16            // 0 to 32767, higher first, as in mq_send(3)
	Body          []byte            // may be empty
	Headers       map[string][]byte // travel with the body
	Delay         time.Duration     // not delivered before this long after it was sent; 0: none
	NotBefore     time.Time         // not delivered before; zero: none. Not together with Delay.
	TTL           time.Duration     // dropped when it was not consumed this long after it was sent; 0: never
	DedupID       string            // a second message with the same id within the queue's window is not stored again
	CorrelationID string            // for the programs' own use
	ReplyTo       string            // the queue in which an answer is expected
	ContentType   string            // the media type of the body
}

// Sent is the outcome of one message.
type Sent struct {
	Sequence  uint64    // rises in each queue, never used twice
	Duplicate bool      // not stored: Sequence is that of the first message with its dedup id
	SentAt    time.Time // as the daemon stamped it
}

// Receipt names one delivery of one message, and no later one. It is text, safe in a shell, and may be
// handed to another program for settling.
type Receipt string

// Delivery is a message as it is handed out. Its TTL is the one it was sent with; Delay and NotBefore,
// which are over, are zero.
//
// Its methods settle it. They fail with ErrStaleReceipt, and change nothing, once the delivery is over:
// settled before, its lease expired, or the stream that it came from broken.
type Delivery struct {
	Message
	Queue         string    // the queue's name
	Sequence      uint64    // rises in each queue, never used twice
	Attempts      int       // leases of this message that ended in nack, expiry or a broken stream
	SentAt        time.Time // as the daemon stamped it
	LeaseExpires  time.Time // by the daemon's clock, as of the delivery; zero if consumed at once
	Receipt       Receipt   // "" if consumed at once, and in Consume unless asked for
	TruncatedFrom int       // the length in bytes of the whole body, if it was cut to the receiver's buffer; else 0

	lease lease // how to settle it; nil if consumed at once
}

// lease is what a delivery is settled through: its receipt, or its tag in a stream.
type lease interface {
	// settle says what becomes of the delivery, and returns the new end of a lease that was touched.
	settle(ctx context.Context, d *Delivery, v verdict) (time.Time, error)
}

// Ack says that the message is done. It is removed.
func (d *Delivery) Ack(ctx context.Context) error {
	_, err := d.settle(ctx, verdict{outcome: OutcomeAck})
	return err
}

// Nack says that it failed; it counts as an attempt and comes again, after delay: 0 is at once,
// Backoff the queue's back-off. why, of at most 256 bytes, goes into the headers should the message be
// dead-lettered.
func (d *Delivery) Nack(ctx context.Context, delay time.Duration, why string) error {
	_, err := d.settle(ctx, verdict{outcome: OutcomeNack, delay: delay, reason: why})
	return err
}

// Touch restarts the lease from now, for as long as given or, with 0, as long as it was. It returns the
// lease's new end by the daemon's clock.
func (d *Delivery) Touch(ctx context.Context, lease time.Duration) (time.Time, error) {
	return d.settle(ctx, verdict{outcome: OutcomeTouch, lease: lease})
}

// Release gives the message back without counting an attempt.
func (d *Delivery) Release(ctx context.Context) error {
	_, err := d.settle(ctx, verdict{outcome: OutcomeRelease})
	return err
}

// Bury sets the message aside until it is kicked. why has at most 256 bytes.
func (d *Delivery) Bury(ctx context.Context, why string) error {
	_, err := d.settle(ctx, verdict{outcome: OutcomeBury, reason: why})
	return err
}
