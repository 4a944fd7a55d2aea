//go:build linux

package crash

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// restarts are the ways in which a daemon's process is replaced by the next.
var restarts = map[string]func(*daemon){
	"in good order": (*daemon).stop,
	"by kill -9":    (*daemon).kill,
}

// impatient is a configuration in which a stop waits for no acks.
var impatient = append([]string{"stop_timeout: 0s"}, smallSegments...)

func TestReceiptsHoldAcrossACleanRestart(t *testing.T) {
	h := newHome(t, impatient...)
	d := h.start()
	q := create(t, h.dial(), "/q", func(s *client.QueueSettings) { s.Lease = time.Hour })
	send(t, q, "acked", "nacked", "touched", "released")
	held := receive(t, q, 4)
	d.stop()
	d = h.start()
	c := h.dial()
	q = c.Queue("/q")
	if more := receive(t, q, 4); len(more) > 0 {
		t.Fatalf("%q was delivered although it is leased", bodies(more))
	}
	err := c.Settle(within(t),
		client.Settlement{Receipt: held[0].Receipt, Outcome: client.OutcomeAck},
		client.Settlement{Receipt: held[1].Receipt, Outcome: client.OutcomeNack},
		client.Settlement{Receipt: held[2].Receipt, Outcome: client.OutcomeTouch},
		client.Settlement{Receipt: held[3].Receipt, Outcome: client.OutcomeRelease})
	if err != nil {
		t.Fatalf("receipts from before the restart: %v", err)
	}
	again := receive(t, q, 4)
	if got := bodies(again); !slices.Equal(got, []string{"nacked", "released"}) {
		t.Fatalf("received %q, want what was nacked and released", got)
	}
	if again[0].Attempts != 1 || again[1].Attempts != 0 {
		t.Errorf("attempts %d and %d, want 1 and 0", again[0].Attempts, again[1].Attempts)
	}
	d.stop()
	h.clean()
}

