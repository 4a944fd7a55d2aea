// Package rpc serves the broker over gRPC, on a unix socket and on TCP. It decodes a request, calls
// the broker on the caller's behalf and encodes the answer; what a request means is the broker's.
package rpc

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
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
	// A TLS connection holds a buffer even when it is idle, and a read from it yields a record: at most 16 KiB.
	tlsBufferBytes = 16 << 10
)

// Options is what a Server needs.
type Options struct {
	Broker   transport.Broker
	Logger   *zap.Logger      // nil: silent
	Version  string           // as GetInfo tells it
	StateDir string           // as GetInfo tells it
	Now      func() time.Time // wall time; nil: time.Now

	Rings        transport.Rings // nil: RingService is UNIMPLEMENTED
	AttachSocket string          // as GetInfo tells it; "": there is none

	Access *access.Control  // nil: root and the daemon's user are admins, and there are no rules
	Quotas *quota.Table     // nil: there are none
	System transport.System // nil: what it would do is UNIMPLEMENTED
	TLS    *TLS             // for all TCP listeners; nil: they have none
	Calls  CallObserver     // or nil
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

	access    *access.Control
	quotas    *quota.Table     // or nil
	system    transport.System // or nil
	tls       *TLS             // or nil
	observer  CallObserver     // or nil
	conns     *connections
	strangers *zap.Logger // of what anybody can bring about, as often as they like

	readers  sync.WaitGroup  // goroutines that read streams; they end after their handlers
	stopping context.Context // ends with Drain
	stop     context.CancelFunc
	closing  context.Context // ends with Stop
	close    context.CancelFunc

	// Fixed before the first call is served.
	addresses []string
	methods   map[string]string // that there are, by their full name: as CallObserver is told

	mu      sync.Mutex
	servers []*grpc.Server // one for each listener; guarded by mu

	health   *health.Server
	healthMu sync.Mutex      // guards what follows
	services map[string]bool // whose health is told
	ailing   bool            // SetServing said no
	drained  bool            // for good
}

// New returns a Server that serves nothing yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	s := &Server{broker: o.Broker, log: o.Logger, version: o.Version, stateDir: o.StateDir, now: o.Now, rings: o.Rings, attachSocket: o.AttachSocket,
		access: o.Access, quotas: o.Quotas, system: o.System, tls: o.TLS, observer: o.Calls, strangers: sampled(o.Logger),
		health: health.NewServer(), services: map[string]bool{"": true}, methods: map[string]string{}}
	if s.now == nil {
		s.now = time.Now
	}
	if s.access == nil {
		s.access = access.New(access.Policy{DaemonUID: uint32(os.Geteuid())}, o.Logger)
	}
	s.conns = newConnections(o.Quotas, s.access.Admin)
	s.conns.cutOff, s.conns.tooSlow = s.logCutOff, s.closeSlow
	if s.tls != nil {
		s.warnOfExpiry(s.tls.current.Load())
		s.tls.onChange(s.recheckTLS)
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
		// ListenTCP and AdoptTCP have said so already: but what would come of a mistake is an open door.
		if tcp, ok := l.Addr().(*net.TCPAddr); ok {
			if err := checkAddress("serving "+l.Addr().String(), tcp, s.tls != nil); err != nil {
				closeAll(listeners)
				return err
			}
		}
		s.addresses = append(s.addresses, Address(l))
	}
	failed := make(chan error, len(listeners))
	s.mu.Lock()
	if s.closing.Err() != nil {
		s.mu.Unlock()
		closeAll(listeners)
		return nil
	}
	for _, l := range listeners {
		s.servers = append(s.servers, s.newServer(doorOf(l)))
	}
	for i, server := range s.servers {
		go func() { failed <- server.Serve(acceptor{listeners[i], s, doorOf(listeners[i])}) }()
	}
	s.mu.Unlock()
	for range listeners {
		if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
	}
	return nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// The doors.
const (
	doorUnix = "unix"
	doorTCP  = "tcp"
)

func doorOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return doorUnix
	}
	return doorTCP
}

// newServer returns a gRPC server with all services. Reflection is for those on the host.
func (s *Server) newServer(door string) *grpc.Server {
	credentials, readBuffer := peerCredentials{server: s}, socketBufferBytes
	if door == doorTCP && s.tls != nil {
		credentials.tls, readBuffer = s.tls, tlsBufferBytes
	}
	server := grpc.NewServer(
		grpc.Creds(credentials),
		grpc.UnaryInterceptor(s.interceptUnary),
		grpc.StreamInterceptor(s.interceptStream),
		grpc.UnknownServiceHandler(s.unknownMethod),
		grpc.InTapHandle(s.tap),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(limits.FrameBytes),
		grpc.MaxSendMsgSize(limits.FrameBytes),
		grpc.MaxConcurrentStreams(limits.StreamsPerConn),
		grpc.MaxHeaderListSize(limits.HeaderListBytes),
		grpc.ConnectionTimeout(limits.HandshakeTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: limits.KeepaliveTime, Timeout: limits.KeepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: limits.KeepaliveMinTime, PermitWithoutStream: true}),
		grpc.StaticStreamWindowSize(streamWindowBytes),
		grpc.StaticConnWindowSize(connWindowBytes),
		grpc.ReadBufferSize(readBuffer),
		grpc.WriteBufferSize(socketBufferBytes),
		grpc.WaitForHandlers(true), // when Stop returns, nobody calls the broker any more
	)
	services := registrar{server, s}
	ipcdv1.RegisterQueueAdminServiceServer(services, queueAdmin{Server: s})
	ipcdv1.RegisterMessageServiceServer(services, messages{Server: s})
	ipcdv1.RegisterSchemaServiceServer(services, schemaService{Server: s})
	ipcdv1.RegisterSystemServiceServer(services, system{Server: s})
	if s.rings != nil {
		ipcdv1.RegisterRingServiceServer(services, ringService{Server: s})
	}
	s.tellHealth(func() {
		for name := range server.GetServiceInfo() {
			s.services[name] = true
		}
	})
	grpc_health_v1.RegisterHealthServer(services, s.health)
	if door == doorUnix {
		reflection.Register(services)
	}
	return server
}

// SetServing says whether the daemon can do its work, as gRPC's health service then tells of all services.
func (s *Server) SetServing(serving bool) {
	s.tellHealth(func() { s.ailing = !serving })
}

func (s *Server) tellHealth(change func()) {
	s.healthMu.Lock()
	defer s.healthMu.Unlock()
	change()
	status := grpc_health_v1.HealthCheckResponse_SERVING
	if s.ailing || s.drained {
		status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	for name := range s.services {
		s.health.SetServingStatus(name, status)
	}
}

// Drain begins the end: health says NOT_SERVING, and Consume streams deliver nothing more. What was
// delivered can still be settled.
func (s *Server) Drain() {
	s.tellHealth(func() { s.drained = true })
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
	s.conns.stop()
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
