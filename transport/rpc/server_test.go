package rpc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// asChild, in the environment, makes the test binary a client that prints how the daemon sees it.
const asChild = "IPCD_TEST_WHO_AM_I"

func TestMain(m *testing.M) {
	if target := os.Getenv(asChild); target != "" {
		whoAmI(target)
		return
	}
	os.Exit(m.Run())
}

func whoAmI(target string) {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		panic(err)
	}
	info, err := ipcdv1.NewSystemServiceClient(conn).GetInfo(context.Background(), &ipcdv1.GetInfoRequest{})
	if err != nil {
		panic(err)
	}
	c := info.Caller
	fmt.Println(c.Kind, c.GetUid(), c.GetGid(), c.Groups, int(c.Pid) == os.Getpid())
}

func TestInfoTellsWhoServesAndWhoCalls(t *testing.T) {
	h := serve(t, &fakeBroker{})
	info, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Version != "v9" || info.Instance != "instance-1" || info.StateDir != "/state" || int(info.Pid) != os.Getpid() || info.Queues != 3 || info.Messages != 20 || info.Bytes != 1000 {
		t.Errorf("info %v", info)
	}
	if want := []string{"unix://" + h.socket, h.tcp.Target()}; !slices.Equal(info.Addresses, want) {
		t.Errorf("addresses %q, want %q", info.Addresses, want)
	}
	if c := info.Caller; c.Kind != "unix" || int(c.GetUid()) != os.Getuid() || int(c.GetGid()) != os.Getgid() || int(c.Pid) != os.Getpid() {
		t.Errorf("caller over the unix socket: %v", c)
	}
	info, err = ipcdv1.NewSystemServiceClient(h.tcp).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if c := info.Caller; c.Kind != "anonymous" || c.Uid != nil || c.Gid != nil || c.Admin || c.Pid != 0 {
		t.Errorf("caller over TCP: %v, want anonymous", c)
	}
}

func TestCallerIsWhoTheKernelSays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	h := serve(t, &fakeBroker{})
	// The test binary lies where only root may look.
	binary := filepath.Join(filepath.Dir(h.socket), "client")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(filepath.Dir(binary)); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	child := exec.Command(binary)
	child.Dir = "/"
	child.Env = []string{asChild + "=unix://" + h.socket}
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 61234, Gid: 61235, Groups: []uint32{61236, 61237}}}
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := string(out), "unix 61234 61235 [61236 61237] true\n"; got != want {
		t.Errorf("the daemon sees %q, want %q", got, want)
	}
}

func TestEveryCallCarriesTheCaller(t *testing.T) {
	seen := make(chan identity.Identity, 1)
	h := serve(t, &fakeBroker{get: func(id identity.Identity, name string) (broker.Info, error) {
		seen <- id
		return broker.Info{Name: name}, nil
	}})
	if _, err := h.admin.GetQueue(t.Context(), &ipcdv1.GetQueueRequest{Name: "/q"}); err != nil {
		t.Fatal(err)
	}
	if id := <-seen; id.Kind != identity.Unix || int(id.UID) != os.Getuid() {
		t.Errorf("over the unix socket: %v", id)
	}
	if _, err := ipcdv1.NewQueueAdminServiceClient(h.tcp).GetQueue(t.Context(), &ipcdv1.GetQueueRequest{Name: "/q"}); err != nil {
		t.Fatal(err)
	}
	if id := <-seen; id.Kind != identity.Anonymous {
		t.Errorf("over TCP: %v", id)
	}
}

