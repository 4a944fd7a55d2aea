package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

const (
	// subscribeMessages is how many messages are taken from a ring at once, at most a frame's.
	subscribeMessages = 512
	// ringDeliveryBytes is what a RingDelivery takes in a frame besides its payload, at most.
	ringDeliveryBytes = 96
)

const subscribeMethod = ipcdv1.RingService_Subscribe_FullMethodName

// Subscribe hands out messages. While the client does not read, HTTP/2 flow control holds Send back; what is
// published meanwhile waits in the ring, and nowhere else.
func (s ringService) Subscribe(r *ipcdv1.SubscribeRequest, stream grpc.ServerStreamingServer[ipcdv1.SubscribeResponse]) error {
	options, err := decodeSubscribe(r)
	if err != nil {
		return onQueue(err, r.Ring)
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	subscription, err := s.rings.Subscribe(ctx, callerFrom(ctx), r.Ring, options)
	if err == nil {
		defer subscription.Close()
		if member, ok := subscription.(interface{ ID() uint64 }); ok {
			callOf(ctx).reads(member.ID())
		}
		err = s.deliver(ctx, subscription, &ringFrames{stream: stream, ring: r.Ring})
	}
	if errors.Is(err, context.Canceled) && s.stopping.Err() != nil && stream.Context().Err() == nil {
		return shuttingDown()
	}
	return err
}

func decodeSubscribe(r *ipcdv1.SubscribeRequest) (out ring.SubscribeOptions, err error) {
	out.Lossless = r.Lossless
	switch from := r.From.(type) {
	case *ipcdv1.SubscribeRequest_Oldest:
		out.Start = shm.Oldest
	case nil, *ipcdv1.SubscribeRequest_Newest:
		out.Start = shm.Newest
	case *ipcdv1.SubscribeRequest_Sequence:
		out.Start = shm.FromSequence(from.Sequence)
	}
	if len(r.Types) > limits.SelectorTypes {
		return out, reason.Invalid("types", "%d types: there may be %d; leave them out and look at each message", len(r.Types), limits.SelectorTypes)
	}
	for _, t := range r.Types {
		if t <= 0 {
			return out, reason.Invalid("types", "type %d: types are positive", t)
		}
	}
	out.Types = r.Types
	return out, nil
}

// deliver passes on what the subscription hands out until that ends, or ctx.
func (s ringService) deliver(ctx context.Context, from transport.Subscription, to *ringFrames) error {
	// The first frame is empty: the subscriber has its place.
	if err := to.send(new(ipcdv1.SubscribeResponse)); err != nil {
		return err
	}
	messages := make([]shm.Message, subscribeMessages)
	for {
		n, err := from.Next(ctx, messages)
		if sendErr := to.deliveries(messages[:n]); sendErr != nil {
			return sendErr
		}
		switch {
		case reason.Of(err) == reason.RingCorrupt: // the fault of one producer; the others go on
			lane := &ipcdv1.RingLaneError{Error: s.toError(subscribeMethod, err)}
			var corrupt *shm.CorruptError
			if errors.As(err, &corrupt) {
				lane.LaneId = corrupt.Lane
			}
			if err := to.send(&ipcdv1.SubscribeResponse{LaneErrors: []*ipcdv1.RingLaneError{lane}}); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// ringFrames writes messages to a stream. Send has encoded them when it returns, so that neither the payloads
// nor the memory here are needed any longer.
type ringFrames struct {
	stream   grpc.ServerStreamingServer[ipcdv1.SubscribeResponse]
	ring     string
	slots    []ringSlot
	response ipcdv1.SubscribeResponse
}

type ringSlot struct {
	delivery ipcdv1.RingDelivery
	time     timestamppb.Timestamp
}

func (f *ringFrames) send(r *ipcdv1.SubscribeResponse) error {
	if err := f.stream.Send(r); err != nil {
		return streamEnded{err}
	}
	return nil
}

// deliveries sends messages in frames of up to frameBytes; one larger message passes alone.
func (f *ringFrames) deliveries(messages []shm.Message) error {
	for len(messages) > 0 {
		n, bytes := 0, 0
		for n < len(messages) {
			bytes += len(messages[n].Payload) + ringDeliveryBytes
			if n > 0 && bytes > frameBytes {
				break
			}
			n++
		}
		if size := len(messages[0].Payload); size > limits.FrameBytes-ringDeliveryBytes {
			m := &messages[0]
			return reason.New(reason.MessageTooLarge, "message %d of lane %d has %d bytes, more than fit into a gRPC message of %d: attach to the ring's memory, or subscribe from a later sequence",
				m.Sequence, m.Lane, size, limits.FrameBytes).On(f.ring)
		}
		f.response.Deliveries = f.encode(messages[:n])
		if err := f.send(&f.response); err != nil {
			return err
		}
		messages = messages[n:]
	}
	return nil
}

func (f *ringFrames) encode(messages []shm.Message) []*ipcdv1.RingDelivery {
	if len(f.slots) < len(messages) {
		f.slots = make([]ringSlot, max(len(messages), min(2*len(f.slots), subscribeMessages)))
	}
	out := f.response.Deliveries[:0]
	for i := range messages {
		from, slot := &messages[i], &f.slots[i]
		to := &slot.delivery
		to.Type, to.Payload, to.Sequence, to.LaneId, to.Lost = from.Type, from.Payload, from.Sequence, from.Lane, from.Lost
		to.PublishTime = nil
		if from.Time > 0 { // 0: the producer tells none; what is negative was never a time
			setTime(&slot.time, from.Time)
			to.PublishTime = &slot.time
		}
		out = append(out, to)
	}
	return out
}
