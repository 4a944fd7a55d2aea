package broker

import (
	"testing"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// Who may only send to a dead-letter queue must not get its keeper to send anywhere.
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
