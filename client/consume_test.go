package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// consuming runs Consume until stop is called, which returns what it returned.
func consuming(t *testing.T, q *Queue, h Handler, o ConsumeOptions) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Consume(ctx, h, o) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestConsumeAcksAndNacks_S13(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "good", "bad", "later")
	stop := consuming(t, q, func(_ context.Context, d *Delivery) error {
		if d.Queue != "/jobs" || d.Receipt != "" {
			t.Errorf("%+v", d)
		}
		switch {
		case d.Attempts > 0:
			return nil
		case string(d.Body) == "bad":
			return errors.New("this is bad")
		case string(d.Body) == "later":
			return NackAfter(errors.New("not yet"), time.Second)
		}
		return nil
	}, ConsumeOptions{})
	f.await(t, "three acks", func() bool { return f.sawLocked("ack ") == 3 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"ack good", "nack bad backoff this is bad", "nack later 1s not yet"} {
		if !slices.Contains(f.seen, want) {
			t.Errorf("the daemon saw %q, not %q", f.seen, want)
		}
	}
}

// Many acks go out together, as ranges.
func TestConsumeSettlesInBatches(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	for range 9 {
		f.send(t, q, numbers(100)...)
	}
	gate := make(chan struct{})
	f.setHooks(hooks{settled: func() { <-gate }}) // the daemon is busy with the first
	var handled atomic.Int64
	stop := consuming(t, q, func(_ context.Context, d *Delivery) error {
		if handled.Add(1) == 900 {
			close(gate)
		}
		return nil
	}, ConsumeOptions{Prefetch: 900})
	f.await(t, "all acks", func() bool { return f.sawLocked("ack ") == 900 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if settlements := f.sawLocked("settlements"); settlements >= 900 {
		t.Errorf("%d settlements for 900 messages", settlements)
	}
}

// Neighbours with the same verdict share a range, others do not.
func TestSettlementsAreWrittenAsRanges(t *testing.T) {
	entry := func(tag uint64, v verdict) settlement { return settlement{d: &held{tag: tag}, v: v} }
	ack, nack, touch := verdict{}, verdict{outcome: OutcomeNack, reason: "x"}, verdict{outcome: OutcomeTouch}
	frame, in, rest := settlementFrame(5, []settlement{entry(3, ack), entry(9, touch), entry(1, ack), entry(2, ack), entry(4, nack), entry(9, ack), entry(6, ack), entry(5, nack)})
	var got []string
	for _, s := range frame.GetSettlements() {
		got = append(got, fmt.Sprintf("%d-%d %T", s.GetTags().GetFirst(), s.GetTags().GetLast(), s.GetOutcome()))
	}
	want := []string{"1-3 *ipcdv1.Settlement_Ack", "4-5 *ipcdv1.Settlement_Nack", "6-6 *ipcdv1.Settlement_Ack", "9-9 *ipcdv1.Settlement_Touch", "9-9 *ipcdv1.Settlement_Ack"}
	if !slices.Equal(got, want) || len(in) != 8 || rest != nil || frame.GetSettleId() != 5 {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestConsumeKeepsToItsConcurrencyAndCredit(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, numbers(100)...)
	var running, most atomic.Int64
	gate := make(chan struct{})
	stop := consuming(t, q, func(context.Context, *Delivery) error {
		n := running.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		gate <- struct{}{}
		running.Add(-1)
		return nil
	}, ConsumeOptions{Concurrency: 4, Prefetch: 6})
	f.await(t, "six leases", func() bool {
		leased := 0
		for _, m := range f.queues["/jobs"].messages {
			if m.leased {
				leased++
			}
		}
		return leased == 6
	})
	for range 100 {
		<-gate
		f.mu.Lock()
		leased := 0
		for _, m := range f.queues["/jobs"].messages {
			if m.leased {
				leased++
			}
		}
		f.mu.Unlock()
		if leased > 12 { // those under way, and acks under way for as many
			t.Errorf("%d messages leased with a prefetch of 6", leased)
		}
	}
	f.await(t, "all acks", func() bool { return f.sawLocked("ack ") == 100 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if most.Load() > 4 {
		t.Errorf("%d handlers at once, want 4 at most", most.Load())
	}
}

// SEMANTICS 16: a graceful end does not count.
func TestConsumeStopsGracefully_S16(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, numbers(10)...)
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- q.Consume(ctx, func(ctx context.Context, d *Delivery) error {
			begun <- struct{}{}
			<-finish
			return ctx.Err() // the handler's own context goes on
		}, ConsumeOptions{})
	}()
	<-begun
	cancel()
	f.await(t, "the others to be given back", func() bool { return f.sawLocked("release ") == 9 })
	select {
	case err := <-ended:
		t.Fatalf("Consume returned %v before its handler", err)
	default:
	}
	close(finish)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sawLocked("ack 0") != 1 {
		t.Errorf("the one in the handler is not acked: %q", f.seen)
	}
	for _, m := range f.queues["/jobs"].messages {
		if m.leased || m.attempts != 0 {
			t.Errorf("%s: leased %v, attempts %d", m.m.GetBody(), m.leased, m.attempts)
		}
	}
}

func TestGraceEndsAHandlersContext(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "x")
	ctx, cancel := context.WithCancel(context.Background())
	err := q.Consume(ctx, func(ctx context.Context, d *Delivery) error {
		cancel()
		<-ctx.Done()
		return context.Cause(ctx)
	}, ConsumeOptions{Grace: time.Millisecond})
	if err != nil {
		t.Error(err)
	}
	if !slices.Contains(f.seen, "release x") {
		t.Errorf("it was not given back uncounted: %q", f.seen)
	}
}

// SEMANTICS 14. The handler lasts as long as it takes to touch it and a waiting one three times.
func TestConsumeTouchesWhileHandlersWork_S14(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "working", "waiting")
	stop := consuming(t, q, func(_ context.Context, d *Delivery) error {
		f.await(t, "touches", func() bool {
			return f.sawLocked("touch working") >= 3 && f.sawLocked("touch waiting") >= 3 || string(d.Body) == "waiting"
		})
		return nil
	}, ConsumeOptions{Lease: 20 * time.Millisecond})
	f.await(t, "acks", func() bool { return f.sawLocked("ack ") == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAHandlerMaySettleByItself_S13(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "a", "b", "c")
	stop := consuming(t, q, func(ctx context.Context, d *Delivery) error {
		switch string(d.Body) {
		case "a":
			if err := d.Ack(ctx); err != nil {
				t.Error(err)
			}
			if err := d.Nack(ctx, 0, ""); !errors.Is(err, ErrStaleReceipt) {
				t.Errorf("settled again: %v, want ErrStaleReceipt", err)
			}
			return errors.New("too late to matter")
		case "b":
			if ends, err := d.Touch(ctx, time.Hour); err != nil || !ends.Equal(touchedUntil) {
				t.Errorf("%v, %v", ends, err)
			}
			return d.Bury(ctx, "rotten")
		}
		return nil
	}, ConsumeOptions{})
	f.await(t, "c", func() bool { return f.sawLocked("ack c") == 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if f.sawLocked("ack a") != 1 || f.sawLocked("bury b") != 1 || f.sawLocked("nack") != 0 || f.sawLocked("touch b 1h") != 1 {
		t.Errorf("%q", f.seen)
	}
}

// The deliveries of a broken stream are somebody else's.
func TestConsumeComesBackAfterABreak_S13(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "a", "b")
	var reconnects, failed atomic.Int64
	var once sync.Once
	stop := consuming(t, q, func(ctx context.Context, d *Delivery) error {
		once.Do(func() {
			f.cut()
			<-ctx.Done()
			if err := context.Cause(ctx); !errors.Is(err, ErrStaleReceipt) {
				t.Errorf("the handler's context ended with %v, want ErrStaleReceipt", err)
			}
			if err := d.Ack(context.Background()); !errors.Is(err, ErrStaleReceipt) {
				t.Errorf("ack: %v, want ErrStaleReceipt", err)
			}
		})
		return nil
	}, ConsumeOptions{
		OnReconnect: func(err error) {
			reconnects.Add(1)
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("%v, want ErrUnreachable", err)
			}
		},
		OnError: func(_ *Delivery, err error) {
			failed.Add(1)
			if !errors.Is(err, ErrStaleReceipt) {
				t.Error(err)
			}
		},
	})
	f.await(t, "acks", func() bool { return f.sawLocked("ack ") == 2 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if reconnects.Load() != 1 || failed.Load() != 1 {
		t.Errorf("%d reconnections, %d failures, want one each", reconnects.Load(), failed.Load())
	}
}

func TestConsumeOutlivesTheDaemon(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	got := make(chan string)
	stop := consuming(t, c.Queue("/jobs"), func(_ context.Context, d *Delivery) error {
		got <- string(d.Body)
		return nil
	}, ConsumeOptions{})
	f.send(t, c.Queue("/jobs"), "a")
	<-got
	f.await(t, "the ack", func() bool { return f.sawLocked("ack a") == 1 })
	f.cut()
	f.stopAndStart(t, "second")
	other := f.dial(t)
	f.send(t, other.Queue("/jobs"), "b")
	if b := <-got; b != "b" {
		t.Errorf("%q", b)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// An ack whose confirmation was lost is told, once.
func TestALostConfirmationIsTold(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "a")
	f.setHooks(hooks{settled: f.cut})
	told := make(chan error, 10)
	stop := consuming(t, q, func(context.Context, *Delivery) error { return nil }, ConsumeOptions{
		OnError: func(d *Delivery, err error) { told <- fmt.Errorf("%s: %w", d.Body, err) },
	})
	if err := <-told; !errors.Is(err, ErrStaleReceipt) || !strings.HasPrefix(err.Error(), "a:") {
		t.Error(err)
	}
	if err := stop(); err != nil && !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

func TestDeletingTheQueueEndsConsume_S23(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	ended := make(chan error)
	go func() {
		ended <- q.Consume(context.Background(), func(context.Context, *Delivery) error { return nil }, ConsumeOptions{})
	}()
	f.await(t, "the stream", func() bool { return f.sawLocked("consume") == 1 })
	f.mu.Lock()
	delete(f.queues, "/jobs")
	f.changedLocked()
	f.mu.Unlock()
	if err := <-ended; !errors.Is(err, ErrQueueDeleted) {
		t.Errorf("%v, want ErrQueueDeleted", err)
	}
	if err := q.Consume(t.Context(), nil, ConsumeOptions{}); !errors.Is(err, ErrQueueNotFound) {
		t.Errorf("%v, want ErrQueueNotFound", err)
	}
}

// What was consumed at once is gone from the queue: stopping must not drop it.
func TestConsumedAtOnceIsHandledToTheEnd(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, numbers(50)...)
	ctx, cancel := context.WithCancel(context.Background())
	var handled []string
	failed := 0
	err := q.Consume(ctx, func(_ context.Context, d *Delivery) error {
		f.await(t, "all to be taken", func() bool { return len(f.queues["/jobs"].messages) == 0 })
		cancel()
		handled = append(handled, string(d.Body))
		return errors.New("nobody can be told")
	}, ConsumeOptions{AtOnce: true, OnError: func(*Delivery, error) { failed++ }})
	if err != nil {
		t.Error(err)
	}
	if !slices.Equal(handled, numbers(50)) || failed != 50 {
		t.Errorf("handled %q, %d failures", handled, failed)
	}
	if f.sawLocked("settlements") != 0 {
		t.Errorf("%q", f.seen)
	}
}

func TestAnEndedContextConsumesNothing(t *testing.T) {
	f := startFake(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.dial(t).Queue("/jobs").Consume(ctx, nil, ConsumeOptions{}); err != nil {
		t.Error(err)
	}
}
