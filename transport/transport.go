// Package transport holds what all doors share: the Broker and the Rings they call.
package transport

import (
	"context"
	"io"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
)

// Broker is the broker as the doors see it. Every call says on whose behalf it is made; access is
// checked at every call. Errors are *reason.Error, or the context's.
type Broker interface {
	// CreateQueue makes a queue with the default settings as changed by edit. If it exists with the same
	// settings and exclusive is false, created is false.
	CreateQueue(ctx context.Context, id identity.Identity, name string, edit broker.Edit, exclusive bool) (info broker.Info, created bool, err error)
	GetQueue(ctx context.Context, id identity.Identity, name string) (broker.Info, error)
	UpdateQueue(ctx context.Context, id identity.Identity, name string, edit broker.Edit) (broker.Info, error)
	// DeleteQueue removes a queue and tells how many messages went with it.
	DeleteQueue(ctx context.Context, id identity.Identity, name string) (messages int64, err error)
	// ListQueues returns the queues that the caller may look at, by name. glob is a pattern of
	// path.Match over the name without its slash; "" matches all.
	ListQueues(ctx context.Context, id identity.Identity, glob string) ([]broker.Info, error)
	PauseQueue(ctx context.Context, id identity.Identity, name string, paused bool) (broker.Info, error)
	// Purge removes messages; no states in the filter: ready, delayed and buried ones. cursor is "" when done.
	Purge(ctx context.Context, id identity.Identity, r broker.SelectRequest) (messages int64, cursor string, err error)
	// Kick returns buried messages to ready.
	Kick(ctx context.Context, id identity.Identity, r broker.SelectRequest) (messages int64, cursor string, err error)

	// Move moves messages; no states in the filter: ready, delayed and buried ones. cursor is "" when done.
	Move(ctx context.Context, id identity.Identity, r broker.MoveRequest) (messages int64, cursor string, err error)
	// Redrive moves dead letters back to where they came from. It tells about each of those queues, by name.
	Redrive(ctx context.Context, id identity.Identity, r broker.RedriveRequest) ([]broker.Redriven, error)
	// Bind lets a queue hand on copies of what is sent to it; a bind that is there is changed. It tells about the source.
	Bind(ctx context.Context, id identity.Identity, source string, bind queue.Bind) (broker.Info, error)
	// Unbind ends a bind. That there is none is no error.
	Unbind(ctx context.Context, id identity.Identity, source, destination string) (broker.Info, error)
	// OpenTemporary makes a memory queue with a name of its own, which ends when close is called.
	OpenTemporary(ctx context.Context, id identity.Identity, edit broker.Edit) (info broker.Info, close func(), err error)

	// RegisterSchema makes the next version of a queue's schema.
	RegisterSchema(ctx context.Context, id identity.Identity, r broker.SchemaRequest) (broker.SchemaOutcome, error)
	// GetSchema tells a version of a queue's schema, 0 being the current one, and which versions are kept.
	GetSchema(ctx context.Context, id identity.Identity, queue string, version uint32) (s queue.Schema, versions []uint32, err error)
	// RemoveSchema removes all versions of a queue's schema.
	RemoveSchema(ctx context.Context, id identity.Identity, queue string) error

	// Send returns when the batch is on disk, where the queue's durability asks for that. So do all calls
	// but Submit and Consumer.Settle, whose outcome may be told only after Await of the ticket.
	Send(ctx context.Context, id identity.Identity, r broker.SendRequest) (queue.Stored, error)
	// Submit is Send that does not wait for the disk. Tickets may come with errors too.
	Submit(ctx context.Context, id identity.Identity, r broker.SendRequest) (queue.Stored, broker.Ticket, error)
	// Await waits until what the ticket stands for is on disk. The context ends only the waiting. Any other
	// error is UNHEALTHY: what was asked for may or may not have happened.
	Await(ctx context.Context, t broker.Ticket) error
	// Transact does all of it or nothing, and never waits for room. An error's index counts sends and then acks.
	Transact(ctx context.Context, id identity.Identity, r broker.TransactRequest) ([]queue.Stored, error)
	// Receive returns as soon as something matches; with nothing, and no error, when the wait is over.
	// If the context ends after messages were leased they are released.
	Receive(ctx context.Context, id identity.Identity, r broker.ReceiveRequest) ([]queue.Delivery, error)
	// Settle settles each for itself. Failures and touched leases carry the settlement's index.
	Settle(ctx context.Context, id identity.Identity, s []broker.Settlement) (broker.Settled, error)
	Consume(ctx context.Context, id identity.Identity, r broker.ConsumeRequest) (Consumer, error)
	// Import stores messages with their past, all or none, as Send does.
	Import(ctx context.Context, id identity.Identity, r broker.ImportRequest) (queue.Stored, error)
	// Tap copies what arrives in a queue from now on.
	Tap(ctx context.Context, id identity.Identity, r broker.TapRequest) (Tap, error)

	Peek(ctx context.Context, id identity.Identity, r broker.PeekRequest) (broker.PeekPage, error)
	// AwaitArrival returns when a message with a sequence above after became visible in the queue.
	AwaitArrival(ctx context.Context, id identity.Identity, queue string, after uint64) error

	// Backup hands out a consistent copy of the journal, file by file: what was acknowledged before the call
	// is in it. total is the sum of all sizes.
	Backup(ctx context.Context, id identity.Identity, file func(name string, size, total int64, content io.Reader) error) error
	// Storage tells how the journal fares.
	Storage() broker.Storage

	// Totals sums up all queues.
	Totals() broker.Totals
	// Instance identifies this run of the daemon.
	Instance() string
}

