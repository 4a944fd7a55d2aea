package broker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
)

var (
	flooder = identity.User(1001)
	quiet   = identity.User(1002)
)

// enter does some work and returns how long that was put off.
func enter(t *testing.T, f *fair, p identity.Principal, work time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	if err := f.enter(t.Context(), p, "/of."+p.String(), work); err != nil {
		t.Fatal(err)
	}
	return time.Since(began)
}

// TestFloodGetsItsShareAndTheOtherNoDelay has one principal do all it can, with several calls at once, and another one
// call every few milliseconds.
func TestFloodGetsItsShareAndTheOtherNoDelay(t *testing.T) {
	for _, work := range []time.Duration{callWork, 70 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			f := newFair()
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			var done time.Duration
			var flooding sync.WaitGroup
			for range 16 {
				flooding.Go(func() {
					for f.enter(ctx, flooder, "/flood", work) == nil {
						mu.Lock()
						done += work
						mu.Unlock()
						time.Sleep(time.Nanosecond) // or time would stand still while nobody is in the way
					}
				})
			}
			const tries = 2000
			for range tries {
				if d := enter(t, f, quiet, callWork); d != 0 {
					t.Fatalf("who asks for little waited %v", d)
				}
				time.Sleep(3 * time.Millisecond)
			}
			cancel()
			flooding.Wait()
			share := fairShare * tries * float64(3*time.Millisecond)
			if got := float64(done); got < 0.9*share || got > 1.1*share+float64(16*work) {
				t.Errorf("calls of %v: the flood got %v in %v, of which %v is its share", work, done, tries*3*time.Millisecond, time.Duration(share))
			}
		})
	}
}

func TestWhoIsAloneNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		enter(t, f, quiet, callWork)
		time.Sleep(fairThere)
		for range 10000 {
			if d := enter(t, f, flooder, time.Second); d != 0 {
				t.Fatalf("it waited %v for nobody", d)
			}
			time.Sleep(time.Microsecond)
		}
		// What it did while alone is not held against it.
		enter(t, f, quiet, callWork)
		if d := enter(t, f, flooder, time.Second); d > fairTurn {
			t.Errorf("it waited %v for what it did while it was alone", d)
		}
	})
}

func TestEqualsDoNotSlowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		for i := range 10000 {
			if d := enter(t, f, flooder, callWork); d != 0 {
				t.Fatalf("call %d: the producer waited %v", i, d)
			}
			if d := enter(t, f, quiet, 2*callWork/3); d != 0 {
				t.Fatalf("call %d: the consumer waited %v", i, d)
			}
			time.Sleep(callWork)
		}
	})
}

func TestThoseWhoShareAQueueDoNotSlowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		for i := range 10000 {
			// The consumer also passes on what it gets.
			for _, q := range []string{"/shared", "/other"} {
				if err := f.enter(t.Context(), quiet, q, time.Microsecond); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			if err := f.enter(t.Context(), flooder, "/shared", callWork); err != nil || time.Since(began) != 0 {
				t.Fatalf("call %d: the producer waited %v: %v", i, time.Since(began), err)
			}
		}
		if err := f.enter(t.Context(), quiet, "/other", time.Microsecond); err != nil {
			t.Fatal(err)
		}
		f.count(flooder, "/shared", time.Second)
		if d := enter(t, f, flooder, callWork); d == 0 {
			t.Error("on a queue of its own it waited for nobody")
		}
	})
}

func TestFloodGoesOnOnceTheOtherIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		enter(t, f, quiet, callWork)
		enter(t, f, flooder, time.Second) // within the burst
		if d := enter(t, f, flooder, callWork); d == 0 || d > fairThere+fairMemory {
			t.Errorf("it waited %v for one who was there for %v", d, fairThere)
		}
	})
}

