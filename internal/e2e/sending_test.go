//go:build linux

package e2e

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

func TestLimitsAreEnforced_S2(t *testing.T) {
	t.Parallel()
	c := start(t).dial(t)
	q := create(t, c, memory(func(s *client.QueueSettings) { s.MaxMessageSize = new(10) }))
	send(t, q, text("0123456789")...)
	if _, err := q.Send(within(t), text("0123456789+")...); !errors.Is(err, client.ErrMessageTooLarge) || !strings.Contains(err.Error(), "10") {
		t.Errorf("a body of 11 bytes where 10 are allowed: %v", err)
	}
	standard := create(t, c, memory())
	send(t, standard, client.Message{Body: make([]byte, 64<<10)})
	if _, err := standard.Send(within(t), client.Message{Body: make([]byte, 64<<10+1)}); !errors.Is(err, client.ErrMessageTooLarge) {
		t.Errorf("a body above 64 KiB in a queue with the defaults: %v", err)
	}
	large := create(t, c, memory(func(s *client.QueueSettings) { s.MaxMessageSize = new(16 << 20) }))
	send(t, large, client.Message{Body: make([]byte, 16<<20)})
	if got := receiveOne(t, large); len(got.Body) != 16<<20 {
		t.Errorf("16 MiB came as %d bytes", len(got.Body))
	}
	if _, err := c.CreateQueue(within(t), unique(), memory(func(s *client.QueueSettings) { s.MaxMessageSize = new(16<<20 + 1) })); !errors.Is(err, client.ErrInvalidArgument) {
		t.Errorf("a queue for messages above 16 MiB: %v", err)
	}
}

func TestFullQueueCountsEveryState_S3(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	q := create(t, c, memory(func(s *client.QueueSettings) { s.MaxMessages = 4 }))
	send(t, q, text("buried", "leased", "ready")...)
	send(t, q, client.Message{Delay: time.Hour})
	if err := receiveOne(t, q).Bury(within(t), "why not"); err != nil {
		t.Fatal(err)
	}
	leased := receiveOne(t, q)
	if s := info(t, q).Stats; s.Ready != 1 || s.Delayed != 1 || s.Leased != 1 || s.Buried != 1 {
		t.Fatalf("one of each state: %+v", s)
	}
	d.ctl(t, "send", q.Name(), "one too many").exits(t, 1).says(t, "4 of 4 messages")
	if err := leased.Ack(within(t)); err != nil {
		t.Fatal(err)
	}
	d.ctl(t, "send", q.Name(), "fits").ok(t)
	d.ctl(t, "send", q.Name(), "does not").exits(t, 1)

	small := create(t, c, memory(func(s *client.QueueSettings) { s.MaxBytes = 20 }))
	send(t, small, client.Message{Body: []byte("0123456789"), Headers: map[string][]byte{"key": []byte("val")}, CorrelationID: "1234"})
	if s := info(t, small).Stats; s.Bytes != 20 {
		t.Fatalf("%d bytes, want 20", s.Bytes)
	}
	if _, err := small.Send(within(t), text("x")...); !errors.Is(err, client.ErrQueueFull) {
		t.Errorf("one byte too many: %v", err)
	}
	send(t, small, client.Message{}) // no bytes are never too many
}

func TestBatchIsAllOrNothing_S6(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, d *daemon, q *client.Queue) {
		bad := slices.Concat(text("fine"), []client.Message{{Type: -1}}, text("fine too"))
		_, err := q.Send(within(t), bad...)
		var e *client.Error
		if !errors.As(err, &e) || !errors.Is(err, client.ErrInvalidArgument) || e.Index != 1 {
			t.Errorf("the second of three messages is wrong: %#v", err)
		}
		limited := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages, s.Mode = 2, new(uint32(0o666)) }))
		if _, err := limited.Send(within(t), text("a", "b", "c")...); !errors.Is(err, client.ErrQueueFull) {
			t.Errorf("three messages into a queue for two: %v", err)
		}
		for _, q := range []*client.Queue{q, limited} {
			if s := info(t, q).Stats; s.Messages() != 0 || s.SentTotal != 0 {
				t.Errorf("a refused batch left %+v", s)
			}
		}
	})
}

func TestFullQueueRejects_S7(t *testing.T) {
	t.Parallel()
	q := create(t, start(t).dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages = 1 }))
	send(t, q, text("first")...)
	_, err := q.Send(within(t), text("second")...)
	var e *client.Error
	if !errors.Is(err, client.ErrQueueFull) || !errors.As(err, &e) || e.RetryAfter <= 0 {
		t.Errorf("%#v, want QUEUE_FULL with a hint when to try again", err)
	}
}

