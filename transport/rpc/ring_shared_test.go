package rpc

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

// serveShared serves rings in shared memory, with a ring /r.
func serveShared(t testing.TB, s *ipcdv1.RingSettings) *harness {
	t.Helper()
	rings, err := ring.Open(ring.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	h := serveRings(t, transport.OverRings(rings))
	t.Cleanup(rings.Close) // before the server is stopped
	if _, err := h.rings.CreateRing(t.Context(), &ipcdv1.CreateRingRequest{Name: "/r", Settings: s}); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestEverythingPublishedArrivesThroughALosslessRing(t *testing.T) {
	// Some fifty times what the ring holds.
	const requests, each = 100, 200
	h := serveShared(t, &ipcdv1.RingSettings{CapacityBytes: new(int64(limits.RingCapacityMin)), Policy: ipcdv1.RingPolicy_RING_POLICY_LOSSLESS, Stall: durationpb.New(limits.RingStallMax)})
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r", Lossless: true})
	publish := publishStream(t, h)
	sent := make(chan error, 1)
	go func() {
		for i := range requests {
			r := &ipcdv1.PublishRequest{Ring: "/r"}
			for k := range each {
				r.Messages = append(r.Messages, &ipcdv1.RingMessage{Type: int64(1 + k), Payload: fmt.Appendf(nil, "message %d of request %d, which has some more bytes", k, i)})
			}
			if err := publish.Send(r); err != nil {
				sent <- err
				return
			}
		}
		sent <- publish.CloseSend()
	}()
	received, frames := 0, 0
	for received < requests*each {
		r, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d messages: %v", received, err)
		}
		for _, d := range r.Deliveries {
			i, k := received/each, received%each
			if want := fmt.Sprintf("message %d of request %d, which has some more bytes", k, i); string(d.Payload) != want || d.Sequence != uint64(received+1) || d.Type != int64(1+k) || d.Lost != 0 {
				t.Fatalf("got %v, want %q as the %d-th", d, want, received+1)
			}
			received++
		}
		frames++
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	for i := range requests {
		if r, err := publish.Recv(); err != nil || r.FirstSequence != uint64(i*each+1) || r.Count != each {
			t.Fatalf("answer %d: %v, %v", i, r, err)
		}
	}
	t.Logf("%d frames", frames)
	info, err := h.rings.GetRing(t.Context(), &ipcdv1.GetRingRequest{Name: "/r"})
	if err != nil || len(info.Ring.Lanes) != 1 || len(info.Ring.Consumers) != 1 {
		t.Fatalf("%v, %v", info, err)
	}
	if l := info.Ring.Lanes[0]; !l.Daemon || l.Sequence != requests*each || l.JoinTime.AsTime().After(time.Now()) {
		t.Errorf("the lane: %v", l)
	}
	if c := info.Ring.Consumers[0]; !c.Daemon || !c.Lossless || c.LostTotal != 0 || len(c.Cursors) != 1 || c.Cursors[0].LaneId != info.Ring.Lanes[0].LaneId {
		t.Errorf("the consumer: %v", c)
	}
}

func TestDeletingARingEndsItsStreams(t *testing.T) {
	h := serveShared(t, nil)
	stream := subscribe(t, h, &ipcdv1.SubscribeRequest{Ring: "/r", Types: []int64{2}})
	publish := publishStream(t, h, publishing("/r", "a", "b", "c"))
	if r, err := publish.Recv(); err != nil || r.Count != 3 {
		t.Fatalf("%v, %v", r, err)
	}
	if r, err := stream.Recv(); err != nil || len(r.Deliveries) != 1 || string(r.Deliveries[0].Payload) != "c" || r.Deliveries[0].Sequence != 3 {
		t.Errorf("%v, %v", r, err)
	}
	if r, err := h.rings.DeleteRing(t.Context(), &ipcdv1.DeleteRingRequest{Name: "/r"}); err != nil || r.Members != 2 {
		t.Errorf("%v, %v", r, err)
	}
	_, err := stream.Recv()
	wantReason(t, err, reason.RingDeleted)
	if err := publish.Send(publishing("", "d")); err != nil {
		t.Fatal(err)
	}
	_, err = publish.Recv()
	wantReason(t, err, reason.RingNotFound)
}

func TestAMessageThatTheRingDoesNotTakeRefusesItsRequest(t *testing.T) {
	h := serveShared(t, &ipcdv1.RingSettings{MaxMessageBytes: new(int64(3))})
	stream := publishStream(t, h, publishing("/r", "abc", "abcd"))
	_, err := stream.Recv()
	if info := errorInfo(wantReason(t, err, reason.MessageTooLarge)); info["index"] != "1" || info["queue"] != "/r" {
		t.Errorf("metadata %v", info)
	}
	got, err := publishStream(t, h, publishing("/r", "abc")).Recv()
	if err != nil || got.FirstSequence != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
