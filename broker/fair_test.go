package broker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/internal/identity"
)

var (
	flooder = identity.User(1001)
	quiet   = identity.User(1002)
)

// enter does some work on a queue of its own and returns how long that was put off.
func enter(t *testing.T, f *fair, p identity.Principal, work time.Duration) time.Duration {
	t.Helper()
	return enterOn(t, f, p, uint64(p.UID), work)
}

// enterOn does some work on a queue and returns how long that was put off.
func enterOn(t *testing.T, f *fair, p identity.Principal, queue uint64, work time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	if _, err := f.enter(t.Context(), p, work, queue); err != nil {
		t.Fatal(err)
	}
	f.granted(p, queue, 0)
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
					for {
						if _, err := f.enter(ctx, flooder, work, 1); err != nil {
							return
						}
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
			share := f.share * tries * float64(3*time.Millisecond)
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

// What two principals' calls are about.
const (
	shared = 1
	other  = 2
)

func TestThoseWhoShareAQueueDoNotSlowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		for i := range 10000 {
			// The consumer also passes on what it gets.
			for _, queue := range []uint64{shared, other} {
				enterOn(t, f, quiet, queue, time.Microsecond)
			}
			if d := enterOn(t, f, flooder, shared, callWork); d != 0 {
				t.Fatalf("call %d: the producer waited %v", i, d)
			}
		}
		f.granted(flooder, shared, time.Second)
		if d := enter(t, f, flooder, callWork); d > fairTurn {
			t.Errorf("elsewhere it waited %v for what it did on the shared queue", d)
		}
	})
}

func TestCallsOnASharedQueueAreNoWayOutOfDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFair()
		enterOn(t, f, quiet, shared, callWork)
		f.count(flooder, time.Second)
		enterOn(t, f, flooder, shared, callWork)
		f.granted(flooder, shared, callWork)
		if d := enter(t, f, flooder, callWork); d <= 2*fairTurn {
			t.Errorf("it waited %v for the second of work that it did before", d)
		}
	})
}

func TestShareGrowsWithTheMachineUpToAllOfIt(t *testing.T) {
	for processors, want := range map[int]float64{1: 0.125, 2: 0.25, 4: 0.5, 8: 1, 256: 1} {
		if got := shareOf(processors); got != want {
			t.Errorf("of %d processors: %v, want %v", processors, got, want)
		}
	}
}

func TestWhatIsHeldIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Broker{fair: newFair()}
		enter(t, b.fair, quiet, callWork)
		enter(t, b.fair, flooder, time.Second)
		if calls, total := b.fair.heldBack(); calls != 0 || total != 0 {
			t.Errorf("%d calls for %v were held before any had to wait", calls, total)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Millisecond)
		defer cancel()
		if held, err := b.fair.enter(ctx, flooder, callWork, other); !held || err == nil {
			t.Errorf("held %v: %v", held, err)
		}
		waited := enter(t, b.fair, flooder, callWork) + 7*time.Millisecond
		if calls, total := b.fair.heldBack(); calls != 2 || total != waited {
			t.Errorf("%d calls for %v, want 2 for %v", calls, total, waited)
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
		f.granted(flooder, other, 20*time.Second)
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
		if _, err := f.enter(ctx, flooder, callWork, other); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 7*time.Millisecond {
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
