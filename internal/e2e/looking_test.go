//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// peeked returns the bodies that peek shows.
func peeked(t *testing.T, q *client.Queue, o client.PeekOptions) []string {
	t.Helper()
	var all []string
	for m, err := range q.Peek(within(t), o) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(m.Body))
	}
	return all
}

func TestPeekShowsEveryStateInItsOrder_S20(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	send(t, q, text("leased long", "leased short", "buried 1", "buried 2")...)
	long := receive(t, q, 1, client.ReceiveOptions{Lease: 2 * time.Hour})[0]
	receive(t, q, 1, client.ReceiveOptions{Lease: time.Hour})
	for _, m := range receive(t, q, 2, client.ReceiveOptions{}) {
		if err := m.Bury(within(t), "out of order"); err != nil {
			t.Fatal(err)
		}
	}
	send(t, q, client.Message{Body: []byte("delayed late"), Delay: 2 * time.Hour}, client.Message{Body: []byte("delayed soon"), Delay: time.Hour})
	send(t, q, client.Message{Body: []byte("ready low")}, client.Message{Body: []byte("ready high"), Priority: 9})
	before := info(t, q).Stats
	for state, want := range map[string]string{
		"ready":   "ready high, ready low",
		"delayed": "delayed soon, delayed late",
		"leased":  "leased short, leased long",
		"buried":  "buried 1, buried 2",
	} {
		var got []string
		for _, m := range d.ctl(t, "peek", q.Name(), "--state", state, "-o", "json").messages(t) {
			if got = append(got, *m.Body); m.State != state {
				t.Errorf("%s is shown as %s", *m.Body, m.State)
			}
			if state == "buried" && m.BuryReason != "out of order" {
				t.Errorf("buried because %q", m.BuryReason)
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %q, want %s", state, got, want)
		}
	}
	if all := d.ctl(t, "peek", q.Name(), "--state", "all", "-o", "json").messages(t); len(all) != 8 {
		t.Errorf("all states: %d messages, want 8", len(all))
	}
	after := info(t, q).Stats
	if after.PeekedTotal != before.PeekedTotal+16 {
		t.Errorf("%d peeked, want 16 more than %d", after.PeekedTotal, before.PeekedTotal)
	}
	after.PeekedTotal, after.OldestAge, after.SendRate, after.DeliveryRate, after.AckRate = before.PeekedTotal, before.OldestAge, before.SendRate, before.DeliveryRate, before.AckRate
	if after != before {
		t.Errorf("peek changed the queue:\n%+v\n%+v", before, after)
	}
	if err := long.Ack(within(t)); err != nil {
		t.Errorf("a lease that was peeked at: %v", err)
	}
	if m := receiveOne(t, q); string(m.Body) != "ready high" || m.Attempts != 0 {
		t.Errorf("received %q with %d attempts", m.Body, m.Attempts)
	}
}

func TestPeekPagesWithoutRepeating_S20(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, _ *daemon, q *client.Queue) {
		const messages = 700 // more than two pages of the daemon
		batch := make([]client.Message, messages)
		for i := range batch {
			batch[i].Body = fmt.Append(nil, i)
		}
		send(t, q, batch...)
		var got []string
		cursor, calls := "", 0
		for {
			next := ""
			got = append(got, peeked(t, q, client.PeekOptions{Limit: 300, Cursor: cursor, OnPage: func(c string) { next = c }})...)
			calls++
			if next == "" {
				break
			}
			cursor = next
			if calls == 1 { // what goes between pages may be missing, nothing comes twice
				receive(t, q, 400, client.ReceiveOptions{AtOnce: true})
			}
		}
		if calls < 2 || len(got) != messages-100 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != len(got) {
			t.Errorf("%d pages with %d messages, want several with %d, none twice", calls, len(got), messages-100)
		}
		for m, err := range q.Peek(within(t), client.PeekOptions{Cursor: "nonsense"}) {
			if !errors.Is(err, client.ErrInvalidArgument) {
				t.Errorf("a cursor that is none: %v, %v", m, err)
			}
		}
	})
}

func TestPeekFilters_S20(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.TypeNames = map[string]int64{"created": 7} }))
	send(t, q,
		client.Message{Type: 7, Body: []byte("1")}, client.Message{Type: 8, Body: []byte("2"), Headers: map[string][]byte{"trace": []byte("abc")}},
		client.Message{Type: 7, Body: []byte("3"), Headers: map[string][]byte{"trace": []byte("abcd")}}, client.Message{Type: 9, Body: []byte("4")})
	for _, c := range []struct{ arguments, want string }{
		{"--type created", "1 3"},
		{"--type not:7", "2 4"},
		{"--seq 2-3", "2 3"},
		{"--seq 4", "4"},
		{"--header trace=abc", "2"},
		{"--type 7 --header trace=abcd", "3"},
		{"--older-than 1h", ""},
		{"--older-than 0s -n 2", "1 2"},
	} {
		got := strings.Fields(d.ctl(t, append([]string{"peek", q.Name(), "-o", "raw"}, strings.Fields(c.arguments)...)...).ok(t))
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.arguments, got, c.want)
		}
	}
}

