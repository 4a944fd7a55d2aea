package client

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// fakeRing keeps everything, in one lane.
type fakeRing struct {
	p         *ipcdv1.Ring
	log       []*ipcdv1.RingDelivery
	laneError *ipcdv1.RingLaneError // told once the subscriber has seen the log
	deleted   bool
}

func (f *fake) CreateRing(_ context.Context, r *ipcdv1.CreateRingRequest) (*ipcdv1.CreateRingResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ring := f.rings[r.GetName()]; ring != nil {
		if r.GetExclusive() || !proto.Equal(ring.p.GetSettings(), r.GetSettings()) {
			return nil, statusOf(reason.New(reason.RingExists, "it differs").On(r.GetName()))
		}
		return &ipcdv1.CreateRingResponse{Ring: ring.p}, nil
	}
	ring := &fakeRing{p: &ipcdv1.Ring{Name: r.GetName(), RingId: 5, Settings: r.GetSettings(), CreateTime: timestamppb.Now()}}
	f.rings[r.GetName()] = ring
	return &ipcdv1.CreateRingResponse{Ring: ring.p, Created: true}, nil
}

func (f *fake) findRing(name string) (*fakeRing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ring := f.rings[name]; ring != nil {
		return ring, nil
	}
	return nil, statusOf(reason.New(reason.RingNotFound, "no ring").On(name))
}

func (f *fake) GetRing(_ context.Context, r *ipcdv1.GetRingRequest) (*ipcdv1.GetRingResponse, error) {
	ring, err := f.findRing(r.GetName())
	if err != nil {
		return nil, err
	}
	return &ipcdv1.GetRingResponse{Ring: ring.p}, nil
}

func (f *fake) UpdateRing(_ context.Context, r *ipcdv1.UpdateRingRequest) (*ipcdv1.UpdateRingResponse, error) {
	ring, err := f.findRing(r.GetName())
	if err != nil {
		return nil, err
	}
	f.note("update ring %v", r.GetUpdateMask().GetPaths())
	p := proto.CloneOf(ring.p)
	p.Settings = r.GetSettings()
	return &ipcdv1.UpdateRingResponse{Ring: p}, nil
}

func (f *fake) DeleteRing(_ context.Context, r *ipcdv1.DeleteRingRequest) (*ipcdv1.DeleteRingResponse, error) {
	ring, err := f.findRing(r.GetName())
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	ring.deleted = true
	delete(f.rings, r.GetName())
	f.changedLocked()
	return &ipcdv1.DeleteRingResponse{}, nil
}

func (f *fake) ListRings(r *ipcdv1.ListRingsRequest, stream grpc.ServerStreamingServer[ipcdv1.ListRingsResponse]) error {
	if _, err := path.Match(r.GetGlob(), ""); err != nil {
		return statusOf(reason.Invalid("glob", "no pattern"))
	}
	f.mu.Lock()
	var rings []*ipcdv1.Ring
	for name, ring := range f.rings {
		if ok, _ := path.Match(r.GetGlob(), name[1:]); ok || r.GetGlob() == "" {
			rings = append(rings, ring.p)
		}
	}
	f.mu.Unlock()
	slices.SortFunc(rings, func(a, b *ipcdv1.Ring) int { return len(a.GetName()) - len(b.GetName()) })
	for _, ring := range rings {
		if err := stream.Send(&ipcdv1.ListRingsResponse{Ring: ring}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Publish(stream grpc.BidiStreamingServer[ipcdv1.PublishRequest, ipcdv1.PublishResponse]) error {
	f.note("publish stream")
	name := ""
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if r.GetRing() != "" {
			name = r.GetRing()
		}
		ring, err := f.findRing(name)
		if err != nil {
			return err
		}
		f.mu.Lock()
		f.batches++
		n, h := f.batches, f.hooks
		f.mu.Unlock()
		f.note("publish %d", n)
		if h.publish != nil {
			if err := h.publish(n); err != nil {
				return err
			}
		}
		f.mu.Lock()
		first := uint64(len(ring.log) + 1)
		for _, m := range r.GetMessages() {
			ring.log = append(ring.log, &ipcdv1.RingDelivery{Type: m.GetType(), Payload: m.GetPayload(), LaneId: 9, Sequence: uint64(len(ring.log) + 1), PublishTime: timestamppb.Now()})
		}
		f.changedLocked()
		f.mu.Unlock()
		if err := stream.Send(&ipcdv1.PublishResponse{LaneId: 9, FirstSequence: first, Count: uint32(len(r.GetMessages()))}); err != nil {
			return err
		}
	}
}

func (f *fake) Subscribe(r *ipcdv1.SubscribeRequest, stream grpc.ServerStreamingServer[ipcdv1.SubscribeResponse]) error {
	ring, err := f.findRing(r.GetRing())
	if err != nil {
		return err
	}
	f.note("subscribe %T %v lossless %v", r.GetFrom(), r.GetTypes(), r.GetLossless())
	f.mu.Lock()
	next := len(ring.log)
	switch from := r.GetFrom().(type) {
	case *ipcdv1.SubscribeRequest_Oldest:
		next = 0
	case *ipcdv1.SubscribeRequest_Sequence:
		next = int(from.Sequence) - 1
	}
	f.mu.Unlock()
	if err := stream.Send(&ipcdv1.SubscribeResponse{}); err != nil {
		return err
	}
	told := false
	for {
		f.mu.Lock()
		response := &ipcdv1.SubscribeResponse{Deliveries: slices.Clone(ring.log[next:])}
		if next = len(ring.log); ring.laneError != nil && !told {
			response.LaneErrors, told = []*ipcdv1.RingLaneError{ring.laneError}, true
		}
		deleted, changed := ring.deleted, f.changed
		f.mu.Unlock()
		if len(response.Deliveries)+len(response.LaneErrors) > 0 {
			if err := stream.Send(response); err != nil {
				return err
			}
			continue
		}
		if deleted {
			return statusOf(reason.New(reason.RingDeleted, "deleted").On(r.GetRing()))
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}
