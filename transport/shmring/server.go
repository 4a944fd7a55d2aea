package shmring

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport"
)

// errStopping is why connections end when the server stops.
var errStopping = errors.New("the daemon is stopping")

// Options is what a Server needs.
type Options struct {
	Rings  Rings
	Quotas *quota.Table // connections are charged there too; nil: to nobody
	Logger *zap.Logger
}

// Server serves attach.sock.
type Server struct {
	rings   Rings
	quotas  *quota.Table // nil: there are none
	log     *zap.Logger
	times   times
	charges *charges

	stopping context.Context // ends with Stop, and with it every connection
	stop     context.CancelCauseFunc
	serving  sync.WaitGroup // accept, and handle and watch of every connection
	readers  sync.WaitGroup // read of every connection

	mu       sync.Mutex         // guards what follows
	listener *Listener          // nil before Serve
	conns    map[*conn]struct{} // that are open
	lastConn uint64             // the highest id that a connection has had
}

// times are how long the server waits.
type times struct {
	hello, ready, got time.Duration // see limits
	readers           time.Duration // in Stop, for those that hang in a stranger's descriptor
	backoff           time.Duration // at most, after accept failed
	linger            time.Duration // at most, between two looks at what a dropped peer has not taken
}

// New returns a Server that serves nothing yet.
func New(o Options) *Server {
	s := &Server{
		rings: o.Rings, quotas: o.Quotas, log: o.Logger, conns: map[*conn]struct{}{},
		times: times{
			hello: limits.AttachHelloTimeout, ready: limits.AttachReadyTimeout, got: limits.AttachGotTimeout,
			readers: time.Second, backoff: time.Second, linger: time.Second,
		},
		charges: newCharges(limits.AttachConns, limits.AttachConnsPerUID, limits.AttachFilesPerUID),
	}
	s.stopping, s.stop = context.WithCancelCause(context.Background())
	return s
}

// Serve serves on the listener, which it owns from then on, until Stop; then it returns nil. It is called
// once.
func (s *Server) Serve(l *Listener) error {
	s.mu.Lock()
	if s.stopping.Err() != nil {
		s.mu.Unlock()
		l.Close()
		return nil
	}
	s.listener = l
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	return s.accept(l)
}

// Stop stops listening, hangs up on everybody and returns when no more calls are made of the broker.
// Members are not made to leave: they go on without the daemon.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stop(errStopping)
	if s.listener != nil {
		s.listener.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
	read := make(chan struct{})
	go func() {
		s.readers.Wait()
		close(read)
	}()
	select {
	case <-read:
	case <-time.After(s.times.readers):
		// They call nothing any more; the end of the process frees them.
		s.log.Warn("a peer keeps the closing of its own descriptors from coming to an end; going on without")
	}
}

// accept takes connections until the listener is closed.
func (s *Server) accept(l *Listener) error {
	var pause time.Duration
	for {
		c, err := l.socket.AcceptUnix()
		if s.stopping.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err == nil {
			pause = 0
			transport.SpareDescriptors(c, 2, s.stopping.Done()) // a member takes several
			s.serve(c)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// No descriptors or no memory are left, mostly. Connections wait meanwhile.
		if pause == 0 {
			s.log.Warn("accepting at the attach socket failed; trying again", zap.Error(err))
		}
		pause = min(max(2*pause, 5*time.Millisecond), s.times.backoff)
		select {
		case <-time.After(pause):
		case <-s.stopping.Done():
		}
	}
}

// serve starts the goroutines of a connection, unless it is one too many.
func (s *Server) serve(sock *net.UnixConn) {
	id, err := identity.FromUnixConn(sock)
	if err != nil {
		s.log.Warn("a connection without credentials was refused", zap.Error(err))
		sock.Close()
		return
	}
	switch s.charges.admit(id.UID) {
	case tooMany:
		s.turnAway(sock, reason.New(reason.QuotaExceeded, "the attach socket has %d connections, the most that it takes; try again later", s.charges.conns))
		return
	case tooManyOfUID:
		s.turnAway(sock, reason.New(reason.QuotaExceeded, "uid %d has %d connections to the attach socket, the most that it may have; close some", id.UID, s.charges.connsPerUID))
		return
	}
	if err := s.takeQuota(id); err != nil {
		s.turnAway(sock, s.explain(err))
		s.charges.dismiss(id.UID)
		return
	}
	pidfd, err := openProcess(sock, id.PID)
	if err != nil {
		if !errors.Is(err, errDead) {
			s.log.Warn("a connection was refused", zap.Stringer("peer", id), zap.Error(err))
			s.turnAway(sock, reason.New(reason.Internal, "the daemon cannot watch this process; its log tells more"))
		} else {
			sock.Close()
		}
		s.dismiss(id)
		return
	}
	c := s.newConn(sock, id, pidfd)
	s.readers.Go(c.read)
	if pidfd != nil {
		s.serving.Go(c.watch)
	}
	s.serving.Go(c.handle)
}

// takeQuota charges a connection to whose it is.
func (s *Server) takeQuota(id identity.Identity) error {
	if s.quotas == nil {
		return nil
	}
	return s.quotas.Take(id.Principal(), quota.Connections, 1)
}

// dismiss takes all charges for a connection back.
func (s *Server) dismiss(id identity.Identity) {
	s.charges.dismiss(id.UID)
	if s.quotas != nil {
		s.quotas.Give(id.Principal(), quota.Connections, 1)
	}
}

// turnAway answers before anything was asked.
func (s *Server) turnAway(sock *net.UnixConn, e *reason.Error) {
	bid(sock, attach.ErrorOf(e))
	shut(sock)
	sock.Close()
}

// bid sends the last word on a connection. It is a courtesy: whoever does not take replies is not waited
// for. On a new socket nothing makes a packet wait.
func bid(sock *net.UnixConn, e attach.ErrorReply) {
	sock.SetWriteDeadline(time.Now().Add(time.Second))
	_ = attach.Send(sock, e)
}

// explain turns any error into one that may be shown to the peer.
func (s *Server) explain(err error) *reason.Error {
	var e *reason.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errStopping):
		return reason.New(reason.ShuttingDown, "the daemon is stopping; what is attached goes on, and others can attach when it is back")
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return reason.New(reason.TimedOut, "the deadline passed before there was an answer")
	case errors.Is(err, context.Canceled):
		return reason.New(reason.Cancelled, "the caller gave up")
	}
	s.log.Error("internal error at the attach socket", zap.Error(err))
	return reason.New(reason.Internal, "an internal error; the daemon's log tells more")
}
