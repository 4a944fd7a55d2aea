//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// journaled is a durable queue without kernel queues.
func journaled() client.QueueSettings {
	return client.QueueSettings{Mqueue: client.KernelQueue{Mode: client.KernelNone}}
}

// everything is what peek shows of all states.
func everything(t *testing.T, q *client.Queue) []string {
	t.Helper()
	return peeked(t, q, client.PeekOptions{Order: client.BySequence, Filter: client.Filter{States: []client.State{client.StateReady, client.StateDelayed, client.StateLeased, client.StateBuried}}})
}

func TestCopiesAreThereWithTheirMessageAfterKill_S25(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := startIn(t, dir)
	c := d.dial(t)
	source, copies, few := create(t, c, journaled()), create(t, c, journaled()), create(t, c, journaled())
	d.ctl(t, "bind", source.Name(), copies.Name()).ok(t)
	d.ctl(t, "bind", copies.Name(), few.Name(), "--type", "7", "--overflow", "skip").ok(t)
	d.ctl(t, "bind", few.Name(), source.Name()).exits(t, 1).says(t, "circle", source.Name())
	d.ctl(t, "bind", source.Name(), "/nowhere").exits(t, 3).says(t, "/nowhere")
	d.ctl(t, "bind", source.Name(), copies.Name(), "--overflow", "drop").exits(t, 2)

	// Senders are under way when the daemon is killed.
	done := make(chan int)
	go func() {
		n := 0
		for ctx := within(t); ; n++ {
			if _, err := source.Send(ctx, client.Message{Type: int64(6 + n%2), Body: fmt.Appendf(nil, "%d", n)}); err != nil {
				break
			}
		}
		done <- n
	}()
	awaitStats(t, source, "some were sent", func(s client.QueueStats) bool { return s.SentTotal > 100 })
	d.kill()
	acknowledged := <-done

	d = startIn(t, dir)
	c = d.dial(t)
	have := everything(t, c.Queue(source.Name()))
	if len(have) < acknowledged {
		t.Errorf("%d of %d are there", len(have), acknowledged)
	}
	if also := everything(t, c.Queue(copies.Name())); !slices.Equal(have, also) {
		t.Errorf("%d messages, %d copies", len(have), len(also))
	}
	if sevens := everything(t, c.Queue(few.Name())); len(sevens) != len(have)/2 {
		t.Errorf("%d messages, %d copies of type 7", len(have), len(sevens))
	}
}

func TestTapCopiesWhatPasses_S21(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.TypeNames = map[string]int64{"wanted": 7} }))
	send(t, q, client.Message{Type: 7, Body: []byte("before")})
	tap := background(t, d.command(within(t), "ipcctl", "tap", q.Name(), "--type", "wanted", "-n", "2", "-o", "jsonl"))
	awaitStats(t, q, "the tap is open", func(s client.QueueStats) bool { return s.Taps == 1 })
	for i := range 4 {
		send(t, q, client.Message{Type: int64(6 + i%2), Body: fmt.Appendf(nil, "%d", i)})
		if err := receiveOne(t, q).Ack(within(t)); err != nil { // whoever consumes it
			t.Fatal(err)
		}
	}
	var bodies []string
	for line := range strings.Lines(tap.wait().ok(t)) {
		var m messageJSON
		unmarshal(t, line, &m)
		if bodies = append(bodies, *m.Body); m.TypeName != "wanted" {
			t.Errorf("type name %q", m.TypeName)
		}
	}
	if fmt.Sprint(bodies) != "[1 3]" {
		t.Errorf("the tap shows %q", bodies)
	}
	if s := info(t, q).Stats; s.Taps != 0 || s.Ready != 1 {
		t.Errorf("%+v", s)
	}
}

