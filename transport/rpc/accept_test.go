package rpc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ipcd/ipcd/broker"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

var zeroTime time.Time

// nopConn is a connection of which nothing is expected.
type nopConn struct{ net.Conn }

func (nopConn) Close() error { return nil }

// scripted is a listener that accepts what a test says.
type scripted struct {
	accepts chan any // error or net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newScripted() *scripted {
	return &scripted{accepts: make(chan any, 100), closed: make(chan struct{})}
}

func (l *scripted) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepts:
		if err, ok := a.(error); ok {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
		}
		return a.(net.Conn), nil
	case <-l.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: net.ErrClosed}
	}
}

func (l *scripted) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (l *scripted) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }

func serveScripted(t *testing.T, l ...net.Listener) (served chan error, stop func(), logs *observer.ObservedLogs) {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	core, logs := observer.New(zapcore.DebugLevel)
	s := New(Options{Broker: &fakeBroker{}, Logger: zap.New(core)})
	served = make(chan error, 1)
	go func() { served <- s.Serve(l...) }()
	return served, func() { s.Stop(t.Context()) }, logs
}

func TestAcceptGoesOnAfterErrorsThatPass(t *testing.T) {
	l := newScripted()
	served, stop, logs := serveScripted(t, l)
	passing := []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EPERM, unix.EPROTO}
	for _, err := range passing {
		l.accepts <- err
	}
	client, server := net.Pipe() // no socket
	l.accepts <- server
	conn, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return client, nil }))
	if err != nil {
		t.Fatal(err)
	}
	if who, err := whoIs(t, conn); err != nil || who.Kind != "anonymous" {
		t.Errorf("after the errors: %v, %v", who, err)
	}
	if n := logs.FilterMessage("cannot accept connections, trying again").Len(); n != len(passing) {
		t.Errorf("%d errors logged, want %d", n, len(passing))
	}
	conn.Close()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// starved is a listener of a process that has no file descriptor left.
type starved struct {
	*scripted
	accepts atomic.Int64
}

func (l *starved) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		l.accepts.Add(1)
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", unix.EMFILE)}
	}
}

func TestAcceptDoesNotSpin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	works, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	fails := &starved{scripted: newScripted()}
	served, stop, _ := serveScripted(t, works, fails)
	conn := dial(t, "unix://"+path)
	for range 500 { // in which it could be called a million times
		if _, err := whoIs(t, conn); err != nil {
			t.Fatal(err)
		}
	}
	if n := fails.accepts.Load(); n == 0 || n > 300 {
		t.Errorf("%d attempts", n)
	}
	conn.Close()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSocketThatIsNoneEndsServe(t *testing.T) {
	l := newScripted()
	served, stop, _ := serveScripted(t, l)
	l.accepts <- unix.EINVAL // as after shutdown(2)
	if err := <-served; !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
	stop()
}

func TestAdoptedSocketStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	managers, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer managers.Close()
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := managers.File()
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := net.FileListener(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	l := AdoptUnix(inherited.(*net.UnixListener))
	if a := Address(l); a != "unix://"+path {
		t.Errorf("address %q", a)
	}
	served, stop, _ := serveScripted(t, l)
	conn := dial(t, "unix://"+path)
	if who, err := whoIs(t, conn); err != nil || who.Kind != "unix" {
		t.Errorf("%v, %v", who, err)
	}
	conn.Close()
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the socket afterwards: %v, %v", info, err)
	}
}

func TestAbstractSocketHasAnAddress(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@ipcd-test-" + filepath.Base(t.TempDir()) + filepath.Base(filepath.Dir(t.TempDir())), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	served, stop, _ := serveScripted(t, AdoptUnix(l))
	conn := dial(t, Address(l))
	if _, err := whoIs(t, conn); err != nil || !strings.HasPrefix(Address(l), "unix-abstract:ipcd-test-") {
		t.Errorf("%s: %v", Address(l), err)
	}
	conn.Close()
	stop()
	<-served
}

