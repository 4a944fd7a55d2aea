package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// MoveMessages moves one message a call, so that there are cursors. A queue named /full takes none.
func (f *fake) MoveMessages(_ context.Context, r *ipcdv1.MoveMessagesRequest) (*ipcdv1.MoveMessagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from, err := f.enter(r.Source, r)
	if err != nil {
		return nil, err
	}
	if r.DryRun {
		return &ipcdv1.MoveMessagesResponse{Messages: uint64(len(from.messages))}, nil
	}
	to, err := f.enter(r.Destination, r)
	if err != nil {
		return nil, err
	}
	if len(from.messages) == 0 {
		return &ipcdv1.MoveMessagesResponse{}, nil
	}
	if r.Destination == "/full" && len(to.messages) > 0 {
		return nil, refuse(reason.QueueFull, "the queue is full")
	}
	to.put(from.messages[0].Message)
	from.messages = from.messages[1:]
	return &ipcdv1.MoveMessagesResponse{Messages: 1, Cursor: fmt.Sprint(len(from.messages))}, nil
}

// RedriveMessages tells of two origins, of which one is full.
func (f *fake) RedriveMessages(_ context.Context, r *ipcdv1.RedriveMessagesRequest) (*ipcdv1.RedriveMessagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Name, r)
	if err != nil {
		return nil, err
	}
	n := uint64(len(q.messages))
	if !r.DryRun {
		q.messages = nil
	}
	response := &ipcdv1.RedriveMessagesResponse{Redriven: []*ipcdv1.Redriven{{Queue: "/jobs", Messages: n}}}
	if r.Name == "/stuck" {
		response.Redriven = append(response.Redriven, &ipcdv1.Redriven{Queue: "/mail", Error: &ipcdv1.Error{Code: 5, Reason: string(reason.QueueNotFound), Message: "there is no such queue\x1b"}})
	}
	return response, nil
}

func (f *fake) BindQueue(_ context.Context, r *ipcdv1.BindQueueRequest) (*ipcdv1.BindQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Source, r)
	if err != nil {
		return nil, err
	}
	if _, err := f.enter(r.Bind.Destination, r); err != nil {
		return nil, err
	}
	q.info.Settings.Binds = append(q.info.Settings.Binds, r.Bind)
	q.info.Binds = append(q.info.Binds, &ipcdv1.BindStatus{Destination: r.Bind.Destination, CopiedTotal: 5, SkippedTotal: 2, Problem: "it is full\x1b"})
	return &ipcdv1.BindQueueResponse{Queue: q.now()}, nil
}

func (f *fake) UnbindQueue(_ context.Context, r *ipcdv1.UnbindQueueRequest) (*ipcdv1.UnbindQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Source, r)
	if err != nil {
		return nil, err
	}
	q.info.Settings.Binds, q.info.Binds = nil, nil
	return &ipcdv1.UnbindQueueResponse{Queue: q.now()}, nil
}

// Tap shows what is in the queue as if it arrived then, after having left out three messages.
func (f *fake) Tap(r *ipcdv1.TapRequest, s grpc.ServerStreamingServer[ipcdv1.TapResponse]) error {
	f.mu.Lock()
	q, err := f.enter(r.Queue, r)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.Send(&ipcdv1.TapResponse{}); err != nil {
		return err
	}
	for _, m := range q.messages {
		if err := s.Send(&ipcdv1.TapResponse{Messages: []*ipcdv1.PeekedMessage{m}, Skipped: 3}); err != nil {
			return err
		}
	}
	<-s.Context().Done()
	return nil
}

// ImportMessages stores what it is given with its past. It refuses bodies that begin with "refuse".
func (f *fake) ImportMessages(_ context.Context, r *ipcdv1.ImportMessagesRequest) (*ipcdv1.ImportMessagesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, err := f.enter(r.Queue, r)
	if err != nil {
		return nil, err
	}
	if f.imports != nil {
		f.imports(r)
	}
	stored := &ipcdv1.Stored{FirstSequence: q.info.Stats.SentTotal + 1, Count: uint32(len(r.Messages)), SendTime: timestamppb.New(sentAt)}
	for i, m := range r.Messages {
		if len(m.Message.Body) >= 6 && string(m.Message.Body[:6]) == "refuse" {
			return nil, refuse(reason.InvalidArgument, "message %d is refused", i)
		}
	}
	for _, m := range r.Messages {
		m := proto.CloneOf(m)
		q.info.Stats.SentTotal++
		m.Sequence, m.LeaseExpireTime = q.info.Stats.SentTotal, nil
		if m.State == ipcdv1.MessageState_MESSAGE_STATE_LEASED {
			m.State = ipcdv1.MessageState_MESSAGE_STATE_READY
		}
		q.messages = append(q.messages, m)
	}
	return &ipcdv1.ImportMessagesResponse{Stored: stored}, nil
}

// OpenTemporaryQueue makes one that stays until the call ends.
func (f *fake) OpenTemporaryQueue(_ *ipcdv1.OpenTemporaryQueueRequest, s grpc.ServerStreamingServer[ipcdv1.OpenTemporaryQueueResponse]) error {
	q := f.add("/tmp.1")
	if err := s.Send(&ipcdv1.OpenTemporaryQueueResponse{Queue: q.now()}); err != nil {
		return err
	}
	<-s.Context().Done()
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.queues, "/tmp.1")
	return nil
}
