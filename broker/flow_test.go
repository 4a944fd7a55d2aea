package broker

import (
	"context"
	"fmt"
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// Access that was withdrawn while the transaction waited (for its turn on disk, say).
func TestTransactionLooksAgainAtAccess(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/q", func(s *queue.Settings) { s.Mode = 0o622 })
		r := TransactRequest{Sends: []TransactSend{{Queue: "/q", Messages: messages("late")}}}
		f, err := w.plan(bob, &r)
		w.must(err)
		_, err = w.UpdateQueue(w.ctx, alice, "/q", func(s *queue.Settings) error { s.Mode = 0o600; return nil })
		w.must(err)
		f.lock()
		if !f.current() {
			t.Error("a mode is no bind: the plan holds")
		}
		_, err = w.transactLocked(f, bob, &r)
		f.unlock()
		if err == nil {
			t.Error("bob's transaction sends to a queue that was closed to him before")
		}
	})
}

// A send to a queue with binds whose caller is gone, while temporary queues come and go.
func TestRetriesEndWithTheirCaller(t *testing.T) {
	w := &world{t, New(Options{}), t.Context()}
	defer w.Close()
	w.create("/src")
	w.create("/to")
	w.bind("/src", "/to")
	ctx, cancel := context.WithCancel(w.ctx)
	cancel()
	if _, err := w.Send(ctx, alice, SendRequest{Queue: "/src", Messages: messages("x")}); err == nil {
		t.Error("a caller that is gone is served")
	}
}

// A copy that there is quota for is not skipped.
func TestSpareCopiesAreChargedOnce(t *testing.T) {
	inFreshWorlds(t, quotas(alice, quota.Limits{quota.QueuedBytes: 130}), func(w *world) {
		w.create("/src")
		w.create("/to")
		w.bind("/src", "/to", skip)
		body := make([]byte, 40)
		_, err := w.Transact(w.ctx, alice, TransactRequest{Sends: []TransactSend{
			{Queue: "/src", Messages: []queue.Message{{Type: 1, Body: body}}},
			{Queue: "/to", Messages: []queue.Message{{Type: 1, Body: body}}},
		}})
		w.must(err)
		if s := w.bindStatus("/src", "/to"); s.Skipped != 0 {
			t.Errorf("120 of 130 bytes would be used, and the copy was skipped: %s", s.Problem)
		}
	})
}

// A copy that may be skipped does not keep a large message from its own queue.
func TestSkippedCopiesDoNotMakeASendTooLarge(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start() // segments of 64 KiB
		defer w.Close()
		w.create("/src")
		w.create("/to")
		m := []queue.Message{{Type: 1, Body: make([]byte, 30<<10)}}
		_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: m})
		w.must(err)
		w.bind("/src", "/to", skip)
		if _, err = w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: m}); err != nil {
			t.Errorf("with a bind that skips: %v", err)
		}
	})
}

// What one send to many queues takes while it is decided, in time and memory, is bounded.
func TestFanOutOfManyMessagesToManyQueuesIsRefused(t *testing.T) {
	w := &world{t, New(Options{}), t.Context()}
	defer w.Close()
	w.create("/src")
	for i := range 60 {
		to := fmt.Sprintf("/to%d", i)
		w.create(to)
		w.bind("/src", to)
	}
	all := make([]queue.Message, 16384)
	for i := range all {
		all[i] = queue.Message{Type: 1}
	}
	_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: all})
	w.wants(err, reason.MessageTooLarge)
	_, err = w.Send(w.ctx, alice, SendRequest{Queue: "/src", Messages: all[:1000]})
	w.must(err)
}
