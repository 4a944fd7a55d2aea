package rpc

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/transport"
)

// AddressError is a TCP address that is not allowed.
type AddressError string

func (e AddressError) Error() string { return string(e) }

func refuse(what, why string) error {
	return AddressError(fmt.Sprintf("%s: %s; without TLS, ipcd serves TCP on loopback only (such as 127.0.0.1:7475 or [::1]:7475), "+
		"and only with --insecure, for every process of the host", what, why))
}

func malformed(what string, err error, tls bool) error {
	if !tls {
		return refuse(what, err.Error())
	}
	return AddressError(fmt.Sprintf("%s: %v; an address is host:port, such as [::]:7475 for every interface", what, err))
}

// ListenTCP listens at address. With TLS that may be any; without it must be of the loopback interface, since nobody is
// identified and nothing is encrypted, and insecure says that this is understood. An address that is not allowed is an
// AddressError.
func ListenTCP(address string, insecure, tls bool) (net.Listener, error) {
	what := "--listen " + address
	if !tls && !insecure {
		return nil, refuse(what, "there is no TLS, and --insecure is missing")
	}
	_, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, malformed(what, err, tls)
	}
	resolved, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, malformed(what, err, tls)
	}
	if err := checkAddress(what, resolved, tls); err != nil {
		return nil, err
	}
	l, err := net.ListenTCP("tcp", resolved)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return l, nil
}

// AdoptTCP takes over a listening socket of the service manager. What ListenTCP refuses is refused here too.
func AdoptTCP(l *net.TCPListener, insecure, tls bool) (net.Listener, error) {
	what := "the service manager's socket at " + l.Addr().String()
	if !tls && !insecure {
		return nil, refuse(what, "there is no TLS, and --insecure is missing")
	}
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, AddressError(fmt.Sprintf("%s: no TCP address", what))
	}
	if err := checkAddress(what, address, tls); err != nil {
		return nil, err
	}
	return l, nil
}

func checkAddress(what string, address *net.TCPAddr, tls bool) error {
	// No host is every interface.
	if !tls && !address.IP.IsLoopback() {
		return refuse(what, "not a loopback address")
	}
	return nil
}

// acceptor makes accepted connections known to the Server.
type acceptor struct {
	net.Listener
	server *Server
	door   string
}

// Accept waits for a connection. Of errors that pass it says so, and gRPC then waits before it tries again, up to a
// second: a daemon without a free file descriptor spins no more than it gives up.
func (a acceptor) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	if err != nil {
		if errors.Is(err, net.ErrClosed) || final(err) {
			return nil, err
		}
		a.server.strangers.Warn("cannot accept connections, trying again", zap.String("door", a.door), zap.Error(err))
		return nil, passing{err}
	}
	if socket, ok := conn.(syscall.Conn); ok {
		transport.SpareDescriptors(socket, 1, a.server.closing.Done())
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		boundSilence(tcp)
	}
	return a.server.conns.enter(conn, a.door, time.Now()), nil
}

// final reports whether the socket is of no use any more. All else passes: want of descriptors or memory, and what
// befell a connection before it was accepted (accept(2)).
func final(err error) bool {
	for _, errno := range []unix.Errno{unix.EBADF, unix.EINVAL, unix.ENOTSOCK, unix.EOPNOTSUPP} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// passing is an error after which to try again.
type passing struct{ error }

func (passing) Temporary() bool { return true }
func (passing) Timeout() bool   { return false }

// Unwrap returns the error itself.
func (e passing) Unwrap() error { return e.error }

// boundSilence ends a connection whose peer acknowledges nothing: Go has set keepalive for when nothing is sent, this is
// for when something is. gRPC would do so itself, but sees no socket.
func boundSilence(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	// A kernel that does not take it ends the connection later, after its retransmissions.
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(limits.KeepaliveTimeout/time.Millisecond))
	})
}

// Of what strangers do, so many a second are logged, and then one of so many: they do not fill the log.
const (
	strangersLogged = 10
	strangersPassed = 1000
)

// sampled returns a logger that passes on only some of what comes too often.
func sampled(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, strangersLogged, strangersPassed)
	}))
}
