package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestCreatingAgainNamesTheDifference_S1(t *testing.T) {
	inWorld(t, func(w *world) {
		ten := func(s *queue.Settings) error { s.MaxMessages = 10; return nil }
		_, created, err := w.CreateQueue(w.ctx, alice, "/q", ten, false)
		w.must(err)
		if !created {
			t.Fatal("not created")
		}
		_, created, err = w.CreateQueue(w.ctx, alice, "/q", ten, false)
		w.must(err)
		if created {
			t.Fatal("created twice")
		}
		_, _, err = w.CreateQueue(w.ctx, alice, "/q", ten, true)
		w.wants(err, reason.QueueExists)
		_, _, err = w.CreateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.MaxMessages = 11; return nil }, false)
		w.wants(err, reason.QueueExists)
		if !strings.Contains(err.Error(), "max_messages is 10, not 11") {
			t.Fatalf("the difference is not named: %v", err)
		}
		for _, name := range []string{"", "q", "/", "/.q", "/a/b", "/ä", "/" + strings.Repeat("x", limits.NameLength+1), "/a b", "/a\x00"} {
			_, _, err := w.CreateQueue(w.ctx, alice, name, ten, false)
			w.wants(err, reason.InvalidArgument)
		}
		w.create("/" + strings.Repeat("x", limits.NameLength))
	})
}

func TestJournalIsRefusedUntilThereIsOne(t *testing.T) {
	inWorld(t, func(w *world) {
		_, _, err := w.CreateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Durability = queue.Journal; return nil }, false)
		w.wants(err, reason.Unimplemented)
	})
}

func TestBlockedSendersAreServedInOrder_S7(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages = 4; s.Overflow = queue.Block })
		w.send("/q", "a", "b", "c")
		results := make(chan string, 2)
		// A large batch waits; a small one that would fit must not overtake it.
		go func() {
			_, err := w.trySend("/q", "L1", "L2", "L3")
			results <- fmt.Sprint("large ", err)
		}()
		synctest.Wait()
		go func() {
			_, err := w.trySend("/q", "s")
			results <- fmt.Sprint("small ", err)
		}()
		synctest.Wait()
		if s := w.stats("/q"); s.BlockedSenders != 2 || s.Ready != 3 {
			t.Fatalf("%d blocked, %d ready", s.BlockedSenders, s.Ready)
		}
		got := w.receive("/q", 3)
		w.must(w.settle(got[0], Verdict{}))
		synctest.Wait()
		if len(results) != 0 {
			t.Fatal("served without room: ", <-results)
		}
		w.must(w.settle(got[1], Verdict{}))
		synctest.Wait()
		if r := <-results; r != "large <nil>" {
			t.Fatal(r)
		}
		w.must(w.settle(got[2], Verdict{}))
		if r := <-results; r != "small <nil>" {
			t.Fatal(r)
		}
		if got := bodiesOf(w.receive("/q", 9)); got != "L1 L2 L3 s " {
			t.Fatal(got)
		}
		_, err := w.trySend("/q", "1", "2", "3", "4", "5")
		w.wants(err, reason.QueueFull)
		var e *reason.Error
		if errors.As(err, &e); e.RetryAfter != 0 {
			t.Fatal("a batch that never fits comes with a retry hint")
		}
	})
}

func TestBlockedSenderGivesUpAtItsDeadline_S7(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages = 1; s.Overflow = queue.Block })
		w.send("/q", "a")
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}, Wait: time.Second})
		w.wants(err, reason.TimedOut)
		_, err = w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}})
		w.wants(err, reason.QueueFull)
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		_, err = w.Send(ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}, Wait: -1})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if s := w.stats("/q"); s.BlockedSenders != 0 || s.Ready != 1 {
			t.Fatalf("%+v", s)
		}
	})
}

