package client

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func (f *fake) CreateQueue(_ context.Context, r *ipcdv1.CreateQueueRequest) (*ipcdv1.CreateQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q := f.queues[r.GetName()]; q != nil {
		if r.GetExclusive() || !proto.Equal(q.p.GetSettings(), r.GetSettings()) {
			return nil, statusOf(reason.New(reason.QueueExists, "it differs").On(r.GetName()))
		}
		return &ipcdv1.CreateQueueResponse{Queue: q.p}, nil
	}
	q := &fakeQueue{p: &ipcdv1.Queue{Name: r.GetName(), Id: 5, Settings: r.GetSettings(), CreateTime: timestamppb.Now(), Stats: &ipcdv1.QueueStats{Ready: 3, OldestAge: durationpb.New(0)},
		KernelQueues: []*ipcdv1.KernelQueueStatus{{Direction: "in", Name: r.GetName(), PassedTotal: 9}}}}
	f.queues[r.GetName()] = q
	return &ipcdv1.CreateQueueResponse{Queue: q.p, Created: true}, nil
}

func (f *fake) find(name string) (*ipcdv1.Queue, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q := f.queues[name]; q != nil {
		return q.p, nil
	}
	return nil, statusOf(reason.New(reason.QueueNotFound, "no queue").On(name))
}

func (f *fake) GetQueue(_ context.Context, r *ipcdv1.GetQueueRequest) (*ipcdv1.GetQueueResponse, error) {
	q, err := f.find(r.GetName())
	return &ipcdv1.GetQueueResponse{Queue: q}, err
}

func (f *fake) UpdateQueue(_ context.Context, r *ipcdv1.UpdateQueueRequest) (*ipcdv1.UpdateQueueResponse, error) {
	q, err := f.find(r.GetName())
	if err != nil {
		return nil, err
	}
	f.note("update %v", r.GetUpdateMask().GetPaths())
	q = proto.CloneOf(q)
	q.Settings = r.GetSettings()
	return &ipcdv1.UpdateQueueResponse{Queue: q}, nil
}

func (f *fake) DeleteQueue(_ context.Context, r *ipcdv1.DeleteQueueRequest) (*ipcdv1.DeleteQueueResponse, error) {
	if _, err := f.find(r.GetName()); err != nil {
		return nil, err
	}
	return &ipcdv1.DeleteQueueResponse{Messages: 12}, nil
}

func (f *fake) ListQueues(r *ipcdv1.ListQueuesRequest, stream grpc.ServerStreamingServer[ipcdv1.ListQueuesResponse]) error {
	f.mu.Lock()
	var names []string
	for name := range f.queues {
		if ok, _ := path.Match(r.GetGlob(), name[1:]); ok || r.GetGlob() == "" {
			names = append(names, name)
		}
	}
	f.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		q, _ := f.find(name)
		if err := stream.Send(&ipcdv1.ListQueuesResponse{Queue: q}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) PauseQueue(_ context.Context, r *ipcdv1.PauseQueueRequest) (*ipcdv1.PauseQueueResponse, error) {
	q, err := f.find(r.GetName())
	if err != nil {
		return nil, err
	}
	q = proto.CloneOf(q)
	q.Paused = true
	return &ipcdv1.PauseQueueResponse{Queue: q}, nil
}

func (f *fake) ResumeQueue(_ context.Context, r *ipcdv1.ResumeQueueRequest) (*ipcdv1.ResumeQueueResponse, error) {
	q, err := f.find(r.GetName())
	return &ipcdv1.ResumeQueueResponse{Queue: q}, err
}

// PurgeQueue pretends that there are 40,000 messages, and stops wherever it likes.
func (f *fake) PurgeQueue(_ context.Context, r *ipcdv1.PurgeQueueRequest) (*ipcdv1.PurgeQueueResponse, error) {
	if _, err := f.find(r.GetName()); err != nil {
		return nil, err
	}
	f.note("purge limit %d dry %v min %d", r.GetLimit(), r.GetDryRun(), r.GetFilter().GetMinSequence())
	at, _ := strconv.ParseUint(r.GetCursor(), 10, 64)
	n := min(r.GetLimit(), 15000, 40000-at)
	response := &ipcdv1.PurgeQueueResponse{Messages: n}
	if at+n < 40000 {
		response.Cursor = fmt.Sprint(at + n)
	}
	return response, nil
}

func (f *fake) KickMessages(_ context.Context, r *ipcdv1.KickMessagesRequest) (*ipcdv1.KickMessagesResponse, error) {
	if r.GetCursor() != "" {
		return nil, statusOf(reason.New(reason.QueueDeleted, "deleted").On(r.GetName()))
	}
	return &ipcdv1.KickMessagesResponse{Messages: 4, Cursor: "more"}, nil
}

// Peek shows ready messages, two a page, and with follow the later ones.
func (f *fake) Peek(r *ipcdv1.PeekRequest, stream grpc.ServerStreamingServer[ipcdv1.PeekResponse]) error {
	f.note("peek %v %d %q", r.GetFilter().GetStates(), r.GetLimit(), r.GetCursor())
	var last uint64
	for {
		f.mu.Lock()
		q := f.queues[r.GetQueue()]
		if q == nil {
			f.mu.Unlock()
			return statusOf(reason.New(reason.QueueNotFound, "no queue").On(r.GetQueue()))
		}
		page, more := new(ipcdv1.PeekResponse), false
		for _, m := range q.messages {
			if m.sequence <= last {
				continue
			}
			if more = len(page.Messages) == 2; more {
				page.Cursor = fmt.Sprint(last)
				break
			}
			last = m.sequence
			page.Messages = append(page.Messages, &ipcdv1.PeekedMessage{Message: m.m, Sequence: m.sequence, State: ipcdv1.MessageState_MESSAGE_STATE_READY})
		}
		changed := f.changed
		f.mu.Unlock()
		if err := stream.Send(page); err != nil {
			return err
		}
		if more {
			continue
		}
		if !r.GetFollow() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
