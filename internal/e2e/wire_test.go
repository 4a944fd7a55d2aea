//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ipcd/ipcd/client"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Frames of HTTP/2, RFC 9113, as far as a call needs them.
const (
	preface      = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameData    = 0
	frameHeaders = 1
	frameReset   = 3
	frameSetting = 4
	frameGoAway  = 7
	endStream    = 1
	endHeaders   = 4
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	head := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(head, stream), payload...)
}

// field is a header as a literal that is not indexed, RFC 7541. Name and value are shorter than 127 bytes.
func field(name, value string) []byte {
	b := append([]byte{0, byte(len(name))}, name...)
	return append(append(b, byte(len(value))), value...)
}

// call is the beginning of a call of MessageService.Send.
func call(contentType string, more ...[]byte) []byte {
	headers := bytes.Join(append([][]byte{
		field(":method", "POST"), field(":scheme", "http"), field(":path", "/ipcd.v1.MessageService/Send"), field(":authority", "localhost"),
		field("content-type", contentType), field("te", "trailers"),
	}, more...), nil)
	return bytes.Join([][]byte{[]byte(preface), frame(frameSetting, 0, 0, nil), frame(frameHeaders, endHeaders, 1, headers)}, nil)
}

// grpcMessage is a message with the five bytes that gRPC puts before it.
func grpcMessage(compressed byte, length uint32, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{compressed}, length), body...)
}

// sendRequest is a request that would store a message.
func sendRequest(t *testing.T, queue string) []byte {
	t.Helper()
	request, err := proto.Marshal(&ipcdv1.SendRequest{Queue: queue, Messages: []*ipcdv1.Message{{Body: bytes.Repeat([]byte("x"), 100)}}})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// talk writes bytes to the daemon and reads what it answers: until it hangs up, or until it has answered
// the call on stream 1.
func talk(t *testing.T, d *daemon, data []byte) (hungUp, answered bool) {
	t.Helper()
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = conn.Write(data) // the daemon may hang up before it has taken all
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the daemon neither answers nor hangs up")
			}
			return true, false
		}
		length := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		if _, err := io.CopyN(io.Discard, conn, length); err != nil {
			return true, false
		}
		if stream := binary.BigEndian.Uint32(head[5:]); stream == 1 && (head[3] == frameHeaders || head[3] == frameReset) || head[3] == frameGoAway {
			return false, true
		}
	}
}

func TestGarbageOnTheSocketIsHungUpOn(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 8<<10)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for name, data := range map[string][]byte{
		"HTTP/1.1":            []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":                 append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise[:512]...),
		"zeroes":              make([]byte, 4096),
		"noise":               noise,
		"preface, then noise": append([]byte(preface), noise...),
		"a frame of 16 MiB":   append([]byte(preface), 0xff, 0xff, 0xff, frameSetting, 0, 0, 0, 0, 0),
		"settings on a call":  append([]byte(preface), frame(frameSetting, 0, 1, nil)...),
		"headers first":       append([]byte(preface), frame(frameHeaders, endHeaders, 1, noise[:100])...),
	} {
		t.Run(name, func(t *testing.T) {
			if hungUp, answered := talk(t, d, data); !hungUp && !answered {
				t.Error("the daemon goes on with it")
			}
		})
	}
	unharmed(t, d, q)
}

func TestTruncatedAndOversizedCallsStoreNothing_S6(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	request := sendRequest(t, q.Name())
	length := uint32(len(request))
	var manyHeaders [][]byte
	for range 800 { // 96 KiB, as the limit counts them
		manyHeaders = append(manyHeaders, field("x-"+strings.Repeat("h", 40), strings.Repeat("v", 48)))
	}
	for name, data := range map[string][]byte{
		"half a message":        append(call("application/grpc"), frame(frameData, endStream, 1, grpcMessage(0, length, request[:len(request)/2]))...),
		"a length too small":    append(call("application/grpc"), frame(frameData, endStream, 1, grpcMessage(0, length-7, request))...),
		"a length of 4 GiB":     append(call("application/grpc"), frame(frameData, endStream, 1, grpcMessage(0, 0xffffffff, request))...),
		"a length above limits": append(call("application/grpc"), frame(frameData, 0, 1, grpcMessage(0, 33<<20, request))...),
		"unknown compression":   append(call("application/grpc"), frame(frameData, endStream, 1, grpcMessage(1, length, request))...),
		"no prefix":             append(call("application/grpc"), frame(frameData, endStream, 1, request)...),
		"no message":            append(call("application/grpc"), frame(frameData, endStream, 1, nil)...),
		"another content type":  append(call("text/plain"), frame(frameData, endStream, 1, grpcMessage(0, length, request))...),
		"headers without end":   append(call("application/grpc", manyHeaders...), frame(frameData, endStream, 1, grpcMessage(0, length, request))...),
	} {
		t.Run(name, func(t *testing.T) {
			talk(t, d, data)
			unharmed(t, d, q)
		})
	}
	// The same bytes, whole, do store: the cases above fail for what was changed.
	if _, answered := talk(t, d, append(call("application/grpc"), frame(frameData, endStream, 1, grpcMessage(0, length, request))...)); !answered {
		t.Error("a good call is not answered")
	}
	awaitStats(t, q, "the good call is stored", func(s client.QueueStats) bool { return s.Ready == 1 })
}

