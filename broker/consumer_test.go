package broker

import (
	"io"
	"strings"
	"testing"
)

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
		out, _, err := c.Settle([]TagSettlement{{First: 1, Last: 3}, {First: 2, Last: 2}, {First: 77, Last: 77}})
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
			_, _, err = c.Settle([]TagSettlement{{First: got.First, Last: got.First}})
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

func TestOutstandingIsWhatIsDeliveredAndNotSettled(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q"})
		w.must(err)
		w.must(c.Credit(10, 0))
		w.send("/q", "a", "b", "c")
		if n := c.Outstanding(); n != 0 {
			t.Errorf("%d before they are handed out", n)
		}
		_, err = c.Next(w.ctx)
		w.must(err)
		if n := c.Outstanding(); n != 3 {
			t.Errorf("%d, want 3", n)
		}
		_, _, err = c.Settle([]TagSettlement{{First: 1, Last: 2, Verdict: Verdict{Outcome: Ack}}})
		w.must(err)
		if n := c.Outstanding(); n != 1 {
			t.Errorf("%d after two were acked", n)
		}
		c.Close(true)
		if n := c.Outstanding(); n != 0 {
			t.Errorf("%d after its end", n)
		}
	})
}
