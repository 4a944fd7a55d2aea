package rpc

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/transport"
)

// fakeBroker answers what a test says. A call that the test did not expect panics, and so fails it.
type fakeBroker struct {
	transport.Broker
	create  func(id identity.Identity, name string, edit broker.Edit, exclusive bool) (broker.Info, bool, error)
	update  func(name string, edit broker.Edit) (broker.Info, error)
	get     func(id identity.Identity, name string) (broker.Info, error)
	list    func(glob string) ([]broker.Info, error)
	purge   func(r broker.SelectRequest) (int64, string, error)
	send    func(ctx context.Context, r broker.SendRequest) (queue.Stored, error)
	receive func(ctx context.Context, r broker.ReceiveRequest) ([]queue.Delivery, error)
	settle  func(s []broker.Settlement) (broker.Settled, error)
	consume func(r broker.ConsumeRequest) (transport.Consumer, error)
	peek    func(r broker.PeekRequest) (broker.PeekPage, error)
	await   func(ctx context.Context, after uint64) error
	durable func(ctx context.Context, ticket broker.Ticket) error // nil: everything is, at once
	tickets atomic.Uint64                                         // given by Submit, from 1

	transact func(r broker.TransactRequest) ([]queue.Stored, error)
	backup   func(id identity.Identity, file func(name string, size, total int64, content io.Reader) error) error
	storage  broker.Storage

	move      func(r broker.MoveRequest) (int64, string, error)
	redrive   func(r broker.RedriveRequest) ([]broker.Redriven, error)
	bind      func(source string, bind queue.Bind) (broker.Info, error)
	unbind    func(source, destination string) (broker.Info, error)
	temporary func(edit broker.Edit) (broker.Info, func(), error)
	imported  func(r broker.ImportRequest) (queue.Stored, error)
	tap       func(r broker.TapRequest) (transport.Tap, error)
}

func (f *fakeBroker) Move(_ context.Context, _ identity.Identity, r broker.MoveRequest) (int64, string, error) {
	return f.move(r)
}

func (f *fakeBroker) Redrive(_ context.Context, _ identity.Identity, r broker.RedriveRequest) ([]broker.Redriven, error) {
	return f.redrive(r)
}

func (f *fakeBroker) Bind(_ context.Context, _ identity.Identity, source string, bind queue.Bind) (broker.Info, error) {
	return f.bind(source, bind)
}

func (f *fakeBroker) Unbind(_ context.Context, _ identity.Identity, source, destination string) (broker.Info, error) {
	return f.unbind(source, destination)
}

func (f *fakeBroker) OpenTemporary(_ context.Context, _ identity.Identity, edit broker.Edit) (broker.Info, func(), error) {
	return f.temporary(edit)
}

func (f *fakeBroker) Import(_ context.Context, _ identity.Identity, r broker.ImportRequest) (queue.Stored, error) {
	return f.imported(r)
}

func (f *fakeBroker) Tap(_ context.Context, _ identity.Identity, r broker.TapRequest) (transport.Tap, error) {
	return f.tap(r)
}

func (f *fakeBroker) CreateQueue(_ context.Context, id identity.Identity, name string, edit broker.Edit, exclusive bool) (broker.Info, bool, error) {
	return f.create(id, name, edit, exclusive)
}

func (f *fakeBroker) UpdateQueue(_ context.Context, _ identity.Identity, name string, edit broker.Edit) (broker.Info, error) {
	return f.update(name, edit)
}

func (f *fakeBroker) GetQueue(_ context.Context, id identity.Identity, name string) (broker.Info, error) {
	return f.get(id, name)
}

func (f *fakeBroker) ListQueues(_ context.Context, _ identity.Identity, glob string) ([]broker.Info, error) {
	return f.list(glob)
}

func (f *fakeBroker) Purge(_ context.Context, _ identity.Identity, r broker.SelectRequest) (int64, string, error) {
	return f.purge(r)
}

func (f *fakeBroker) Kick(_ context.Context, _ identity.Identity, r broker.SelectRequest) (int64, string, error) {
	return f.purge(r)
}

func (f *fakeBroker) DeleteQueue(context.Context, identity.Identity, string) (int64, error) {
	return 17, nil
}

