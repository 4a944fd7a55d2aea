package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

const benchBody = 128 // bytes

// BenchmarkSendStream measures the way of a message from a client over the unix socket to the broker,
// with its answer.
func BenchmarkSendStream(b *testing.B) {
	for _, perBatch := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("batch=%d", perBatch), func(b *testing.B) {
			h := serve(b, &fakeBroker{send: func(_ context.Context, r broker.SendRequest) (queue.Stored, error) {
				return queue.Stored{First: 1, Count: len(r.Messages), SentAt: 1}, nil
			}})
			stream, err := h.messages.SendStream(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if err := stream.Send(open("/q")); err != nil {
				b.Fatal(err)
			}
			frame := batch(1, perBatch)
			for _, m := range frame.GetBatch().Messages {
				m.Body = make([]byte, benchBody)
			}
			done := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			batches := (b.N + perBatch - 1) / perBatch
			go func() {
				for left := batches; left > 0; {
					r, err := stream.Recv()
					if err != nil {
						done <- err
						return
					}
					left -= len(r.Results)
				}
				done <- nil
			}()
			for range batches {
				if err := stream.Send(frame); err != nil {
					b.Fatal(err)
				}
			}
			if err := <-done; err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			stream.CloseSend()
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				b.Fatal(err)
			}
		})
	}
}

// endless is a consumer that always has deliveries.
type endless struct {
	transport.Consumer
	page []queue.Delivery
	next uint64
}

func (e *endless) Lease() time.Duration        { return time.Second }
func (e *endless) Credit(uint64, uint64) error { return nil }
func (e *endless) Close(bool)                  {}

func (e *endless) Next(ctx context.Context) (broker.Deliveries, error) {
	d := broker.Deliveries{First: e.next + 1, Deliveries: e.page}
	e.next += uint64(len(e.page))
	return d, ctx.Err()
}

// BenchmarkUnary measures a call that does nothing.
func BenchmarkUnary(b *testing.B) {
	h := serve(b, &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
		return queue.Stored{First: 1, Count: 1}, nil
	}})
	request := &ipcdv1.SendRequest{Queue: "/q", Messages: batch(1, 1).GetBatch().Messages}
	b.ReportAllocs()
	for range b.N {
		if _, err := h.messages.Send(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConsume measures the way of a message from the broker to a client over the unix socket.
func BenchmarkConsume(b *testing.B) {
	for _, perFrame := range []int{1, 64, 512} {
		b.Run(fmt.Sprintf("frame=%d", perFrame), func(b *testing.B) {
			h := serve(b, &fakeBroker{consume: func(broker.ConsumeRequest) (transport.Consumer, error) {
				page := deliveries(perFrame, benchBody)
				for i := range page {
					page[i].Headers = nil
				}
				return &endless{page: page}, nil
			}})
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			stream, err := h.messages.Consume(ctx)
			if err != nil {
				b.Fatal(err)
			}
			openConsume(b, stream, &ipcdv1.ConsumeOpen{Queue: "/q"})
			b.ReportAllocs()
			b.ResetTimer()
			for got := 0; got < b.N; got += perFrame {
				if _, err := stream.Recv(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkEncodeDeliveries measures the server's own part: a frame of 512 deliveries.
func BenchmarkEncodeDeliveries(b *testing.B) {
	page := deliveries(frameMessages, benchBody)
	for i := range page {
		page[i].Headers = nil
	}
	b.ReportAllocs()
	for range b.N {
		slab := slabs.Get().(*deliverySlab)
		slab.encode(page, "", false)
		slab.recycle()
	}
}

// BenchmarkDecodeBatch measures a batch of 64 messages.
func BenchmarkDecodeBatch(b *testing.B) {
	messages := batch(1, 64).GetBatch().Messages
	var reuse []queue.Message
	b.ReportAllocs()
	for range b.N {
		var err error
		if reuse, err = decodeBatch(messages, reuse); err != nil {
			b.Fatal(err)
		}
	}
}
