package broker

import (
	"context"
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

func (w *world) consume(id identity.Identity, r ConsumeRequest) *Consumer {
	w.Helper()
	c, err := w.Consume(w.ctx, id, r)
	w.must(err)
	return c
}

// nextOrNothing returns what Next has at once.
func (w *world) nextOrNothing(c *Consumer) Deliveries {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Nanosecond)
	defer cancel()
	got, err := c.Next(ctx)
	if err != nil && err != context.DeadlineExceeded {
		w.Fatal(err)
	}
	return got
}

func TestTagsUpToTheHighestNumberAreSettledOnce_S13(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		c := w.consume(alice, ConsumeRequest{Queue: "/q"})
		defer c.Close(true)
		out, _, err := c.Settle([]TagSettlement{{First: math.MaxUint64 - 2, Last: math.MaxUint64}})
		w.must(err)
		if len(out.Failures) != 3 || out.Failures[2].Tag != math.MaxUint64 {
			t.Fatalf("%d failures, the last %+v", len(out.Failures), out.Failures[len(out.Failures)-1])
		}
	})
}

func TestTagIsNotSettledBeforeItIsDelivered_S13(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.send("/q", "a")
		c := w.consume(alice, ConsumeRequest{Queue: "/q"})
		defer c.Close(true)
		w.must(c.Credit(1, 0))
		w.counts("/q", 0, 0, 1, 0)
		out, _, err := c.Settle([]TagSettlement{{First: 1, Last: 1}})
		w.must(err)
		if len(out.Failures) != 1 || reason.Of(out.Failures[0].Err) != reason.StaleReceipt {
			t.Fatalf("settling what was not delivered: %+v", out)
		}
		if got, err := c.Next(w.ctx); err != nil || bodiesOf(got.Deliveries) != "a " {
			t.Fatal(got, err)
		}
		if out, _, err := c.Settle([]TagSettlement{{First: 1, Last: 1}}); err != nil || len(out.Failures) > 0 {
			t.Fatal(out, err)
		}
	})
}

// A stream asks for its first delivery before it has credit.
func TestCreditRecallsWhatTheDoorHolds_S30(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/q", out)
		w.send("/q", "a", "b")
		synctest.Wait()
		w.counts("/q", 0, 0, 2, 0)
		c := w.consume(alice, ConsumeRequest{Queue: "/q"})
		defer c.Close(true)
		for _, want := range []string{"a ", "b "} { // each time the door holds the rest
			var got Deliveries
			var err error
			go func() { got, err = c.Next(w.ctx) }()
			synctest.Wait()
			w.must(c.Credit(1, 0))
			synctest.Wait()
			if err != nil || bodiesOf(got.Deliveries) != want {
				t.Fatalf("delivered %q, %v; want %q", bodiesOf(got.Deliveries), err, want)
			}
		}
	})
}

func TestStreamShortOfBytesKeepsItsPlace_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.send("/q", "12345678")
		c := w.consume(alice, ConsumeRequest{Queue: "/q"})
		defer c.Close(true)
		w.must(c.Credit(10, 10))
		if got := w.nextOrNothing(c); len(got.Deliveries) != 1 {
			t.Fatalf("%d delivered", len(got.Deliveries))
		}
		w.send("/q", "abcdefgh") // two bytes of credit are left
		if got := w.nextOrNothing(c); len(got.Deliveries) != 0 {
			t.Fatalf("%q delivered without credit", bodiesOf(got.Deliveries))
		}
		if got := w.receiveOne("/q"); string(got.Body) != "abcdefgh" {
			t.Fatalf("%q received", got.Body)
		}
		w.send("/q", "xy")
		if got := w.nextOrNothing(c); bodiesOf(got.Deliveries) != "xy " {
			t.Fatalf("%q delivered", bodiesOf(got.Deliveries))
		}
	})
}

