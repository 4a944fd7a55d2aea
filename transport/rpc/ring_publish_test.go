package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// publishes is rings that take everything, in one lane, and remember it.
func publishes() (*fakeRings, *[]string) {
	var log []string
	return &fakeRings{publish: func(_ context.Context, name string, batch []shm.Message) (lane, first uint64, err error) {
		first = uint64(len(log) + 1)
		for _, m := range batch {
			log = append(log, fmt.Sprintf("%s %d %s", name, m.Type, m.Payload))
		}
		return 9, first, nil
	}}, &log
}

func publishStream(t *testing.T, h *harness, requests ...*ipcdv1.PublishRequest) grpc.BidiStreamingClient[ipcdv1.PublishRequest, ipcdv1.PublishResponse] {
	t.Helper()
	stream, err := h.rings.Publish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range requests {
		if err := stream.Send(r); err != nil && err != io.EOF { // EOF: it has ended, and Recv says why
			t.Fatal(err)
		}
	}
	return stream
}

func publishing(ring string, payloads ...string) *ipcdv1.PublishRequest {
	r := &ipcdv1.PublishRequest{Ring: ring}
	for i, p := range payloads {
		r.Messages = append(r.Messages, &ipcdv1.RingMessage{Type: int64(i), Payload: []byte(p)})
	}
	return r
}

func TestPublishAnswersEachRequestInOrder(t *testing.T) {
	rings, log := publishes()
	h := serveRings(t, rings)
	stream := publishStream(t, h, publishing("/r", "a", "b", "c"), publishing("", "d"), publishing("/r", "e"))
	stream.CloseSend()
	for _, want := range [][2]uint64{{1, 3}, {4, 1}, {5, 1}} {
		if r, err := stream.Recv(); err != nil || r.LaneId != 9 || r.FirstSequence != want[0] || uint64(r.Count) != want[1] {
			t.Errorf("%v, %v; want %v", r, err, want)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v, want EOF", err)
	}
	if want := []string{"/r 1 a", "/r 1 b", "/r 2 c", "/r 1 d", "/r 1 e"}; !slices.Equal(*log, want) {
		t.Errorf("published %q, want %q", *log, want)
	}
}

func TestPublishRefusesARequestAsAWhole(t *testing.T) {
	large := make([]byte, limits.BatchBytes/2+1)
	for name, test := range map[string]struct {
		request *ipcdv1.PublishRequest
		field   string
		index   string
	}{
		"no messages":   {publishing("/r"), "messages", ""},
		"too many":      {&ipcdv1.PublishRequest{Messages: make([]*ipcdv1.RingMessage, limits.RingPublishMessages+1)}, "messages", ""},
		"too large":     {publishing("", string(large), string(large)), "messages", ""},
		"negative type": {&ipcdv1.PublishRequest{Messages: []*ipcdv1.RingMessage{{Type: 1}, {Type: -1}}}, "type", "1"},
		"another ring":  {publishing("/other", "x"), "ring", ""},
	} {
		t.Run(name, func(t *testing.T) {
			rings, log := publishes()
			h := serveRings(t, rings)
			for i, m := range test.request.Messages {
				if m == nil {
					test.request.Messages[i] = new(ipcdv1.RingMessage)
				}
			}
			stream := publishStream(t, h, publishing("/r", "a"), test.request, publishing("/r", "never"))
			if r, err := stream.Recv(); err != nil || r.FirstSequence != 1 {
				t.Errorf("the first: %v, %v", r, err)
			}
			_, err := stream.Recv()
			s := wantInvalid(t, err, test.field)
			if info := errorInfo(s); info["queue"] != "/r" || info["index"] != test.index {
				t.Errorf("metadata %v", info)
			}
			if want := []string{"/r 1 a"}; !slices.Equal(*log, want) {
				t.Errorf("published %q, want %q", *log, want)
			}
		})
	}
}

func TestPublishNeedsARing(t *testing.T) {
	rings, _ := publishes()
	h := serveRings(t, rings)
	_, err := publishStream(t, h, publishing("", "a")).Recv()
	wantInvalid(t, err, "ring")
	stream := publishStream(t, h)
	stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("nothing to publish: %v, want EOF", err)
	}
}

func TestAFailedPublishEndsTheStream(t *testing.T) {
	calls := 0
	h := serveRings(t, &fakeRings{publish: func(_ context.Context, name string, _ []shm.Message) (uint64, uint64, error) {
		if calls++; calls == 2 {
			return 0, 0, reason.New(reason.MessageTooLarge, "too large").On(name).At(3)
		}
		return 1, 1, nil
	}})
	stream := publishStream(t, h, publishing("/r", "a"), publishing("", "b"), publishing("", "c"))
	if _, err := stream.Recv(); err != nil {
		t.Error(err)
	}
	_, err := stream.Recv()
	wantReason(t, err, reason.MessageTooLarge)
	if calls != 2 {
		t.Errorf("%d requests were published, want 2", calls)
	}
}

// waitingPublish is rings that take "now"; all else waits for room until its context ends.
func waitingPublish() (rings *fakeRings, begun chan struct{}, ended chan error) {
	begun, ended = make(chan struct{}), make(chan error, 1)
	return &fakeRings{publish: func(ctx context.Context, _ string, batch []shm.Message) (uint64, uint64, error) {
		if string(batch[0].Payload) == "now" {
			return 1, 1, nil
		}
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return 0, 0, fmt.Errorf("wait for room: %w", ctx.Err())
	}}, begun, ended
}

func TestStopEndsAPublishThatWaits(t *testing.T) {
	rings, begun, ended := waitingPublish()
	h := serveRings(t, rings)
	idle := publishStream(t, h, publishing("/r", "now"))
	if _, err := idle.Recv(); err != nil {
		t.Fatal(err)
	}
	stream := publishStream(t, h, publishing("/r", "later"))
	<-begun
	h.server.Stop(t.Context()) // which ends only with the test
	<-ended
	_, err := stream.Recv()
	wantReason(t, err, reason.ShuttingDown)
	_, err = idle.Recv()
	wantReason(t, err, reason.ShuttingDown)
}

func TestAPublisherThatLeavesEndsItsWait(t *testing.T) {
	rings, begun, ended := waitingPublish()
	h := serveRings(t, rings)
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := h.rings.Publish(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(publishing("/r", "a")); err != nil {
		t.Fatal(err)
	}
	<-begun
	cancel()
	<-ended
}
