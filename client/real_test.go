package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/vfs"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/rpc"
)

// real is the daemon's own broker and gRPC door, over several runs.
type real struct {
	t    *testing.T
	path string // of the socket
	dir  string // of the journal
	stop func()
}

func startReal(t *testing.T) *real {
	t.Helper()
	dir, err := os.MkdirTemp("", "ipcd") // short enough for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	r := &real{t: t, path: filepath.Join(dir, "run", "s"), dir: filepath.Join(dir, "journal")}
	r.start()
	t.Cleanup(func() {
		r.stop()
		_ = os.RemoveAll(dir)
	})
	return r
}

// start begins a run.
func (r *real) start() {
	b, err := broker.Open(broker.Options{Journal: &broker.JournalOptions{FS: vfs.OS{}, Dir: r.dir, SegmentBytes: limits.SegmentBytesMin}})
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := rpc.ListenUnix(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	s := rpc.New(rpc.Options{Broker: transport.Over(b)})
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	r.stop = sync.OnceFunc(func() {
		at, cancel := context.WithCancel(context.Background())
		cancel() // calls are cut off
		s.Stop(at)
		b.Close()
		serving.Wait()
	})
}

func (r *real) restart() {
	r.stop()
	r.start()
}

func (r *real) dial() *Client {
	r.t.Helper()
	c, err := Dial(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			r.t.Error(err)
		}
	})
	return c
}

// queue makes a queue, in the journal.
func (r *real) queue(c *Client, name string, s QueueSettings) *Queue {
	r.t.Helper()
	s.Mqueue.Mode = KernelNone
	if _, err := c.CreateQueue(r.t.Context(), name, s); err != nil {
		r.t.Fatal(err)
	}
	return c.Queue(name)
}

func (r *real) send(q *Queue, m ...Message) {
	r.t.Helper()
	if _, err := q.Send(r.t.Context(), m...); err != nil {
		r.t.Fatal(err)
	}
}

// soon is a context for what must come, and does in a moment unless something is wrong.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// until waits until something is so that no event tells of.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// everything shows all messages of a queue.
func everything(t *testing.T, q *Queue) (all []*Peeked) {
	t.Helper()
	o := PeekOptions{Order: BySequence, Filter: Filter{States: []State{StateReady, StateDelayed, StateLeased, StateBuried}}}
	for m, err := range q.Peek(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func bodiesOf(all []*Peeked) (out []string) {
	for _, m := range all {
		out = append(out, string(m.Body))
	}
	return out
}

func TestRequestsAndLargeRepliesOnTheRealDaemon(t *testing.T) {
	r := startReal(t)
	server, c := r.dial(), r.dial()
	q := r.queue(server, "/jobs", QueueSettings{})
	large := bytes.Repeat([]byte("x"), 1<<20)
	responding(t, q, func(_ context.Context, d *Delivery) (Message, error) {
		return Message{Body: append(large[:len(large):len(large)], d.Body...), Type: d.Type + 1}, nil
	}, ConsumeOptions{Concurrency: 4})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			text := fmt.Sprint(i)
			d, err := c.Request(soon(t), "/jobs", Message{Body: []byte(text), Type: int64(i + 1)})
			if err != nil || string(d.Body[len(large):]) != text || d.Type != int64(i+2) {
				t.Errorf("request %d: %v", i, err)
			}
		})
	}
	all.Wait()
	info, err := c.Info(t.Context())
	if err != nil || info.TemporaryQueues != 1 || info.LateRepliesTotal != 0 {
		t.Errorf("%+v, %v; want one temporary queue", info, err)
	}
}

