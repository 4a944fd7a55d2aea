package client

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func (f *fake) BindQueue(_ context.Context, r *ipcdv1.BindQueueRequest) (*ipcdv1.BindQueueResponse, error) {
	if _, err := f.find(r.GetSource()); err != nil {
		return nil, err
	}
	if r.GetBind().GetDestination() == r.GetSource() {
		return nil, statusOf(reason.New(reason.BindCycle, "a circle").On(r.GetSource()))
	}
	return &ipcdv1.BindQueueResponse{Queue: f.rebind(r.GetSource(), r.GetBind().GetDestination(), r.GetBind())}, nil
}

func (f *fake) UnbindQueue(_ context.Context, r *ipcdv1.UnbindQueueRequest) (*ipcdv1.UnbindQueueResponse, error) {
	if _, err := f.find(r.GetSource()); err != nil {
		return nil, err
	}
	return &ipcdv1.UnbindQueueResponse{Queue: f.rebind(r.GetSource(), r.GetDestination(), nil)}, nil
}

// rebind replaces the bind to a destination by another, or by none.
func (f *fake) rebind(source, destination string, bind *ipcdv1.Bind) *ipcdv1.Queue {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := proto.CloneOf(f.queues[source].p)
	f.queues[source].p = q
	if q.Settings == nil {
		q.Settings = new(ipcdv1.QueueSettings)
	}
	q.Settings.Binds = slices.DeleteFunc(q.Settings.Binds, func(b *ipcdv1.Bind) bool { return b.GetDestination() == destination })
	q.Binds = nil
	if bind != nil {
		q.Settings.Binds = append(q.Settings.Binds, bind)
		q.Binds = []*ipcdv1.BindStatus{{Destination: destination, CopiedTotal: 1, SkippedTotal: 2, Problem: "full"}}
	}
	return q
}

// MoveMessages moves ready messages, two in a call.
func (f *fake) MoveMessages(_ context.Context, r *ipcdv1.MoveMessagesRequest) (*ipcdv1.MoveMessagesResponse, error) {
	f.note("move limit %d dry %v min %d cursor %q", r.GetLimit(), r.GetDryRun(), r.GetFilter().GetMinSequence(), r.GetCursor())
	f.mu.Lock()
	defer f.mu.Unlock()
	from, to := f.queues[r.GetSource()], f.queues[r.GetDestination()]
	if from == nil || to == nil {
		return nil, statusOf(reason.New(reason.QueueNotFound, "no queue").On(r.GetDestination()))
	}
	response := new(ipcdv1.MoveMessagesResponse)
	for len(from.messages) > 0 && response.Messages < min(r.GetLimit(), 2) {
		if most := to.p.GetSettings().MaxMessages; most != nil && len(to.messages) >= int(*most) {
			if response.Messages == 0 {
				return nil, statusOf(reason.New(reason.QueueFull, "full").On(r.GetDestination()))
			}
			break
		}
		to.next++
		to.messages = append(to.messages, &fakeMessage{m: from.messages[0].m, sequence: to.next})
		from.messages = from.messages[1:]
		response.Messages++
	}
	if len(from.messages) > 0 {
		response.Cursor = fmt.Sprint(from.messages[0].sequence)
	}
	f.changedLocked()
	return response, nil
}

func (f *fake) RedriveMessages(_ context.Context, r *ipcdv1.RedriveMessagesRequest) (*ipcdv1.RedriveMessagesResponse, error) {
	f.note("redrive %s limit %d dry %v min %d", r.GetName(), r.GetLimit(), r.GetDryRun(), r.GetFilter().GetMinSequence())
	return &ipcdv1.RedriveMessagesResponse{Redriven: []*ipcdv1.Redriven{
		{Queue: "/jobs", Messages: 3},
		{Queue: "/mails", Error: errorProto(reason.New(reason.QueueFull, "full"))},
	}}, nil
}

func (f *fake) ImportMessages(_ context.Context, r *ipcdv1.ImportMessagesRequest) (*ipcdv1.ImportMessagesResponse, error) {
	messages := make([]*ipcdv1.Message, len(r.GetMessages()))
	for i, m := range r.GetMessages() {
		messages[i] = m.GetMessage()
	}
	f.mu.Lock()
	f.imported = r.GetMessages()
	f.mu.Unlock()
	stored, e := f.store(r.GetQueue(), r.GetProducerId(), r.GetBatchId(), r.GetInstance(), messages)
	if e != nil {
		return nil, statusOf(e)
	}
	return &ipcdv1.ImportMessagesResponse{Stored: stored}, nil
}

// OpenTemporaryQueue numbers its queues.
func (f *fake) OpenTemporaryQueue(r *ipcdv1.OpenTemporaryQueueRequest, stream grpc.ServerStreamingServer[ipcdv1.OpenTemporaryQueueResponse]) error {
	f.mu.Lock()
	f.temporaries++
	if f.hooks.temporary != nil {
		if err := f.hooks.temporary(f.temporaries); err != nil {
			f.mu.Unlock()
			return statusOf(err.(*reason.Error))
		}
	}
	name := fmt.Sprintf("/tmp.%s%d", f.instance, f.temporaries)
	q := &fakeQueue{p: &ipcdv1.Queue{Name: name, Settings: r.GetSettings(), Temporary: true}}
	f.queues[name] = q
	f.changedLocked()
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.queues, name)
		f.seen = append(f.seen, "temporary ended")
		f.changedLocked()
		f.mu.Unlock()
	}()
	if err := stream.Send(&ipcdv1.OpenTemporaryQueueResponse{Queue: q.p}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// Tap copies what comes, of one type where the filter says so, and says once that it skipped 7.
func (f *fake) Tap(r *ipcdv1.TapRequest, stream grpc.ServerStreamingServer[ipcdv1.TapResponse]) error {
	f.mu.Lock()
	q := f.queues[r.GetQueue()]
	f.mu.Unlock()
	if q == nil {
		return statusOf(reason.New(reason.QueueNotFound, "no queue").On(r.GetQueue()))
	}
	f.mu.Lock()
	last := q.next
	f.mu.Unlock()
	if err := stream.Send(new(ipcdv1.TapResponse)); err != nil {
		return err
	}
	skipped := uint64(7)
	for {
		response := new(ipcdv1.TapResponse)
		f.mu.Lock()
		gone := f.queues[r.GetQueue()] != q
		for _, m := range q.messages {
			if m.sequence > last {
				last = m.sequence
				if t := r.GetFilter().GetSelector().GetType(); t == 0 || t == m.m.GetType() {
					response.Messages = append(response.Messages, &ipcdv1.PeekedMessage{Message: m.m, Sequence: m.sequence, State: ipcdv1.MessageState_MESSAGE_STATE_READY})
				}
			}
		}
		changed := f.changed
		f.mu.Unlock()
		if len(response.Messages) > 0 {
			response.Skipped, skipped = skipped, 0
			if err := stream.Send(response); err != nil {
				return err
			}
		}
		if gone {
			return statusOf(reason.New(reason.QueueDeleted, "deleted").On(r.GetQueue()))
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