func TestCallsThatWaitedGoAtTheBeginningOfATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		waited := 0
		for range 1000 {
			enter(t, f, quiet, time.Microsecond)
			if enter(t, f, flooder, callWork) > 0 {
				waited++
				if at := time.Since(f.began); at%fairTurn != 0 {
					t.Fatalf("it waited until %v, which is no multiple of %v", at, fairTurn)
				}
			}
		}
		if waited == 0 {
			t.Error("nothing waited")
		}
	})
}

func TestSettlementsAreNotHeldUpAndCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		enter(t, f, quiet, callWork)
		f.count(flooder, "/flood", 20*time.Millisecond)
		if d := enter(t, f, flooder, callWork); d < 20*time.Millisecond {
			t.Errorf("a call after them waited %v", d)
		}
	})
}

func TestWaitForATurnEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		enter(t, f, quiet, callWork)
		enter(t, f, flooder, time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Millisecond)
		defer cancel()
		began := time.Now()
		if err := f.enter(ctx, flooder, "/flood", callWork); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 7*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestThoseWhoAreGoneAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		for uid := range uint32(100 * fairKeep) {
			enter(t, f, identity.User(uid), callWork)
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(f.uses); n > 2*fairKeep {
			t.Errorf("%d are remembered", n)
		}
	})
}

func TestEveryCallCounts(t *testing.T) {
	b := New(Options{})
	defer b.Close()
	ctx := t.Context()
	id := identity.Identity{Kind: identity.Unix, UID: 1001}
	var c *Consumer
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"CreateQueue", func() error {
			_, _, err := b.CreateQueue(ctx, id, "/q", func(*queue.Settings) error { return nil }, false)
			return err
		}},
		{"UpdateQueue", func() error {
			_, err := b.UpdateQueue(ctx, id, "/q", func(s *queue.Settings) error { s.MaxMessages++; return nil })
			return err
		}},
		{"GetQueue", func() error { _, err := b.GetQueue(ctx, id, "/q"); return err }},
		{"ListQueues", func() error { _, err := b.ListQueues(ctx, id, ""); return err }},
		{"PauseQueue", func() error { _, err := b.PauseQueue(ctx, id, "/q", false); return err }},
		{"Send", func() error {
			_, err := b.Send(ctx, id, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}})
			return err
		}},
		{"Transact", func() error {
			_, err := b.Transact(ctx, id, TransactRequest{Sends: []TransactSend{{Queue: "/q", Messages: []queue.Message{{Type: 1}}}}})
			return err
		}},
		{"Peek", func() error { _, err := b.Peek(ctx, id, PeekRequest{Queue: "/q"}); return err }},
		{"Receive", func() error { _, err := b.Receive(ctx, id, ReceiveRequest{Queue: "/q"}); return err }},
		{"Next", func() (err error) {
			if c, err = b.Consume(ctx, id, ConsumeRequest{Queue: "/q"}); err != nil {
				return err
			}
			if err = c.Credit(1, 0); err == nil {
				_, err = c.Next(ctx)
			}
			return err
		}},
		{"Consumer.Settle", func() error {
			_, _, err := c.Settle([]TagSettlement{{First: 1, Last: 1, Verdict: Verdict{Outcome: Ack}}})
			return err
		}},
		{"Settle", func() error { _, err := b.Settle(ctx, id, nil); return err }},
		{"Kick", func() error { _, _, err := b.Kick(ctx, id, SelectRequest{Queue: "/q"}); return err }},
		{"Purge", func() error { _, _, err := b.Purge(ctx, id, SelectRequest{Queue: "/q"}); return err }},
		{"DeleteQueue", func() error { _, err := b.DeleteQueue(ctx, id, "/q"); return err }},
	} {
		// Nobody else is there, so that it goes at once, and only it is counted.
		b.fair = newFair()
		if err := call.do(); err != nil {
			t.Fatalf("%s: %v", call.name, err)
		}
		if u := b.fair.uses[id.Principal()]; u == nil || u.work < float64(callWork) {
			t.Errorf("%s counts for nothing", call.name)
		}
	}
}
