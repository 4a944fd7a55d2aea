package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// rawClient speaks HTTP/2 by hand.
type rawClient struct {
	t    testing.TB
	conn net.Conn
	next uint32
	gone chan struct{} // closed when the server hangs up
}

// frameOf returns a frame of HTTP/2.
func frameOf(kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	out := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(out, stream), payload...)
}

// The others of which tests speak.
const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameReset    = 0x3
	frameSettings = 0x4
	framePing     = 0x6
)

func (c *rawClient) write(kind, flags byte, stream uint32, payload []byte) bool {
	_, err := c.conn.Write(frameOf(kind, flags, stream, payload))
	return err == nil
}

func (h *harness) raw(t testing.TB, network string) *rawClient {
	t.Helper()
	address := h.socket
	if network == "tcp" {
		address = h.tcp.Target()
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &rawClient{t: t, conn: conn, next: 1, gone: make(chan struct{})}
	if _, err := io.WriteString(conn, preface); err != nil {
		t.Fatal(err)
	}
	c.write(frameSettings, 0, 0, nil)
	go func() {
		defer close(c.gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	return c
}

// call begins a call, and returns its stream.
func (c *rawClient) call(method string) uint32 {
	c.t.Helper()
	var block []byte
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		block = append(append(block, 0, byte(len(f[0]))), f[0]...) // a literal (RFC 7541, 6.2.2)
		block = append(append(block, byte(len(f[1]))), f[1]...)
	}
	stream := c.next
	c.next += 2
	// In two parts, as headers may come.
	c.write(frameHeaders, 0, stream, block[:7])
	c.write(frameContinued, flagEndHeaders, stream, block[7:])
	return stream
}

// promise begins a message of so many bytes, of which sent come. It reports whether the server took them.
func (c *rawClient) promise(stream uint32, length, sent int) bool {
	data := make([]byte, messagePrefixBytes+sent)
	binary.BigEndian.PutUint32(data[1:], uint32(length))
	for len(data) > 0 {
		n := min(len(data), 16<<10)
		if !c.write(frameData, 0, stream, data[:n]) {
			return false
		}
		data = data[n:]
	}
	return true
}

func bounded(t testing.TB, b *fakeBroker, bounds incomingBounds) *harness {
	t.Helper()
	return serveOptions(t, Options{Broker: b}, func(s *Server) { s.conns.bounds = bounds })
}

const sendMethod = "/" + "ipcd.v1.MessageService/Send"

func TestPartsOfRequestsAreBoundedInAll(t *testing.T) {
	h := bounded(t, &fakeBroker{}, incomingBounds{each: 4 << 20, admin: 8 << 20, all: 1 << 30})
	modest := h.raw(t, "tcp")
	if !modest.promise(modest.call(sendMethod), 30<<20, 500<<10) {
		t.Fatal("half a MiB was not taken")
	}
	greedy := h.raw(t, "tcp")
	for range 16 { // the window of a stream that is not complete lets a MiB pass
		if !greedy.promise(greedy.call(sendMethod), 30<<20, 900<<10) {
			break
		}
	}
	<-greedy.gone
	eventually(t, "what was cut off holds nothing", func() bool { return h.server.conns.held.Load() < 600<<10 })
	select {
	case <-modest.gone:
		t.Error("the modest one was cut off")
	default:
	}
	if n := len(h.logs.FilterMessageSnippet("too much is coming in").All()); n != 1 {
		t.Errorf("%d lines in the log", n)
	}
	if _, err := ipcdv1.NewSystemServiceClient(h.tcp).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestWhoHoldsMostGoesWhenAllTogetherHoldTooMuch(t *testing.T) {
	h := bounded(t, &fakeBroker{}, incomingBounds{each: 3 << 20, admin: 8 << 20, all: 4 << 20})
	stranger, root := h.raw(t, "tcp"), h.raw(t, "unix")
	for range 3 {
		if !stranger.promise(stranger.call(sendMethod), 30<<20, 800<<10) {
			t.Fatal("2.4 MiB were not taken")
		}
	}
	eventually(t, "that has come", func() bool { return h.server.conns.held.Load() > 2<<20 })
	for range 2 {
		if !root.promise(root.call(sendMethod), 30<<20, 1000<<10) {
			t.Fatal("who holds less was cut off")
		}
	}
	<-stranger.gone
	select {
	case <-root.gone:
		t.Error("who holds less was cut off")
	default:
	}
}

func TestManySmallFramesAreChargedForWhatTheyTake(t *testing.T) {
	h := bounded(t, &fakeBroker{}, incomingBounds{each: 1 << 20, admin: 1 << 20, all: 1 << 30})
	c := h.raw(t, "tcp")
	stream := c.call(sendMethod)
	c.promise(stream, 30<<20, 0)
	for range 20_000 { // 20 kB
		if !c.write(frameData, 0, stream, []byte{0}) {
			break
		}
	}
	<-c.gone
}

func TestWhatIsCompleteOrOverIsChargedToNobody(t *testing.T) {
	block := make(chan struct{})
	var blocked atomic.Bool
	h := bounded(t, &fakeBroker{send: func(ctx context.Context, r broker.SendRequest) (queue.Stored, error) {
		if blocked.Load() {
			select {
			case <-block:
			case <-ctx.Done():
			}
		}
		return queue.Stored{First: 1, Count: len(r.Messages)}, nil
	}}, incomingBounds{each: 64 << 20, admin: 64 << 20, all: 64 << 20})
	nothing := func(when string) {
		t.Helper()
		eventually(t, "nothing is held "+when, func() bool { return h.server.conns.held.Load() == 0 })
	}
	message := func(n int) *ipcdv1.Message { return &ipcdv1.Message{Type: 1, Body: make([]byte, n)} }
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)

	stream, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(open("/q")); err != nil {
		t.Fatal(err)
	}
	for id := range uint64(200) { // more than the bound, in all
		frame := batch(id+1, 3)
		for _, m := range frame.GetBatch().Messages {
			m.Body = make([]byte, random.IntN(1<<random.IntN(20)+1))
		}
		if err := stream.Send(frame); err != nil {
			t.Fatal(err)
		}
		if _, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{message(random.IntN(1 << 19))}}); err != nil {
			t.Fatal(err)
		}
	}
	for done := 0; done < 200; {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		done += len(r.Results)
	}
	nothing("while a stream is open")

	// A stream that is not read holds its window, and no more when it ends.
	blocked.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		full, err := h.messages.SendStream(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = full.Send(open("/q"))
		go func() {
			frame := batch(1, 1)
			frame.GetBatch().Messages[0].Body = make([]byte, 64<<10)
			for full.Send(frame) == nil {
			}
		}()
	}
	eventually(t, "both windows are full", func() bool { return h.server.conns.held.Load() > 3<<19 })
	cancel()
	nothing("after streams were cancelled")
	blocked.Store(false)

	c := h.raw(t, "unix")
	given := c.call(sendMethod)
	c.promise(given, 1<<20, 100<<10)
	eventually(t, "a part is held", func() bool { return h.server.conns.held.Load() > 100<<10 })
	c.write(frameReset, 0, given, []byte{0, 0, 0, 8})
	nothing("after a reset")
	refused := c.call("/nobody.knows/It")
	c.promise(refused, 1<<20, 100<<10)
	nothing("of a call that was refused")
	c.promise(c.call(sendMethod), 1<<20, 100<<10)
	eventually(t, "a part is held", func() bool { return h.server.conns.held.Load() > 100<<10 })
	c.conn.Close()
	nothing("after a hang-up")
	if n := len(h.server.conns.list()); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestRequestThatDoesNotComeToItsEndLosesItsConnection(t *testing.T) {
	h := serveOptions(t, Options{Broker: &fakeBroker{}}, func(s *Server) { s.conns.requestTimeout = 50 * time.Millisecond })
	for _, method := range []string{sendMethod, "/ipcd.v1.QueueAdminService/ListQueues", "/grpc.health.v1.Health/Check"} {
		c := h.raw(t, "unix")
		c.promise(c.call(method), 1000, 10)
		<-c.gone
	}
	// A stream may say nothing.
	stream, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(open("/q")); err != nil {
		t.Fatal(err)
	}
	c := h.raw(t, "unix")
	c.promise(c.call(sendMethod), 1000, 10)
	<-c.gone
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Error(err)
	}
}

