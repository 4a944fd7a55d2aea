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
	"github.com/ipcd/ipcd/internal/vfs"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
	"github.com/ipcd/ipcd/transport/rpc"
)

const (
	bodyBytes = 128
	perFrame  = 64
	inFlight  = 64 // frames of the bare stream that are not answered yet
)

// daemon starts a broker without a journal behind its gRPC front end and returns a client with a queue /q.
func daemon(b *testing.B) *client.Client {
	b.Helper()
	return serve(b, broker.New(broker.Options{}))
}

// durable is daemon with a journal, in a temporary directory: every acknowledgement waits for fdatasync.
func durable(b *testing.B) *client.Client {
	b.Helper()
	return serve(b, openBroker(b, b.TempDir()))
}

func openBroker(b *testing.B, dir string) *broker.Broker {
	b.Helper()
	br, err := broker.Open(broker.Options{Journal: &broker.JournalOptions{FS: vfs.OS{}, Dir: filepath.Join(dir, "journal")}})
	if err != nil {
		b.Fatal(err)
	}
	return br
}

func serve(b *testing.B, br *broker.Broker) *client.Client {
	b.Helper()
	path := filepath.Join(b.TempDir(), "s")
	l, err := rpc.ListenUnix(path)
	if err != nil {
		b.Fatal(err)
	}
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
	sync func() error // before a Send is answered; nil: nothing
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

func (s bare) Send(context.Context, *ipcdv1.SendRequest) (*ipcdv1.SendResponse, error) {
	if s.sync != nil {
		if err := s.sync(); err != nil {
			return nil, err
		}
	}
	return &ipcdv1.SendResponse{}, nil
}

func bareClient(b *testing.B) ipcdv1.MessageServiceClient { return bareClientTo(b, bare{}) }

func bareClientTo(b *testing.B, service bare) ipcdv1.MessageServiceClient {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	s := grpc.NewServer()
	ipcdv1.RegisterMessageServiceServer(s, service)
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
func BenchmarkSender(b *testing.B) { sender(b, daemon(b)) }

// BenchmarkDurableSender is the same with each message on disk before it is acknowledged.
func BenchmarkDurableSender(b *testing.B) { sender(b, durable(b)) }

func sender(b *testing.B, c *client.Client) {
	q := c.Queue("/q")
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
func BenchmarkSenderBatches(b *testing.B) { senderBatches(b, daemon(b)) }

// BenchmarkDurableSenderBatches is the same with each message on disk before it is acknowledged.
func BenchmarkDurableSenderBatches(b *testing.B) { senderBatches(b, durable(b)) }

func senderBatches(b *testing.B, c *client.Client) {
	q := c.Queue("/q")
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
func BenchmarkEndToEnd(b *testing.B) { endToEnd(b, daemon(b)) }

// BenchmarkDurableEndToEnd is the same with sends and acks on disk before they are acknowledged.
func BenchmarkDurableEndToEnd(b *testing.B) { endToEnd(b, durable(b)) }

func endToEnd(b *testing.B, c *client.Client) {
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
func BenchmarkSend(b *testing.B) { send(b, daemon(b)) }

// BenchmarkDurableSend is the same with the message on disk before it is acknowledged.
func BenchmarkDurableSend(b *testing.B) { send(b, durable(b)) }

func send(b *testing.B, c *client.Client) {
	q := c.Queue("/q")
	body := make([]byte, bodyBytes)
	for b.Loop() {
		if _, err := q.Send(b.Context(), client.Message{Body: body}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareSync is fdatasync after a write of 256 bytes into a file that was written before.
func BenchmarkBareSync(b *testing.B) {
	sync := syncer(b)
	for b.Loop() {
		if err := sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// syncer writes and syncs 256 bytes at a time.
func syncer(b *testing.B) func() error {
	b.Helper()
	f, err := vfs.OS{}.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt(make([]byte, 16<<20), 0); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	block := make([]byte, 256)
	at := int64(0)
	return func() error {
		_, err := f.WriteAt(block, at%(15<<20))
		at += int64(len(block))
		return errors.Join(err, f.Sync())
	}
}

// BenchmarkBareUnarySync is a gRPC round trip with such a write and fdatasync before the answer.
func BenchmarkBareUnarySync(b *testing.B) {
	c := bareClientTo(b, bare{sync: syncer(b)})
	request := &ipcdv1.SendRequest{Messages: []*ipcdv1.Message{{Type: 1, Body: make([]byte, bodyBytes)}}}
	for b.Loop() {
		if _, err := c.Send(b.Context(), request); err != nil {
			b.Fatal(err)
		}
	}
}

const concurrent = 64

// BenchmarkBareUnary64 is 64 callers at once whose calls do nothing.
func BenchmarkBareUnary64(b *testing.B) {
	c := bareClient(b)
	request := &ipcdv1.SendRequest{Messages: []*ipcdv1.Message{{Type: 1, Body: make([]byte, bodyBytes)}}}
	atOnce(b, func() error {
		_, err := c.Send(b.Context(), request)
		return err
	})
}

// BenchmarkDurableSend64 is 64 senders at once, one message at a time each.
func BenchmarkDurableSend64(b *testing.B) {
	q := durable(b).Queue("/q")
	body := make([]byte, bodyBytes)
	atOnce(b, func() error {
		_, err := q.Send(b.Context(), client.Message{Body: body})
		return err
	})
}

// atOnce makes b.N calls, 64 at a time.
func atOnce(b *testing.B, call func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var calling sync.WaitGroup
	b.ResetTimer()
	for range concurrent {
		calling.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	calling.Wait()
	perSecond(b, b.N)
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
