//go:build linux

package e2e

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// overEach runs a test over the unix socket and over TCP. The queue lets everybody in by a rule, for on TCP
// nobody is identified.
func overEach(t *testing.T, test func(t *testing.T, d *daemon, q *client.Queue)) {
	d := start(t)
	for _, over := range []struct{ name, target string }{{"unix", d.socket}, {"tcp", d.tcp}} {
		t.Run(over.name, func(t *testing.T) {
			q := createNamed(t, d.dial(t), unique()+anyone, memory())
			test(t, d, dial(t, over.target, client.WithInsecure()).Queue(q.Name()))
		})
	}
}

func TestMessageArrivesAsItWasSent_S4_S5(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, _ *daemon, q *client.Queue) {
		full := client.Message{
			Type: 1<<63 - 1, Priority: 32767, Body: []byte("\x00\xff body"), Headers: map[string][]byte{"k": []byte("\xfe v"), "empty": {}},
			TTL: time.Hour, DedupID: "dedup", CorrelationID: "correlation", ReplyTo: "/reply", ContentType: "text/plain",
		}
		before := time.Now().Add(-time.Second)
		sent := send(t, q, full, client.Message{})
		if sent[0].Sequence >= sent[1].Sequence {
			t.Errorf("sequences %d and %d do not rise", sent[0].Sequence, sent[1].Sequence)
		}
		got := receive(t, q, 2, client.ReceiveOptions{})
		if len(got) != 2 {
			t.Fatalf("received %d messages", len(got))
		}
		m := got[0]
		if m.Type != full.Type || m.Priority != full.Priority || string(m.Body) != string(full.Body) ||
			m.DedupID != full.DedupID || m.CorrelationID != full.CorrelationID || m.ReplyTo != full.ReplyTo || m.ContentType != full.ContentType ||
			!maps.EqualFunc(m.Headers, full.Headers, func(a, b []byte) bool { return string(a) == string(b) }) {
			t.Errorf("received %+v, sent %+v", m.Message, full)
		}
		if m.Sequence != sent[0].Sequence || !m.SentAt.Equal(sent[0].SentAt) || m.SentAt.Before(before) || m.Queue != q.Name() || m.Attempts != 0 {
			t.Errorf("received %+v, answer was %+v", m, sent[0])
		}
		if empty := got[1]; empty.Type != 1 || empty.Priority != 0 || len(empty.Body) != 0 || len(empty.Headers) != 0 {
			t.Errorf("an empty message came as %+v", empty.Message)
		}
		for _, d := range got {
			if err := d.Ack(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		if s := info(t, q).Stats; s.Messages() != 0 || s.Bytes != 0 || s.ConsumedTotal != 2 {
			t.Errorf("after both acks: %+v", s)
		}
	})
}