// chunked reads that many bytes at a time.
type chunked struct {
	net.Conn
	from  *bytes.Reader
	chunk func() int
}

func (c chunked) Read(p []byte) (int, error) { return c.from.Read(p[:min(len(p), c.chunk())]) }

func TestFramesAreFoundHoweverTheyCome(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		var text bytes.Buffer
		text.WriteString(preface)
		want := map[uint32]int64{}
		for stream := uint32(1); stream < 40; stream += 2 {
			flags := byte(flagEndHeaders)
			if stream%3 == 0 {
				flags = 0
			}
			text.Write(frameOf(frameHeaders, flags, stream, make([]byte, random.IntN(50))))
			if flags == 0 {
				text.Write(frameOf(frameContinued, flagEndHeaders, stream, make([]byte, random.IntN(50))))
			}
			for range random.IntN(3) {
				of, n := uint32(random.IntN(int(stream)+1)/2*2+1), random.IntN(2000)
				of = min(of, stream)
				text.Write(frameOf(frameData, 0, of, make([]byte, n)))
				want[of] += int64(n)
				text.Write(frameOf(framePing, 0, 0, make([]byte, 8)))
			}
		}
		all := newConnections(nil, func(identity.Identity) bool { return false })
		c := newConnection(nil, all, doorUnix, time.Now())
		c.holder = &holder{}
		c.holder.bound.Store(1 << 40)
		from := bytes.NewReader(text.Bytes())
		largest := random.IntN(300) + 1
		f := newFramed(chunked{from: from, chunk: func() int { return 1 + random.IntN(largest) }}, c)
		var got []byte
		buffer := make([]byte, 1+random.IntN(200))
		opened := uint32(0)
		for {
			n, err := f.Read(buffer)
			got = append(got, buffer[:n]...)
			if f.frames.opened != opened && !f.frames.last { // as gRPC begins the call, before it reads on
				if f.frames.opened != opened+2 && opened != 0 {
					t.Fatalf("after stream %d comes %d", opened, f.frames.opened)
				}
				opened = f.frames.opened
				c.arrivals[opened] = &arrival{conn: c, stream: opened, stop: func() bool { return true }}
			}
			if err == io.EOF {
				break
			}
			if n == 0 || err != nil {
				t.Fatal(n, err)
			}
		}
		if !bytes.Equal(got, text.Bytes()) {
			t.Fatal("other bytes are read than came")
		}
		for stream, n := range want {
			if a := c.arrivals[stream]; a == nil || a.pending != n {
				t.Fatalf("stream %d: %+v, want %d bytes", stream, a, n)
			}
		}
	}
}

func TestTooLargeRequestsAreStillRefused(t *testing.T) {
	h := serve(t, &fakeBroker{})
	_, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{Body: make([]byte, 33<<20)}}})
	if status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	}
}
