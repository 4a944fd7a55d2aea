package rpc

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Publish publishes request after request, and answers each before it takes the next.
func (s ringService) Publish(stream grpc.BidiStreamingServer[ipcdv1.PublishRequest, ipcdv1.PublishResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.closing, cancel)()
	done := make(chan struct{})
	defer close(done)
	frames := receive(s.Server, ipcdv1.RingService_Publish_FullMethodName, stream, done)
	err := s.publish(ctx, stream, frames)
	if errors.Is(err, context.Canceled) && s.closing.Err() != nil && stream.Context().Err() == nil {
		return shuttingDown()
	}
	return err
}

func (s ringService) publish(ctx context.Context, stream grpc.BidiStreamingServer[ipcdv1.PublishRequest, ipcdv1.PublishResponse], frames <-chan frame[ipcdv1.PublishRequest]) error {
	caller := callerFrom(ctx)
	name := ""
	var batch []shm.Message // reused: the ring copies what it publishes
	for {
		var f frame[ipcdv1.PublishRequest]
		select {
		case f = <-frames:
		case <-ctx.Done():
			return ctx.Err()
		}
		if errors.Is(f.err, io.EOF) {
			return nil
		}
		if f.err != nil {
			return f.err
		}
		r := f.request
		switch {
		case name == "" && r.Ring == "":
			return reason.Invalid("ring", "the stream's first request names no ring: it must")
		case name == "":
			name = r.Ring
			callOf(ctx).on(name)
		case r.Ring != "" && r.Ring != name:
			return reason.Invalid("ring", "the ring %.220q: a stream is for one ring; open another", r.Ring).On(name)
		}
		var err error
		if batch, err = decodeRingMessages(r.Messages, batch); err != nil {
			return onQueue(err, name)
		}
		lane, first, err := s.rings.Publish(ctx, caller, name, batch)
		clear(batch) // a silent stream keeps no request alive
		if err != nil {
			return err
		}
		if err := stream.Send(&ipcdv1.PublishResponse{LaneId: lane, FirstSequence: first, Count: uint32(len(batch))}); err != nil {
			return streamEnded{err}
		}
	}
}

// decodeRingMessages returns the messages of a request, in the memory of reuse where that suffices. Payloads stay
// those of the request. How large one may be the ring knows.
func decodeRingMessages(messages []*ipcdv1.RingMessage, reuse []shm.Message) ([]shm.Message, error) {
	if len(messages) == 0 {
		return nil, reason.Invalid("messages", "a request without messages: it must have 1 to %d", limits.RingPublishMessages)
	}
	if len(messages) > limits.RingPublishMessages {
		return nil, reason.Invalid("messages", "a request of %d messages: it may have %d; split it", len(messages), limits.RingPublishMessages)
	}
	if cap(reuse) < len(messages) {
		reuse = make([]shm.Message, len(messages))
	}
	batch, bytes := reuse[:len(messages)], 0
	for i, m := range messages {
		if m.Type < 0 {
			return nil, reason.Invalid("type", "type %d: types are positive", m.Type).At(i)
		}
		batch[i] = shm.Message{Type: max(m.Type, 1), Payload: m.Payload} // 0 stands for 1
		bytes += len(m.Payload)
	}
	if bytes > limits.BatchBytes {
		return nil, reason.Invalid("messages", "a request of %d bytes of payloads: it may have %d; split it", bytes, limits.BatchBytes)
	}
	return batch, nil
}
