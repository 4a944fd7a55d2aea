package client

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestDialUnderstandsAddresses(t *testing.T) {
	for target, want := range map[string]string{
		"unix:///run/x.sock": "unix:///run/x.sock",
		"unix:/run/x.sock":   "unix:///run/x.sock",
		"/run/x.sock":        "unix:///run/x.sock",
		"127.0.0.1:7000":     "127.0.0.1:7000",
		"[::1]:7000":         "[::1]:7000",
		"localhost:7000":     "localhost:7000",
	} {
		c, err := Dial(target, WithInsecure())
		if err != nil {
			t.Errorf("Dial(%q): %v", target, err)
			continue
		}
		if c.Target() != want {
			t.Errorf("Dial(%q) talks to %q, want %q", target, c.Target(), want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDialRefusesWithTheReason(t *testing.T) {
	long := "unix:///" + strings.Repeat("x", 120)
	for _, c := range []struct {
		target, says string
		options      []Option
	}{
		{"127.0.0.1:7000", "insecure", nil},
		{"127.0.0.1:7000", "IPCD_TLS_CERT", nil},
		{"192.0.2.1:7000", "loopback", []Option{WithInsecure()}},
		{"example.org:7000", "loopback", []Option{WithInsecure()}},
		{"unix:relative", "absolute", nil},
		{"nonsense", "host:port", nil},
		{":7000", "host:port", []Option{WithInsecure()}},
		{long, "107", nil},
	} {
		_, err := Dial(c.target, c.options...)
		if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Dial(%q) = %v, want ErrInvalidArgument that says %q", c.target, err, c.says)
		}
	}
}

func TestDefaultTargetFollowsTheEnvironment(t *testing.T) {
	t.Setenv("IPCD_ADDRESS", "/somewhere/s")
	if got := DefaultTarget(); got != "/somewhere/s" {
		t.Errorf("with IPCD_ADDRESS: %q", got)
	}
	t.Setenv("IPCD_ADDRESS", "")
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	if got := DefaultTarget(); got != "unix:///run/ipcd/ipcd.sock" {
		t.Errorf("without a socket of the user's own: %q", got)
	}
	path := filepath.Join(dir, "ipcd", "ipcd.sock")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := "unix://" + path
	if os.Geteuid() == 0 {
		want = "unix:///run/ipcd/ipcd.sock"
	}
	if got := DefaultTarget(); got != want {
		t.Errorf("with a socket of the user's own: %q, want %q", got, want)
	}
}

func TestNobodyThereIsUnreachable(t *testing.T) {
	c, err := Dial(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := c.Queue("jobs")
	calls := map[string]func() error{
		"Info":    func() error { _, err := c.Info(t.Context()); return err },
		"Send":    func() error { _, err := q.Send(t.Context(), Message{}); return err },
		"Sender":  func() error { _, err := q.Sender(t.Context(), SenderOptions{}); return err },
		"Receive": func() error { _, err := q.Receive(t.Context(), 1, ReceiveOptions{Wait: WaitForever}); return err },
		"Consume": func() error {
			return q.Consume(t.Context(), func(context.Context, *Delivery) error { return nil }, ConsumeOptions{})
		},
		"Peek": func() error {
			for _, err := range q.Peek(t.Context(), PeekOptions{Follow: true}) {
				return err
			}
			return nil
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "no ipcd answers") {
			t.Errorf("%s: %v, want ErrUnreachable", name, err)
		}
	}
}

// What is known of a daemon's instance is known of a connection: each new one counts, and takes back why the one
// before could not be made.
func TestEachConnectionCounts(t *testing.T) {
	f := startFake(t)
	a := newAuthority(t)
	a.issue("alice", nil)
	secure := serveTLS(t, a, a.issue("daemon", forLoopback), nil)
	for name, to := range map[string]struct {
		target  string
		options []Option
		cut     func()
	}{
		"unix": {"unix://" + f.path, nil, f.cut},
		"TLS":  {secure.address, []Option{WithTLS(a.tls("alice"))}, secure.cut},
	} {
		c, err := Dial(to.target, to.options...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		for n := int64(1); n <= 2; n++ {
			failure := errors.New("an earlier attempt")
			if n == 1 {
				c.dialError.Store(&failure)
			} else {
				to.cut()
			}
			for _, err := c.Info(t.Context()); err != nil; _, err = c.Info(t.Context()) {
				if !errors.Is(err, ErrUnreachable) {
					t.Fatalf("%s: %v", name, err)
				}
			}
			if c.connections.Load() != n || c.dialError.Load() != nil {
				t.Errorf("%s: %d connections after %d were made, dial error %v", name, c.connections.Load(), n, c.dialError.Load())
			}
		}
	}
}

func TestNoAccessToTheSocketIsDenied(t *testing.T) {
	c, err := Dial("test", WithDialer(func(context.Context) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "unix", Err: os.ErrPermission}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Info(t.Context()); !errors.Is(err, ErrAccessDenied) {
		t.Errorf("%v, want ErrAccessDenied", err)
	}
}

func TestErrorsCarryTheirParticulars(t *testing.T) {
	c := &Client{target: "test"}
	var e *Error
	err := error(c.rpcError(statusOf(reason.New(reason.MessageTooLarge, "too large").On("/a").At(3)), "/b"))
	if !errors.As(err, &e) || !errors.Is(err, ErrMessageTooLarge) || e.Queue != "/a" || e.Index != 3 || e.Error() != "/a: [3] too large" {
		t.Errorf("%#v", err)
	}
	if errors.Is(err, ErrQueueFull) {
		t.Error("it is also ErrQueueFull")
	}
	for code, want := range map[codes.Code]error{
		codes.DeadlineExceeded:  context.DeadlineExceeded,
		codes.Canceled:          context.Canceled,
		codes.Unimplemented:     ErrUnimplemented,
		codes.ResourceExhausted: ErrQuotaExceeded,
		codes.PermissionDenied:  ErrAccessDenied,
		codes.Unauthenticated:   ErrUnauthenticated,
		codes.Unknown:           ErrInternal,
		codes.Unavailable:       ErrUnreachable,
	} {
		if err := error(c.rpcError(status.Error(code, "x"), "/b")); !errors.Is(err, want) {
			t.Errorf("%v: %v is not %v", code, err, want)
		}
	}
}

// Every reason of the table has its sentinel: a client can tell what the daemon can say.
func TestEveryReasonHasASentinel(t *testing.T) {
	sentinels := []error{ErrInvalidArgument, ErrQueueNotFound, ErrQueueExists, ErrQueueFull, ErrQuotaExceeded, ErrMessageTooLarge, ErrBufferTooSmall,
		ErrStaleReceipt, ErrDurabilityMismatch, ErrQueueDeleted, ErrAccessDenied, ErrDiskFull, ErrDamaged, ErrKernelLimit, ErrTimedOut, ErrUnhealthy, ErrShuttingDown,
		ErrUnimplemented, ErrOutcomeUnknown, ErrStaleBatch, ErrKernelNameTaken, ErrDeadLetterCycle, ErrBindCycle, ErrSchemaNotFound, ErrSchemaInvalid, ErrSchemaIncompatible, ErrSchemaMismatch, ErrRingNotFound, ErrRingExists, ErrRingDeleted,
		ErrRingCorrupt, ErrConsumerEvicted, ErrConfigInvalid, ErrUnauthenticated, ErrCancelled, ErrUnreachable, ErrInternal}
	for _, r := range reason.All() {
		found := 0
		for _, s := range sentinels {
			if errors.Is(newError(r, "x"), s) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%s matches %d sentinels, want 1", r, found)
		}
	}
}

func TestUserAgentIsTheProgramsNameBeforeThatOfTheLibrary(t *testing.T) {
	agents := make(chan string, 1)
	f := serve(t, grpc.UnaryInterceptor(func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		agents <- strings.Join(metadata.ValueFromIncomingContext(ctx, "user-agent"), "|")
		return &ipcdv1.GetInfoResponse{}, nil
	}))
	for _, name := range []string{"", "jobs/1.2"} {
		c, err := Dial(f.address, WithInsecure(), WithUserAgent(name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Info(t.Context()); err != nil {
			t.Error(err)
		}
		c.Close()
		want := "grpc-go/"
		if name != "" {
			want = name + " " + want
		}
		if got := <-agents; !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q first", got, want)
		}
	}
}
