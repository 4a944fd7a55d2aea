package broker

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ipcd/ipcd/broker/queue"
)

// TestAdminCallsAmidUseComeToAnEnd deletes, changes, pauses and purges queues that are each other's
// dead-letter queues one after the other, while they are used in every way. Nobody may be left waiting.
func TestAdminCallsAmidUseComeToAnEnd_S22_S23(t *testing.T) {
	defer goleak.VerifyNone(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := New(Options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	names := []string{"/a", "/b", "/c"}
	settings := func(rng *rand.Rand) Edit {
		dead, mode, overflow := names[rng.IntN(3)], uint32(0o666), queue.Overflow(rng.IntN(3))
		if rng.IntN(3) == 0 {
			dead = ""
		}
		if rng.IntN(8) == 0 {
			mode = 0o600
		}
		return func(s *queue.Settings) error {
			s.DeadLetter, s.Mode, s.Overflow = dead, mode, overflow
			s.MaxMessages, s.MaxAttempts, s.Lease = 20, 2, 10*time.Millisecond
			return nil
		}
	}
	var users, admins sync.WaitGroup
	var used atomic.Bool
	var delivered atomic.Int64
	streams := uint64(0)
	run := func(group *sync.WaitGroup, each func(rng *rand.Rand, name string), until func(round int) bool) {
		streams++
		rng := rand.New(rand.NewPCG(seed, streams))
		group.Go(func() {
			for round := 0; !until(round); round++ {
				each(rng, names[rng.IntN(3)])
			}
		})
	}
	use := func(each func(rng *rand.Rand, name string)) {
		run(&users, each, func(round int) bool { return round == 300 })
	}
	for _, name := range names {
		if _, _, err := b.CreateQueue(ctx, alice, name, func(s *queue.Settings) error { s.Mode = 0o666; return nil }, false); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		run(&admins, func(rng *rand.Rand, name string) {
			switch rng.IntN(200) {
			case 0:
				_, _ = b.DeleteQueue(ctx, alice, name)
			case 1, 2, 3: // in vain where it would make a circle of dead letters
				_, _, _ = b.CreateQueue(ctx, alice, name, settings(rng), false)
			case 4:
				_, _ = b.UpdateQueue(ctx, alice, name, settings(rng))
			case 5:
				_, _ = b.PauseQueue(ctx, alice, name, rng.IntN(2) == 0)
			case 6:
				_, _, _ = b.Purge(ctx, alice, SelectRequest{Queue: name, Filter: queue.Filter{States: []queue.State{queue.Leased, queue.Ready}}})
			case 7:
				_, _ = b.ListQueues(ctx, bob, "")
				b.Totals()
			default:
				_, _ = b.PauseQueue(ctx, alice, name, false)
				runtime.Gosched()
			}
		}, func(int) bool { return used.Load() })
		use(func(rng *rand.Rand, name string) {
			_, _ = b.Send(ctx, bob, SendRequest{Queue: name, Messages: []queue.Message{{Type: 1}}, Wait: time.Millisecond})
			batch := []queue.Message{{Type: 1}, {Type: 2, TTL: time.Millisecond}, {Type: 3, Delay: time.Millisecond}}
			_, _ = b.Send(ctx, bob, SendRequest{Queue: name, Messages: batch, Wait: time.Duration(rng.IntN(3)) * time.Millisecond, Producer: "p", Batch: rng.Uint64N(100)})
		})
		use(func(rng *rand.Rand, name string) {
			got, _ := b.Receive(ctx, bob, ReceiveRequest{Queue: name, Max: 3, Wait: time.Millisecond})
			delivered.Add(int64(len(got)))
			for _, d := range got {
				_, _ = b.Settle(ctx, bob, []Settlement{{Receipt: d.Receipt, Verdict: Verdict{Outcome: Outcome(rng.IntN(5))}}})
			}
		})
		use(func(rng *rand.Rand, name string) {
			c, err := b.Consume(ctx, bob, ConsumeRequest{Queue: name, Consume: rng.IntN(4) == 0})
			if err != nil {
				return
			}
			_ = c.Credit(1+rng.Uint64N(9), rng.Uint64N(2)*100)
			short, stop := context.WithTimeout(ctx, time.Millisecond)
			got, _ := c.Next(short)
			stop()
			if n := uint64(len(got.Deliveries)); n > 0 {
				_, _, _ = c.Settle([]TagSettlement{{First: got.First, Last: got.First + rng.Uint64N(n), Verdict: Verdict{Outcome: Outcome(rng.IntN(5))}}})
			}
			c.Close(rng.IntN(2) == 0)
		})
		use(func(rng *rand.Rand, name string) { // as an incoming door
			b.mu.RLock()
			s := b.byName[name]
			b.mu.RUnlock()
			if s == nil {
				return
			}
			short, stop := context.WithTimeout(ctx, time.Millisecond)
			defer stop()
			if room, err := (*lane)(s).Reserve(short, 3, 30); err == nil {
				_, _ = room.Send([]queue.Message{{Type: 1}, {Type: -1}})
				room.Release()
			}
		})
	}
	users.Wait()
	used.Store(true)
	admins.Wait()
	if ctx.Err() != nil {
		t.Fatal("somebody was left waiting")
	}
	if delivered.Load() == 0 {
		t.Error("nothing was delivered: the test tests nothing")
	}
	for _, s := range b.all() {
		if s.receivers.len != 0 || s.blocked.len != 0 || s.blockedBytes != 0 || len(s.consumers) != 0 {
			t.Errorf("%s: %d receivers, %d blocked with %d bytes, %d consumers", s.name, s.receivers.len, s.blocked.len, s.blockedBytes, len(s.consumers))
		}
		s.mu.Lock()
		left := s.q.Len()
		if room := 20 - left; room > 0 && !s.q.Reserve(room, 0) {
			t.Errorf("%s: reserved room was not given back", s.name)
		}
		s.mu.Unlock()
	}
	b.Close()
}
