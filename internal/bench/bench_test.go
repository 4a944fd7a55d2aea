// Package bench measures the way of a message through client, gRPC and broker, beside a bare gRPC
// stream that does nothing with what it carries, over a unix socket and in one process.
package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/rpc"
)

const (
	bodyBytes = 128
	perFrame  = 64
	inFlight  = 64 // frames of the bare stream that are not answered yet
)

// daemon starts the broker behind its gRPC front end and returns a client with a queue /q.
func daemon(b *testing.B) *client.Client {
	b.Helper()
	path := filepath.Join(b.TempDir(), "s")
	l, err := rpc.ListenUnix(path)
	if err != nil {
		b.Fatal(err)
	}
	br := broker.New(broker.Options{})
	s := rpc.New(rpc.Options{Broker: transport.Over(br)})
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	c, err := client.Dial(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.Close()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		s.Stop(ended)
		br.Close()
		serving.Wait()
	})
	_, err = c.CreateQueue(b.Context(), "/q", client.QueueSettings{MaxMessages: 100_000_000, MaxBytes: 1 << 36, Mqueue: client.KernelQueue{Mode: client.KernelNone}})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// bare answers batches without looking at them.
type bare struct {
	ipcdv1.UnimplementedMessageServiceServer
}

func (bare) SendStream(s grpc.BidiStreamingServer[ipcdv1.SendStreamRequest, ipcdv1.SendStreamResponse]) error {
	for {
		if _, err := s.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := s.Send(&ipcdv1.SendStreamResponse{Results: []*ipcdv1.BatchResult{{BatchId: 1}}}); err != nil {
			return err
		}
	}
}

func (bare) Send(context.Context, *ipcdv1.SendRequest) (*ipcdv1.SendResponse, error) {
	return &ipcdv1.SendResponse{}, nil
}

func bareClient(b *testing.B) ipcdv1.MessageServiceClient {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	ipcdv1.RegisterMessageServiceServer(s, bare{})
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(l) })
	conn, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(); s.Stop(); serving.Wait() })
	return ipcdv1.NewMessageServiceClient(conn)
}

func perSecond(b *testing.B, messages int) {
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkBareStream carries frames of 64 messages and answers each: what gRPC allows.
func BenchmarkBareStream(b *testing.B) {
	stream, err := bareClient(b).SendStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	batch := &ipcdv1.SendStreamBatch{}
	for range perFrame {
		batch.Messages = append(batch.Messages, &ipcdv1.Message{Type: 1, Body: make([]byte, bodyBytes)})
	}
	request := &ipcdv1.SendStreamRequest{Kind: &ipcdv1.SendStreamRequest_Batch{Batch: batch}}
	window := make(chan struct{}, inFlight)
	b.ResetTimer()
	var answers sync.WaitGroup
	frames := (b.N + perFrame - 1) / perFrame
	answers.Go(func() {
		for range frames {
			if _, err := stream.Recv(); err != nil {
				b.Error(err)
				return
			}
			<-window
		}
	})
	for range frames {
		window <- struct{}{}
		if err := stream.Send(request); err != nil {
			b.Fatal(err)
		}
	}
	answers.Wait()
	perSecond(b, b.N)
}

// BenchmarkSender is one streaming producer: each message is sent by itself, and acknowledged.
func BenchmarkSender(b *testing.B) {
	q := daemon(b).Queue("/q")
	s, err := q.Sender(b.Context(), client.SenderOptions{})
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, bodyBytes)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := s.Send(b.Context(), client.Message{Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	perSecond(b, b.N)
}

// BenchmarkSenderBatches is the same with 64 messages a send.
func BenchmarkSenderBatches(b *testing.B) {
	q := daemon(b).Queue("/q")
	s, err := q.Sender(b.Context(), client.SenderOptions{})
	if err != nil {
		b.Fatal(err)
	}
	batch := make([]client.Message, perFrame)
	for i := range batch {
		batch[i].Body = make([]byte, bodyBytes)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; i += perFrame {
		if _, err := s.Send(b.Context(), batch...); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	perSecond(b, b.N)
}

// BenchmarkEndToEnd is a streaming producer and a consumer that acks, at once.
func BenchmarkEndToEnd(b *testing.B) {
	c := daemon(b)
	q := c.Queue("/q")
	s, err := q.Sender(b.Context(), client.SenderOptions{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	body := make([]byte, bodyBytes)
	b.ReportAllocs()
	b.ResetTimer()
	var done atomic.Int64
	var consuming sync.WaitGroup
	consuming.Go(func() {
		err := q.Consume(ctx, func(context.Context, *client.Delivery) error {
			if done.Add(1) == int64(b.N) {
				cancel()
			}
			return nil
		}, client.ConsumeOptions{Prefetch: 4096})
		if err != nil {
			b.Error(err)
		}
	})
	for range b.N {
		if _, err := s.Send(b.Context(), client.Message{Body: body}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	consuming.Wait()
	perSecond(b, b.N)
}

// BenchmarkBareUnary is a gRPC round trip that does nothing.
func BenchmarkBareUnary(b *testing.B) {
	c := bareClient(b)
	request := &ipcdv1.SendRequest{Messages: []*ipcdv1.Message{{Type: 1, Body: make([]byte, bodyBytes)}}}
	for b.Loop() {
		if _, err := c.Send(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSend is one message at a time.
func BenchmarkSend(b *testing.B) {
	q := daemon(b).Queue("/q")
	body := make([]byte, bodyBytes)
	for b.Loop() {
		if _, err := q.Send(b.Context(), client.Message{Body: body}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRoundTrip is a message from a sender to a waiting receiver, and its ack.
func BenchmarkRoundTrip(b *testing.B) {
	q := daemon(b).Queue("/q")
	body := make([]byte, bodyBytes)
	for b.Loop() {
		if _, err := q.Send(b.Context(), client.Message{Body: body}); err != nil {
			b.Fatal(err)
		}
		got, err := q.Receive(b.Context(), 1, client.ReceiveOptions{Wait: time.Second})
		if err != nil || len(got) != 1 {
			b.Fatal(err, len(got))
		}
		if err := got[0].Ack(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