func TestBatchOfAnotherInstanceIsUnknown_S9(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		r := SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}, Producer: "p", Batch: 1, Instance: w.Instance()}
		first, err := w.Send(w.ctx, alice, r)
		w.must(err)
		again, err := w.Send(w.ctx, alice, r)
		w.must(err)
		if first.First != again.First || w.stats("/q").Ready != 1 {
			t.Fatal("stored twice")
		}
		r.Batch, r.Instance = 2, "an earlier one"
		_, err = w.Send(w.ctx, alice, r)
		w.wants(err, reason.OutcomeUnknown)
	})
}

func TestWaitingReceiversAreServedInOrder_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		type result struct {
			who  string
			got  []queue.Delivery
			err  error
			took time.Duration
		}
		results := make(chan result, 10)
		wait := func(who string, sel queue.Selector, wait time.Duration) {
			start := time.Now()
			go func() {
				got, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Selector: sel, Wait: wait})
				results <- result{who, got, err, time.Since(start)}
			}()
			synctest.Wait()
		}
		wait("type 2", queue.Selector{Kind: queue.TypeIs, Type: 2}, time.Minute)
		wait("first", queue.Selector{}, time.Minute)
		wait("second", queue.Selector{}, time.Minute)
		wait("third", queue.Selector{}, time.Second)
		for _, want := range []string{"first", "second"} {
			w.send("/q", "x")
			if r := <-results; r.who != want || len(r.got) != 1 || r.err != nil {
				t.Fatalf("%+v, want %s", r, want)
			}
		}
		pass(2 * time.Second)
		if r := <-results; r.who != "third" || len(r.got) != 0 || r.err != nil || r.took != time.Second {
			t.Fatalf("%+v: want nothing after a second", r)
		}
		if s := w.stats("/q"); s.Receivers != 1 {
			t.Fatalf("%d receivers", s.Receivers)
		}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 2}}})
		w.must(err)
		if r := <-results; r.who != "type 2" || len(r.got) != 1 {
			t.Fatalf("%+v", r)
		}
	})
}

func TestReceiveWithoutWaitReturnsAtOnce_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		start := time.Now()
		if got := w.receive("/q", 1); len(got) != 0 || time.Since(start) != 0 {
			t.Fatal(got, time.Since(start))
		}
	})
}

func TestCallerThatIsGoneLeavesNoLease_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		ctx, cancel := context.WithCancel(w.ctx)
		w.send("/q", "a")
		cancel()
		_, err := w.Receive(ctx, alice, ReceiveRequest{Queue: "/q", Max: 5})
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		w.counts("/q", 1, 0, 0, 0)
		if d := w.receiveOne("/q"); d.Attempts != 0 {
			t.Fatal("the lost receive counted as an attempt")
		}
	})
}

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

func TestPauseStopsDeliveriesNotSends_S22(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		_, err := w.PauseQueue(w.ctx, alice, "/q", true)
		w.must(err)
		w.send("/q", "a")
		if got := w.receive("/q", 1); len(got) != 0 {
			t.Fatal("delivered while paused")
		}
		got := make(chan []queue.Delivery, 1)
		go func() {
			d, _ := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Wait: time.Minute})
			got <- d
		}()
		synctest.Wait()
		_, err = w.PauseQueue(w.ctx, alice, "/q", false)
		w.must(err)
		if d := <-got; len(d) != 1 {
			t.Fatal("not delivered after resume")
		}
	})
}

