//go:build linux

package ring

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/shm"
)

func TestWrongCallsAreRefused(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	if p.MaxPayload() != 4096-32 {
		t.Errorf("the largest payload has %d bytes", p.MaxPayload())
	}
	if err := p.Publish(1, make([]byte, p.MaxPayload())); err != nil {
		t.Errorf("the largest payload: %v", err)
	}
	var e *Error
	err := p.Publish(1, make([]byte, p.MaxPayload()+1))
	if !errors.Is(err, ErrTooLarge) || !errors.As(err, &e) || e.Ring != "/ring" || e.Reason != "MESSAGE_TOO_LARGE" || !strings.Contains(err.Error(), "4064") {
		t.Errorf("too large: %v", err)
	}
	if err := p.Publish(0, nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("type 0: %v", err)
	}
	if err := p.Commit(1, 0); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("commit of nothing: %v", err)
	}
	if _, err := p.Claim(deadline(t), 10); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(1, nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("publish while a claim is open: %v", err)
	}
}

// telling is a context that tells when it is waited for.
type telling struct {
	context.Context
	told chan struct{}
	once bool
}

func (c *telling) Done() <-chan struct{} {
	if !c.once {
		c.once = true
		close(c.told)
	}
	return c.Context.Done()
}

func TestTwoGoroutinesInOneConsumerAreNoticed(t *testing.T) {
	f := newFake(t, nil)
	c := f.consumer(t, ConsumerOptions{})
	inner, cancel := context.WithCancel(deadline(t))
	ctx := &telling{Context: inner, told: make(chan struct{})}
	first := make(chan error)
	go func() {
		_, err := c.Next(ctx)
		first <- err
	}()
	<-ctx.told
	if _, _, err := c.TryNext(); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("TryNext while Next waits: %v", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, ErrCancelled) || !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	if _, ok, err := c.TryNext(); ok || err != nil {
		t.Errorf("TryNext afterwards: %v, %v", ok, err)
	}
}

func TestConsumerIsNotEnteredTwice(t *testing.T) {
	f := newFake(t, nil)
	p := f.producer(t)
	m, memory, members, err := join(deadline(t), request{name: "/ring", attach: f.path, role: attach.Consumer})
	if err != nil {
		t.Fatal(err)
	}
	c := &Consumer{m: m}
	asked := 0
	c.reader = shm.NewReader(shm.ReaderConfig{Memory: memory, RingID: ringID, ConsumerID: m.place.id, Epoch: m.place.epoch, Slot: m.place.slot,
		Start: shm.Oldest, Pull: m.wantMembers,
		Types: func(int64) bool { // in the middle of a call
			asked++
			if _, _, err := c.TryNext(); !errors.Is(err, ErrInvalidArgument) {
				t.Errorf("TryNext: %v", err)
			}
			return true
		}}, members)
	m.start(c.reader)
	defer c.Close()
	publish(t, p, 0, 4)
	expect(t, c, 0, 1)
	if _, _, err := c.TryNext(); err != nil {
		t.Error(err)
	}
	if _, err := c.NextBatch(deadline(t), make([]Message, 1)); err != nil {
		t.Error(err)
	}
	if _, err := c.View(deadline(t)); err != nil {
		t.Error(err)
	}
	if asked != 4 {
		t.Errorf("asked %d times", asked)
	}
}