func TestPeekFollows_S20(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	send(t, q, text("there before")...)
	follower := background(t, d.command(within(t), "ipcctl", "peek", q.Name(), "--follow", "-o", "raw"))
	shows := func(want string) {
		t.Helper()
		eventually(t, "the follower shows "+want, func() bool { return follower.out.String() == want })
	}
	shows("there before\n")
	send(t, q, text("a")...)
	shows("there before\na\n")
	send(t, q, text("b", "c")...)
	shows("there before\na\nb\nc\n")
	_ = follower.cmd.Process.Signal(syscall.SIGINT)
	follower.wait().exits(t, 0)
	if s := info(t, q).Stats; s.Ready != 4 || s.DeliveredTotal != 0 {
		t.Errorf("following changed the queue: %+v", s)
	}
}

func TestBodiesNeverReachTheTerminalAsTheyAre_S20(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	evil := "\x1b]0;title\x07\x1b[2J\x00\x9b\xff\r<end>"
	send(t, q, client.Message{Body: []byte(evil), Headers: map[string][]byte{"h": []byte(evil)}, CorrelationID: "\x1b[31m"})
	for _, shown := range []string{
		d.ctl(t, "peek", q.Name()).ok(t),
		d.ctl(t, "peek", q.Name(), "-o", "json").ok(t),
		d.ctl(t, "recv", q.Name(), "-o", "text").ok(t),
	} {
		if i := strings.IndexFunc(shown, func(r rune) bool { return r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == '\ufffd' }); i >= 0 {
			t.Errorf("control bytes in the output: %q", shown)
		}
	}
	if raw := d.ctl(t, "peek", q.Name(), "--state", "all", "-o", "raw", "--delimiter", "").ok(t); raw != evil {
		t.Errorf("-o raw printed %q, want the body as it is", raw)
	}
}

func TestPauseStopsDeliveriesNotSends_S22(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	d.ctl(t, "pause", q.Name()).ok(t)
	d.ctl(t, "send", q.Name(), "m").ok(t)
	d.ctl(t, "recv", q.Name(), "--wait", "20ms").exits(t, 6)
	waiting := background(t, d.command(within(t), "ipcctl", "recv", q.Name(), "--wait", "1m", "--ack", "-o", "raw"))
	awaitStats(t, q, "a receiver waits", func(s client.QueueStats) bool { return s.Receivers == 1 })
	if !info(t, q).Paused || !strings.Contains(d.ctl(t, "ls").ok(t), "paused") {
		t.Error("the queue is not shown as paused")
	}
	d.ctl(t, "resume", q.Name()).ok(t)
	if got := waiting.wait().ok(t); got != "m\n" {
		t.Errorf("received %q", got)
	}
}

func TestPurgeTakesTheFiltersOfPeek_S22(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	send(t, q, client.Message{Type: 3, Body: []byte("leased")})
	held := receiveOne(t, q)
	for i := range 6 {
		send(t, q, client.Message{Type: int64(i%2 + 1), Body: fmt.Append(nil, i+2)})
	}
	d.ctl(t, "purge", q.Name()).exits(t, 2).says(t, "--force")
	if out := d.ctl(t, "purge", q.Name(), "--type", "2", "--dry-run").ok(t); !strings.Contains(out, "3 messages") {
		t.Errorf("dry run says %q", out)
	}
	d.ctl(t, "purge", q.Name(), "--seq", "4", "--force").exits(t, 0).says(t, "1 message")
	d.ctl(t, "purge", q.Name(), "--type", "2", "--limit", "2", "--force").exits(t, 0).says(t, "2 messages")
	if got := strings.Join(peeked(t, q, client.PeekOptions{}), " "); got != "2 6 7" {
		t.Errorf("left: %s, want 2 6 7", got)
	}
	d.ctl(t, "purge", q.Name(), "--force").exits(t, 0).says(t, "3 messages")
	if s := info(t, q).Stats; s.Leased != 1 || s.Messages() != 1 || s.PurgedTotal != 6 {
		t.Errorf("%+v, want the leased one alone", s)
	}
	d.ctl(t, "purge", q.Name(), "--state", "leased", "--force").ok(t)
	if err := held.Ack(within(t)); !errors.Is(err, client.ErrStaleReceipt) {
		t.Errorf("ack of a purged message: %v", err)
	}
}

func TestDeletingAQueueEndsWhoWaits_S23(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxMessages, s.Overflow = 1, client.OverflowBlock }))
	send(t, q, client.Message{Type: 2})
	receiver := background(t, d.command(within(t), "ipcctl", "recv", q.Name(), "--type", "1", "--wait", "1m"))
	sender := background(t, d.command(within(t), "ipcctl", "send", q.Name(), "m"))
	follower := background(t, d.command(within(t), "ipcctl", "peek", q.Name(), "--follow"))
	consumed := make(chan error, 1)
	go func() {
		consumed <- q.Consume(within(t), func(context.Context, *client.Delivery) error { return nil }, client.ConsumeOptions{Selector: client.Type(3)})
	}()
	awaitStats(t, q, "all wait", func(s client.QueueStats) bool { return s.Receivers == 2 && s.BlockedSenders == 1 })
	eventually(t, "the follower has seen the message", func() bool { return follower.out.String() != "" })
	d.ctl(t, "rm", q.Name()).exits(t, 2).says(t, "--force")
	d.ctl(t, "rm", q.Name(), "--force").exits(t, 0).says(t, "1 message")
	for _, r := range []*running{receiver, sender, follower} {
		r.wait().exits(t, 3)
	}
	if err := <-consumed; !errors.Is(err, client.ErrQueueDeleted) {
		t.Errorf("a consumer ended with %v, want QUEUE_DELETED", err)
	}
	d.ctl(t, "stat", q.Name()).exits(t, 3)
}