// A tap that nobody reads holds nobody up, and its reader learns what it missed.
func TestStalledTapMissesAndCounts_S21(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.MaxBytes = 1 << 30; s.MaxMessages = 1 << 20 }))
	reader := d.command(within(t), "ipcctl", "tap", q.Name(), "-o", "jsonl")
	tap := background(t, reader)
	awaitStats(t, q, "the tap is open", func(s client.QueueStats) bool { return s.Taps == 1 })
	if err := reader.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	const count, batch = 1 << 16, 1 << 10 // of 1 KiB: more than all buffers between
	body := []byte(strings.Repeat("x", 1<<10))
	for range count / batch {
		messages := make([]client.Message, batch)
		for i := range messages {
			messages[i].Body = body
		}
		send(t, q, messages...)
	}
	if err := reader.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the reader is told what it missed", func() bool {
		return strings.Contains(tap.words.String(), "left out")
	})
}

func TestMoveGoesDownToOneMessage_S22(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := startIn(t, dir)
	c := d.dial(t)
	from, to := create(t, c, journaled()), create(t, c, journaled())
	send(t, to, text("first")...)
	send(t, from, text("a", "b", "c", "d")...)
	held := receive(t, from, 1, client.ReceiveOptions{Lease: time.Hour})[0]
	d.ctl(t, "move", from.Name(), to.Name(), "--seq", "3").ok(t)
	d.ctl(t, "move", from.Name(), to.Name(), "--dry-run").ok(t)
	d.ctl(t, "move", from.Name(), to.Name()).ok(t)
	d.ctl(t, "move", from.Name(), from.Name()).exits(t, 2)
	d.ctl(t, "move", from.Name(), "/nowhere").exits(t, 3)
	d.kill()
	d = startIn(t, dir)
	c = d.dial(t)
	if got := everything(t, c.Queue(to.Name())); fmt.Sprint(got) != "[first c b d]" {
		t.Errorf("moved %q", got)
	}
	if got := everything(t, c.Queue(from.Name())); fmt.Sprint(got) != "[a]" { // leased messages stay
		t.Errorf("left %q", got)
	}
	if err := held.Ack(within(t)); !errors.Is(err, client.ErrStaleReceipt) && err == nil {
		t.Errorf("a receipt from before the crash: %v", err)
	}
}

