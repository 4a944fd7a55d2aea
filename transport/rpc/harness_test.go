package rpc

import (
	"context"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

// harness is a Server over a unix socket and TCP, with a client connection to each.
type harness struct {
	server   *Server
	socket   string
	unix     *grpc.ClientConn
	tcp      *grpc.ClientConn
	admin    ipcdv1.QueueAdminServiceClient
	messages ipcdv1.MessageServiceClient
	rings    ipcdv1.RingServiceClient
	system   ipcdv1.SystemServiceClient
	logs     *observer.ObservedLogs
}

func serve(t testing.TB, b transport.Broker) *harness {
	t.Helper()
	return serveOptions(t, Options{Broker: b})
}

// serveRings serves rings, and a broker that is not called.
func serveRings(t testing.TB, r transport.Rings) *harness {
	t.Helper()
	return serveOptions(t, Options{Broker: &fakeBroker{}, Rings: r, AttachSocket: "/run/attach.sock"})
}

// serveOptions serves; before that the server may be changed.
func serveOptions(t testing.TB, o Options, before ...func(*Server)) *harness {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	core, logs := observer.New(zapcore.DebugLevel)
	h := &harness{socket: filepath.Join(t.TempDir(), "run", "ipcd.sock"), logs: logs}
	unixListener, err := ListenUnix(h.socket)
	if err != nil {
		t.Fatal(err)
	}
	tcpListener, err := ListenTCP("127.0.0.1:0", true, false)
	if err != nil {
		t.Fatal(err)
	}
	o.Logger, o.Version, o.StateDir = zap.New(core), "v9", "/state"
	h.server = New(o)
	for _, change := range before {
		change(h.server)
	}
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(unixListener, tcpListener) }()
	h.unix = dial(t, "unix://"+h.socket)
	h.tcp = dial(t, tcpListener.Addr().String())
	h.admin = ipcdv1.NewQueueAdminServiceClient(h.unix)
	h.messages = ipcdv1.NewMessageServiceClient(h.unix)
	h.rings = ipcdv1.NewRingServiceClient(h.unix)
	h.system = ipcdv1.NewSystemServiceClient(h.unix)
	t.Cleanup(func() {
		h.unix.Close()
		h.tcp.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		h.server.Stop(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h
}

func dial(t testing.TB, target string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(limits.FrameBytes)))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// wantReason checks that err is a status with the reason's code and an ErrorInfo that names it.
func wantReason(t *testing.T, err error, want reason.Reason) *status.Status {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != want.Lookup().Code {
		t.Fatalf("code %v (%v), want that of %s", s.Code(), err, want)
	}
	if info := detail[*errdetails.ErrorInfo](s); info.GetReason() != string(want) || info.GetDomain() != "ipcd" {
		t.Fatalf("error info %v (%v), want %s", info, err, want)
	}
	return s
}

// detail returns the status's detail of type T, or its zero value.
func detail[T any](s *status.Status) (found T) {
	for _, d := range s.Details() {
		if v, ok := d.(T); ok {
			found = v
		}
	}
	return found
}

func wantInvalid(t *testing.T, err error, field string) *status.Status {
	t.Helper()
	s := wantReason(t, err, reason.InvalidArgument)
	violations := detail[*errdetails.BadRequest](s).GetFieldViolations()
	if len(violations) != 1 || violations[0].Field != field {
		t.Fatalf("violations %v (%v), want one of %q", violations, err, field)
	}
	return s
}

// rawCodec sends bytes as they are, so that a test can send what is no message.
type rawCodec struct{}

func (rawCodec) Name() string                       { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error { *v.(*[]byte) = data; return nil }
