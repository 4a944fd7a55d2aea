package broker

import (
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

func receipts(got []queue.Delivery) (out []queue.Receipt) {
	for i := range got {
		out = append(out, got[i].Receipt)
	}
	return out
}

func messages(bodies ...string) (out []queue.Message) {
	for _, b := range bodies {
		out = append(out, queue.Message{Type: 1, Body: []byte(b)})
	}
	return out
}

func TestTransactionDoesAllOfIt_S24(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/in")
		w.create("/out")
		w.send("/in", "a", "b")
		got := w.receive("/in", 2)
		stored, err := w.Transact(w.ctx, alice, TransactRequest{
			Acks: receipts(got),
			Sends: []TransactSend{
				{Queue: "/out", Messages: messages("x", "y")},
				{Queue: "/in", Messages: messages("c")},
				{Queue: "/out", Messages: messages("z")},
			},
		})
		w.must(err)
		w.counts("/in", 1, 0, 0, 0)
		w.counts("/out", 3, 0, 0, 0)
		if text := bodiesOf(w.receive("/out", 9)); text != "x y z " {
			t.Errorf("/out has %q", text)
		}
		if stored[0].First != 1 || stored[0].Count != 2 || stored[1].First != 3 || stored[2].First != 3 || stored[2].Count != 1 {
			t.Errorf("stored %+v", stored)
		}
	})
}

func TestTransactionDoesNothingIfOneThingIsInTheWay_S24(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/in")
		w.create("/out")
		w.create("/small", func(s *queue.Settings) { s.MaxMessages = 1 })
		w.create("/strangers")
		w.send("/in", "a", "b", "c")
		w.send("/small", "full")
		got := w.receive("/in", 3)
		w.must(w.settle(got[2], Verdict{Outcome: Ack}))
		for name, c := range map[string]struct {
			acks  []queue.Receipt
			sends []TransactSend
			want  reason.Reason
			index int
		}{
			"stale receipt":     {receipts(got[1:]), []TransactSend{{"/out", messages("x")}}, reason.StaleReceipt, 2},
			"full queue":        {receipts(got[:2]), []TransactSend{{"/out", messages("x")}, {"/small", messages("y")}}, reason.QueueFull, 1},
			"no such queue":     {receipts(got[:2]), []TransactSend{{"/nowhere", messages("x")}}, reason.QueueNotFound, 0},
			"receipt twice":     {append(receipts(got[:1]), got[0].Receipt), []TransactSend{{"/out", messages("x")}}, reason.StaleReceipt, 2},
			"too large":         {receipts(got[:1]), []TransactSend{{"/out", messages(string(make([]byte, 1<<20)))}}, reason.MessageTooLarge, 0},
			"nothing":           {nil, nil, reason.InvalidArgument, reason.Whole},
			"a send of nothing": {nil, []TransactSend{{"/out", nil}}, reason.InvalidArgument, 0},
		} {
			_, err := w.Transact(w.ctx, alice, TransactRequest{Acks: c.acks, Sends: c.sends})
			if reason.Of(err) != c.want {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			} else if e, ok := err.(*reason.Error); !ok || e.Index != c.index {
				t.Errorf("%s: index %d, want %d", name, e.Index, c.index)
			}
		}
		if _, err := w.Transact(w.ctx, bob, TransactRequest{Sends: []TransactSend{{"/out", messages("x")}}}); reason.Of(err) != reason.AccessDenied {
			t.Errorf("a stranger's transaction: %v", err)
		}
		w.counts("/in", 0, 0, 2, 0)
		w.counts("/out", 0, 0, 0, 0)
		w.counts("/small", 1, 0, 0, 0)
	})
}

func TestTransactionMakesItsOwnRoom_S24(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages = 2 })
		w.send("/q", "a", "b")
		got := w.receive("/q", 2)
		_, err := w.Transact(w.ctx, alice, TransactRequest{Acks: receipts(got), Sends: []TransactSend{{"/q", messages("c", "d")}}})
		w.must(err)
		if text := bodiesOf(w.receive("/q", 9)); text != "c d " {
			t.Errorf("/q has %q", text)
		}
	})
}

func TestRepeatedTransactionIsDoneOnce_S24_S9(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/in")
		w.create("/out")
		w.send("/in", "a")
		r := TransactRequest{Acks: receipts(w.receive("/in", 1)), Sends: []TransactSend{{"/out", messages("x")}}, Producer: "p", Batch: 1}
		first, err := w.Transact(w.ctx, alice, r)
		w.must(err)
		again, err := w.Transact(w.ctx, alice, r) // its receipt is stale by now
		w.must(err)
		if again[0].First != first[0].First {
			t.Errorf("stored as %d, and then as %d", first[0].First, again[0].First)
		}
		w.counts("/out", 1, 0, 0, 0)
	})
}

func TestTransactionWakesWhoWaits_S24(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/out")
		got := make(chan string, 1)
		go func() {
			out, err := w.Receive(w.ctx, alice, ReceiveRequest{Queue: "/out", Wait: time.Minute})
			if err != nil {
				t.Error(err)
			}
			got <- bodiesOf(out)
		}()
		pass(time.Second)
		_, err := w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{{"/out", messages("x")}}})
		w.must(err)
		if text := <-got; text != "x " {
			t.Errorf("received %q", text)
		}
	})
}

func TestJournalQueuesDoNotDependOnMemoryQueues_S24_S26(t *testing.T) {
	inJournaledWorld(t, Options{}, func(w *world) {
		w.create("/kept")
		w.create("/lost", func(s *queue.Settings) { s.Durability = queue.Memory })
		_, err := w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{{"/kept", messages("x")}, {"/lost", messages("y")}}})
		w.wants(err, reason.DurabilityMismatch)
		w.counts("/kept", 0, 0, 0, 0)
		_, _, err = w.CreateQueue(w.ctx, alice, "/dying", func(s *queue.Settings) error { s.DeadLetter = "/lost"; return nil }, false)
		w.wants(err, reason.DurabilityMismatch)
		// One that is made later takes no dead letters either: they are buried.
		w.create("/early", func(s *queue.Settings) { s.DeadLetter = "/later"; s.MaxAttempts = 1 })
		w.create("/later", func(s *queue.Settings) { s.Durability = queue.Memory })
		w.send("/early", "a")
		w.must(w.settle(w.receiveOne("/early"), Verdict{Outcome: Nack}))
		w.counts("/early", 0, 0, 0, 1)
		_, err = w.UpdateQueue(w.ctx, alice, "/kept", func(s *queue.Settings) error { s.Durability = queue.Memory; return nil })
		w.wants(err, reason.InvalidArgument)
	})
}

// What a transaction's acks free, nobody has to be dropped for.
func TestAcksOfATransactionMakeRoomInADropOldestQueue_S7_S24(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.MaxMessages, s.Overflow = 2, queue.DropOldest })
		w.send("/q", "a", "b")
		got := w.receive("/q", 1)
		_, err := w.Transact(w.ctx, alice, TransactRequest{Acks: receipts(got), Sends: []TransactSend{{Queue: "/q", Messages: messages("c")}}})
		w.must(err)
		w.holds("/q", "b", "c")
	})
}
