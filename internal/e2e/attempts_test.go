//go:build linux

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

func TestReturnedMessageComesFirstAgain_S15(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	q := create(t, c, memory())
	sent := send(t, q, text("first", "second")...)
	m := receiveOne(t, q)
	d.ctl(t, "nack", string(m.Receipt)).ok(t)
	if m = receiveOne(t, q); m.Sequence != sent[0].Sequence {
		t.Errorf("received %d, want %d again", m.Sequence, sent[0].Sequence)
	}
	d.ctl(t, "nack", string(m.Receipt), "--delay", "1h").ok(t)
	if next := receiveOne(t, q); next.Sequence != sent[1].Sequence {
		t.Errorf("received %d, want %d while the first is delayed", next.Sequence, sent[1].Sequence)
	}
	if s := info(t, q).Stats; s.Delayed != 1 {
		t.Errorf("%d delayed, want 1", s.Delayed)
	}

	slow := create(t, c, memory(func(s *client.QueueSettings) { s.BackoffInitial, s.BackoffMax = time.Hour, time.Hour }))
	send(t, slow, text("m")...)
	if err := receiveOne(t, slow).Nack(within(t), client.Backoff, ""); err != nil {
		t.Fatal(err)
	}
	for p, err := range slow.Peek(within(t), client.PeekOptions{Filter: client.Filter{States: []client.State{client.StateDelayed}}}) {
		if err != nil {
			t.Fatal(err)
		}
		if wait := p.Due.Sub(p.SentAt); wait < 50*time.Minute || wait > 70*time.Minute {
			t.Errorf("due %v after it was sent, want the back-off of an hour", wait)
		}
	}
}