func TestDeleteEndsWhatWaits_S23(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages = 1; s.Overflow = queue.Block })
		ended := make(chan error, 5)
		c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q", Selector: queue.Selector{Kind: queue.TypeIs, Type: 9}})
		w.must(err)
		w.must(c.Credit(1, 0))
		go func() { _, err := c.Next(w.ctx); ended <- err }()
		go func() { ended <- w.AwaitArrival(w.ctx, alice, "/q", 99) }()
		go func() {
			_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Selector: queue.Selector{Kind: queue.TypeIs, Type: 9}, Wait: time.Minute})
			ended <- err
		}()
		w.send("/q", "a")
		go func() { _, err := w.trySend("/q", "b"); ended <- err }()
		synctest.Wait()
		n, err := w.DeleteQueue(w.ctx, alice, "/q")
		w.must(err)
		if n != 1 {
			t.Fatal(n)
		}
		for range 4 {
			w.wants(<-ended, reason.QueueDeleted)
		}
		c.Close(true)
		_, err = w.GetQueue(w.ctx, alice, "/q")
		w.wants(err, reason.QueueNotFound)
		w.create("/q") // another one: old receipts are of no use there
		if info, _ := w.GetQueue(w.ctx, alice, "/q"); info.ID != 2 {
			t.Fatalf("id %d used again", info.ID)
		}
	})
}

func TestAccessIsCheckedAtEveryCall(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.Mode = 0o620 }) // group: write
		w.send("/q", "a")
		d := w.receiveOne("/q")
		_, err := w.UpdateQueue(w.ctx, root, "/q", func(s *queue.Settings) error { s.GroupGID = 7; return nil })
		w.must(err)
		try := func(id identity.Identity) map[string]error {
			errs := map[string]error{}
			_, errs["send"] = w.Send(w.ctx, id, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}})
			_, errs["receive"] = w.Receive(w.ctx, id, ReceiveRequest{Queue: "/q"})
			_, errs["consume"] = w.Consume(w.ctx, id, ConsumeRequest{Queue: "/q"})
			_, errs["peek"] = w.Peek(w.ctx, id, PeekRequest{Queue: "/q", Max: 1})
			_, errs["get"] = w.GetQueue(w.ctx, id, "/q")
			_, _, errs["purge"] = w.Purge(w.ctx, id, SelectRequest{Queue: "/q"})
			_, _, errs["kick"] = w.Kick(w.ctx, id, SelectRequest{Queue: "/q"})
			_, errs["pause"] = w.PauseQueue(w.ctx, id, "/q", true)
			_, errs["update"] = w.UpdateQueue(w.ctx, id, "/q", func(s *queue.Settings) error { return nil })
			out, _ := w.Settle(w.ctx, id, []Settlement{{Receipt: d.Receipt}})
			if len(out.Failures) > 0 {
				errs["settle"] = out.Failures[0].Err
			}
			_, errs["delete"] = w.DeleteQueue(w.ctx, id, "/q")
			return errs
		}
		for _, c := range []struct {
			id   identity.Identity
			may  string
			list int
		}{{nemo, "", 0}, {identity.Identity{Kind: identity.Unix, UID: 5, GID: 5}, "", 0}, {bob, "send", 0}} {
			for what, err := range try(c.id) {
				if what == c.may {
					w.must(err)
				} else {
					w.wants(err, reason.AccessDenied)
				}
			}
			if list, err := w.ListQueues(w.ctx, c.id, ""); err != nil || len(list) != c.list {
				t.Fatal(len(list), err)
			}
		}
		_, _, err = w.CreateQueue(w.ctx, nemo, "/mine", func(*queue.Settings) error { return nil }, false)
		w.wants(err, reason.AccessDenied)
		_, _, err = w.CreateQueue(w.ctx, bob, "/mine", func(s *queue.Settings) error { s.OwnerUID = 0; return nil }, false)
		w.wants(err, reason.AccessDenied)
		_, _, err = w.CreateQueue(w.ctx, bob, "/mine", func(s *queue.Settings) error { s.GroupGID = 0; return nil }, false)
		w.wants(err, reason.AccessDenied)
		for what, err := range try(alice) {
			if err != nil {
				t.Errorf("the owner may not %s: %v", what, err)
			}
		}
	})
}

