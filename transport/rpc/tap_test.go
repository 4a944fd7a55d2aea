package rpc

import (
	"context"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

// fakeTap hands out what the test puts into tapped.
type fakeTap struct {
	tapped chan broker.Tapped
	failed chan error
	once   sync.Once
	closed chan struct{}
}

func newFakeTap() *fakeTap {
	return &fakeTap{tapped: make(chan broker.Tapped, 10), failed: make(chan error, 1), closed: make(chan struct{})}
}

func (f *fakeTap) Next(ctx context.Context) (broker.Tapped, error) {
	select {
	case t := <-f.tapped:
		return t, nil
	case err := <-f.failed:
		return broker.Tapped{}, err
	case <-ctx.Done():
		return broker.Tapped{}, ctx.Err()
	}
}

func (f *fakeTap) Close() { f.once.Do(func() { close(f.closed) }) }

// tapOn opens a tap, past its first response.
func tapOn(t *testing.T, tap *fakeTap, r *ipcdv1.TapRequest, check func(broker.TapRequest)) (*harness, ipcdv1.MessageService_TapClient, context.CancelFunc) {
	t.Helper()
	h := serve(t, &fakeBroker{tap: func(r broker.TapRequest) (transport.Tap, error) {
		if check != nil {
			check(r)
		}
		return tap, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := h.messages.Tap(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || len(first.Messages) != 0 || first.Skipped != 0 {
		t.Fatalf("the first response: %v, %v; want an empty one", first, err)
	}
	return h, stream, cancel
}

func tapped(skipped uint64, bodies ...int) broker.Tapped {
	out := broker.Tapped{Skipped: skipped}
	for i, size := range bodies {
		out.Messages = append(out.Messages, queue.Peeked{Delivery: queue.Delivery{Message: queue.Message{Type: 1, Body: make([]byte, size)}, Sequence: uint64(i + 1)}, State: queue.Ready})
	}
	return out
}

func TestTapPassesItsFilterOnAndIgnoresWhatArrivalsDoNotKnow(t *testing.T) {
	tap := newFakeTap()
	filter := &ipcdv1.Filter{Selector: oneType(7), Headers: map[string][]byte{"k": []byte("v")},
		States: []ipcdv1.MessageState{ipcdv1.MessageState_MESSAGE_STATE_BURIED}, MinSequence: 5, MaxSequence: 9, OlderThan: seconds(9)}
	tapOn(t, tap, &ipcdv1.TapRequest{Queue: "/q", Filter: filter, MaxBodyBytes: 100}, func(r broker.TapRequest) {
		f := r.Filter
		if r.Queue != "/q" || r.MaxBody != 100 || f.Selector.String() != "7" || len(f.Headers) != 1 || f.States != nil || f.MinSequence != 0 || f.MaxSequence != 0 || f.SentBefore != 0 {
			t.Errorf("request %+v", r)
		}
	})
}

func TestTapKeepsToAPageAndTellsOnceWhatWasSkipped(t *testing.T) {
	tap := newFakeTap()
	_, stream, cancel := tapOn(t, tap, &ipcdv1.TapRequest{Queue: "/q"}, nil)
	const half = limits.PeekPageBytes / 2
	tap.tapped <- tapped(3, half, half, half, limits.PeekPageBytes+1, 1)
	for i, want := range []struct {
		messages int
		skipped  uint64
	}{{2, 3}, {1, 0}, {1, 0}, {1, 0}} {
		r, err := stream.Recv()
		if err != nil || len(r.Messages) != want.messages || r.Skipped != want.skipped {
			t.Fatalf("response %d: %d messages, %d skipped, %v; want %+v", i, len(r.GetMessages()), r.GetSkipped(), err, want)
		}
	}
	tap.tapped <- tapped(4)
	if r, err := stream.Recv(); err != nil || r.Skipped != 4 || len(r.Messages) != 0 {
		t.Errorf("skipped alone: %v, %v", r, err)
	}
	tap.tapped <- tapped(0, make([]int, limits.PeekPage+1)...)
	for _, want := range []int{limits.PeekPage, 1} {
		if r, err := stream.Recv(); err != nil || len(r.Messages) != want {
			t.Errorf("%d messages, %v; want %d", len(r.GetMessages()), err, want)
		}
	}
	cancel()
	<-tap.closed
}

func TestATapEndsWithItsReasonAndIsClosed(t *testing.T) {
	for name, end := range map[string]func(*harness, *fakeTap){
		string(reason.QueueDeleted): func(_ *harness, f *fakeTap) { f.failed <- reason.New(reason.QueueDeleted, "gone") },
		string(reason.AccessDenied): func(_ *harness, f *fakeTap) { f.failed <- reason.New(reason.AccessDenied, "no more") },
		string(reason.ShuttingDown): func(h *harness, _ *fakeTap) { h.server.Drain() },
	} {
		t.Run(name, func(t *testing.T) {
			tap := newFakeTap()
			h, stream, _ := tapOn(t, tap, &ipcdv1.TapRequest{Queue: "/q"}, nil)
			end(h, tap)
			_, err := stream.Recv()
			wantReason(t, err, reason.Reason(name))
			<-tap.closed
		})
	}
}

// A reader that reads nothing holds up its own handler, and nothing else: the tap is closed when it leaves.
func TestATapWhoseReaderDoesNotReadEndsWithIt(t *testing.T) {
	tap := newFakeTap()
	_, _, cancel := tapOn(t, tap, &ipcdv1.TapRequest{Queue: "/q"}, nil)
	sizes := make([]int, 64)
	for i := range sizes {
		sizes[i] = limits.PeekPageBytes // far more than all windows
	}
	tap.tapped <- tapped(0, sizes...)
	cancel()
	<-tap.closed
}

func TestTapRefusesWhatMakesNoSense(t *testing.T) {
	h := serve(t, &fakeBroker{})
	for field, filter := range map[string]*ipcdv1.Filter{
		"selector":          {Selector: oneType(-1)},
		"filter.older_than": {OlderThan: seconds(-1)},
	} {
		stream, err := h.messages.Tap(t.Context(), &ipcdv1.TapRequest{Queue: "/q", Filter: filter})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantInvalid(t, err, field)
	}
}