func TestPipelinedSenderAndConsumerMissNothing_S11_S13(t *testing.T) {
	t.Parallel()
	overEach(t, func(t *testing.T, _ *daemon, q *client.Queue) {
		const messages = 3000
		sender, err := q.Sender(within(t), client.SenderOptions{BatchMessages: 64})
		if err != nil {
			t.Fatal(err)
		}
		for i := range messages {
			if _, err := sender.Send(within(t), client.Message{Type: int64(i + 1)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := sender.Close(); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(within(t))
		var types []int64
		err = q.Consume(ctx, func(_ context.Context, d *client.Delivery) error {
			if types = append(types, d.Type); len(types) == messages {
				stop()
			}
			return nil
		}, client.ConsumeOptions{OnError: func(_ *client.Delivery, err error) { t.Errorf("settle: %v", err) }})
		if err != nil {
			t.Fatal(err)
		}
		if len(types) != messages || !slices.IsSorted(types) {
			t.Errorf("consumed %d of %d messages, in order: %v", len(types), messages, slices.IsSorted(types))
		}
		if s := info(t, q).Stats; s.Messages() != 0 || s.ConsumedTotal != messages {
			t.Errorf("left: %+v", s)
		}
	})
}

func TestInfoTellsWhoIsAsking(t *testing.T) {
	t.Parallel()
	d := start(t)
	local, err := d.dial(t).Info(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if local.Caller.Kind != "unix" || int(local.Caller.UID) != os.Geteuid() || local.PID != d.cmd.Process.Pid || local.StateDir != d.state {
		t.Errorf("over the unix socket: %+v", local)
	}
	if !slices.Equal(local.Addresses, []string{"unix://" + d.socket, d.tcp}) {
		t.Errorf("addresses %q, want the socket and %s", local.Addresses, d.tcp)
	}
	remote, err := dial(t, d.tcp, client.WithInsecure()).Info(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if remote.Caller.Kind != "anonymous" || remote.Instance != local.Instance {
		t.Errorf("over TCP: %+v", remote)
	}
}

func TestQueuesAreListedAndUpdated_S1(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	a, b := create(t, c, memory()), create(t, c, memory())
	var listed []string
	for q, err := range c.Queues(within(t), "e2e.*") {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, q.Name)
	}
	want := []string{a.Name(), b.Name()}
	slices.Sort(want)
	if !slices.Equal(listed, want) {
		t.Errorf("listed %q, want %q", listed, want)
	}
	d.ctl(t, "update", a.Name(), "--lease", "1m", "--type-name", "created=7").ok(t)
	if s := info(t, a).Settings; s.Lease != time.Minute || s.TypeNames["created"] != 7 {
		t.Errorf("updated to %+v", s)
	}
	table := d.ctl(t, "ls").ok(t)
	for _, name := range want {
		if !strings.Contains(table, name) {
			t.Errorf("ls does not show %s:\n%s", name, table)
		}
	}
	if names := d.ctl(t, "ls", "-o", "name").ok(t); names != strings.Join(want, "\n")+"\n" {
		t.Errorf("ls -o name printed %q", names)
	}
}

func TestQueueMayBeMadeOnceAndNamesAreChecked_S1(t *testing.T) {
	t.Parallel()
	d := start(t)
	name := unique()
	settings := []string{"--durability", "memory", "--mqueue", "none"}
	again := func(more ...string) result {
		return d.ctl(t, append(append([]string{"create", name[1:]}, settings...), more...)...)
	}
	again().exits(t, 0).says(t, "created "+name)
	again().exits(t, 0).says(t, "same settings")
	again("--exclusive").exits(t, 1)
	again("--lease", "1m").exits(t, 1).says(t, "lease", "1m0s", "30s")

	c := d.dial(t)
	longest := "/" + strings.Repeat("n", 200)
	for _, good := range []string{longest, "/a", "/A.b_c-9", "/-", "/_"} {
		if _, err := c.CreateQueue(within(t), good, memory()); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/", "/.hidden", "/a/b", "/a b", "/ä", "/a\x00", "/a\n", "//", longest + "n"} {
		_, err := c.CreateQueue(within(t), bad, memory())
		var e *client.Error
		if !errors.As(err, &e) || !errors.Is(err, client.ErrInvalidArgument) || e.Field == "" {
			t.Errorf("%.20q: %#v, want INVALID_ARGUMENT and the field", bad, err)
		}
	}
}

func TestQueuesAreDurableUnlessTheyDeclareOtherwise_S26(t *testing.T) {
	dir := shortDir(t)
	d := startIn(t, dir)
	kept, lost := unique(), unique()
	d.ctl(t, "create", kept, "--mqueue", "none").ok(t)
	d.ctl(t, "create", lost, "--mqueue", "none", "--durability", "memory").ok(t)
	d.ctl(t, "update", lost, "--durability", "journal").exits(t, 2).says(t, "durability")
	for _, name := range []string{kept, lost} {
		d.ctl(t, "send", name, "m").ok(t)
	}
	if c := info(t, d.dial(t).Queue(kept)); c.Settings.Durability != client.DurabilityJournal {
		t.Errorf("a queue that says nothing has durability %v", c.Settings.Durability)
	}
	d.kill()
	next := startIn(t, dir)
	c := next.dial(t)
	if s := info(t, c.Queue(kept)).Stats; s.Ready != 1 {
		t.Errorf("the journal queue has %d messages after kill -9, want 1", s.Ready)
	}
	if s := info(t, c.Queue(lost)).Stats; s.Ready != 0 {
		t.Errorf("the memory queue has %d messages after kill -9, want none", s.Ready)
	}
}
