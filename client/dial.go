package client

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const (
	systemSocket = "/run/ipcd/ipcd.sock"
	// socketPathLength is what fits sockaddr_un's sun_path of 108 bytes with its final NUL; see unix(7).
	socketPathLength = 107
	connectTimeout   = 5 * time.Second
	// The first retry of a connection comes after reconnectMin, later ones after up to reconnectMax.
	reconnectMin = 20 * time.Millisecond
	reconnectMax = 2 * time.Second
	// streamWindow and connWindow are HTTP/2 flow-control windows in bytes: enough that a bulk stream is
	// not stopped by its round trips.
	streamWindow = 4 << 20
	connWindow   = 16 << 20
)

// Option changes how Dial connects.
type Option func(*dialOptions)

type dialOptions struct {
	insecure  bool
	tls       *TLS
	dialer    func(ctx context.Context) (net.Conn, error)
	userAgent string
}

// WithInsecure allows plaintext TCP, to loopback addresses only.
func WithInsecure() Option { return func(o *dialOptions) { o.insecure = true } }

// WithUserAgent names the program in the user-agent header of its calls.
func WithUserAgent(name string) Option { return func(o *dialOptions) { o.userAgent = name } }

// WithDialer connects by calling dial instead of dialling the target, which then only names the daemon
// in errors. It excludes WithTLS.
func WithDialer(dial func(ctx context.Context) (net.Conn, error)) Option {
	return func(o *dialOptions) { o.dialer = dial }
}

// Client talks to one daemon. Its methods may be called concurrently.
type Client struct {
	target    string
	plaintext bool // over TCP
	conn      *grpc.ClientConn
	admin     ipcdv1.QueueAdminServiceClient
	messages  ipcdv1.MessageServiceClient
	rings     ipcdv1.RingServiceClient
	system    ipcdv1.SystemServiceClient
	lanes     lanes
	replies   replies

	resendWindow time.Duration // the constant, but in tests

	connections atomic.Int64          // made so far
	dialError   atomic.Pointer[error] // of the latest attempt to connect; nil: it succeeded

	instanceMu   sync.Mutex // guards the two below
	instance     string     // of the daemon, "" before it is known
	instanceSeen int64      // connections when it was learnt
}

// Dial returns a client of the daemon at target, without connecting yet: the first call does. Target is
// "unix:///path/to/socket", "/path/to/socket", or "host:port" for TCP; "" is DefaultTarget. TCP needs WithTLS, or
// what TLSFromEnvironment finds, or else WithInsecure and a loopback address. What is wrong with a target or with
// files for TLS is ErrInvalidArgument.
func Dial(target string, opts ...Option) (*Client, error) {
	var o dialOptions
	for _, opt := range opts {
		opt(&o)
	}
	if target == "" {
		target = DefaultTarget()
	}
	c := &Client{target: target, resendWindow: resendWindow}
	way, err := c.wayTo(&o)
	if err != nil {
		return nil, err
	}
	// passthrough and a dialer of our own: neither DNS nor a proxy from the environment gets between.
	conn, err := grpc.NewClient("passthrough:///ipcd",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return way.dial(ctx) }),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithAuthority(way.authority),
		userAgent(o.userAgent),
		grpc.WithTransportCredentials(way.credentials),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limits.FrameBytes), grpc.MaxCallSendMsgSize(limits.FrameBytes)),
		grpc.WithMaxHeaderListSize(limits.HeaderListBytes),
		grpc.WithInitialWindowSize(streamWindow),
		grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: limits.KeepaliveTime, Timeout: limits.KeepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: connectTimeout,
		}),
	)
	if err != nil {
		return nil, newError(reason.InvalidArgument, "address %q: %v", target, err)
	}
	c.conn = conn
	c.admin = ipcdv1.NewQueueAdminServiceClient(conn)
	c.messages = ipcdv1.NewMessageServiceClient(conn)
	c.rings = ipcdv1.NewRingServiceClient(conn)
	c.system = ipcdv1.NewSystemServiceClient(conn)
	return c, nil
}

// userAgent names the program. gRPC puts its own name behind, after a blank, even if there is none.
func userAgent(name string) grpc.DialOption {
	if name == "" {
		return grpc.EmptyDialOption{}
	}
	return grpc.WithUserAgent(name)
}

// way is how a client comes to its daemon.
type way struct {
	authority   string // of gRPC's requests
	dial        func(ctx context.Context) (net.Conn, error)
	credentials credentials.TransportCredentials
}

// wayTo finds the way to c.target, which it writes in one form only.
func (c *Client) wayTo(o *dialOptions) (*way, error) {
	w := &way{authority: "localhost", dial: o.dialer, credentials: insecure.NewCredentials()}
	connected := func() {
		c.dialError.Store(nil)
		c.connections.Add(1)
	}
	failed := func(err error) { c.dialError.Store(&err) }
	if w.dial != nil && o.tls != nil {
		return nil, newError(reason.InvalidArgument, "WithDialer and WithTLS exclude each other: let the dialer return connections that are secure")
	}
	if w.dial == nil {
		network, address, err := parseTarget(c.target)
		if err != nil {
			return nil, err
		}
		if network == "tcp" {
			w.authority, c.plaintext = address, o.insecure
			if o.tls == nil && !o.insecure {
				if t := TLSFromEnvironment(); t != (TLS{}) {
					o.tls = &t
				}
			}
		} else {
			c.target = "unix://" + address
		}
		if err := o.check(network, address); err != nil {
			return nil, err
		}
		w.dial = func(ctx context.Context) (net.Conn, error) { return dialAddress(ctx, network, address, o.tls != nil) }
		if o.tls != nil {
			host, _, _ := net.SplitHostPort(address)
			h, err := newHandshaker(*o.tls, host, connected, failed)
			if err != nil {
				return nil, err
			}
			w.credentials = h
		}
	}
	dial := w.dial
	w.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		switch {
		case err != nil:
			failed(err)
		case o.tls == nil:
			connected()
		}
		return conn, err
	}
	return w, nil
}

