// Package rpc serves the broker over gRPC, on a unix socket and on TCP. It decodes a request, calls
// the broker on the caller's behalf and encodes the answer; what a request means is the broker's.
package rpc

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/ipcd/ipcd/internal/limits"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

const (
	// What a stream and a connection may have on the way. On a host there is no latency to hide: larger
	// windows only let an unread stream hold more memory. Smaller ones stop a sender in mid-batch.
	streamWindowBytes = 1 << 20
	connWindowBytes   = 4 << 20
	// A system call moves so many bytes.
	socketBufferBytes = 128 << 10
)

// Options is what a Server needs.
type Options struct {
	Broker   transport.Broker
	Logger   *zap.Logger
	Version  string           // as GetInfo tells it
	StateDir string           // as GetInfo tells it
	Now      func() time.Time // wall time; nil: time.Now

	Rings        transport.Rings // nil: RingService is UNIMPLEMENTED
	AttachSocket string          // as GetInfo tells it; "": there is none
}

// Server serves all of ipcd's gRPC services.
type Server struct {
	broker   transport.Broker
	log      *zap.Logger
	version  string
	stateDir string
	now      func() time.Time
	started  time.Time

	rings        transport.Rings // or nil
	attachSocket string

	health   *health.Server
	readers  sync.WaitGroup  // goroutines that read streams; they end after their handlers
	stopping context.Context // ends with Drain
	stop     context.CancelFunc
	closing  context.Context // ends with Stop
	close    context.CancelFunc

	addresses []string // fixed before the first call is served

	mu      sync.Mutex
	servers []*grpc.Server // one for each listener; guarded by mu
}

// New returns a Server that serves nothing yet.
func New(o Options) *Server {
	s := &Server{broker: o.Broker, log: o.Logger, version: o.Version, stateDir: o.StateDir, now: o.Now, rings: o.Rings, attachSocket: o.AttachSocket, health: health.NewServer()}
	if s.now == nil {
		s.now = time.Now
	}
	s.started = s.now()
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.closing, s.close = context.WithCancel(context.Background())
	return s
}

// Serve serves on the listeners, which it owns from then on, until Stop; then it returns nil. It is
// called once. If one listener fails, its error is returned and the others go on until Stop.
func (s *Server) Serve(listeners ...net.Listener) error {
	for _, l := range listeners {
		s.addresses = append(s.addresses, Address(l))
	}
	failed := make(chan error, len(listeners))
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		for _, l := range listeners {
			l.Close()
		}
		return nil
	}
	for _, l := range listeners {
		server := s.newServer(l.Addr().Network() == "unix")
		s.servers = append(s.servers, server)
		go func() { failed <- server.Serve(l) }()
	}
	s.mu.Unlock()
	for range listeners {
		if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
	}
	return nil
}

// newServer returns a gRPC server with all services. Reflection is for those on the host.
func (s *Server) newServer(local bool) *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(peerCredentials{}),
		grpc.UnaryInterceptor(s.interceptUnary),
		grpc.StreamInterceptor(s.interceptStream),
		grpc.UnknownServiceHandler(s.unknownMethod),
		grpc.MaxRecvMsgSize(limits.FrameBytes),
		grpc.MaxSendMsgSize(limits.FrameBytes),
		grpc.MaxConcurrentStreams(limits.StreamsPerConn),
		grpc.MaxHeaderListSize(limits.HeaderListBytes),
		grpc.ConnectionTimeout(limits.HandshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: limits.KeepaliveTime, Timeout: limits.KeepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: limits.KeepaliveMinTime, PermitWithoutStream: true}),
		grpc.StaticStreamWindowSize(streamWindowBytes),
		grpc.StaticConnWindowSize(connWindowBytes),
		grpc.ReadBufferSize(socketBufferBytes),
		grpc.WriteBufferSize(socketBufferBytes),
		grpc.WaitForHandlers(true), // when Stop returns, nobody calls the broker any more
	)
	ipcdv1.RegisterQueueAdminServiceServer(server, queueAdmin{Server: s})
	ipcdv1.RegisterMessageServiceServer(server, messages{Server: s})
	ipcdv1.RegisterSystemServiceServer(server, system{Server: s})
	if s.rings != nil {
		ipcdv1.RegisterRingServiceServer(server, ringService{Server: s})
	}
	for name := range server.GetServiceInfo() {
		s.health.SetServingStatus(name, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(server, s.health)
	if local {
		reflection.Register(server)
	}
	return server
}

// Drain begins the end: health says NOT_SERVING, and Consume streams deliver nothing more. What was
// delivered can still be settled.
func (s *Server) Drain() {
	s.health.Shutdown()
	s.stop()
}

// Stop ends all streams, lets the calls under way finish until ctx ends, and then cuts them off. No
// goroutine of the Server is left when it returns.
func (s *Server) Stop(ctx context.Context) {
	s.Drain()
	s.mu.Lock()
	s.close()
	servers := s.servers
	s.mu.Unlock()
	var graceful sync.WaitGroup
	for _, server := range servers {
		graceful.Go(server.GracefulStop)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		graceful.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		for _, server := range servers {
			server.Stop()
		}
		<-done
	}
	s.readers.Wait()
}