func TestWhatCountsAsAnAttempt_S16(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.Lease = time.Hour }))
	send(t, q, text("m")...)
	counted := func(want int, after string) *client.Delivery {
		t.Helper()
		m := receiveOne(t, q)
		if m.Attempts != want {
			t.Errorf("%d attempts after %s, want %d", m.Attempts, after, want)
		}
		return m
	}
	if err := counted(0, "the first delivery").Release(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := counted(0, "a release").Nack(within(t), 0, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := counted(1, "a nack").Touch(within(t), 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := counted(2, "an expired lease").Release(within(t)); err != nil {
		t.Fatal(err)
	}

	// A stream that closes gracefully gives back what no handler has begun, uncounted.
	send(t, q, text("n")...)
	ctx, stop := context.WithCancel(within(t))
	begun := 0
	err := q.Consume(ctx, func(_ context.Context, m *client.Delivery) error {
		begun++
		awaitStats(t, q, "both are delivered", func(s client.QueueStats) bool { return s.Leased == 2 })
		stop()
		return m.Release(within(t))
	}, client.ConsumeOptions{})
	if err != nil || begun != 1 {
		t.Fatalf("%d handlers, %v", begun, err)
	}
	awaitStats(t, q, "both are back", func(s client.QueueStats) bool { return s.Ready == 2 })
	counted(2, "a graceful close")
	counted(0, "a graceful close, for the one not begun")
}

func TestMessageThatFailsTooOftenIsDeadLettered_S17(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	dead := create(t, c, memory())
	q := create(t, c, memory(func(s *client.QueueSettings) { s.MaxAttempts, s.DeadLetterQueue = 2, dead.Name() }))
	send(t, q, client.Message{Type: 7, Priority: 3, Body: []byte("poison"), TTL: time.Hour, DedupID: "id", Headers: map[string][]byte{"own": []byte("kept")}})
	for range 2 {
		d.ctl(t, "nack", string(receiveOne(t, q).Receipt), "--reason", "cannot parse").ok(t)
	}
	if s := info(t, q).Stats; s.Messages() != 0 || s.DeadLetteredTotal != 1 {
		t.Errorf("left %+v", s)
	}
	m := receiveOne(t, dead)
	if m.Type != 7 || m.Priority != 3 || string(m.Body) != "poison" || m.TTL != 0 || m.DedupID != "" || m.Attempts != 0 {
		t.Errorf("dead-lettered as %+v", m)
	}
	var headers []string
	for name, value := range m.Headers {
		headers = append(headers, name+"="+string(value))
	}
	for _, want := range []string{"own=kept", "=" + q.Name(), "=2"} {
		found := false
		for _, h := range headers {
			found = found || strings.HasSuffix(h, want)
		}
		if !found {
			t.Errorf("no header ends with %q: %q", want, headers)
		}
	}
	if !strings.Contains(strings.Join(headers, "\n"), "cannot parse") {
		t.Errorf("no header says why: %q", headers)
	}
	r := d.ctl(t, "update", dead.Name(), "--dead-letter", q.Name()).exits(t, 1)
	r.says(t, "circle", q.Name(), dead.Name())
}

func TestMessageWithoutAWayOutIsBuried_S17_S22(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	full := create(t, c, memory(func(s *client.QueueSettings) { s.MaxMessages = 1 }))
	send(t, full, text("full")...)
	for name, deadLetter := range map[string]string{"none": "", "missing": unique(), "full": full.Name()} {
		t.Run(name, func(t *testing.T) {
			q := create(t, c, memory(func(s *client.QueueSettings) { s.MaxAttempts, s.DeadLetterQueue = 1, deadLetter }))
			for i := range 3 {
				send(t, q, client.Message{Type: int64(i + 1)})
				if err := receiveOne(t, q).Nack(within(t), 0, "no"); err != nil {
					t.Fatal(err)
				}
			}
			if s := info(t, q).Stats; s.Buried != 3 || s.Ready != 0 {
				t.Fatalf("%+v, want all buried", s)
			}
			if r := d.ctl(t, "kick", q.Name(), "--type", "2"); !strings.Contains(r.exits(t, 0).err, "1 message") {
				t.Errorf("kick said %q", r.err)
			}
			if m := receiveOne(t, q); m.Type != 2 {
				t.Errorf("kicked type %d, want 2", m.Type)
			}
			d.ctl(t, "kick", q.Name()).ok(t)
			if s := info(t, q).Stats; s.Buried != 0 || s.Ready != 2 {
				t.Errorf("after kicking all: %+v", s)
			}
		})
	}
}

func TestTTLEndsWhatNobodyHolds_S18(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	const ttl = 3 * time.Second // time enough to lease and bury on a busy machine
	q := create(t, c, memory())
	send(t, q, client.Message{Body: []byte("leased"), TTL: ttl}, client.Message{Body: []byte("buried"), TTL: ttl})
	leased := receiveOne(t, q)
	if leased.TTL != ttl {
		t.Errorf("delivered with a TTL of %v, sent with %v", leased.TTL, ttl)
	}
	if err := receiveOne(t, q).Bury(within(t), "aside"); err != nil {
		t.Fatal(err)
	}
	send(t, q, client.Message{Body: []byte("ready"), TTL: ttl}, client.Message{Body: []byte("delayed"), TTL: ttl, Delay: time.Hour})
	awaitStats(t, q, "ready and delayed are dropped", func(s client.QueueStats) bool { return s.TTLDroppedTotal == 2 })
	if s := info(t, q).Stats; s.Leased != 1 || s.Buried != 1 || s.Messages() != 2 {
		t.Errorf("%+v, want the leased and the buried one", s)
	}
	if err := leased.Release(within(t)); err != nil {
		t.Fatalf("release after the TTL: %v", err)
	}
	awaitStats(t, q, "the returned one is dropped", func(s client.QueueStats) bool { return s.TTLDroppedTotal == 3 })

	dead := create(t, c, memory())
	declared := create(t, c, memory(func(s *client.QueueSettings) { s.DeadLetterQueue, s.DeadLetterExpired = dead.Name(), true }))
	send(t, declared, client.Message{Body: []byte("late"), TTL: time.Millisecond})
	if m := receiveOne(t, dead); string(m.Body) != "late" || m.TTL != 0 {
		t.Errorf("dead-lettered %q with a TTL of %v", m.Body, m.TTL)
	}
}