// The request outlives the restart, for it is in the journal; who waited for the reply is told that it is lost.
func TestAfterARestartTheReplyIsLostAndTheRequestIsNot(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	q := r.queue(c, "/jobs", QueueSettings{})
	ended := make(chan error, 1)
	go func() {
		_, err := c.Request(soon(t), "/jobs", body("a"))
		ended <- err
	}()
	for range q.Peek(soon(t), PeekOptions{Follow: true, Limit: 1}) {
	}
	until(t, "the answer to the send", func() bool {
		c.replies.mu.Lock()
		defer c.replies.mu.Unlock()
		return c.replies.box != nil && len(c.replies.box.waiting) == 1
	})
	r.restart()
	if err := <-ended; !errors.Is(err, ErrReplyLost) && !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("%v, want ErrReplyLost, or ErrOutcomeUnknown where the answer to the send was lost", err)
	}
	server := r.dial()
	responding(t, server.Queue("/jobs"), shout, ConsumeOptions{})
	until(t, "the reply that nobody waits for", func() bool { return server.LateReplies() == 1 })
	info, err := r.dial().Info(t.Context())
	if err != nil || info.LateRepliesTotal != 1 || info.TemporaryQueues != 0 {
		t.Errorf("%+v, %v; want one late reply", info, err)
	}
	if d, err := r.dial().Request(soon(t), "/jobs", body("b")); err != nil || string(d.Body) != "B" {
		t.Errorf("the next request: %v", err)
	}
}

func TestTheReplyQueueEndsWithItsClient(t *testing.T) {
	r := startReal(t)
	c, other := r.dial(), r.dial()
	responding(t, r.queue(other, "/jobs", QueueSettings{}), shout, ConsumeOptions{})
	if _, err := c.Request(soon(t), "/jobs", body("a")); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if info, err := other.Info(t.Context()); err != nil || info.TemporaryQueues != 0 {
		t.Errorf("%+v, %v; want no temporary queue", info, err)
	}
}