func TestHealthFollowsTheDaemon(t *testing.T) {
	h := serve(t, &fakeBroker{})
	check := grpc_health_v1.NewHealthClient(h.unix)
	services := []string{"", "ipcd.v1.MessageService", "ipcd.v1.QueueAdminService", "ipcd.v1.SystemService"}
	want := func(status grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range services {
			r, err := check.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil || r.Status != status {
				t.Errorf("health of %q: %v, %v; want %v", service, r, err, status)
			}
		}
	}
	want(grpc_health_v1.HealthCheckResponse_SERVING)
	h.server.Drain()
	want(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
}

func TestHealthWatchDoesNotHoldUpStop(t *testing.T) {
	h := serve(t, &fakeBroker{})
	watch, err := grpc_health_v1.NewHealthClient(h.unix).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	h.server.Stop(t.Context()) // which ends only with the test
	for err == nil {
		_, err = watch.Recv()
	}
}

func TestReflectionIsForTheHostAlone(t *testing.T) {
	h := serve(t, &fakeBroker{})
	list := func(conn *grpc.ClientConn) (services []string, err error) {
		stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
		if err != nil {
			return nil, err
		}
		defer stream.CloseSend()
		_ = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"}})
		r, err := stream.Recv()
		for _, s := range r.GetListServicesResponse().GetService() {
			services = append(services, s.Name)
		}
		return services, err
	}
	services, err := list(h.unix)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ipcd.v1.MessageService", "ipcd.v1.QueueAdminService", "ipcd.v1.SystemService", "grpc.health.v1.Health",
		"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} {
		if !slices.Contains(services, want) {
			t.Errorf("services %q, want %s among them", services, want)
		}
	}
	if _, err := list(h.tcp); status.Code(err) != codes.Unimplemented {
		t.Errorf("over TCP: %v, want UNIMPLEMENTED", err)
	}
}

func TestUnknownMethodIsUnimplemented(t *testing.T) {
	h := serve(t, &fakeBroker{})
	err := h.unix.Invoke(t.Context(), "/ipcd.v1.MessageService/Levitate", &ipcdv1.GetInfoRequest{}, &ipcdv1.GetInfoResponse{})
	if s := wantReason(t, err, reason.Unimplemented); !strings.Contains(s.Message(), "Levitate") {
		t.Errorf("message %q does not name the method", s.Message())
	}
}

func TestErrorsFollowTheTable(t *testing.T) {
	for _, r := range reason.All() {
		t.Run(string(r), func(t *testing.T) {
			h := serve(t, &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
				e := reason.New(r, "what was wrong").On("/q").At(3).Retry(1500 * time.Millisecond)
				e.Field = "messages"
				return queue.Stored{}, fmt.Errorf("wrapped: %w", e)
			}})
			_, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
			s := wantReason(t, err, r)
			if s.Message() != "what was wrong" {
				t.Errorf("message %q", s.Message())
			}
			if info := detail[*errdetails.ErrorInfo](s); info.Metadata["queue"] != "/q" || info.Metadata["index"] != "3" {
				t.Errorf("metadata %v", info.Metadata)
			}
			if v := detail[*errdetails.BadRequest](s).GetFieldViolations(); len(v) != 1 || v[0].Field != "messages" {
				t.Errorf("violations %v", v)
			}
			if d := detail[*errdetails.RetryInfo](s).GetRetryDelay().AsDuration(); d != 1500*time.Millisecond {
				t.Errorf("retry after %v", d)
			}
		})
	}
}

func TestContextErrorsHaveReasons(t *testing.T) {
	for want, err := range map[reason.Reason]error{reason.TimedOut: context.DeadlineExceeded, reason.Cancelled: context.Canceled} {
		h := serve(t, &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
			return queue.Stored{}, fmt.Errorf("wait: %w", err)
		}})
		_, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
		wantReason(t, err, want)
	}
}

func TestInternalDetailStaysInTheLog(t *testing.T) {
	h := serve(t, &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
		return queue.Stored{}, errors.New("secret detail")
	}})
	_, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
	if s := wantReason(t, err, reason.Internal); strings.Contains(s.Message(), "secret") {
		t.Errorf("the caller was told %q", s.Message())
	}
	if logged := h.logs.FilterMessage("internal error").All(); len(logged) != 1 || logged[0].ContextMap()["error"] != "secret detail" {
		t.Errorf("logged %v", logged)
	}
}

