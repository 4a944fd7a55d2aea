package client

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestBindAndUnbindReturnTheQueue(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	info, err := q.Bind(t.Context(), "copies", BindOptions{Selector: OneOf(1, 2), Skip: true})
	if err != nil {
		t.Fatal(err)
	}
	if want := []Bind{{Destination: "/copies", Selector: OneOf(1, 2), Skip: true}}; !reflect.DeepEqual(info.Settings.Binds, want) {
		t.Errorf("binds %+v, want %+v", info.Settings.Binds, want)
	}
	if want := []BindStatus{{Destination: "/copies", CopiedTotal: 1, SkippedTotal: 2, Problem: "full"}}; !slices.Equal(info.Binds, want) {
		t.Errorf("status %+v, want %+v", info.Binds, want)
	}
	if info, err = q.Unbind(t.Context(), "copies"); err != nil || len(info.Settings.Binds) != 0 {
		t.Errorf("after unbind: %+v, %v", info.Settings.Binds, err)
	}
	if _, err := q.Bind(t.Context(), "/jobs", BindOptions{}); !errors.Is(err, ErrBindCycle) {
		t.Errorf("a circle: %v, want ErrBindCycle", err)
	}
}

func TestMoveGoesOnUntilAllIsMoved(t *testing.T) {
	f := startFake(t)
	f.withQueues("/to")
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, numbers(5)...)
	var progress []int64
	n, err := q.Move(t.Context(), "to", MoveOptions{Filter: Filter{MinSequence: 1}, Progress: func(done int64) { progress = append(progress, done) }})
	if err != nil || n != 5 || !slices.Equal(progress, []int64{2, 4, 5}) || !slices.Equal(f.bodies("/to"), numbers(5)) {
		t.Errorf("%d moved, %v, progress %v, there %q", n, err, progress, f.bodies("/to"))
	}
	if f.sawLocked(`move limit 16384 dry false min 1 cursor ""`) != 1 || f.sawLocked(`move limit 16384 dry false min 1 cursor "3"`) != 1 {
		t.Errorf("the daemon saw %q", f.seen)
	}
}

func TestMoveKeepsToItsLimitAndTellsWhatWasMovedBeforeAnError(t *testing.T) {
	f := startFake(t)
	f.withQueues("/to")
	f.mu.Lock()
	f.addQueue("/small", 3)
	f.mu.Unlock()
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, numbers(9)...)
	if n, err := q.Move(t.Context(), "/to", MoveOptions{Limit: 3}); err != nil || n != 3 {
		t.Errorf("%d moved, %v; want 3", n, err)
	}
	if n, err := q.Move(t.Context(), "/small", MoveOptions{}); !errors.Is(err, ErrQueueFull) || n != 3 {
		t.Errorf("%d moved, %v; want 3 and ErrQueueFull", n, err)
	}
	if _, err := q.Move(t.Context(), "/to", MoveOptions{Limit: -1}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a negative limit: %v", err)
	}
}

func TestRedriveTellsOfEachQueue(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/dead")
	all, err := q.Redrive(t.Context(), RedriveOptions{Filter: Filter{MinSequence: 4}, Limit: 9, DryRun: true})
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	if a, b := all[0], all[1]; a.Queue != "/jobs" || a.Messages != 3 || a.Err != nil || b.Queue != "/mails" || !errors.Is(b.Err, ErrQueueFull) {
		t.Errorf("%+v", all)
	}
	if f.sawLocked("redrive /dead limit 9 dry true min 4") != 1 {
		t.Errorf("the daemon saw %q", f.seen)
	}
	if _, err := q.Redrive(t.Context(), RedriveOptions{Limit: -1}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a negative limit: %v", err)
	}
}

func TestImportHandsOverAllThatPeekShows(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	at := time.Unix(1_700_000_000, 5)
	want := &Peeked{
		Message: Message{Type: 7, Priority: 2, Body: []byte("b"), Headers: map[string][]byte{"k": []byte("v")}, TTL: time.Hour, DedupID: "d", CorrelationID: "c", ReplyTo: "/r", ContentType: "t"},
		Queue:   "/jobs", SentAt: at, State: StateBuried, Attempts: 3, Due: at.Add(1), Expires: at.Add(2), BuryReason: "why",
	}
	sent, err := q.Import(t.Context(), []*Peeked{want, {Message: body("plain")}})
	if err != nil || len(sent) != 2 || sent[1].Sequence != 2 {
		t.Fatalf("%+v, %v", sent, err)
	}
	if got := q.peeked(f.imported[0]); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if p := f.imported[1]; p.GetSendTime() != nil || p.GetDueTime() != nil || p.GetExpireTime() != nil || p.GetState() != ipcdv1.MessageState_MESSAGE_STATE_UNSPECIFIED {
		t.Errorf("a plain one: %v", p)
	}
}

func TestAnImportWhoseAnswerWasLostIsStoredOnce(t *testing.T) {
	f := startFake(t)
	f.setHooks(hooks{afterStore: func(n int) {
		if n == 1 {
			f.cut()
		}
	}})
	if _, err := f.dial(t).Queue("/jobs").Import(t.Context(), []*Peeked{{Message: body("a")}}); err != nil {
		t.Fatal(err)
	}
	if got := f.bodies("/jobs"); !slices.Equal(got, []string{"a"}) || f.batches != 2 {
		t.Errorf("stored %q in %d tries, want it once in 2", got, f.batches)
	}
}

