package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// MoveOptions says which messages Move moves. Without states: ready, delayed and buried ones.
type MoveOptions = SelectOptions

// Move moves messages to another queue and tells how many, also where an error ends it halfway. Each message is always in
// exactly one of the two. It gets a new sequence behind those that are there, and keeps its time of send, its delay and
// what is left of its TTL; its attempts begin anew. What was leased, if the filter names that state, can no longer be settled.
//
// A destination that is full ends it with ErrQueueFull; a message that is too large for it with ErrMessageTooLarge.
func (q *Queue) Move(ctx context.Context, destination string, o MoveOptions) (messages int64, err error) {
	destination = queueName(destination)
	return q.c.inPages(q.name, o, func(limit uint64, cursor string) (uint64, string, error) {
		r, err := q.c.admin.MoveMessages(ctx, &ipcdv1.MoveMessagesRequest{
			Source: q.name, Destination: destination, Filter: o.Filter.proto(), Limit: limit, DryRun: o.DryRun, Cursor: cursor,
		})
		return r.GetMessages(), r.GetCursor(), err
	})
}

// RedriveOptions says which dead letters Redrive moves back. Without states: ready, delayed and buried ones.
type RedriveOptions struct {
	Filter Filter
	Limit  int64 // messages at most; 0: all
	DryRun bool  // count only
}

// Redriven is what went back to one queue.
type Redriven struct {
	Queue    string
	Messages int64
	Err      error // why the rest stayed; nil: nothing is left. An *Error.
}

// Redrive moves the dead letters in the queue back, each to the queue it came from, without the headers that tell of its
// death. It tells what became of those of each of these queues, by name; messages that are no dead letters are left alone.
func (q *Queue) Redrive(ctx context.Context, o RedriveOptions) ([]Redriven, error) {
	if o.Limit < 0 {
		return nil, newError(reason.InvalidArgument, "limit %d: it must be positive, or 0 for all", o.Limit).on(q.name)
	}
	r, err := q.c.admin.RedriveMessages(ctx, &ipcdv1.RedriveMessagesRequest{Name: q.name, Filter: o.Filter.proto(), Limit: uint64(o.Limit), DryRun: o.DryRun})
	if err != nil {
		return nil, q.c.rpcError(err, q.name)
	}
	all := make([]Redriven, len(r.GetRedriven()))
	for i, one := range r.GetRedriven() {
		all[i] = Redriven{Queue: one.GetQueue(), Messages: count(one.GetMessages())}
		if one.GetError() != nil {
			all[i].Err = answer(one.GetError(), one.GetQueue())
		}
	}
	return all, nil
}

// Import stores messages as Peek showed them, all of them or none: with their time of send, attempts, delay, the end of
// their TTL, and buried where they were. Each gets a new sequence; leased ones become ready. A message whose body was cut
// is refused. Where a connection breaks it is repeated, and stored once, as with Send.
func (q *Queue) Import(ctx context.Context, m []*Peeked) ([]Sent, error) {
	messages, e := importProto(m)
	if e != nil {
		return nil, e.on(q.name)
	}
	request := &ipcdv1.ImportMessagesRequest{Queue: q.name, Messages: messages}
	return q.store(ctx, len(m), func(producer string, batch uint64) storeCall {
		request.ProducerId, request.BatchId = producer, batch
		return func(instance string, opts ...grpc.CallOption) (*ipcdv1.Stored, error) {
			request.Instance = instance
			r, err := q.c.messages.ImportMessages(ctx, request, opts...)
			return r.GetStored(), err
		}
	})
}

// importProto leaves out what an import ignores: sequences and leases.
func importProto(m []*Peeked) ([]*ipcdv1.PeekedMessage, *Error) {
	batch := make([]Message, len(m))
	for i, one := range m {
		if one == nil {
			e := newError(reason.InvalidArgument, "no message (nil)")
			e.Index = i
			return nil, e
		}
		batch[i] = one.Message
	}
	messages, _, e := batchProto(batch)
	if e != nil {
		return nil, e
	}
	out := make([]*ipcdv1.PeekedMessage, len(m))
	for i, one := range m {
		if one.Attempts < 0 || one.TruncatedFrom < 0 {
			e := newError(reason.InvalidArgument, "attempts %d, truncated from %d: they must not be negative", one.Attempts, one.TruncatedFrom)
			e.Index = i
			return nil, e
		}
		p := &ipcdv1.PeekedMessage{
			Message:       messages[i],
			State:         ipcdv1.MessageState(one.State),
			Attempts:      uint32(one.Attempts),
			BuryReason:    one.BuryReason,
			TruncatedFrom: uint64(one.TruncatedFrom),
		}
		if !one.SentAt.IsZero() {
			p.SendTime = timestamppb.New(one.SentAt)
		}
		if !one.Due.IsZero() {
			p.DueTime = timestamppb.New(one.Due)
		}
		if !one.Expires.IsZero() {
			p.ExpireTime = timestamppb.New(one.Expires)
		}
		out[i] = p
	}
	return out, nil
}
