package broker

import (
	"bytes"
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

// The same from outside, for a sender that waits for room while the daemon fails.
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
