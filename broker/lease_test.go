package broker

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestLeaseExpiresAndCounts_S14_S16(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.Lease = time.Second })
		w.send("/q", "a", "b")
		first := w.receiveOne("/q")
		pass(900 * time.Millisecond)
		w.counts("/q", 1, 0, 1, 0)
		w.must(w.settle(first, Verdict{Outcome: Touch}))
		pass(900 * time.Millisecond)
		w.counts("/q", 1, 0, 1, 0)
		pass(200 * time.Millisecond)
		w.counts("/q", 2, 0, 0, 0)
		w.wants(w.settle(first, Verdict{}), reason.StaleReceipt)
		again := w.receiveOne("/q")
		if again.Sequence != first.Sequence || again.Attempts != 1 {
			t.Fatalf("got %d with %d attempts", again.Sequence, again.Attempts)
		}
		w.wants(w.settle(first, Verdict{}), reason.StaleReceipt) // of an earlier delivery
		w.must(w.settle(again, Verdict{}))
		w.wants(w.settle(again, Verdict{}), reason.StaleReceipt)
	})
}

func TestReceiptOfAnotherQueueIsStale_S13(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/a")
		w.create("/b")
		w.send("/a", "x")
		w.send("/b", "x")
		a, b := w.receiveOne("/a"), w.receiveOne("/b")
		forged := a
		forged.Receipt.Queue = b.Receipt.Queue
		w.wants(w.settle(forged, Verdict{}), reason.StaleReceipt)
		forged.Receipt.Queue = 999
		w.wants(w.settle(forged, Verdict{}), reason.StaleReceipt)
		w.counts("/a", 0, 0, 1, 0)
		w.counts("/b", 0, 0, 1, 0)
		out, err := w.Settle(w.ctx, alice, []Settlement{{Receipt: a.Receipt}, {Receipt: forged.Receipt}, {Receipt: b.Receipt}})
		w.must(err)
		if len(out.Failures) != 1 || out.Failures[0].Index != 1 {
			t.Fatalf("%+v", out)
		}
		w.counts("/a", 0, 0, 0, 0)
		w.counts("/b", 0, 0, 0, 0)
	})
}

func TestNackDelaysAndBacksOff_S15(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.BackoffInitial, s.BackoffMax = time.Second, 3*time.Second })
		w.send("/q", "a", "b")
		d := w.receiveOne("/q")
		w.must(w.settle(d, Verdict{Outcome: Nack, Delay: 5 * time.Second}))
		w.counts("/q", 1, 1, 0, 0)
		pass(6 * time.Second)
		d = w.receiveOne("/q")
		if string(d.Body) != "a" {
			t.Fatal("the returned message does not come first")
		}
		for _, wait := range []time.Duration{2 * time.Second, 3 * time.Second, 3 * time.Second} {
			w.must(w.settle(d, Verdict{Outcome: Nack, Delay: -1}))
			pass(wait - 10*time.Millisecond)
			w.counts("/q", 1, 1, 0, 0)
			pass(20 * time.Millisecond)
			d = w.receiveOne("/q")
		}
		if string(d.Body) != "a" || d.Attempts != 4 {
			t.Fatalf("%s after %d attempts", d.Body, d.Attempts)
		}
	})
}

func TestDeadLettering_S17(t *testing.T) {
	for _, order := range []string{"source first", "dead-letter queue first"} {
		t.Run(order, func(t *testing.T) {
			inWorld(t, func(w *world) {
				source := func() {
					w.create("/q", func(s *queue.Settings) { s.MaxAttempts = 2; s.DeadLetter = "/dead"; s.Lease = time.Second })
				}
				if order == "source first" {
					source()
					w.create("/dead")
				} else {
					w.create("/dead")
					source()
				}
				w.send("/q", "a")
				w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Nack, Delay: 0, Reason: "no"}))
				// Somebody who waits at the dead-letter queue is served in the same step.
				got := make(chan []queue.Delivery, 1)
				go func() {
					d, _ := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/dead", Wait: time.Minute})
					got <- d
				}()
				synctest.Wait()
				w.receiveOne("/q")
				pass(1100 * time.Millisecond) // the lease ends
				dead := <-got
				w.counts("/q", 0, 0, 0, 0)
				if len(dead) != 1 || string(dead[0].Body) != "a" || dead[0].Attempts != 0 {
					t.Fatalf("%+v", dead)
				}
				headers := map[string]string{}
				for _, h := range dead[0].Headers {
					headers[h.Key] = string(h.Value)
				}
				if headers[queue.HeaderDeadQueue] != "/q" || headers[queue.HeaderDeadReason] != "max-attempts" || headers[queue.HeaderDeadAttempts] != "2" {
					t.Fatal(headers)
				}
			})
		})
	}
}

func TestDeadLetterStaysBuriedWhereItCannotGo_S17(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxAttempts = 1; s.DeadLetter = "/dead" })
		w.send("/q", "a", "b", "c")
		w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Nack})) // missing
		w.counts("/q", 2, 0, 0, 1)
		w.create("/dead", func(s *queue.Settings) { s.MaxMessages = 1 })
		w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Nack}))
		w.must(w.settle(w.receiveOne("/q"), Verdict{Outcome: Nack})) // full
		w.counts("/q", 0, 0, 0, 2)
		w.counts("/dead", 1, 0, 0, 0)
		n, _, err := w.Kick(w.ctx, alice, SelectRequest{Queue: "/q"})
		w.must(err)
		if n != 2 {
			t.Fatal(n)
		}
		w.counts("/q", 2, 0, 0, 0)
	})
}

func TestDeadLetterCyclesAreRefused_S17(t *testing.T) {
	inWorld(t, func(w *world) {
		to := func(name string) func(*queue.Settings) { return func(s *queue.Settings) { s.DeadLetter = name } }
		w.create("/a", to("/b"))
		w.create("/b", to("/c"))
		_, _, err := w.CreateQueue(w.ctx, alice, "/c", func(s *queue.Settings) error { s.DeadLetter = "/a"; return nil }, false)
		w.wants(err, reason.DeadLetterCycle)
		_, _, err = w.CreateQueue(w.ctx, alice, "/self", func(s *queue.Settings) error { s.DeadLetter = "/self"; return nil }, false)
		w.wants(err, reason.DeadLetterCycle)
		w.create("/c")
		_, err = w.UpdateQueue(w.ctx, alice, "/c", func(s *queue.Settings) error { s.DeadLetter = "/a"; return nil })
		w.wants(err, reason.DeadLetterCycle)
	})
}

func TestTTLDropsOrDeadLetters_S18(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/drop")
		w.create("/dead")
		w.create("/keep", func(s *queue.Settings) { s.DeadLetter, s.DeadLetterExpired = "/dead", true })
		for _, name := range []string{"/drop", "/keep"} {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: name, Messages: []queue.Message{{Type: 1, TTL: time.Second}, {Type: 1, TTL: time.Second}}})
			w.must(err)
			w.receiveOne(name) // leased: not touched until the lease ends
		}
		pass(1100 * time.Millisecond)
		w.counts("/drop", 0, 0, 1, 0)
		w.counts("/keep", 0, 0, 1, 0)
		w.counts("/dead", 1, 0, 0, 0)
		pass(limits.LeaseDefault)
		w.counts("/drop", 0, 0, 0, 0)
		w.counts("/keep", 0, 0, 0, 0)
		w.counts("/dead", 2, 0, 0, 0)
		if s := w.stats("/drop"); s.TTLDropped != 2 {
			t.Fatalf("%d counted", s.TTLDropped)
		}
	})
}