// TestReceiptsAreStaleAfterACrash kills the daemon right after a delivery, so that the next may not know of it,
// and tries the receipt both before and after the message is delivered again.
func TestReceiptsAreStaleAfterACrash(t *testing.T) {
	h := newHome(t, impatient...)
	d := h.start()
	c := h.dial()
	send(t, create(t, c, "/q", func(s *client.QueueSettings) { s.Lease = time.Hour }), "m")
	for range 10 {
		held := receive(t, c.Queue("/q"), 1)
		d.kill()
		d = h.start()
		c = h.dial()
		ack := client.Settlement{Outcome: client.OutcomeAck}
		if len(held) != 1 {
			t.Fatal("the message is not there")
		}
		ack.Receipt = held[0].Receipt
		if err := c.Settle(within(t), ack); !errors.Is(err, client.ErrStaleReceipt) {
			t.Errorf("ack of a delivery from before the crash: %v, want STALE_RECEIPT", err)
		}
		again := receive(t, c.Queue("/q"), 1)
		if len(again) != 1 || again[0].Attempts != 0 {
			t.Fatalf("after the crash: %+v, want the message, and the lease not counted", again)
		}
		if err := c.Settle(within(t), ack); !errors.Is(err, client.ErrStaleReceipt) {
			t.Fatalf("ack of a delivery from before the crash, by now delivered to another: %v, want STALE_RECEIPT", err)
		}
		if err := again[0].Release(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	d.stop()
	h.clean()
}

// TestLeaseEndsAcrossACleanRestart: what was leased for long stays leased, what was leased for a moment is back.
func TestLeaseEndsAcrossACleanRestart(t *testing.T) {
	h := newHome(t, impatient...)
	d := h.start()
	q := create(t, h.dial(), "/q")
	send(t, q, "short", "long")
	for _, lease := range []time.Duration{10 * time.Millisecond, time.Hour} {
		if _, err := q.Receive(within(t), 1, client.ReceiveOptions{Lease: lease}); err != nil {
			t.Fatal(err)
		}
	}
	d.stop()
	d = h.start()
	got, err := h.dial().Queue("/q").Receive(within(t), 10, client.ReceiveOptions{Wait: patience / 2})
	if err != nil || len(got) != 1 || string(got[0].Body) != "short" || got[0].Attempts != 1 {
		t.Errorf("received %q, %v; want what was leased for a moment, counted once", bodies(got), err)
	}
	d.stop()
}

func TestQueuesAreWhatTheyWereAfterARestart(t *testing.T) {
	for name, restart := range restarts {
		t.Run(name, func(t *testing.T) {
			h := newHome(t, impatient...)
			d := h.start()
			c := h.dial()
			q := create(t, c, "/q", func(s *client.QueueSettings) {
				s.MaxAttempts, s.TypeNames, s.MaxMessages = 7, map[string]int64{"created": 7}, 12345
			})
			create(t, c, "/paused")
			if _, err := c.PauseQueue(within(t), "/paused"); err != nil {
				t.Fatal(err)
			}
			create(t, c, "/gone")
			if _, err := c.DeleteQueue(within(t), "/gone"); err != nil {
				t.Fatal(err)
			}
			create(t, c, "/volatile", func(s *client.QueueSettings) { s.Durability = client.DurabilityMemory })
			send(t, c.Queue("/volatile"), "will be lost")
			send(t, c.Queue("/paused"), "waits")

			sent, err := q.Send(within(t),
				client.Message{Type: 3, Priority: 4, Body: []byte("all"), Headers: map[string][]byte{"k": {0, 1}}, CorrelationID: "c", ReplyTo: "/r", ContentType: "text/plain", TTL: time.Hour},
				client.Message{Body: []byte("delayed"), Delay: time.Hour},
				client.Message{Body: []byte("soon"), Delay: 50 * time.Millisecond},
				client.Message{Body: []byte("expires"), TTL: time.Millisecond},
				client.Message{Body: []byte("once"), DedupID: "id"},
				client.Message{Body: []byte("nacked"), Priority: 9},
				client.Message{Body: []byte("buried"), Priority: 8},
			)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				nacked := receive(t, q, 1)
				if err := nacked[0].Nack(within(t), 0, "no"); err != nil {
					t.Fatal(err)
				}
			}
			two := receive(t, q, 2)
			if err := two[1].Bury(within(t), "it is bad"); err != nil {
				t.Fatal(err)
			}
			if err := two[0].Release(within(t)); err != nil {
				t.Fatal(err)
			}
			before, err := q.Info(within(t))
			if err != nil {
				t.Fatal(err)
			}
			restart(d)
			h.clean()
			d = h.start()
			c = h.dial()
			q = c.Queue("/q")

			after, err := q.Info(within(t))
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprintf("%+v", settingsOf(after)) != fmt.Sprintf("%+v", settingsOf(before)) || after.ID != before.ID || !after.CreatedAt.Equal(before.CreatedAt) {
				t.Errorf("the queue is\n%+v, was\n%+v", after, before)
			}
			if after.Stats.SentTotal != before.Stats.SentTotal || after.Stats.NackedTotal != before.Stats.NackedTotal {
				t.Errorf("the counters are\n%+v, were\n%+v", after.Stats, before.Stats)
			}
			if paused, err := c.GetQueue(within(t), "/paused"); err != nil || !paused.Paused || paused.Stats.Ready != 1 {
				t.Errorf("the paused queue: %+v, %v", paused, err)
			}
			if _, err := c.GetQueue(within(t), "/gone"); !errors.Is(err, client.ErrQueueNotFound) {
				t.Errorf("the deleted queue: %v", err)
			}
			if volatile, err := c.GetQueue(within(t), "/volatile"); err != nil || volatile.Stats.Messages() != 0 {
				t.Errorf("the memory queue: %+v, %v; want it empty", volatile.Stats, err)
			}
			if next := send(t, c.Queue("/volatile"), "m"); next[0].Sequence < 2 {
				t.Errorf("the memory queue gives sequence %d a second time", next[0].Sequence)
			}
			checkMessages(t, q, sent)
			d.stop()
		})
	}
}

func settingsOf(i client.QueueInfo) client.QueueSettings {
	s := i.Settings
	// Pointers say nothing when printed.
	s.MaxMessageSize, s.DedupWindow, s.MaxDedupIDs, s.Mode, s.OwnerUID, s.GroupGID = nil, nil, nil, nil, nil, nil
	return s
}

// checkMessages looks at what TestQueuesAreWhatTheyWereAfterARestart has sent.
func checkMessages(t *testing.T, q *client.Queue, sent []client.Sent) {
	t.Helper()
	again, err := q.Send(within(t), client.Message{Body: []byte("twice"), DedupID: "id"})
	if err != nil || !again[0].Duplicate || again[0].Sequence != sent[4].Sequence {
		t.Errorf("a dedup id from before the restart: %+v, %v; want the duplicate of %d", again, err, sent[4].Sequence)
	}
	got := map[string]*client.Delivery{}
	for len(got) < 4 {
		deliveries, err := q.Receive(within(t), 1, client.ReceiveOptions{Wait: patience / 2})
		if err != nil || len(deliveries) == 0 {
			t.Fatalf("received %d messages, then %v", len(got), err)
		}
		got[string(deliveries[0].Body)] = deliveries[0]
	}
	for _, text := range []string{"all", "soon", "once", "nacked"} {
		if got[text] == nil {
			t.Fatalf("%q is not among what was received", text)
		}
	}
	if more := receive(t, q, 10); len(more) > 0 {
		t.Errorf("%q was received too", bodies(more))
	}
	if all := got["all"]; all.Type != 3 || all.Priority != 4 || string(all.Headers["k"]) != "\x00\x01" || all.CorrelationID != "c" ||
		all.ReplyTo != "/r" || all.ContentType != "text/plain" || all.TTL != time.Hour || all.Sequence != sent[0].Sequence || !all.SentAt.Equal(sent[0].SentAt) {
		t.Errorf("received %+v", all)
	}
	if n := got["nacked"].Attempts; n != 2 {
		t.Errorf("%d attempts, want the 2 from before the restart", n)
	}
	states := map[string]*client.Peeked{}
	for m, err := range q.Peek(within(t), client.PeekOptions{Filter: client.Filter{States: []client.State{client.StateDelayed, client.StateBuried}}}) {
		if err != nil {
			t.Fatal(err)
		}
		states[string(m.Body)] = m
	}
	if m := states["delayed"]; m == nil || m.State != client.StateDelayed || m.Due.Before(sent[1].SentAt.Add(time.Hour-time.Second)) || m.Due.After(sent[1].SentAt.Add(time.Hour+time.Second)) {
		t.Errorf("the delayed message: %+v", m)
	}
	if m := states["buried"]; m == nil || m.State != client.StateBuried || m.BuryReason != "it is bad" {
		t.Errorf("the buried message: %+v", m)
	}
}

func send(t *testing.T, q *client.Queue, texts ...string) []client.Sent {
	t.Helper()
	messages := make([]client.Message, len(texts))
	for i, text := range texts {
		messages[i].Body = []byte(text)
	}
	sent, err := q.Send(within(t), messages...)
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

// receive takes what is ready, at most n.
func receive(t *testing.T, q *client.Queue, n int) []*client.Delivery {
	t.Helper()
	deliveries, err := q.Receive(within(t), n, client.ReceiveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return deliveries
}

func bodies(deliveries []*client.Delivery) []string {
	all := make([]string, len(deliveries))
	for i, d := range deliveries {
		all[i] = string(d.Body)
	}
	return all
}