// check says whether the options fit the target.
func (o *dialOptions) check(network, address string) error {
	switch {
	case o.tls != nil && o.insecure:
		return newError(reason.InvalidArgument, "both TLS and plaintext (insecure) are asked for: choose one")
	case network == "unix" && o.tls != nil:
		return newError(reason.InvalidArgument, "address %q: TLS is for TCP; on a unix socket the kernel tells who the caller is", "unix://"+address)
	case network == "tcp" && o.tls == nil && !o.insecure:
		return newError(reason.InvalidArgument, "address %q: TCP needs TLS: give a certificate, its key and the daemon's authority (IPCD_TLS_CERT, IPCD_TLS_KEY, IPCD_TLS_CA); plaintext must be asked for (insecure) and is for loopback addresses only", address)
	case network == "tcp" && o.insecure:
		host, port, _ := net.SplitHostPort(address)
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return newError(reason.InvalidArgument, "address %q: plaintext TCP is for loopback addresses only, such as 127.0.0.1:%s; elsewhere use TLS", address, port)
		}
	}
	return nil
}

// DefaultTarget returns where Dial("") looks for the daemon: at the address in IPCD_ADDRESS; else, for an
// ordinary user, at $XDG_RUNTIME_DIR/ipcd/ipcd.sock if that exists; else at /run/ipcd/ipcd.sock.
func DefaultTarget() string {
	if address := os.Getenv("IPCD_ADDRESS"); address != "" {
		return address
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && os.Geteuid() != 0 {
		path := filepath.Join(dir, "ipcd", "ipcd.sock")
		if _, err := os.Stat(path); err == nil {
			return "unix://" + path
		}
	}
	return "unix://" + systemSocket
}

// Target returns the address that the client talks to.
func (c *Client) Target() string { return c.target }

// Close ends the connection and all calls under way. Consume and Senders should be ended before.
func (c *Client) Close() error {
	ended := c.replies.close(c)
	defer ended()                                                                // after the connection: the daemon may be slow to say goodbye
	if err := c.conn.Close(); err != nil && status.Code(err) != codes.Canceled { // Canceled: it was closed before
		return newError(reason.Internal, "close the connection: %v", err)
	}
	return nil
}

// parseTarget turns what people write into what net.Dial takes.
func parseTarget(target string) (network, address string, err error) {
	path, isUnix := strings.CutPrefix(target, "unix:")
	if isUnix {
		if rest, ok := strings.CutPrefix(path, "//"); ok {
			path = rest
		}
	} else if strings.HasPrefix(target, "/") {
		path, isUnix = target, true
	}
	if isUnix {
		if !filepath.IsAbs(path) {
			return "", "", newError(reason.InvalidArgument, "address %q: the socket's path must be absolute, as in unix://%s", target, systemSocket)
		}
		if len(path) > socketPathLength {
			return "", "", newError(reason.InvalidArgument, "address %q: a socket's path may have %d bytes, this one has %d: use a shorter directory", target, socketPathLength, len(path))
		}
		return "unix", path, nil
	}
	host, port, splitErr := net.SplitHostPort(target)
	if splitErr != nil || port == "" || host == "" {
		return "", "", newError(reason.InvalidArgument, "address %q: it must be a socket's path, such as unix://%s, or host:port", target, systemSocket)
	}
	return "tcp", net.JoinHostPort(host, port), nil
}

func dialAddress(ctx context.Context, network, address string, secure bool) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// What localhost stands for is up to the host's configuration.
	if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok && !secure && !tcp.IP.IsLoopback() {
		_ = conn.Close()
		return nil, fmt.Errorf("%s is at %s: plaintext TCP is for loopback addresses only", address, tcp.IP)
	}
	return conn, nil
}

// awaitReady returns once there is a connection, or with the error of the context.
func (c *Client) awaitReady(ctx context.Context) error { return c.await(ctx, false) }

// awaitAccepted is awaitReady that gives up, with an *Error, once client and daemon do not accept each other's
// certificates: no further try changes that.
func (c *Client) awaitAccepted(ctx context.Context) error { return c.await(ctx, true) }

func (c *Client) await(ctx context.Context, accepted bool) error {
	for {
		state := c.conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Shutdown:
			return errClosed()
		case connectivity.Idle:
			c.conn.Connect()
		case connectivity.TransientFailure:
			e := &Error{Index: Whole}
			if c.explain(e, codes.Unavailable); accepted && e.is(reason.Unauthenticated) {
				return e
			}
		}
		if !c.conn.WaitForStateChange(ctx, state) {
			return ctx.Err()
		}
	}
}

// pause waits before the n-th try in a row, n from 0, or until the context ends, whose error it returns.
func pause(ctx context.Context, n int) error {
	delay := reconnectMax
	if n < 7 {
		delay = min(reconnectMin<<n, reconnectMax)
	}
	timer := time.NewTimer(jitter(delay))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