func TestSeveralQueuesAreReceivedFromFairlyOnTheRealDaemon(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	names := []string{"/a", "/b", "/c"}
	for _, name := range names {
		q := r.queue(c, name, QueueSettings{})
		r.send(q, body("1"), body("2"))
	}
	seen := map[string]int{}
	first, err := c.ReceiveAny(soon(t), names, 3, ReceiveOptions{Wait: WaitForever, AtOnce: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range first {
		seen[d.Queue]++
	}
	if seen["/a"] != 1 || seen["/b"] != 1 || seen["/c"] != 1 {
		t.Errorf("of each queue: %v, want one", seen)
	}
	all, err := c.ReceiveAny(soon(t), names, 10, ReceiveOptions{})
	if err != nil || len(all) != 3 {
		t.Fatalf("the rest: %v, %v", all, err)
	}
	for _, d := range all {
		if err := d.Ack(t.Context()); err != nil {
			t.Errorf("%s: %v", d.Queue, err)
		}
	}
	// Who waits at all of them is woken by any.
	got := make(chan []*Delivery, 1)
	go func() {
		all, err := c.ReceiveAny(soon(t), names, 1, ReceiveOptions{Wait: WaitForever})
		if err != nil {
			t.Error(err)
		}
		got <- all
	}()
	until(t, "the receiver", func() bool {
		info, err := c.GetQueue(t.Context(), "/b")
		return err == nil && info.Stats.Receivers == 1
	})
	r.send(c.Queue("/b"), body("3"))
	if all := <-got; len(all) != 1 || all[0].Queue != "/b" {
		t.Errorf("woken with %v", all)
	}
}

func TestConsumeAnyGoesOnAfterARestart(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	a, b := r.queue(c, "/a", QueueSettings{}), r.queue(c, "/b", QueueSettings{})
	var seenA, seenB atomic.Int64
	stop := consumingAny(t, r.dial(), []string{"/a", "/b"}, func(_ context.Context, d *Delivery) error {
		if d.Queue == "/a" {
			seenA.Add(1)
		} else {
			seenB.Add(1)
		}
		return nil
	}, ConsumeOptions{Concurrency: 2})
	for run := range int64(2) {
		r.send(a, body("1"))
		r.send(b, body("2"))
		until(t, "a message of each queue", func() bool { return seenA.Load() > run && seenB.Load() > run })
		if run == 0 {
			until(t, "acks", func() bool { return len(everything(t, a))+len(everything(t, b)) == 0 })
			r.restart()
			until(t, "the daemon", func() bool { _, err := c.Info(t.Context()); return err == nil })
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// What is imported is what was exported, but for the sequence and the queue; leased messages become ready.
func TestAnImportIsWhatWasExported(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	from := r.queue(c, "/from", QueueSettings{MaxAttempts: 5})
	to := r.queue(c, "/to", QueueSettings{})
	r.send(from, Message{Type: 7, Priority: 3, Body: []byte{0, 255}, Headers: map[string][]byte{"k": []byte("v")}, TTL: time.Hour, CorrelationID: "c", ReplyTo: "/r", ContentType: "t", DedupID: "d"})
	r.send(from, Message{Body: []byte("delayed"), Delay: time.Hour, TTL: 3 * time.Hour}, body("failed"), body("buried"), body("leased"))
	leased, err := from.Receive(t.Context(), 4, ReceiveOptions{Selector: Type(1)})
	if err != nil || len(leased) != 3 {
		t.Fatalf("%v, %v", leased, err)
	}
	if err := errors.Join(leased[0].Nack(t.Context(), 0, "no"), leased[1].Bury(t.Context(), "why")); err != nil {
		t.Fatal(err)
	}
	want := everything(t, from)
	sent, err := to.Import(t.Context(), want)
	if err != nil || len(sent) != 5 {
		t.Fatalf("%v, %v", sent, err)
	}
	got := everything(t, to)
	for i, m := range want {
		m.Queue, m.Sequence = "/to", sent[i].Sequence
		if m.State == StateLeased {
			m.State, m.LeaseExpires = StateReady, time.Time{}
		}
		if i < len(got) && !reflect.DeepEqual(got[i], m) {
			t.Errorf("got  %+v\nwant %+v", got[i], m)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d messages, want %d", len(got), len(want))
	}
}

func TestMoveAndRedriveOnTheRealDaemon(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	dead := r.queue(c, "/dead", QueueSettings{})
	jobs := r.queue(c, "/jobs", QueueSettings{MaxAttempts: 1, DeadLetterQueue: "/dead"})
	small := r.queue(c, "/small", QueueSettings{MaxMessages: 2})
	for range 3 {
		r.send(jobs, body("m"))
		receiveOne(t, jobs, ReceiveOptions{}).Nack(t.Context(), 0, "no")
	}
	if all, err := dead.Redrive(t.Context(), RedriveOptions{DryRun: true}); err != nil || len(all) != 1 || all[0].Messages != 3 {
		t.Errorf("dry run: %+v, %v", all, err)
	}
	all, err := dead.Redrive(t.Context(), RedriveOptions{})
	if err != nil || len(all) != 1 || all[0] != (Redriven{Queue: "/jobs", Messages: 3}) {
		t.Errorf("redrive: %+v, %v", all, err)
	}
	if back := everything(t, jobs); len(back) != 3 || len(back[0].Headers) != 0 || back[0].Attempts != 0 {
		t.Errorf("back: %+v", back)
	}
	// Three do not fit: what was moved is told, and why no more.
	n, err := jobs.Move(t.Context(), "/small", MoveOptions{})
	if n != 2 || !errors.Is(err, ErrQueueFull) || len(everything(t, small)) != 2 || len(everything(t, jobs)) != 1 {
		t.Errorf("%d moved, %v; want 2 and ErrQueueFull", n, err)
	}
	one := everything(t, small)[1].Sequence
	if n, err := small.Move(t.Context(), "/dead", MoveOptions{Filter: Filter{MinSequence: one, MaxSequence: one}}); err != nil || n != 1 {
		t.Errorf("one message by its sequence: %d, %v", n, err)
	}
	info, err := jobs.Info(t.Context())
	if err != nil || info.Stats.MovedTotal != 2 {
		t.Errorf("moved in total: %d, %v", info.Stats.MovedTotal, err)
	}
}

func TestBindsHandCopiesOnOnTheRealDaemon(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	src, dst := r.queue(c, "/src", QueueSettings{}), r.queue(c, "/dst", QueueSettings{})
	if _, err := src.Bind(t.Context(), "/dst", BindOptions{Selector: Type(2)}); err != nil {
		t.Fatal(err)
	}
	if _, err := dst.Bind(t.Context(), "/src", BindOptions{}); !errors.Is(err, ErrBindCycle) {
		t.Errorf("a circle: %v", err)
	}
	r.send(src, Message{Type: 1, Body: []byte("one")}, Message{Type: 2, Body: []byte("two")})
	if got := bodiesOf(everything(t, dst)); !slices.Equal(got, []string{"two"}) {
		t.Errorf("copied %q", got)
	}
	info, err := src.Info(t.Context())
	if err != nil || len(info.Binds) != 1 || info.Binds[0].CopiedTotal != 1 || info.Binds[0].Destination != "/dst" {
		t.Errorf("%+v, %v", info.Binds, err)
	}
	if _, err := c.UpdateQueue(t.Context(), "/src", QueueSettings{}, "binds"); err != nil {
		t.Error(err)
	}
	if info, err = src.Info(t.Context()); err != nil || len(info.Settings.Binds) != 0 {
		t.Errorf("after the update: %+v, %v", info.Settings.Binds, err)
	}
}

// Nobody waits for the reader of a tap: what comes meanwhile is told as skipped, and all is accounted for.
func TestATapThatIsNotReadSkipsAndTellsOnTheRealDaemon(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	q := r.queue(c, "/jobs", QueueSettings{Durability: DurabilityMemory})
	const batches, each, total = 20, 500, 20*500 + 1
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	var seen, skipped uint64
	var last uint64
	for m, err := range q.Tap(ctx, TapOptions{
		OnOpen: func() { // nothing is read before all is sent
			batch := make([]Message, each)
			for i := range batch {
				batch[i] = Message{Body: make([]byte, 4000)}
			}
			for range batches {
				r.send(q, batch...)
			}
		},
		OnSkipped: func(n uint64) {
			if skipped += n; seen+skipped == total {
				cancel()
			}
		},
	}) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Sequence <= last {
			t.Fatalf("sequence %d after %d", m.Sequence, last)
		}
		last = m.Sequence
		if seen++; seen == 1 {
			r.send(q, body("end of it")) // so that what was skipped at the end is told
		}
		if seen+skipped == total {
			cancel()
		}
	}
	if seen+skipped != total || skipped == 0 {
		t.Errorf("%d seen and %d skipped of %d", seen, skipped, total)
	}
}

func TestATemporaryQueueOnTheRealDaemon(t *testing.T) {
	r := startReal(t)
	c, other := r.dial(), r.dial()
	q, err := c.OpenTemporary(t.Context(), QueueSettings{MaxMessages: 2})
	if err != nil {
		t.Fatal(err)
	}
	r.send(other.Queue(q.Name()), body("a"))
	if d := receiveOne(t, q.Queue, ReceiveOptions{}); string(d.Body) != "a" {
		t.Errorf("received %q", d.Body)
	}
	if _, err := c.OpenTemporary(t.Context(), QueueSettings{Durability: DurabilityJournal}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("in the journal: %v", err)
	}
	if _, err := c.CreateQueue(t.Context(), "/tmp.mine", QueueSettings{}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a name that only temporary queues have: %v", err)
	}
	q.Close()
	if _, err := other.Queue(q.Name()).Send(t.Context(), body("late")); !errors.Is(err, ErrQueueNotFound) {
		t.Errorf("a send to a queue that was closed: %v, want ErrQueueNotFound", err)
	}
	if q.Close(); q.Err() != nil {
		t.Error(q.Err())
	}
}

// What is sent to a queue that has ended must be refused, and not stored in what is about to go.
func TestAClosedTemporaryQueueTakesNoMoreMessages(t *testing.T) {
	r := startReal(t)
	c := r.dial()
	for range 30 {
		q, err := c.OpenTemporary(t.Context(), QueueSettings{})
		if err != nil {
			t.Fatal(err)
		}
		q.Close()
		if _, err := c.Queue(q.Name()).Send(t.Context(), body("late")); !errors.Is(err, ErrQueueNotFound) {
			t.Fatalf("a send after Close: %v", err)
		}
		if err := q.Err(); err != nil {
			t.Errorf("it ended with %v", err)
		}
	}
}