func TestSenderThatDoesNotWaitDoesNotOvertake_S7(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 3, queue.Block })
		w.send("/q", "a", "b", "c")
		large := make(chan error, 1)
		go func() {
			_, err := w.trySend("/q", "1", "2", "3")
			large <- err
		}()
		synctest.Wait()
		for range 3 {
			w.must(w.settle(w.receiveOne("/q"), Verdict{}))
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}})
			w.wants(err, reason.QueueFull)
		}
		w.must(<-large)
		w.counts("/q", 3, 0, 0, 0)
	})
}

func TestRepeatedBatchNeedsNoRoom_S9(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 2, queue.Block })
		w.send("/q", "a", "b")
		r := SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}, {Type: 1}}, Producer: "p", Batch: 7, Wait: -1}
		answers := make(chan queue.Stored, 2)
		for range 2 { // the second is the same over another connection
			go func() {
				stored, err := w.Send(w.ctx, alice, r)
				w.must(err)
				answers <- stored
			}()
			synctest.Wait()
		}
		for range 2 {
			w.must(w.settle(w.receiveOne("/q"), Verdict{}))
		}
		synctest.Wait()
		if first, second := <-answers, <-answers; first.First != 3 || second.First != 3 {
			t.Fatalf("stored at %d and %d", first.First, second.First)
		}
		w.counts("/q", 2, 0, 0, 0)
	})
}

func TestBlockedBatchHearsOfLoweredLimits_S7(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 2, queue.Block })
		w.send("/q", "a", "b")
		answer := make(chan error, 1)
		go func() {
			_, err := w.trySend("/q", "1", "2")
			answer <- err
		}()
		synctest.Wait()
		_, err := w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.MaxMessages = 1; return nil })
		w.must(err)
		w.wants(<-answer, reason.QueueFull)
	})
}

func TestSettlementsOfADeletedQueueFail_S23(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.send("/q", "a", "b")
		c := w.consume(alice, ConsumeRequest{Queue: "/q"})
		defer c.Close(true)
		w.must(c.Credit(1, 0))
		if got := w.nextOrNothing(c); len(got.Deliveries) != 1 {
			t.Fatal("nothing delivered")
		}
		_, err := w.DeleteQueue(w.ctx, alice, "/q")
		w.must(err)
		_, _, err = c.Settle([]TagSettlement{{First: 1, Last: 1}})
		w.wants(err, reason.QueueDeleted)
	})
}

func TestAdminCallsAreAnsweredWhileStopping_S27(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.send("/q", "a")
		w.receiveOne("/q")
		stopped := make(chan error, 1)
		go func() { stopped <- w.Stop(w.ctx) }()
		synctest.Wait()
		_, err := w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { return nil })
		w.wants(err, reason.ShuttingDown)
		_, _, err = w.CreateQueue(w.ctx, alice, "/r", func(s *queue.Settings) error { return nil }, false)
		w.wants(err, reason.ShuttingDown)
		_, err = w.DeleteQueue(w.ctx, alice, "/q")
		w.must(err)
		w.must(<-stopped) // the lease went with the queue
	})
}

func TestWithdrawnAccessEndsWhatIsOpen(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.Mode, s.MaxMessages, s.Overflow = 0o666, 1, queue.Block })
		inLine := w.consume(bob, ConsumeRequest{Queue: "/q"})
		w.must(inLine.Credit(1, 0))
		idle := w.consume(bob, ConsumeRequest{Queue: "/q"})
		own := w.consume(alice, ConsumeRequest{Queue: "/q"})
		defer inLine.Close(true)
		defer idle.Close(true)
		defer own.Close(true)
		ends := make(chan error, 2)
		go func() {
			_, err := w.Receive(w.ctx, bob, ReceiveRequest{Queue: "/q", Wait: time.Hour, Selector: queue.Selector{Kind: queue.TypeIs, Type: 9}})
			ends <- err
		}()
		w.send("/q", "a")
		go func() {
			_, err := w.Send(w.ctx, bob, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1}}, Wait: -1})
			ends <- err
		}()
		synctest.Wait()
		_, err := w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Mode = 0o600; return nil })
		w.must(err)
		for range 2 {
			w.wants(<-ends, reason.AccessDenied)
		}
		for _, c := range []*Consumer{inLine, idle} {
			_, err := c.Next(w.ctx)
			w.wants(err, reason.AccessDenied)
			c.Close(true)
		}
		w.must(own.Credit(1, 0))
		if got := w.nextOrNothing(own); bodiesOf(got.Deliveries) != "a " || got.Deliveries[0].Attempts != 0 {
			t.Fatalf("the owner's stream got %+v", got)
		}
	})
}