// Consumer is one stream of deliveries. Its methods may be called concurrently.
type Consumer interface {
	// Lease is the lease in force; 0 if deliveries are consumed at once.
	Lease() time.Duration
	// Next waits for deliveries within the credit. After Drain, and once nothing more comes, it returns io.EOF.
	Next(ctx context.Context) (broker.Deliveries, error)
	// Credit allows more deliveries; it adds up. bytes 0 in the first call: bytes are not limited.
	Credit(messages, bytes uint64) error
	// Settle settles deliveries by tag. A tag that is over, or never was, is a StaleReceipt failure.
	// The outcome may be told only after Await of the ticket.
	Settle(s []broker.TagSettlement) (broker.Settled, broker.Ticket, error)
	// Outstanding is how many messages are delivered and not settled.
	Outstanding() uint64
	// Drain ends deliveries; what was delivered can still be settled.
	Drain()
	// Close ends the consumer. What is still leased is returned: uncounted if graceful is true, else as a
	// failed attempt.
	Close(graceful bool)
}

// Tap is one stream of copies of what arrives in a queue.
type Tap interface {
	// Next waits for copies, and tells how many were left out. The error is QUEUE_DELETED, ACCESS_DENIED, SHUTTING_DOWN or the
	// context's.
	Next(ctx context.Context) (broker.Tapped, error)
	// Close ends the tap.
	Close()
}

// Over is the broker as the doors see it.
func Over(b *broker.Broker) Broker { return over{b} }

type over struct{ *broker.Broker }

// Consume opens a Consumer.
func (o over) Consume(ctx context.Context, id identity.Identity, r broker.ConsumeRequest) (Consumer, error) {
	c, err := o.Broker.Consume(ctx, id, r)
	if err != nil {
		return nil, err // not a nil *broker.Consumer in the interface
	}
	return c, nil
}

// Tap opens a Tap.
func (o over) Tap(ctx context.Context, id identity.Identity, r broker.TapRequest) (Tap, error) {
	t, err := o.Broker.Tap(ctx, id, r)
	if err != nil {
		return nil, err // not a nil *broker.Tap in the interface
	}
	return t, nil
}