func TestConsumerStaysWithinItsCredit(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q"})
		w.must(err)
		defer c.Close(true)
		w.send("/q", "aaaa", "bbbb", strings.Repeat("c", 100), "dddd")
		w.must(c.Credit(10, 9))
		got, err := c.Next(w.ctx)
		w.must(err)
		if len(got.Deliveries) != 2 || got.First != 1 {
			t.Fatalf("%d deliveries from tag %d", len(got.Deliveries), got.First)
		}
		// One that is larger than all credit passes alone, once the credit is whole.
		w.must(c.Credit(0, 8))
		got, err = c.Next(w.ctx)
		w.must(err)
		if len(got.Deliveries) != 1 || got.First != 3 || len(got.Deliveries[0].Body) != 100 {
			t.Fatalf("%+v", got)
		}
		out, err := c.Settle([]TagSettlement{{First: 1, Last: 3}, {First: 2, Last: 2}, {First: 77, Last: 77}})
		w.must(err)
		if len(out.Failures) != 2 || out.Failures[0].Tag != 2 || out.Failures[1].Tag != 77 {
			t.Fatalf("%+v", out)
		}
		w.counts("/q", 1, 0, 0, 0)
		w.must(c.Credit(0, 200))
		c.Drain()
		if got, err = c.Next(w.ctx); err != nil || len(got.Deliveries) != 1 {
			t.Fatal("what was on its way at drain is lost", err)
		}
		if _, err = c.Next(w.ctx); err != io.EOF {
			t.Fatal(err)
		}
	})
}

func TestClosingAConsumerReturnsItsLeases_S16(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		for _, graceful := range []bool{true, false} {
			w.send("/q", "a", "b", "c")
			c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q"})
			w.must(err)
			w.must(c.Credit(2, 0))
			got, err := c.Next(w.ctx)
			w.must(err)
			w.must(c.Credit(1, 0)) // the third stays in the outbox
			_, err = c.Settle([]TagSettlement{{First: got.First, Last: got.First}})
			w.must(err)
			w.counts("/q", 0, 0, 2, 0)
			c.Close(graceful)
			w.counts("/q", 2, 0, 0, 0)
			left := w.receive("/q", 5)
			attempts := 1
			if graceful {
				attempts = 0
			}
			if string(left[0].Body) != "b" || left[0].Attempts != attempts || left[1].Attempts != 0 {
				t.Fatalf("graceful %v: %s with %d attempts, then %d", graceful, left[0].Body, left[0].Attempts, left[1].Attempts)
			}
			for _, d := range left {
				w.must(w.settle(d, Verdict{}))
			}
		}
	})
}

func TestConsumersTakeTurns_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		var got [2]int
		var consumers [2]*Consumer
		for i := range consumers {
			c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q"})
			w.must(err)
			defer c.Close(true)
			w.must(c.Credit(100, 0))
			consumers[i] = c
		}
		for range 20 {
			w.send("/q", "x")
		}
		for i, c := range consumers {
			d, err := c.Next(w.ctx)
			w.must(err)
			got[i] = len(d.Deliveries)
		}
		if got != [2]int{10, 10} {
			t.Fatal(got)
		}
	})
}

func TestStopWaitsForLeasesABoundedTime(t *testing.T) {
	for _, acked := range []bool{true, false} {
		inWorld(t, func(w *world) {
			w.create("/q")
			w.send("/q", "a", "b")
			d := w.receiveOne("/q")
			waits := make(chan error, 1)
			go func() {
				_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q", Selector: queue.Selector{Kind: queue.TypeIs, Type: 2}, Wait: time.Hour})
				waits <- err
			}()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
			defer cancel()
			stopped := make(chan error, 1)
			go func() { stopped <- w.Stop(ctx) }()
			synctest.Wait()
			w.wants(<-waits, reason.ShuttingDown)
			_, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/q"})
			w.wants(err, reason.ShuttingDown)
			_, err = w.trySend("/q", "c")
			w.wants(err, reason.ShuttingDown)
			if len(stopped) != 0 {
				t.Fatal("did not wait")
			}
			if acked {
				w.must(w.settle(d, Verdict{}))
				w.must(<-stopped)
			} else if err := <-stopped; !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		})
	}
}