func TestHangingUpAtEveryByteStoresAllOrNothing_S6(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory())
	request := sendRequest(t, q.Name())
	whole := append(call("application/grpc"), frame(frameData, endStream, 1, grpcMessage(0, uint32(len(request)), request))...)
	for n := range len(whole) {
		conn, err := net.Dial("unix", d.socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(whole[:n]); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	unharmed(t, d, q)
}

func TestClientThatVanishesGivesBackItsLeases_S16(t *testing.T) {
	t.Parallel()
	d := start(t)
	q := create(t, d.dial(t), memory(func(s *client.QueueSettings) { s.Lease = time.Hour }))
	send(t, q, text("a", "b", "c")...)
	p := startProxy(t, d)
	stream, err := ipcdv1.NewMessageServiceClient((&daemon{socket: p.socket}).conn(t)).Consume(within(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*ipcdv1.ConsumeRequest{
		{Kind: &ipcdv1.ConsumeRequest_Open{Open: &ipcdv1.ConsumeOpen{Queue: q.Name(), Receipts: true}}},
		{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: 2}}},
	} {
		if err := stream.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	var receipts []string
	for len(receipts) < 2 {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, delivery := range response.GetDeliveries().GetDeliveries() {
			receipts = append(receipts, delivery.Receipt)
		}
	}
	p.cut()
	awaitStats(t, q, "both are back", func(s client.QueueStats) bool { return s.Ready == 3 && s.Receivers == 0 })
	for _, receipt := range receipts {
		d.ctl(t, "ack", receipt).exits(t, 1).says(t, receipt)
	}
	for i, m := range receive(t, q, 3, client.ReceiveOptions{}) {
		if want := map[int]int{0: 1, 1: 1, 2: 0}[i]; m.Attempts != want {
			t.Errorf("message %d: %d attempts, want %d", i, m.Attempts, want)
		}
	}
}

func TestClientThatNeverReadsHarmsNobody(t *testing.T) {
	t.Parallel()
	d := start(t)
	c := d.dial(t)
	q := create(t, c, memory(func(s *client.QueueSettings) { s.MaxMessageSize = new(1 << 20) }))
	for range 24 {
		send(t, q, client.Message{Body: make([]byte, 1<<20)}) // far more than the windows of a stream
	}
	ctx, vanish := context.WithCancel(within(t))
	api := ipcdv1.NewMessageServiceClient(d.conn(t))
	peek, err := api.Peek(ctx, &ipcdv1.PeekRequest{Queue: q.Name(), Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := peek.Recv(); err != nil {
		t.Fatal(err)
	}
	consume, err := api.Consume(ctx)
	for _, f := range []*ipcdv1.ConsumeRequest{
		{Kind: &ipcdv1.ConsumeRequest_Open{Open: &ipcdv1.ConsumeOpen{Queue: q.Name()}}},
		{Kind: &ipcdv1.ConsumeRequest_Credit{Credit: &ipcdv1.Credit{Messages: 1000}}},
	} {
		if err == nil {
			err = consume.Send(f)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	awaitStats(t, q, "messages are delivered to who does not read", func(s client.QueueStats) bool { return s.Leased > 0 })
	send(t, q, client.Message{Type: 2, Body: []byte("others go on")})
	other := create(t, c, memory())
	send(t, other, text("and other queues")...)
	receiveOne(t, other)
	vanish()
	awaitStats(t, q, "all are back", func(s client.QueueStats) bool { return s.Ready == 25 && s.Receivers == 0 })
}