func (f *fakeBroker) PauseQueue(_ context.Context, _ identity.Identity, name string, paused bool) (broker.Info, error) {
	return broker.Info{Name: name, Paused: paused}, nil
}

func (f *fakeBroker) Send(ctx context.Context, _ identity.Identity, r broker.SendRequest) (queue.Stored, error) {
	return f.send(ctx, r)
}

func (f *fakeBroker) Submit(ctx context.Context, _ identity.Identity, r broker.SendRequest) (queue.Stored, broker.Ticket, error) {
	stored, err := f.send(ctx, r)
	return stored, broker.Ticket(f.tickets.Add(1)), err
}

func (f *fakeBroker) Await(ctx context.Context, t broker.Ticket) error {
	if f.durable == nil {
		return nil
	}
	return f.durable(ctx, t)
}

func (f *fakeBroker) Transact(_ context.Context, _ identity.Identity, r broker.TransactRequest) ([]queue.Stored, error) {
	return f.transact(r)
}

func (f *fakeBroker) Backup(_ context.Context, id identity.Identity, file func(name string, size, total int64, content io.Reader) error) error {
	return f.backup(id, file)
}

func (f *fakeBroker) Storage() broker.Storage { return f.storage }

func (f *fakeBroker) Receive(ctx context.Context, _ identity.Identity, r broker.ReceiveRequest) ([]queue.Delivery, error) {
	return f.receive(ctx, r)
}

func (f *fakeBroker) Settle(_ context.Context, _ identity.Identity, s []broker.Settlement) (broker.Settled, error) {
	return f.settle(s)
}

func (f *fakeBroker) Consume(_ context.Context, _ identity.Identity, r broker.ConsumeRequest) (transport.Consumer, error) {
	return f.consume(r)
}

func (f *fakeBroker) Peek(_ context.Context, _ identity.Identity, r broker.PeekRequest) (broker.PeekPage, error) {
	return f.peek(r)
}

func (f *fakeBroker) AwaitArrival(ctx context.Context, _ identity.Identity, _ string, after uint64) error {
	return f.await(ctx, after)
}

func (f *fakeBroker) Totals() broker.Totals {
	return broker.Totals{Queues: 3, Temporary: 2, Messages: 20, Bytes: 1000, LateReplies: 5}
}
func (f *fakeBroker) Instance() string { return "instance-1" }

// fakeConsumer delivers what the test puts into deliveries.
type fakeConsumer struct {
	lease      time.Duration
	deliveries chan broker.Deliveries
	credit     chan [2]uint64
	creditErr  error
	settle     func([]broker.TagSettlement) (broker.Settled, error)
	failed     chan error // what Next fails with
	drain      sync.Once
	drained    chan struct{}
	closed     chan bool // gets Close's graceful
	tickets    atomic.Uint64
}

func newFakeConsumer() *fakeConsumer {
	return &fakeConsumer{
		lease:      30 * time.Second,
		deliveries: make(chan broker.Deliveries, 10),
		credit:     make(chan [2]uint64, 10),
		failed:     make(chan error, 1),
		drained:    make(chan struct{}),
		closed:     make(chan bool, 1),
	}
}

func (c *fakeConsumer) Lease() time.Duration { return c.lease }

func (c *fakeConsumer) Outstanding() uint64 { return 42 }

func (c *fakeConsumer) Next(ctx context.Context) (broker.Deliveries, error) {
	select {
	case d := <-c.deliveries:
		return d, nil
	case err := <-c.failed:
		return broker.Deliveries{}, err
	case <-c.drained:
		select {
		case d := <-c.deliveries:
			return d, nil
		default:
			return broker.Deliveries{}, io.EOF
		}
	case <-ctx.Done():
		return broker.Deliveries{}, ctx.Err()
	}
}

func (c *fakeConsumer) Credit(messages, bytes uint64) error {
	c.credit <- [2]uint64{messages, bytes}
	return c.creditErr
}

func (c *fakeConsumer) Settle(s []broker.TagSettlement) (broker.Settled, broker.Ticket, error) {
	settled, err := c.settle(s)
	return settled, broker.Ticket(c.tickets.Add(1)), err
}

func (c *fakeConsumer) Drain()              { c.drain.Do(func() { close(c.drained) }) }
func (c *fakeConsumer) Close(graceful bool) { c.closed <- graceful }
