package rpc

import (
	"context"
	"fmt"
	"testing"

	"github.com/ipcd/ipcd/internal/shm"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// endlessPages always has as many messages.
type endlessPages []shm.Message

func (e endlessPages) Next(ctx context.Context, into []shm.Message) (int, error) {
	return copy(into, e), ctx.Err()
}

func (endlessPages) Close() {}

// BenchmarkSubscribe measures the way of a message from a ring to a client over the unix socket.
func BenchmarkSubscribe(b *testing.B) {
	for _, perFrame := range []int{1, 64, 200, 512} {
		b.Run(fmt.Sprintf("frame=%d", perFrame), func(b *testing.B) {
			page := make(endlessPages, perFrame)
			for i := range page {
				page[i] = shm.Message{Type: 1, Time: 1, Lane: 1 << 32, Sequence: uint64(i), Payload: make([]byte, benchBody)}
			}
			h := serveRings(b, subscribeWith(page))
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			stream, err := h.rings.Subscribe(ctx, &ipcdv1.SubscribeRequest{Ring: "/r"})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for got := 0; got < b.N; {
				r, err := stream.Recv()
				if err != nil {
					b.Fatal(err)
				}
				got += len(r.Deliveries)
			}
		})
	}
}

// BenchmarkPublish measures the way of a message from a client over the unix socket to a ring in shared memory,
// with its answer.
func BenchmarkPublish(b *testing.B) {
	for _, perRequest := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("request=%d", perRequest), func(b *testing.B) {
			h := serveShared(b, nil)
			stream, err := h.rings.Publish(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			request := &ipcdv1.PublishRequest{Ring: "/r"}
			for range perRequest {
				request.Messages = append(request.Messages, &ipcdv1.RingMessage{Type: 1, Payload: make([]byte, benchBody)})
			}
			b.ReportAllocs()
			b.ResetTimer()
			requests := (b.N + perRequest - 1) / perRequest
			sent := make(chan error, 1)
			go func() {
				for range requests {
					if err := stream.Send(request); err != nil {
						sent <- err
						return
					}
				}
				sent <- stream.CloseSend()
			}()
			for range requests {
				if _, err := stream.Recv(); err != nil {
					b.Fatal(err)
				}
			}
			if err := <-sent; err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			_, _ = stream.Recv() // the end
		})
	}
}
