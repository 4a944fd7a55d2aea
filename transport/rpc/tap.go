package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Tap copies what arrives. A reader that is slow holds up this handler alone: what then finds no room in the broker's buffer
// is skipped there.
func (s messages) Tap(r *ipcdv1.TapRequest, stream grpc.ServerStreamingServer[ipcdv1.TapResponse]) error {
	filter, err := decodeFilter(r.Filter, s.now())
	if err != nil {
		return onQueue(err, r.Queue)
	}
	// Of these the messages that arrive know nothing yet.
	filter.States, filter.MinSequence, filter.MaxSequence, filter.SentBefore = nil, 0, 0, 0
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	err = s.copyArrivals(ctx, stream, broker.TapRequest{Queue: r.Queue, Filter: filter, MaxBody: decodeBody(r.MaxBodyBytes)})
	if s.stopping.Err() != nil && stream.Context().Err() == nil {
		return shuttingDown()
	}
	return err
}

// copyArrivals copies what arrives until ctx ends or the broker ends the tap.
func (s messages) copyArrivals(ctx context.Context, stream grpc.ServerStreamingServer[ipcdv1.TapResponse], r broker.TapRequest) error {
	tap, err := s.broker.Tap(ctx, callerFrom(ctx), r)
	if err != nil {
		return err
	}
	defer tap.Close()
	if err := stream.Send(new(ipcdv1.TapResponse)); err != nil {
		return streamEnded{err}
	}
	for {
		tapped, err := tap.Next(ctx)
		if err != nil {
			return err
		}
		for rest := tapped.Messages; len(rest) > 0 || tapped.Skipped > 0; {
			n := pageLength(rest)
			if err := stream.Send(&ipcdv1.TapResponse{Messages: encodePeeked(rest[:n]), Skipped: tapped.Skipped}); err != nil {
				return streamEnded{err}
			}
			rest, tapped.Skipped = rest[n:], 0
		}
	}
}

// pageLength returns how many messages go into one response.
func pageLength(messages []queue.Peeked) int {
	n, bytes := min(len(messages), limits.PeekPage), 0
	for i := range messages[:n] {
		if bytes += messages[i].Bytes(); bytes > limits.PeekPageBytes && i > 0 {
			return i
		}
	}
	return n
}