func TestFullQueueBlocksInOrder_S7(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages, s.Overflow = 3, client.OverflowBlock }))
	send(t, q, text("1", "2", "3")...)
	if _, err := q.Send(within(t), text("a", "b", "c", "d")...); !errors.Is(err, client.ErrQueueFull) {
		t.Errorf("a batch that never fits: %v, want it refused at once", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := q.Send(short, text("too late")...); !errors.Is(err, client.ErrTimedOut) && !errors.Is(err, client.ErrQueueFull) {
		t.Errorf("a deadline passed: %v", err)
	}
	errs := make(chan error, 2)
	for i, batch := range [][]client.Message{text("large", "large", "large"), text("small")} {
		go func() {
			_, err := q.Send(within(t), batch...)
			errs <- err
		}()
		awaitStats(t, q, "the sender waits", func(s client.QueueStats) bool { return s.BlockedSenders == i+1 })
	}
	var got []string
	for len(got) < 7 {
		for _, m := range receive(t, q, 1, client.ReceiveOptions{AtOnce: true}) {
			got = append(got, string(m.Body))
		}
		if len(got) < 3 {
			if s := info(t, q).Stats; s.BlockedSenders != 2 {
				t.Errorf("with room for %d of 3 messages %d senders wait: the small batch overtook", len(got), s.BlockedSenders)
			}
		}
	}
	if want := "1 2 3 large large large small"; strings.Join(got, " ") != want {
		t.Errorf("received %q, want %q", got, want)
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestBlockedIpcctlSendEndsAtItsTimeoutOrSignal_S7(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages, s.Overflow = 1, client.OverflowBlock }))
	send(t, q, text("first")...)
	d.ctl(t, "send", q.Name(), "second", "--timeout", "200ms").exits(t, 6)
	blocked := background(t, d.command(within(t), "ipcctl", "send", q.Name(), "third"))
	awaitStats(t, q, "ipcctl waits for room", func(s client.QueueStats) bool { return s.BlockedSenders == 1 })
	_ = blocked.cmd.Process.Signal(syscall.SIGINT)
	blocked.wait().exits(t, 1).says(t, "interrupted")
	awaitStats(t, q, "the interrupted sender is gone", func(s client.QueueStats) bool { return s.BlockedSenders == 0 })
	if s := info(t, q).Stats; s.Messages() != 1 {
		t.Errorf("%d messages, want the first alone", s.Messages())
	}
}

func TestFullQueueDropsTheOldestOfTheLowestPriority_S7(t *testing.T) {
	t.Parallel()
	q := create(t, start(t).dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages, s.Overflow = 3, client.OverflowDropOldest }))
	message := func(priority uint16, body string) client.Message {
		return client.Message{Priority: priority, Body: []byte(body)}
	}
	send(t, q, message(5, "high"), message(1, "low, older"), message(1, "low, newer"))
	send(t, q, message(3, "middle"))
	if _, err := q.Send(within(t), message(0, "lowest")); !errors.Is(err, client.ErrQueueFull) {
		t.Errorf("the newcomer ranks below all: %v", err)
	}
	if s := info(t, q).Stats; s.OverflowDroppedTotal != 1 {
		t.Errorf("%d dropped, want 1", s.OverflowDroppedTotal)
	}
	leased := receive(t, q, 10, client.ReceiveOptions{})
	if got := strings.Join(bodies(leased), ", "); got != "high, middle, low, newer" {
		t.Errorf("kept %s", got)
	}
	if _, err := q.Send(within(t), message(9, "nothing is ready")); !errors.Is(err, client.ErrQueueFull) {
		t.Errorf("all is leased: %v", err)
	}
}

func TestDuplicatesAreStoredOnce_S8(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	q := create(t, c, memory(func(s *client.QueueSettings) { s.MaxDedupIDs = new(int64(2)) }))
	pay := func(id string) client.Message { return client.Message{Body: []byte("pay"), DedupID: id} }
	first := send(t, q, pay("order-1"))[0]
	if err := receiveOne(t, q).Ack(within(t)); err != nil {
		t.Fatal(err)
	}
	second := send(t, q, pay("order-1"))[0]
	if !second.Duplicate || second.Sequence != first.Sequence {
		t.Errorf("after the first was consumed: %+v, want a duplicate of %d", second, first.Sequence)
	}
	d.ctl(t, "send", q.Name(), "--dedup-id", "order-1", "pay").exits(t, 0).says(t, "duplicate", strconv.FormatUint(first.Sequence, 10))
	send(t, q, pay("order-2"))
	if _, err := q.Send(within(t), pay("order-3")); !errors.Is(err, client.ErrQuotaExceeded) {
		t.Errorf("a third id where two are remembered: %v", err)
	}
	send(t, q, client.Message{Body: []byte("without an id")})
	if s := info(t, q).Stats; s.DuplicatesTotal != 2 || s.DedupIDs != 2 || s.Messages() != 2 {
		t.Errorf("stats %+v", s)
	}

	brief := create(t, c, memory(func(s *client.QueueSettings) { s.DedupWindow = new(50 * time.Millisecond) }))
	send(t, brief, pay("again"))
	eventually(t, "the window ends", func() bool { return !send(t, brief, pay("again"))[0].Duplicate })
}
