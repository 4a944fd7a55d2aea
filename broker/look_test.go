package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
)

func TestPeekPagesThroughEveryStateAndChangesNothing_S20(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		const each = 3000 // of each state, so that pages and steps both end in the middle
		var all []queue.Message
		for i := range 4 * each {
			all = append(all, queue.Message{Type: 1, Priority: uint16(i % 3), Body: fmt.Append(nil, i)})
		}
		for i := 3 * each; i < 4*each; i++ {
			all[i].Delay = time.Duration(1+i%7) * time.Hour
		}
		for len(all) > 0 {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: all[:each]})
			w.must(err)
			all = all[each:]
		}
		for _, d := range w.receive("/q", each) {
			w.must(w.settle(d, Verdict{Outcome: Bury, Reason: "b"}))
		}
		w.receive("/q", each)
		before := w.stats("/q")
		seen := map[uint64]bool{}
		var states []queue.State
		r := PeekRequest{Queue: "/q", Filter: queue.Filter{States: []queue.State{queue.Ready, queue.Delayed, queue.Leased, queue.Buried}}, Max: 100}
		var last queue.Peeked
		for {
			page, err := w.Peek(w.ctx, alice, r)
			w.must(err)
			for _, m := range page.Messages {
				if seen[m.Sequence] {
					t.Fatalf("%d shown twice", m.Sequence)
				}
				seen[m.Sequence] = true
				if m.State == last.State {
					ordered := true
					switch m.State {
					case queue.Ready:
						ordered = m.Priority < last.Priority || m.Priority == last.Priority && m.Sequence > last.Sequence
					case queue.Delayed:
						ordered = m.Due > last.Due || m.Due == last.Due && m.Sequence > last.Sequence
					case queue.Leased, queue.Buried:
						ordered = m.Sequence > last.Sequence || m.LeaseEnds > last.LeaseEnds || m.State == queue.Leased
					}
					if !ordered {
						t.Fatalf("%v message %d comes after %d", m.State, m.Sequence, last.Sequence)
					}
				} else {
					states = append(states, m.State)
				}
				if m.State == queue.Buried && m.BuryReason != "b" {
					t.Fatal("no reason")
				}
				last = m
			}
			if page.Cursor == "" {
				break
			}
			r.Cursor = page.Cursor
		}
		if len(seen) != 4*each || fmt.Sprint(states) != "[ready delayed leased buried]" {
			t.Fatalf("%d shown, states %v", len(seen), states)
		}
		after := w.stats("/q")
		before.Peeked, before.SendRate, before.DeliveryRate = after.Peeked, after.SendRate, after.DeliveryRate
		if after != before || after.Peeked != 4*each {
			t.Fatalf("peeking changed %+v to %+v", before, after)
		}
	})
}

func TestPurgeSkipsLeasedMessagesUnlessAsked_S22(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		for range 10 {
			w.send("/q", "a", "b")
		}
		w.receive("/q", 5)
		n, _, err := w.Purge(w.ctx, alice, SelectRequest{Queue: "/q", DryRun: true})
		w.must(err)
		w.counts("/q", 15, 0, 5, 0)
		m, cursor, err := w.Purge(w.ctx, alice, SelectRequest{Queue: "/q", Max: 4})
		w.must(err)
		rest, end, err := w.Purge(w.ctx, alice, SelectRequest{Queue: "/q", Cursor: cursor})
		w.must(err)
		if n != 15 || m != 4 || rest != 11 || end != "" {
			t.Fatal(n, m, rest, end)
		}
		n, _, err = w.Purge(w.ctx, alice, SelectRequest{Queue: "/q", Filter: queue.Filter{States: []queue.State{queue.Leased}, MinSequence: 2, MaxSequence: 3}})
		w.must(err)
		if n != 2 {
			t.Fatal(n)
		}
		w.counts("/q", 0, 0, 3, 0)
	})
}

func TestListShowsWhatMatchesByName(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"/b", "/a2", "/a1"} {
			w.create(name)
		}
		got, err := w.ListQueues(w.ctx, alice, "a*")
		w.must(err)
		if len(got) != 2 || got[0].Name != "/a1" || got[1].Name != "/a2" {
			t.Fatalf("%+v", got)
		}
		if _, err = w.ListQueues(w.ctx, alice, "[a"); err == nil {
			t.Fatal("a malformed pattern passes")
		}
	})
}

func TestRatesCoverTheLastSeconds(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		for range 200 {
			w.send("/q", "a")
			pass(100 * time.Millisecond)
		}
		if r := w.stats("/q").SendRate; r < 9 || r > 11 {
			t.Fatalf("%v a second, want about 10", r)
		}
		pass(time.Minute)
		if r := w.stats("/q").SendRate; r != 0 {
			t.Fatalf("%v a second after a minute of silence", r)
		}
	})
}

func TestWaitForArrivalSeesEachSend(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q")
		w.send("/q", "a")
		w.must(w.AwaitArrival(w.ctx, alice, "/q", 0))
		done := make(chan error)
		go func() { done <- w.AwaitArrival(w.ctx, alice, "/q", 1) }()
		pass(time.Second)
		w.send("/q", "b")
		w.must(<-done)
	})
}

func TestLargePagesAreCutByBytes(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessageSize = limits.MessageSizeMax })
		for range 5 {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/q", Messages: []queue.Message{{Type: 1, Body: make([]byte, limits.PeekPageBytes/2)}}})
			w.must(err)
		}
		page, err := w.Peek(w.ctx, alice, PeekRequest{Queue: "/q", Max: 100})
		w.must(err)
		if len(page.Messages) != 2 || page.Cursor == "" {
			t.Fatalf("%d messages", len(page.Messages))
		}
		page, err = w.Peek(w.ctx, alice, PeekRequest{Queue: "/q", Max: 100, MaxBody: 10})
		w.must(err)
		if len(page.Messages) != 5 || page.Messages[0].TruncatedFrom != limits.PeekPageBytes/2 || len(page.Messages[0].Body) != 10 {
			t.Fatalf("%d messages", len(page.Messages))
		}
	})
}
