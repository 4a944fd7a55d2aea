package broker

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// After the daemon has failed nothing may be acknowledged.
func TestNothingIsAcknowledgedAfterAFailure(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		w.create("/q")
		w.send("/q", "before")
		w.fail(reason.New(reason.Internal, "for the test"))
		q := w.byName["/q"]
		q.mu.Lock()
		ticket := q.last
		q.mu.Unlock()
		if err := w.Await(w.ctx, ticket); err == nil {
			t.Error("Await tells success of a broker that has failed")
		}
		w.Close()
	})
}

// The same from outside: the blocked sender's frame was thrown away.
func TestBlockedSenderIsToldTheTruth(t *testing.T) {
	onDisk(t, func(d *disk) {
		w := d.start()
		big := func(s *queue.Settings) { s.MaxMessageSize = 16 << 20 }
		w.create("/a", big, func(s *queue.Settings) { s.Overflow = queue.Block; s.MaxMessages = 1 })
		w.create("/b", big)
		w.send("/a", "x")
		got := w.receive("/a", 1)
		sent := make(chan error, 1)
		go func() {
			_, err := w.Send(w.ctx, alice, SendRequest{Queue: "/a", Wait: time.Minute, Messages: []queue.Message{{Type: 1, Body: bytes.Repeat([]byte("y"), 30<<10)}}})
			sent <- err
		}()
		synctest.Wait()
		_, _ = w.Transact(w.ctx, alice, TransactRequest{Acks: receipts(got), Sends: []TransactSend{{Queue: "/b", Messages: []queue.Message{{Type: 1, Body: make([]byte, 40<<10)}}}}})
		failed := w.Failure()
		err := <-sent
		d.powerCut(w)
		w = d.start()
		defer w.Close()
		if stats := w.stats("/a"); err == nil && stats.Sent != 2 {
			t.Errorf("failure %v; the send was acknowledged; after a restart %d messages were ever sent to /a, want 2", failed, stats.Sent)
		}
	})
}

// Who may only send to a dead-letter queue gets its keeper to send anywhere.
func TestRedriveDoesNotGoWhereAStrangerSays(t *testing.T) {
	inWorld(t, func(w *world) {
		w.create("/secret")
		w.create("/work", func(s *queue.Settings) { s.DeadLetter = "/dead" })
		w.create("/dead", func(s *queue.Settings) { s.Mode = 0o622 })
		_, err := w.Send(w.ctx, bob, SendRequest{Queue: "/secret", Messages: messages("no")})
		w.wants(err, reason.AccessDenied)
		_, err = w.Send(w.ctx, bob, SendRequest{Queue: "/dead", Messages: []queue.Message{{Type: 1, Body: []byte("forged"),
			Headers: []queue.Header{{Key: queue.HeaderDeadQueue, Value: []byte("/secret")}}}}})
		w.must(err)
		_, err = w.Redrive(w.ctx, alice, RedriveRequest{Queue: "/dead"})
		w.must(err)
		if got := w.receive("/secret", 1); len(got) > 0 {
			t.Errorf("/secret, whose dead letters do not go to /dead, got %q of bob's", got[0].Body)
		}
	})
}

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