func TestOutboxKeepsNoLeaseThatEnded_S14(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.send("/q", "a", "b", "c")
		c := w.consume(alice, ConsumeRequest{Queue: "/q", Lease: time.Second})
		defer c.Close(true)
		w.must(c.Credit(3, 3))
		w.counts("/q", 0, 0, 3, 0)
		_, _, err := w.Purge(w.ctx, alice, SelectRequest{Queue: "/q", Filter: queue.Filter{MinSequence: 2, MaxSequence: 2, States: []queue.State{queue.Leased}}})
		w.must(err)
		if got := w.nextOrNothing(c); bodiesOf(got.Deliveries) != "a c " || got.First != 1 {
			t.Fatalf("%q delivered from tag %d after b was purged", bodiesOf(got.Deliveries), got.First)
		}
		out, _, err := c.Settle([]TagSettlement{{First: 1, Last: 2}})
		if err != nil || len(out.Failures) > 0 {
			t.Fatal(out, err)
		}
		w.send("/q", "d") // with b's credit
		pass(2 * time.Second)
		w.counts("/q", 1, 0, 0, 0) // the stream was too slow: somebody else may have it
		if d := w.receiveOne("/q"); d.Attempts != 1 {
			t.Fatalf("%d attempts", d.Attempts)
		}
		if got := w.nextOrNothing(c); len(got.Deliveries) != 0 {
			t.Fatalf("%q delivered, which somebody else holds", bodiesOf(got.Deliveries))
		}
		w.send("/q", "e")
		got := w.nextOrNothing(c)
		if bodiesOf(got.Deliveries) != "e " || got.First != 3 {
			t.Fatalf("%q delivered from tag %d", bodiesOf(got.Deliveries), got.First)
		}
	})
}

// A client may settle by receipt, or leave it to the leases' end: the stream goes on, and what it
// remembers is bounded.
func TestStreamForgetsLeasesThatEnded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		c := w.consume(alice, ConsumeRequest{Queue: "/q"})
		defer c.Close(true)
		for range 100 {
			w.must(c.Credit(100, 0))
			w.send("/q", make([]string, 100)...)
			got, err := c.Next(w.ctx)
			w.must(err)
			var acks []Settlement
			for _, d := range got.Deliveries {
				acks = append(acks, Settlement{Receipt: d.Receipt})
			}
			out, err := w.Settle(w.ctx, alice, acks)
			if err != nil || len(out.Failures) > 0 {
				t.Fatal(out, err)
			}
			if c.held.live > sweepHeldMin+turnMessages {
				t.Fatalf("%d deliveries held, none of them live", c.held.live)
			}
		}
		c.Drain()
		if _, err := c.Next(w.ctx); err != io.EOF {
			t.Fatal(err)
		}
	})
}

func TestUpdateOpensADoorThatAFailedChangeLeftClosed_S31(t *testing.T) {
	f := &fakeDoors{}
	inWorldWith(t, Options{Doors: f}, func(w *world) {
		w.create("/q", out)
		w.send("/q", "a")
		synctest.Wait()
		f.refuse = reason.New(reason.KernelLimit, "no more")
		_, err := w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Kernel.MaxMessages = 5; return nil })
		w.wants(err, reason.KernelLimit)
		w.counts("/q", 1, 0, 0, 0)
		f.refuse = nil
		info, err := w.UpdateQueue(w.ctx, alice, "/q", func(*queue.Settings) error { return nil })
		w.must(err)
		if len(info.Doors) != 1 || info.Settings.Kernel.MaxMessages != 0 {
			t.Fatalf("doors %+v, mqueue %+v", info.Doors, info.Settings.Kernel)
		}
		synctest.Wait()
		w.counts("/q", 0, 0, 1, 0)
	})
}
