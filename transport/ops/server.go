package ops

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/transport"
)

// Options is what a Server needs. Broker is needed, the others may be left out.
type Options struct {
	Broker      transport.Broker
	Rings       transport.Rings // nil: there are none
	Access      *access.Control
	Quotas      *quota.Table
	Connections func() map[string]int       // how many there are, by door; those of this door are added
	Health      func(context.Context) error // nil result: locks can be had, and the journal moves
	Ready       func() error                // nil result: calls are served, and the last health check was well
	Version     string
	Logger      *zap.Logger // nil: silent
}

// Server serves operators. It counts calls, and knows all metrics, whether it listens or not. It is safe for
// concurrent use.
type Server struct {
	o        Options
	log      *zap.Logger
	started  time.Time
	registry *prometheus.Registry // of what is kept from scrape to scrape
	calls    *calls
	metrics  metrics

	scraping shared[[]byte]
	checking shared[struct{}]

	closing context.Context // of all requests and what they started
	cancel  context.CancelFunc

	mu       sync.Mutex
	stopped  bool
	servers  []*http.Server
	conns    map[net.Conn]connection
	turn     uint64
	routines sync.WaitGroup // scrapes and health checks; they may outlast who asked
}

// New returns a Server that listens nowhere yet. It asks the broker once what the queues have counted: sums begin there.
func New(o Options) *Server {
	s := &Server{o: o, log: o.Logger, started: time.Now(), registry: prometheus.NewRegistry(), conns: map[net.Conn]connection{}}
	if s.log == nil {
		s.log = zap.NewNop()
	}
	s.closing, s.cancel = context.WithCancel(context.Background())
	s.calls = newCalls(s.registry)
	s.metrics.register(s)
	return s
}

// Call counts a gRPC call that has ended. See rpc.CallObserver.
func (s *Server) Call(method, code string, took time.Duration) { s.calls.count(method, code, took) }

// Serve serves on a listener, which it owns from then on, until Stop; then it returns nil. Profiles are there only where
// the listener is of this host. It may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	h := &http.Server{
		Handler:           s.handler(l.Addr()),
		ReadHeaderTimeout: limits.HTTPHeaderTimeout,
		ReadTimeout:       limits.HTTPHeaderTimeout, // requests have no body
		WriteTimeout:      limits.HTTPWriteTimeout,
		IdleTimeout:       limits.HTTPIdleTimeout,
		MaxHeaderBytes:    limits.HTTPHeaderBytes,
		ErrorLog:          zap.NewStdLog(s.log),
		BaseContext:       func(net.Listener) context.Context { return s.closing },
		ConnState:         s.connState,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return l.Close()
	}
	s.servers = append(s.servers, h)
	s.mu.Unlock()
	if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// local reports whether only processes of this host reach an address.
func local(a net.Addr) bool {
	return a.Network() == "unix" || isLoopback(a)
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// connection is what is known of one.
type connection struct {
	state   http.ConnState
	serving bool   // a whole request has come, and is not answered yet
	turn    uint64 // of its latest change: the lowest has done nothing for longest
}

// connState counts connections. If there are too many, the one goes that has asked nothing for longest: whoever keeps
// connections and says nothing takes the place of nobody who asks. If all are being answered, the new one goes: in a queue
// it would not learn why nothing comes.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(s.conns, c)
		return
	}
	if state == http.StateNew && (s.stopped || len(s.conns) >= limits.HTTPConns && !s.closeIdleLocked()) {
		c.Close()
		return
	}
	if _, known := s.conns[c]; !known && state != http.StateNew { // it was closed for another
		return
	}
	s.turn++
	s.conns[c] = connection{state: state, turn: s.turn}
}

type connKey struct{}

// serving notes that the request of a connection is being answered, and returns what says that it is no more.
func (s *Server) serving(r *http.Request) (answered func()) {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	mark := func(serving bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if is, known := s.conns[c]; known {
			is.serving = serving
			s.conns[c] = is
		}
	}
	mark(true)
	return func() { mark(false) }
}

// closeIdleLocked closes the connection that has asked nothing for longest, and reports whether there is one.
func (s *Server) closeIdleLocked() bool {
	var oldest net.Conn
	for c, is := range s.conns {
		if !is.serving && (oldest == nil || is.turn < s.conns[oldest].turn) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	oldest.Close()
	delete(s.conns, oldest)
	return true
}

// connected returns how many connections there are.
func (s *Server) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Stop stops listening and ends profiles. Answers under way are finished, until ctx ends; then they are cut off. If it
// returns because ctx ended, a scrape or a health check that is stuck may still be there.
func (s *Server) Stop(ctx context.Context) {
	s.mu.Lock()
	s.stopped = true
	servers := s.servers
	for c, is := range s.conns {
		if is.state == http.StateNew { // it has asked nothing yet, and would be waited for
			c.Close()
		}
	}
	s.mu.Unlock()
	s.cancel()
	for _, h := range servers {
		if h.Shutdown(ctx) != nil {
			h.Close()
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.routines.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
