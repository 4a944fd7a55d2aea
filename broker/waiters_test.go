package broker

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
)

// TestOneOrderOverAllSelectors_S12: whoever came first among those that match is served, whatever the
// selectors, and whoever was served goes to the back.
func TestOneOrderOverAllSelectors_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		one := queue.Selector{Kind: queue.TypeIs, Type: 1}
		selectors := []queue.Selector{
			one, {}, {Kind: queue.TypeIs, Type: 2}, one, {Kind: queue.TypeIn, Types: []int64{1, 2}}, {Kind: queue.TypeIsNot, Type: 1}, one, {Kind: queue.LowestUpTo, Type: 1}, {},
		}
		served := make(chan int, len(selectors))
		ctx, cancel := context.WithCancel(w.ctx)
		defer cancel()
		for i, sel := range selectors {
			go func() {
				if got, err := w.Receive(ctx, alice, ReceiveRequest{Queue: "/q", Selector: sel, Wait: time.Hour}); err == nil && len(got) == 1 {
					served <- i
				}
			}()
			synctest.Wait()
		}
		order := func(typ int64, messages int) (order []int) {
			for range messages {
				_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: typ}}})
				w.must(err)
				order = append(order, <-served)
			}
			return order
		}
		if got, want := order(1, 3), []int{0, 1, 3}; !slices.Equal(got, want) {
			t.Errorf("served %v, want %v", got, want)
		}
		if got, want := order(2, 3), []int{2, 4, 5}; !slices.Equal(got, want) {
			t.Errorf("served %v, want %v", got, want)
		}
		if got, want := order(1, 3), []int{6, 7, 8}; !slices.Equal(got, want) {
			t.Errorf("served %v, want %v", got, want)
		}
	})
}

// TestOneAloneInLineGetsItsTurns_S12: who was served goes behind everybody, also behind those whose
// selectors are of another kind.
func TestOneAloneInLineGetsItsTurns_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		one := queue.Selector{Kind: queue.TypeIs, Type: 1}
		var consumers []*Consumer
		for _, sel := range []queue.Selector{one, one, {}} {
			c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q", Selector: sel})
			w.must(err)
			defer c.Close(true)
			w.must(c.Credit(1000, 0))
			consumers = append(consumers, c)
		}
		batch := make([]queue.Message, 2*len(consumers)*turnMessages)
		for i := range batch {
			batch[i].Type = 1
		}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: batch})
		w.must(err)
		for i, c := range consumers {
			got, err := c.Next(w.ctx)
			w.must(err)
			if n := len(got.Deliveries); n != 2*turnMessages {
				t.Errorf("consumer %d got %d messages, want two turns of %d", i, n, turnMessages)
			}
		}
	})
}

// TestBatchServesManyLinesInOrder_S12: a batch for many who wait for a type each is handed out at once.
func TestBatchServesManyLinesInOrder_S12(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		const n = 100
		consumers := make([]*Consumer, n)
		var batch []queue.Message
		for i := range consumers {
			c, err := w.Consume(w.ctx, alice, ConsumeRequest{Queue: "/q", Selector: queue.Selector{Kind: queue.TypeIs, Type: int64(i%50 + 1)}})
			w.must(err)
			defer c.Close(true)
			w.must(c.Credit(10, 0))
			consumers[i] = c
			batch = append(batch, queue.Message{Type: int64(i%50 + 1)}, queue.Message{Type: int64(i%50 + 1)})
		}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: batch})
		w.must(err)
		for i, c := range consumers[:n/2] { // the first for each type takes all four: less than a turn
			got, err := c.Next(w.ctx)
			w.must(err)
			if len(got.Deliveries) != 4 {
				t.Fatalf("consumer %d got %d, want 4", i, len(got.Deliveries))
			}
		}
		w.counts("/q", 0, 0, 2*n, 0)
	})
}

// BenchmarkSendPastWaiting is a send of a type that none of those who wait want.
func BenchmarkSendPastWaiting(b *testing.B) {
	for _, waiting := range []int{0, 1000, 9000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			br := New(Options{})
			defer br.Close()
			if _, _, err := br.CreateQueue(b.Context(), alice, "/q", func(s *queue.Settings) error { s.MaxMessages = 100_000_000; return nil }, false); err != nil {
				b.Fatal(err)
			}
			for i := range waiting {
				c, err := br.Consume(b.Context(), alice, ConsumeRequest{Queue: "/q", Selector: queue.Selector{Kind: queue.TypeIs, Type: int64(i + 2)}})
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Credit(1, 0); err != nil {
					b.Fatal(err)
				}
			}
			r := SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1, Body: make([]byte, 128)}}}
			for b.Loop() {
				if _, err := br.Send(b.Context(), alice, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