func TestPanicEndsOneCallOnly(t *testing.T) {
	h := serve(t, &fakeBroker{
		send: func(context.Context, broker.SendRequest) (queue.Stored, error) { panic("boom") },
		list: func(string) ([]broker.Info, error) { panic("boom") },
	})
	_, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
	wantReason(t, err, reason.Internal)
	list, err := h.admin.ListQueues(t.Context(), &ipcdv1.ListQueuesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = list.Recv()
	wantReason(t, err, reason.Internal)
	stream, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sendFrames(t, stream, open("/q"), batch(1, 1))
	_, err = stream.Recv()
	wantReason(t, err, reason.Internal)
	if n := h.logs.FilterMessage("panic in a handler").Len(); n != 3 {
		t.Errorf("%d panics logged, want 3", n)
	}
	if _, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{}); err != nil {
		t.Errorf("after the panics: %v", err)
	}
}

// grpc answers what it can not read by itself.
func TestMalformedRequestEndsOneCallOnly(t *testing.T) {
	h := serve(t, &fakeBroker{})
	truncated := []byte{0x0a, 0x20, '/'} // field 1 of 32 bytes, of which one is there
	var answer []byte
	want := func(err error) {
		t.Helper()
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "unmarshal") {
			t.Errorf("got %v, want INTERNAL about unmarshalling", err)
		}
	}
	want(h.unix.Invoke(t.Context(), ipcdv1.MessageService_Send_FullMethodName, &truncated, &answer, grpc.ForceCodec(rawCodec{})))
	for _, method := range []string{ipcdv1.MessageService_SendStream_FullMethodName, ipcdv1.MessageService_Consume_FullMethodName} {
		stream, err := h.unix.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(&truncated); err != nil {
			t.Fatal(err)
		}
		want(stream.RecvMsg(&answer))
	}
	if n := h.logs.Len(); n != 0 {
		t.Errorf("a caller's mistakes were logged: %v", h.logs.All())
	}
	if _, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{}); err != nil {
		t.Errorf("after the malformed requests: %v", err)
	}
}

func TestOversizedRequestIsRefused_S2(t *testing.T) {
	h := serve(t, &fakeBroker{})
	_, err := h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{Body: make([]byte, limits.FrameBytes)}}})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), fmt.Sprint(limits.FrameBytes)) {
		t.Errorf("got %v, want RESOURCE_EXHAUSTED that names the limit", err)
	}
}

func TestStopEndsStreams(t *testing.T) {
	consumer, following := newFakeConsumer(), make(chan struct{})
	h := serve(t, &fakeBroker{
		consume: consumeWith(consumer),
		peek:    func(broker.PeekRequest) (broker.PeekPage, error) { return broker.PeekPage{}, nil },
		send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
			return queue.Stored{First: 1, Count: 1}, nil
		},
		await: func(ctx context.Context, _ uint64) error {
			close(following)
			<-ctx.Done()
			return ctx.Err()
		},
	})
	consume, err := h.messages.Consume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	openConsume(t, consume, &ipcdv1.ConsumeOpen{Queue: "/q"})
	sender, err := h.messages.SendStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sendFrames(t, sender, open("/q"), batch(1, 1))
	if _, err := sender.Recv(); err != nil {
		t.Fatal(err)
	}
	peek, err := h.messages.Peek(t.Context(), &ipcdv1.PeekRequest{Queue: "/q", Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	<-following
	h.server.Stop(t.Context())
	if r, err := consume.Recv(); err != nil || r.GetDrained() == nil {
		if err == nil || status.Code(err) != codes.Unavailable {
			t.Errorf("consume: %v, %v", r, err)
		}
	}
	if !<-consumer.closed {
		t.Error("a stopping daemon counted attempts")
	}
	_, err = sender.Recv()
	wantReason(t, err, reason.ShuttingDown)
	_, err = peek.Recv()
	wantReason(t, err, reason.ShuttingDown)
	if _, err := os.Stat(h.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}
