package rpc

import (
	"context"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/shm"
	"github.com/ipcd/ipcd/transport"
)

// fakeRings answers what a test says. A call that the test did not expect panics, and so fails it.
type fakeRings struct {
	create    func(id identity.Identity, name string, edit ring.Edit, exclusive bool) (ring.Info, bool, error)
	get       func(id identity.Identity, name string) (ring.Info, error)
	update    func(name string, edit ring.Edit) (ring.Info, error)
	remove    func(name string) error
	list      func(glob string) ([]ring.Info, error)
	publish   func(ctx context.Context, name string, batch []shm.Message) (lane, first uint64, err error)
	subscribe func(id identity.Identity, name string, o ring.SubscribeOptions) (transport.Subscription, error)
}

func (f *fakeRings) Create(_ context.Context, id identity.Identity, name string, edit ring.Edit, exclusive bool) (ring.Info, bool, error) {
	return f.create(id, name, edit, exclusive)
}

func (f *fakeRings) Get(_ context.Context, id identity.Identity, name string) (ring.Info, error) {
	return f.get(id, name)
}

func (f *fakeRings) Update(_ context.Context, _ identity.Identity, name string, edit ring.Edit) (ring.Info, error) {
	return f.update(name, edit)
}

func (f *fakeRings) Delete(_ context.Context, _ identity.Identity, name string) (int, error) {
	return 3, f.remove(name)
}

func (f *fakeRings) List(_ context.Context, _ identity.Identity, glob string) ([]ring.Info, error) {
	return f.list(glob)
}

func (f *fakeRings) Publish(ctx context.Context, _ identity.Identity, name string, batch []shm.Message) (lane, first uint64, err error) {
	return f.publish(ctx, name, batch)
}

func (f *fakeRings) Subscribe(_ context.Context, id identity.Identity, name string, o ring.SubscribeOptions) (transport.Subscription, error) {
	return f.subscribe(id, name, o)
}

// fakeSubscription hands out what the test puts into batches, and overwrites the payloads at the next call.
type fakeSubscription struct {
	batches chan subscriptionBatch
	last    []shm.Message
	closed  chan struct{}
}

type subscriptionBatch struct {
	messages []shm.Message
	err      error
}

func newFakeSubscription(batches ...subscriptionBatch) *fakeSubscription {
	s := &fakeSubscription{batches: make(chan subscriptionBatch, 100), closed: make(chan struct{})}
	for _, b := range batches {
		s.batches <- b
	}
	return s
}

func (s *fakeSubscription) Next(ctx context.Context, into []shm.Message) (int, error) {
	for _, m := range s.last {
		clear(m.Payload)
	}
	s.last = nil
	select {
	case b := <-s.batches:
		s.last = b.messages
		return copy(into, b.messages), b.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (s *fakeSubscription) Close() { close(s.closed) }