func TestRedriveSendsEachHome_S22(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	dead := create(t, c, journaled())
	var homes []*client.Queue
	for range 2 {
		s := journaled()
		s.MaxAttempts, s.DeadLetterQueue = 1, dead.Name()
		home := create(t, c, s)
		homes = append(homes, home)
		send(t, home, client.Message{Type: 9, Body: []byte(home.Name()), Headers: map[string][]byte{"mine": []byte("kept")}})
		if err := receiveOne(t, home).Nack(within(t), 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	send(t, dead, text("was never dead")...)
	d.ctl(t, "redrive", dead.Name(), "--type", "9").ok(t)
	for _, home := range homes {
		m := receiveOne(t, home)
		if string(m.Body) != home.Name() || m.Attempts != 0 || len(m.Headers) != 1 || string(m.Headers["mine"]) != "kept" {
			t.Errorf("%s got %+v", home.Name(), m)
		}
	}
	if got := everything(t, dead); fmt.Sprint(got) != "[was never dead]" {
		t.Errorf("left %q", got)
	}
}

func TestReplyQueueEndsWithItsRequester(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	q := create(t, c, journaled())
	answering, stop := context.WithCancel(within(t))
	defer stop()
	answered := make(chan error, 1)
	go func() {
		answered <- q.Respond(answering, func(_ context.Context, m *client.Delivery) (client.Message, error) {
			return client.Message{Body: []byte(strings.ToUpper(string(m.Body)))}, nil
		}, client.ConsumeOptions{})
	}()
	if out := d.ctl(t, "request", q.Name(), "hello", "-o", "raw").ok(t); out != "HELLO\n" {
		t.Errorf("the reply is %q", out)
	}
	stop()
	if err := <-answered; err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// Nobody answers any more; the requester is killed, and the reply comes too late.
	asking := d.command(within(t), "ipcctl", "request", q.Name(), "anybody?", "--timeout", "1h")
	requester := background(t, asking)
	m := receiveOne(t, q)
	if err := asking.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	requester.wait()
	eventually(t, "the reply queue is gone", func() bool {
		_, err := c.Queue(m.ReplyTo).Send(within(t), client.Message{CorrelationID: m.CorrelationID})
		return errors.Is(err, client.ErrQueueNotFound)
	})
	if i, err := c.Info(within(t)); err != nil || i.LateRepliesTotal == 0 || i.TemporaryQueues != 0 {
		t.Errorf("%d late replies, %d temporary queues, %v", i.LateRepliesTotal, i.TemporaryQueues, err)
	}
	d.ctl(t, "create", "/tmp.mine").exits(t, 2).says(t, "temporary")
	d.ctl(t, "request", q.Name(), "nobody", "--timeout", "200ms").exits(t, 6)
}

// What was exported comes back as it was but for its sequences: through a binary form and a readable one, and again.
func TestExportAndImportAreExact(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	s := journaled()
	s.MaxAttempts = 3
	from := create(t, c, s)
	send(t, from,
		client.Message{Type: 1 << 40, Priority: 9, Body: []byte("all"), Headers: map[string][]byte{"a": {0, 255}, "b": []byte("ü")}, TTL: time.Hour,
			DedupID: "d", CorrelationID: "c", ReplyTo: "/r", ContentType: "text/plain"},
		client.Message{Body: []byte{0, 1, 254, 255}, Delay: time.Hour},
		client.Message{},
		client.Message{Body: []byte("buried\n")},
		client.Message{Body: []byte("tried"), Priority: 3})
	for _, m := range receive(t, from, 4, client.ReceiveOptions{}) {
		switch string(m.Body) {
		case "buried\n":
			if err := m.Bury(within(t), "why not"); err != nil {
				t.Fatal(err)
			}
		default:
			if err := m.Nack(within(t), 0, ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	export := func(name, file, format string) []map[string]any {
		path := filepath.Join(t.TempDir(), file)
		d.ctl(t, "export", name, "-f", path, "--format", format).ok(t)
		if format != "jsonl" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var all []map[string]any
		for line := range strings.Lines(string(text)) {
			var m map[string]any
			unmarshal(t, line, &m)
			delete(m, "sequence")
			delete(m, "queue")
			all = append(all, m)
		}
		return all[1:] // the first says what it is
	}
	want := export(from.Name(), "a", "jsonl")
	if len(want) != 5 {
		t.Fatalf("%d messages were exported", len(want))
	}
	for _, format := range []string{"jsonl", "compact"} {
		path := filepath.Join(t.TempDir(), "x")
		d.ctl(t, "export", from.Name(), "-f", path, "--format", format).ok(t)
		to := create(t, c, s)
		d.ctl(t, "import", to.Name(), "-f", path).ok(t)
		have := export(to.Name(), "b", "jsonl")
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(have)
		if string(a) != string(b) {
			t.Errorf("%s: exported\n%s\nimported\n%s", format, a, b)
		}
	}
}

func TestOneReceiveWaitsAtManyQueues(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	var names []string
	for range 20 {
		names = append(names, create(t, c, memory()).Name())
	}
	waiting := background(t, d.command(within(t), "ipcctl", append([]string{"recv", "--wait", "1h", "-o", "raw"}, names...)...))
	last := c.Queue(names[19])
	awaitStats(t, last, "it waits there", func(s client.QueueStats) bool { return s.Receivers == 1 })
	send(t, last, text("here")...)
	if out := waiting.wait().ok(t); out != "here\n" {
		t.Errorf("received %q", out)
	}
	for _, name := range names {
		if s := info(t, c.Queue(name)).Stats; s.Receivers != 0 {
			t.Errorf("somebody waits at %s", name)
		}
	}
}
