package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

func errorInfo(s *status.Status) map[string]string {
	return detail[*errdetails.ErrorInfo](s).GetMetadata()
}

func subscribeWith(s transport.Subscription) *fakeRings {
	return &fakeRings{subscribe: func(identity.Identity, string, ring.SubscribeOptions) (transport.Subscription, error) { return s, nil }}
}

// subscribe opens a subscription and takes its first, empty frame.
func subscribe(t *testing.T, h *harness, r *ipcdv1.SubscribeRequest) grpc.ServerStreamingClient[ipcdv1.SubscribeResponse] {
	t.Helper()
	stream, err := h.rings.Subscribe(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if first, err := stream.Recv(); err != nil || !proto.Equal(first, &ipcdv1.SubscribeResponse{}) {
		t.Fatalf("the first frame: %v, %v; want an empty one", first, err)
	}
	return stream
}

func TestSubscribeHandsOutWhatComes(t *testing.T) {
	at := time.Unix(7, 8)
	s := newFakeSubscription(
		subscriptionBatch{messages: []shm.Message{{Type: 1, Time: at.UnixNano(), Lane: 4, Sequence: 5, Lost: 6, Payload: []byte("abc")}, {Type: 2, Lane: 7, Sequence: 8, Payload: []byte("d")}}},
		subscriptionBatch{messages: []shm.Message{{Type: 3, Time: -5, Lane: 7, Sequence: 9}}},
		subscriptionBatch{err: reason.New(reason.RingDeleted, "gone").On("/r")},
	)
	h := serveRings(t, subscribeWith(s))
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r"})
	for _, want := range [][]*ipcdv1.RingDelivery{
		{{Type: 1, Payload: []byte("abc"), Sequence: 5, LaneId: 4, Lost: 6, PublishTime: encodeTime(at.UnixNano())}, {Type: 2, Payload: []byte("d"), Sequence: 8, LaneId: 7}},
		{{Type: 3, Sequence: 9, LaneId: 7}},
	} {
		got, err := stream.Recv()
		if err != nil || !proto.Equal(got, &ipcdv1.SubscribeResponse{Deliveries: want}) {
			t.Errorf("got %v, %v\nwant %v", got, err, want)
		}
	}
	_, err := stream.Recv()
	wantReason(t, err, reason.RingDeleted)
	<-s.closed
}

func TestSubscribePassesItsOptionsOn(t *testing.T) {
	var got ring.SubscribeOptions
	var name string
	h := serveRings(t, &fakeRings{subscribe: func(id identity.Identity, ring string, o ring.SubscribeOptions) (transport.Subscription, error) {
		if id.Kind != identity.Unix {
			t.Errorf("asked by %v", id)
		}
		got, name = o, ring
		return nil, reason.New(reason.AccessDenied, "no").On(ring)
	}})
	for _, test := range []struct {
		request *ipcdv1.SubscribeRequest
		want    ring.SubscribeOptions
	}{
		{&ipcdv1.SubscribeRequest{}, ring.SubscribeOptions{Start: shm.Newest}},
		{&ipcdv1.SubscribeRequest{From: &ipcdv1.SubscribeRequest_Newest{}}, ring.SubscribeOptions{Start: shm.Newest}},
		{&ipcdv1.SubscribeRequest{From: &ipcdv1.SubscribeRequest_Oldest{}, Lossless: true}, ring.SubscribeOptions{Start: shm.Oldest, Lossless: true}},
		{&ipcdv1.SubscribeRequest{From: &ipcdv1.SubscribeRequest_Sequence{Sequence: 7}, Types: []int64{3, 1}}, ring.SubscribeOptions{Start: shm.FromSequence(7), Types: []int64{3, 1}}},
	} {
		test.request.Ring = "/r"
		stream, err := h.rings.Subscribe(t.Context(), test.request)
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantReason(t, err, reason.AccessDenied)
		if !reflect.DeepEqual(got, test.want) || name != "/r" {
			t.Errorf("%v: %+v of %s, want %+v", test.request, got, name, test.want)
		}
	}
	for _, types := range [][]int64{{0}, {1, -1}, make([]int64, limits.SelectorTypes+1)} {
		stream, err := h.rings.Subscribe(t.Context(), &ipcdv1.SubscribeRequest{Ring: "/r", Types: types})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		if info := errorInfo(wantInvalid(t, err, "types")); info["queue"] != "/r" {
			t.Errorf("metadata %v", info)
		}
	}
}

func TestFramesOfASubscriptionAreBounded(t *testing.T) {
	var batch []shm.Message
	for i := range 10 {
		batch = append(batch, shm.Message{Type: 1, Sequence: uint64(i + 1), Payload: bytes.Repeat([]byte{byte(i)}, frameBytes/3)})
	}
	batch[4].Payload = make([]byte, 3*frameBytes)
	for i := range 2 * subscribeMessages {
		batch = append(batch, shm.Message{Type: 1, Sequence: uint64(i + 11)})
	}
	s := newFakeSubscription()
	for rest := batch; len(rest) > 0; {
		n := min(len(rest), subscribeMessages)
		s.batches <- subscriptionBatch{messages: rest[:n]}
		rest = rest[n:]
	}
	h := serveRings(t, subscribeWith(s))
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r"})
	for next := uint64(1); next <= uint64(len(batch)); {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(r); size > frameBytes && len(r.Deliveries) > 1 {
			t.Errorf("a frame of %d bytes with %d messages", size, len(r.Deliveries))
		}
		for _, d := range r.Deliveries {
			if want := batch[d.Sequence-1]; d.Sequence != next || len(d.Payload) != len(want.Payload) || next <= 4 && d.Payload[0] != byte(next-1) {
				t.Fatalf("sequence %d with %d bytes, want %d with %d", d.Sequence, len(d.Payload), next, len(want.Payload))
			}
			next++
		}
	}
}

func TestAMessageThatNoFrameHoldsEndsTheSubscription(t *testing.T) {
	h := serveRings(t, subscribeWith(newFakeSubscription(subscriptionBatch{messages: []shm.Message{
		{Type: 1, Lane: 4, Sequence: 1, Payload: []byte("a")}, {Type: 1, Lane: 4, Sequence: 2, Payload: make([]byte, limits.FrameBytes)},
	}})))
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r"})
	if r, err := stream.Recv(); err != nil || len(r.Deliveries) != 1 {
		t.Errorf("before it: %v, %v", r, err)
	}
	_, err := stream.Recv()
	wantReason(t, err, reason.MessageTooLarge)
}

func TestTheLargestMessageThatFitsPasses(t *testing.T) {
	size := limits.FrameBytes - ringDeliveryBytes
	h := serveRings(t, subscribeWith(newFakeSubscription(subscriptionBatch{messages: []shm.Message{
		{Type: 1 << 62, Time: time.Now().UnixNano(), Lane: 1 << 63, Sequence: 1 << 63, Lost: 1 << 63, Payload: make([]byte, size)},
	}})))
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r"})
	if r, err := stream.Recv(); err != nil || len(r.Deliveries) != 1 || len(r.Deliveries[0].Payload) != size {
		t.Errorf("%d bytes did not pass: %v", size, err)
	}
}

func TestACorruptLaneDoesNotEndTheSubscription(t *testing.T) {
	corrupt := &shm.CorruptError{Lane: 4, What: "a position went back"}
	h := serveRings(t, subscribeWith(newFakeSubscription(
		subscriptionBatch{messages: []shm.Message{{Type: 1, Lane: 4, Sequence: 1}}},
		subscriptionBatch{err: corruptLane(corrupt)},
		subscriptionBatch{messages: []shm.Message{{Type: 1, Lane: 5, Sequence: 1}}},
		subscriptionBatch{err: reason.New(reason.RingCorrupt, "some lane")},
		subscriptionBatch{err: reason.New(reason.ConsumerEvicted, "too slow")},
	)))
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r"})
	if r, err := stream.Recv(); err != nil || len(r.Deliveries) != 1 {
		t.Errorf("before it: %v, %v", r, err)
	}
	if r, err := stream.Recv(); err != nil || len(r.LaneErrors) != 1 || r.LaneErrors[0].LaneId != 4 || r.LaneErrors[0].Error.Reason != "RING_CORRUPT" || len(r.Deliveries) != 0 {
		t.Errorf("the lane: %v, %v", r, err)
	}
	if r, err := stream.Recv(); err != nil || len(r.Deliveries) != 1 || r.Deliveries[0].LaneId != 5 {
		t.Errorf("after it: %v, %v", r, err)
	}
	if r, err := stream.Recv(); err != nil || len(r.LaneErrors) != 1 || r.LaneErrors[0].LaneId != 0 || r.LaneErrors[0].Error.Message != "some lane" {
		t.Errorf("a lane that is not named: %v, %v", r, err)
	}
	_, err := stream.Recv()
	wantReason(t, err, reason.ConsumerEvicted)
	if n := h.logs.Len(); n != 0 {
		t.Errorf("a producer's mistakes were logged as ours: %v", h.logs.All())
	}
}

func TestASubscriptionEndsWhenTheDaemonStops(t *testing.T) {
	s := newFakeSubscription()
	h := serveRings(t, subscribeWith(s))
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r"})
	h.server.Drain()
	_, err := stream.Recv()
	wantReason(t, err, reason.ShuttingDown)
	<-s.closed
}

func TestASubscriberThatLeavesIsForgotten(t *testing.T) {
	s := newFakeSubscription()
	h := serveRings(t, subscribeWith(s))
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := h.rings.Subscribe(ctx, &ipcdv1.SubscribeRequest{Ring: "/r"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-s.closed
}

// A client that does not read holds one subscription back, which then takes nothing from the ring.
func TestASubscriberThatDoesNotReadFillsNoMemory(t *testing.T) {
	s := &endlessSubscription{taken: make(chan int, 1), closed: make(chan struct{})}
	s.taken <- 0
	h := serveRings(t, subscribeWith(s))
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r"})
	// What fits into the windows of HTTP/2 on both sides, twice over, is far less than this.
	const most = 64 << 20
	for next := uint64(1); next <= 100; {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		next += uint64(len(r.Deliveries))
		n := <-s.taken
		if s.taken <- n; n > most {
			t.Fatalf("%d bytes were taken from the ring for a client that reads little", n)
		}
	}
}

// endlessSubscription always has a message of 64 KiB.
type endlessSubscription struct {
	taken   chan int // bytes
	closed  chan struct{}
	payload [64 << 10]byte
}

func (s *endlessSubscription) Next(ctx context.Context, into []shm.Message) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("next: %w", err)
	}
	n := <-s.taken
	s.taken <- n + len(s.payload)
	into[0] = shm.Message{Type: 1, Sequence: uint64(n/len(s.payload) + 1), Payload: s.payload[:]}
	return 1, nil
}

func (s *endlessSubscription) Close() { close(s.closed) }

// corruptLane is the error of a subscription about a lane: it has a reason, and says which lane it is.
func corruptLane(e *shm.CorruptError) error {
	return errors.Join(reason.New(reason.RingCorrupt, "%v", e), e)
}