func TestImportRefusesWhatNoSchemaHolds(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	good := &Peeked{Message: body("a")}
	for name, test := range map[string]struct {
		m     []*Peeked
		index int
	}{
		"nothing":           {nil, Whole},
		"nil":               {[]*Peeked{good, nil}, 1},
		"negative attempts": {[]*Peeked{good, {Attempts: -1}}, 1},
		"no text":           {[]*Peeked{good, {Message: Message{ReplyTo: "\xff"}}}, 1},
	} {
		_, err := q.Import(t.Context(), test.m)
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrInvalidArgument) || e.Index != test.index {
			t.Errorf("%s: %#v", name, err)
		}
	}
}

func TestPeekBySequenceAsksForIt(t *testing.T) {
	if ByState.proto() != ipcdv1.PeekOrder_PEEK_ORDER_STATE || BySequence.proto() != ipcdv1.PeekOrder_PEEK_ORDER_SEQUENCE {
		t.Error("the orders' numbers differ from those of the schema")
	}
}

func TestTapCopiesWhatArrivesAfterItIsOpen(t *testing.T) {
	f := startFake(t)
	q := f.dial(t).Queue("/jobs")
	f.send(t, q, "before")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	var skipped uint64
	for m, err := range q.Tap(ctx, TapOptions{
		Selector: Type(3),
		OnOpen: func() {
			if _, err := q.Send(ctx, Message{Type: 3, Body: []byte("a")}, Message{Type: 4, Body: []byte("other")}, Message{Type: 3, Body: []byte("b")}); err != nil {
				t.Error(err)
			}
		},
		OnSkipped: func(n uint64) { skipped += n },
	}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, m.Queue+" "+string(m.Body)); len(got) == 2 {
			cancel() // the end of the context is no error
		}
	}
	if want := []string{"/jobs a", "/jobs b"}; !slices.Equal(got, want) || skipped != 7 {
		t.Errorf("%q, %d skipped; want %q, 7", got, skipped, want)
	}
	if got := f.bodies("/jobs"); len(got) != 4 {
		t.Errorf("the queue holds %q: a tap takes nothing", got)
	}
}

func TestATapEndsWithAnErrorWhereSomethingWouldBeMissed(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(f *fake)
		want error
	}{
		"deleted": {func(f *fake) {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.queues, "/jobs")
			f.changedLocked()
		}, ErrQueueDeleted},
		"broken": {func(f *fake) { f.cut() }, ErrUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t)
			var last error
			for _, err := range f.dial(t).Queue("/jobs").Tap(t.Context(), TapOptions{OnOpen: func() { test.end(f) }}) {
				last = err
			}
			if !errors.Is(last, test.want) {
				t.Errorf("%v, want %v", last, test.want)
			}
		})
	}
	for _, err := range startFake(t).dial(t).Queue("/jobs").Tap(t.Context(), TapOptions{MaxBodyBytes: -1}) {
		if !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("negative size: %v", err)
		}
	}
}

func TestATemporaryQueueLivesUntilItIsClosed(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	q, err := c.OpenTemporary(t.Context(), QueueSettings{MaxMessages: 10})
	if err != nil {
		t.Fatal(err)
	}
	f.send(t, q.Queue, "a")
	if info, err := q.Info(t.Context()); err != nil || !info.Temporary || info.Settings.MaxMessages != 10 || !strings.HasPrefix(q.Name(), "/tmp.") {
		t.Errorf("%+v, %v", info, err)
	}
	if d := receiveOne(t, q.Queue, ReceiveOptions{}); string(d.Body) != "a" {
		t.Errorf("received %q", d.Body)
	}
	select {
	case <-q.Done():
		t.Errorf("it has ended: %v", q.Err())
	default:
	}
	q.Close()
	q.Close()
	<-q.Done()
	if err := q.Err(); err != nil {
		t.Errorf("closed: %v", err)
	}
	f.await(t, "its end", func() bool { return f.sawLocked("temporary ended") == 1 })
	if _, err := c.OpenTemporary(t.Context(), QueueSettings{MaxBytes: -1}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("negative: %v", err)
	}
}

func TestATemporaryQueueEndsWithItsConnectionAndSaysSo(t *testing.T) {
	f := startFake(t)
	q, err := f.dial(t).OpenTemporary(t.Context(), QueueSettings{})
	if err != nil {
		t.Fatal(err)
	}
	f.cut()
	<-q.Done()
	if !errors.Is(q.Err(), ErrUnreachable) {
		t.Errorf("%v, want ErrUnreachable", q.Err())
	}
}

func TestATemporaryQueueEndsWithItsContext(t *testing.T) {
	f := startFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	q, err := f.dial(t).OpenTemporary(ctx, QueueSettings{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-q.Done()
	if err := q.Err(); err != nil {
		t.Error(err)
	}
	if _, err := f.dial(t).OpenTemporary(ctx, QueueSettings{}); !errors.Is(err, ErrCancelled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
