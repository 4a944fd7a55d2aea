package main

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// fakeRing keeps all that was ever published.
type fakeRing struct {
	info       *ipcdv1.Ring
	deliveries []*ipcdv1.RingDelivery
	more       chan struct{} // closed and made again at each publish
	corrupt    bool          // a lane's memory makes no sense: subscribers are told
	requests   []int         // how many messages each request had
	room       int           // how many messages fit; 0: all
}

// addRing makes a ring with messages of type 1 in lane 3.
func (f *fake) addRing(name string, payloads ...string) *fakeRing {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &fakeRing{more: make(chan struct{}), info: &ipcdv1.Ring{
		Name: name, RingId: uint64(len(f.rings) + 1), CreateTime: timestamppb.New(sentAt), MemoryBytes: 65536 + 8192, Epoch: 9,
		Settings: &ipcdv1.RingSettings{
			CapacityBytes: proto.Int64(65536), MaxMessageBytes: proto.Int64(64), Policy: ipcdv1.RingPolicy_RING_POLICY_OVERWRITE,
			Mode: proto.Uint32(0o660), OwnerUid: proto.Uint32(4000000001), GroupGid: proto.Uint32(4000000002),
			RetainBytes: proto.Int64(65536), Stall: durationpb.New(time.Second),
		},
	}}
	for _, p := range payloads {
		r.put(&ipcdv1.RingMessage{Type: 1, Payload: []byte(p)})
	}
	f.rings[name] = r
	return r
}

func (r *fakeRing) put(m *ipcdv1.RingMessage) *ipcdv1.RingDelivery {
	d := &ipcdv1.RingDelivery{
		Type: m.Type, Payload: m.Payload, Sequence: uint64(len(r.deliveries) + 1), LaneId: 3, PublishTime: timestamppb.New(sentAt),
	}
	r.deliveries = append(r.deliveries, d)
	close(r.more)
	r.more = make(chan struct{})
	return d
}

func (f *fake) enterRing(name string, request proto.Message) (*fakeRing, error) {
	f.requests = append(f.requests, request)
	if err := f.failWith[name]; err != nil {
		return nil, err
	}
	r := f.rings[name]
	if r == nil {
		return nil, refuse(reason.RingNotFound, "there is no ring of this name; create it first")
	}
	return r, nil
}

func (f *fake) CreateRing(_ context.Context, r *ipcdv1.CreateRingRequest) (*ipcdv1.CreateRingResponse, error) {
	f.mu.Lock()
	ring, err := f.enterRing(r.Name, r)
	f.mu.Unlock()
	switch {
	case ring != nil && r.Exclusive:
		return nil, refuse(reason.RingExists, "a ring has this name")
	case ring != nil:
		return &ipcdv1.CreateRingResponse{Ring: ring.info}, nil
	case f.failWith[r.Name] != nil:
		return nil, err
	}
	return &ipcdv1.CreateRingResponse{Ring: f.addRing(r.Name).info, Created: true}, nil
}

func (f *fake) GetRing(_ context.Context, r *ipcdv1.GetRingRequest) (*ipcdv1.GetRingResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ring, err := f.enterRing(r.Name, r)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.GetRingResponse{Ring: ring.info}, nil
}

func (f *fake) UpdateRing(_ context.Context, r *ipcdv1.UpdateRingRequest) (*ipcdv1.UpdateRingResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ring, err := f.enterRing(r.Name, r)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.UpdateRingResponse{Ring: ring.info}, nil
}

func (f *fake) DeleteRing(_ context.Context, r *ipcdv1.DeleteRingRequest) (*ipcdv1.DeleteRingResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.enterRing(r.Name, r); err != nil {
		return nil, err
	}
	delete(f.rings, r.Name)
	return &ipcdv1.DeleteRingResponse{}, nil
}

func (f *fake) ListRings(r *ipcdv1.ListRingsRequest, s grpc.ServerStreamingServer[ipcdv1.ListRingsResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	var names []string
	for name := range f.rings {
		if match, _ := path.Match(r.Glob, strings.TrimPrefix(name, "/")); match || r.Glob == "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := s.Send(&ipcdv1.ListRingsResponse{Ring: f.rings[name].info}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Publish(s grpc.BidiStreamingServer[ipcdv1.PublishRequest, ipcdv1.PublishResponse]) error {
	var ring *fakeRing
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f.mu.Lock()
		if ring == nil {
			ring, err = f.enterRing(r.Ring, r)
		} else {
			f.requests = append(f.requests, r)
		}
		if err == nil {
			err = ring.publish(r)
		}
		var response *ipcdv1.PublishResponse
		if err == nil {
			response = &ipcdv1.PublishResponse{LaneId: 3, FirstSequence: uint64(len(ring.deliveries) - len(r.Messages) + 1), Count: uint32(len(r.Messages))}
		}
		f.mu.Unlock()
		if errors.Is(err, errFull) { // and stays it
			<-s.Context().Done()
			return s.Context().Err()
		}
		if err != nil {
			return err
		}
		if err := s.Send(response); err != nil {
			return err
		}
	}
}

var errFull = errors.New("consumers are too slow")

func (r *fakeRing) publish(p *ipcdv1.PublishRequest) error {
	for _, m := range p.Messages {
		if string(m.Payload) == "refuse" {
			return refuse(reason.InvalidArgument, "nobody likes it")
		}
	}
	r.requests = append(r.requests, len(p.Messages))
	for _, m := range p.Messages {
		if r.room > 0 && len(r.deliveries) == r.room {
			return errFull
		}
		r.put(m)
	}
	return nil
}

func (f *fake) Subscribe(r *ipcdv1.SubscribeRequest, s grpc.ServerStreamingServer[ipcdv1.SubscribeResponse]) error {
	f.mu.Lock()
	ring, err := f.enterRing(r.Ring, r)
	at := 0
	if err == nil && r.GetNewest() != nil {
		at = len(ring.deliveries)
	}
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.Send(&ipcdv1.SubscribeResponse{}); err != nil {
		return err
	}
	for {
		f.mu.Lock()
		response := new(ipcdv1.SubscribeResponse)
		for _, d := range ring.deliveries[at:] {
			if d.Sequence >= r.GetSequence() && (len(r.Types) == 0 || slices.Contains(r.Types, d.Type)) {
				response.Deliveries = append(response.Deliveries, d)
			}
		}
		at = len(ring.deliveries)
		if ring.corrupt {
			response.LaneErrors = append(response.LaneErrors, &ipcdv1.RingLaneError{LaneId: 4, Error: &ipcdv1.Error{
				Code: 15, Reason: string(reason.RingCorrupt), Message: "a frame reaches past the end"}})
			ring.corrupt = false
		}
		more := ring.more
		f.mu.Unlock()
		if err := s.Send(response); err != nil {
			return err
		}
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case <-more:
		}
	}
}