func TestAdoptedTCPFollowsTheSameRule(t *testing.T) {
	for _, c := range []struct {
		address       string
		insecure, tls bool
		ok            bool
	}{
		{"127.0.0.1:0", true, false, true},
		{"127.0.0.1:0", false, false, false},
		{"127.0.0.1:0", false, true, true},
		{"0.0.0.0:0", true, false, false},
		{"0.0.0.0:0", false, true, true},
	} {
		l, err := net.Listen("tcp4", c.address)
		if err != nil {
			t.Fatal(err)
		}
		_, err = AdoptTCP(l.(*net.TCPListener), c.insecure, c.tls)
		var refused AddressError
		if (err == nil) != c.ok || err != nil && !errors.As(err, &refused) {
			t.Errorf("adopted %+v: %v", c, err)
		}
		l.Close()
		if l, err = ListenTCP(c.address, c.insecure, c.tls); err == nil {
			l.Close()
		}
		if (err == nil) != c.ok || err != nil && !errors.As(err, &refused) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestNothingIsServedInTheOpen(t *testing.T) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	served, stop, _ := serveScripted(t, l)
	var refused AddressError
	if err := <-served; !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is still open: %v", err)
	}
	stop()
}

func TestSilenceOfTCPPeersIsBounded(t *testing.T) {
	h := serve(t, &fakeBroker{})
	if _, err := whoIs(t, h.tcp); err != nil {
		t.Fatal(err)
	}
	for _, c := range h.server.conns.list() {
		raw, err := c.Conn.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			timeout, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
			alive, aliveErr := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
			if err != nil || timeout != 20_000 || aliveErr != nil || alive == 0 {
				t.Errorf("TCP_USER_TIMEOUT %d ms (%v), SO_KEEPALIVE %d (%v)", timeout, err, alive, aliveErr)
			}
		})
	}
}

func TestGarbageClosesTheConnection(t *testing.T) {
	h := serve(t, &fakeBroker{})
	for _, garbage := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("\x00", 1000), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 1000)} {
		for network, address := range map[string]string{"unix": h.socket, "tcp": h.tcp.Target()} {
			c, err := net.Dial(network, address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte(garbage))
			for err == nil {
				_, err = c.Read(make([]byte, 1000))
			}
			c.Close()
		}
	}
	eventually(t, "nothing is left of them", func() bool {
		n := h.server.Connections()
		return n["unix"] == 0 && n["tcp"] == 0
	})
	if _, err := whoIs(t, h.unix); err != nil {
		t.Error(err)
	}
}

// A call's headers come in a HEADERS frame and any number of CONTINUATIONs (RFC 9113, 6.10).
func TestEndlessHeadersCloseTheConnection(t *testing.T) {
	h := serve(t, &fakeBroker{})
	c, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	frame := func(kind byte, stream byte, payload []byte) []byte {
		n := len(payload)
		return append([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, 0, 0, 0, 0, stream}, payload...)
	}
	// A header field, literal and not indexed, whose value is said to have 64 MiB.
	field := []byte{0x00, 0x01, 'x', 0x7f, 0x81, 0xff, 0xff, 0x1f}
	start := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, nil)...)
	if _, err := c.Write(append(start, frame(1, 1, field)...)); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, c)
	more, sent := frame(9, 1, bytes.Repeat([]byte{'v'}, 16<<10)), 0
	for ; err == nil && sent < 64<<20; sent += len(more) {
		_, err = c.Write(more)
	}
	if err == nil {
		t.Errorf("%d bytes of headers were taken, and more would be", sent)
	}
	if _, err := whoIs(t, h.unix); err != nil {
		t.Error(err)
	}
}

// flood delivers without end, and counts.
type flood struct {
	*fakeConsumer
	bytes atomic.Int64
}

func (f *flood) Next(ctx context.Context) (broker.Deliveries, error) {
	d := deliveries(16, 64<<10)
	f.bytes.Add(16 * 64 << 10)
	return broker.Deliveries{First: 1, Deliveries: d}, ctx.Err()
}

func TestPeerThatNeverReadsHoldsLittle(t *testing.T) {
	consumer := &flood{fakeConsumer: newFakeConsumer()}
	h := serve(t, &fakeBroker{consume: consumeWith(consumer)})
	stream, err := h.messages.Consume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	openConsume(t, stream, &ipcdv1.ConsumeOpen{Queue: "/q"})
	for range 500 { // which takes much longer than to fill memory
		if _, err := whoIs(t, h.unix); err != nil {
			t.Fatal(err)
		}
	}
	if n := consumer.bytes.Load(); n == 0 || n > 8<<20 {
		t.Errorf("%d bytes wait for a peer that does not read", n)
	}
}
