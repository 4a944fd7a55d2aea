package client

import (
	"context"
	"errors"
	"testing"
	"time"
)

func (f *fake) send(t testing.TB, q *Queue, bodies ...string) {
	t.Helper()
	var batch []Message
	for _, b := range bodies {
		batch = append(batch, body(b))
	}
	if _, err := q.Send(t.Context(), batch...); err != nil {
		t.Fatal(err)
	}
}

func receiveOne(t *testing.T, q *Queue, o ReceiveOptions) *Delivery {
	t.Helper()
	got, err := q.Receive(t.Context(), 1, o)
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v, want one delivery", got, err)
	}
	return got[0]
}

// SEMANTICS 13.
func TestADeliverySettlesByItsReceiptOnce_S13(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	for name, c := range map[string]struct {
		settle func(*Delivery) error
		saw    string
	}{
		"ack":     {func(d *Delivery) error { return d.Ack(t.Context()) }, "ack x"},
		"nack":    {func(d *Delivery) error { return d.Nack(t.Context(), time.Second, "bad") }, "nack x 1s bad"},
		"at once": {func(d *Delivery) error { return d.Nack(t.Context(), 0, "") }, "nack x 0s "},
		"backoff": {func(d *Delivery) error { return d.Nack(t.Context(), Backoff, "a\xffb") }, "nack x backoff a\ufffdb"},
		"release": {func(d *Delivery) error { return d.Release(t.Context()) }, "release x"},
		"bury":    {func(d *Delivery) error { return d.Bury(t.Context(), "why") }, "bury x"},
	} {
		f.mu.Lock()
		f.queues["/jobs"].messages = nil
		f.mu.Unlock()
		f.send(t, q, "x")
		d := receiveOne(t, q, ReceiveOptions{})
		if d.Receipt == "" || d.LeaseExpires.IsZero() || d.Queue != "/jobs" {
			t.Errorf("%s: %+v", name, d)
		}
		if err := c.settle(d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.mu.Lock()
		if f.sawLocked(c.saw) != 1 {
			t.Errorf("%s: the daemon saw %q, want %q", name, f.seen, c.saw)
		}
		f.mu.Unlock()
		if err := d.Ack(t.Context()); !errors.Is(err, ErrStaleReceipt) {
			t.Errorf("%s: settled again: %v, want ErrStaleReceipt", name, err)
		}
	}
}

func TestTouchTellsTheNewEnd_S14(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	f.send(t, c.Queue("/jobs"), "x")
	d := receiveOne(t, c.Queue("/jobs"), ReceiveOptions{})
	for _, lease := range []time.Duration{0, time.Minute} {
		ends, err := d.Touch(t.Context(), lease)
		if err != nil || !ends.Equal(touchedUntil) {
			t.Errorf("%v, %v, want %v", ends, err, touchedUntil)
		}
	}
	if ends, err := c.Touch(t.Context(), d.Receipt, 0); err != nil || !ends.Equal(touchedUntil) {
		t.Errorf("by its receipt: %v, %v", ends, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sawLocked("touch x 0s") != 2 || f.sawLocked("touch x 1m0s") != 1 {
		t.Errorf("%q", f.seen)
	}
}

func TestSettleTellsWhichFailed_S13(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	f.send(t, c.Queue("/jobs"), "a", "b")
	got, err := c.Queue("/jobs").Receive(t.Context(), 10, ReceiveOptions{})
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	err = c.Settle(t.Context(), Settlement{Receipt: got[0].Receipt}, Settlement{Receipt: "1.1.9.9.x"}, Settlement{Receipt: got[1].Receipt, Outcome: OutcomeRelease})
	var failed *SettleError
	if !errors.As(err, &failed) || !errors.Is(err, ErrStaleReceipt) || len(failed.Failures) != 1 || failed.Failures[0].Index != 1 || failed.Total != 3 {
		t.Errorf("%#v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sawLocked("ack a") != 1 || f.sawLocked("release b") != 1 {
		t.Errorf("the others are not done: %q", f.seen)
	}
}

func TestReceiveReturnsNothingWithoutAnError_S12(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	for _, wait := range []time.Duration{0, time.Millisecond} {
		if got, err := q.Receive(t.Context(), 1, ReceiveOptions{Wait: wait}); err != nil || len(got) != 0 {
			t.Errorf("wait %v: %v, %v", wait, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		f.await(t, "the receive", func() bool { return f.sawLocked("receive") == 3 })
		cancel()
	}()
	if got, err := q.Receive(ctx, 1, ReceiveOptions{Wait: WaitForever}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v, want context.Canceled", got, err)
	}
}

func TestReceiveAsksAgainAfterABreak(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "x")
	cuts := 0
	f.setHooks(hooks{received: func() {
		if cuts++; cuts <= 2 {
			f.mu.Lock()
			for _, m := range f.queues["/jobs"].messages {
				m.leased = false // the lease has run out meanwhile
			}
			f.mu.Unlock()
			f.cut()
		}
	}})
	if d := receiveOne(t, q, ReceiveOptions{}); string(d.Body) != "x" {
		t.Errorf("%q", d.Body)
	}
}

func TestWhatWasConsumedAtOnceAndLostIsToldSo(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "x", "y")
	f.setHooks(hooks{received: f.cut})
	if got, err := q.Receive(t.Context(), 1, ReceiveOptions{AtOnce: true}); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("%v, %v, want ErrOutcomeUnknown", got, err)
	}
	f.setHooks(hooks{})
	d := receiveOne(t, q, ReceiveOptions{AtOnce: true, Wait: WaitForever})
	if err := d.Ack(t.Context()); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("settling what was consumed at once: %v, want ErrInvalidArgument", err)
	}
}

func TestReceiveRefusesNonsense(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	for name, call := range map[string]func() error{
		"none":        func() error { _, err := q.Receive(t.Context(), 0, ReceiveOptions{}); return err },
		"too many":    func() error { _, err := q.Receive(t.Context(), 1<<20, ReceiveOptions{}); return err },
		"buffer":      func() error { _, err := q.Receive(t.Context(), 1, ReceiveOptions{MaxBodyBytes: -1}); return err },
		"wait":        func() error { _, err := q.Receive(t.Context(), 1, ReceiveOptions{Wait: -2}); return err },
		"outcome":     func() error { return f.dial(t).Settle(t.Context(), Settlement{Outcome: 9}) },
		"concurrency": func() error { return q.Consume(t.Context(), nil, ConsumeOptions{Concurrency: -1}) },
		"prefetch":    func() error { return q.Consume(t.Context(), nil, ConsumeOptions{Concurrency: 9, Prefetch: 1}) },
	} {
		if err := call(); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v, want ErrInvalidArgument", name, err)
		}
	}
}
