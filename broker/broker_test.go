package broker

import (
	"context"
	"errors"
	"fmt"
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

func TestJournalIsRefusedWithoutOne(t *testing.T) {
	inWorld(t, func(w *world) {
		if w.journal != nil {
			return
		}
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
		if w.journal != nil { // it remembers its producers over a restart: this batch was not stored
			w.must(err)
			return
		}
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
		w.create("/q2")
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
			_, _, errs["move"] = w.Move(w.ctx, id, MoveRequest{From: "/q", To: "/q2"})
			_, errs["redrive"] = w.Redrive(w.ctx, id, RedriveRequest{Queue: "/q"})
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
