package broker

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// TestConcurrentUseLosesAndRepeatsNothing runs senders, receivers, consumers, dead-lettering, peeks and
// admin calls at once on the real clock, and then accounts for every message: each is acked exactly once.
func TestConcurrentUseLosesAndRepeatsNothing_S6_S14(t *testing.T) {
	defer goleak.VerifyNone(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	b := New(Options{})
	defer b.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	create := func(name string, edit func(*queue.Settings)) {
		if _, _, err := b.CreateQueue(ctx, alice, name, func(s *queue.Settings) error { edit(s); return nil }, false); err != nil {
			t.Fatal(err)
		}
	}
	// The dead-letter queue has the higher id, and in the other pair the lower one.
	create("/dead2", func(s *queue.Settings) {})
	create("/q1", func(s *queue.Settings) {
		s.MaxMessages = 200
		s.Overflow = queue.Block
		s.MaxAttempts = 2
		s.DeadLetter = "/dead1"
	})
	create("/dead1", func(s *queue.Settings) {})
	create("/q2", func(s *queue.Settings) { s.MaxAttempts = 2; s.DeadLetter = "/dead2"; s.Lease = 20 * time.Millisecond })

	const senders, batches, perBatch = 3, 150, 4
	var mu sync.Mutex
	acked := map[string]int{}
	done := func(body []byte) {
		mu.Lock()
		acked[string(body)]++
		mu.Unlock()
	}
	var sending, working sync.WaitGroup
	names := []string{"/q1", "/q2"}
	sent := map[string]bool{}
	for i := range senders {
		sending.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for n := range batches {
				r := SendRequest{Queue: names[rng.IntN(2)], Wait: -1}
				for k := range perBatch {
					body := []byte{byte(i), byte(n), byte(n >> 8), byte(k)}
					r.Messages = append(r.Messages, queue.Message{Type: 1 + rng.Int64N(3), Priority: uint16(rng.IntN(2)), Body: body})
					mu.Lock()
					sent[string(body)] = true
					mu.Unlock()
				}
				if _, err := b.Send(ctx, alice, r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	verdict := func(rng *rand.Rand) Verdict {
		switch rng.IntN(6) {
		case 0:
			return Verdict{Outcome: Nack, Delay: time.Duration(rng.IntN(3)) * time.Millisecond}
		case 1:
			return Verdict{Outcome: Release}
		}
		return Verdict{Outcome: Ack}
	}
	for i := range 4 { // Receive callers
		working.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 100+uint64(i)))
			queues := []string{"/q1", "/q2", "/dead1", "/dead2"}
			for ctx.Err() == nil {
				sel := queue.Selector{}
				if rng.IntN(3) == 0 {
					sel = queue.Selector{Kind: queue.TypeIs, Type: 1 + rng.Int64N(3)}
				}
				got, err := b.Receive(ctx, alice, ReceiveRequest{Queue: queues[rng.IntN(4)], Selector: sel, Max: 1 + rng.IntN(5), Wait: 3 * time.Millisecond})
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				for _, d := range got {
					v := verdict(rng)
					out, err := b.Settle(context.Background(), alice, []Settlement{{Receipt: d.Receipt, Verdict: v}})
					if err != nil {
						t.Error(err)
					} else if len(out.Failures) == 0 && v.Outcome == Ack {
						done(d.Body)
					} else if len(out.Failures) > 0 && reason.Of(out.Failures[0].Err) != reason.StaleReceipt {
						t.Error(out.Failures[0].Err)
					}
				}
			}
		})
	}
	for i := range 3 { // consumers that come and go
		working.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 200+uint64(i)))
			for ctx.Err() == nil {
				c, err := b.Consume(ctx, alice, ConsumeRequest{Queue: names[rng.IntN(2)]})
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.Credit(uint64(1+rng.IntN(20)), 0)
				short, stop := context.WithTimeout(ctx, 5*time.Millisecond)
				got, err := c.Next(short)
				stop()
				if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) && err != io.EOF {
					t.Error(err)
				}
				for j, d := range got.Deliveries {
					tag := got.First + uint64(j)
					v := verdict(rng)
					out, _, err := c.Settle([]TagSettlement{{First: tag, Last: tag, Verdict: v}})
					if err != nil {
						t.Error(err)
					} else if len(out.Failures) == 0 && v.Outcome == Ack {
						done(d.Body)
					}
					if rng.IntN(20) == 0 {
						break
					}
				}
				c.Close(rng.IntN(2) == 0)
			}
		})
	}
	working.Go(func() {
		for ctx.Err() == nil {
			_, _ = b.Peek(ctx, alice, PeekRequest{Queue: "/q1", Max: 50, Filter: queue.Filter{States: []queue.State{queue.Ready, queue.Delayed, queue.Leased, queue.Buried}}})
			_, _ = b.ListQueues(ctx, alice, "")
			_, _ = b.PauseQueue(ctx, alice, "/q2", true)
			_, _ = b.PauseQueue(context.Background(), alice, "/q2", false)
			_, _, _ = b.Kick(ctx, alice, SelectRequest{Queue: "/dead1"})
			_, _, _ = b.Kick(ctx, alice, SelectRequest{Queue: "/dead2"})
		}
	})
	sending.Wait()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	// Totals alone would not do: a dead letter may move behind its back, from a queue it has not looked
	// at yet to one that it has.
	allAcked := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(acked) == senders*batches*perBatch
	}
	for !allAcked() || b.Totals().Messages > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d messages are still there", b.Totals().Messages)
		}
	}
	cancel()
	working.Wait()
	for body := range sent {
		if acked[body] != 1 {
			t.Errorf("message %x was acked %d times", body, acked[body])
		}
	}
	if len(acked) != senders*batches*perBatch {
		t.Errorf("%d messages acked, %d sent", len(acked), senders*batches*perBatch)
	}
}
