package rpc

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

// fakeSystem answers what a test says.
type fakeSystem struct {
	reloaded  transport.Reloaded
	reloadErr error
	clients   []transport.Client
}

func (f *fakeSystem) Reload(context.Context) (transport.Reloaded, error) {
	return f.reloaded, f.reloadErr
}

func (f *fakeSystem) WriteMetrics(w io.Writer) error {
	_, err := io.WriteString(w, "ipcd_queues 3\n")
	return err
}

func (f *fakeSystem) Clients() []transport.Client { return f.clients }

// numberedSubscription knows which consumer it is.
type numberedSubscription struct{ *fakeSubscription }

func (numberedSubscription) ID() uint64 { return 9 }

func listClients(t *testing.T, conn grpc.ClientConnInterface) (all []*ipcdv1.ClientConnection) {
	t.Helper()
	stream, err := ipcdv1.NewSystemServiceClient(conn).ListClients(t.Context(), &ipcdv1.ListClientsRequest{})
	for err == nil {
		var r *ipcdv1.ListClientsResponse
		if r, err = stream.Recv(); err == nil {
			all = append(all, r.Client)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all
}

func TestClientsAreListedWithWhatTheyDo(t *testing.T) {
	receiving := make(chan struct{})
	attached := transport.Client{ID: 5, Door: "attach", Who: identity.Identity{Kind: identity.Unix, UID: 77, PID: 78}, Command: "producer",
		Connected: time.Unix(1, 0), Uses: []transport.ClientUse{{Method: "produce", Name: "/r", Since: time.Unix(2, 0)}}}
	h := serveOptions(t, Options{
		System: &fakeSystem{clients: []transport.Client{attached}},
		Broker: &fakeBroker{
			consume: consumeWith(newFakeConsumer()),
			receive: func(ctx context.Context, _ broker.ReceiveRequest) ([]queue.Delivery, error) {
				close(receiving)
				<-ctx.Done()
				return nil, ctx.Err()
			},
			get: func(_ identity.Identity, name string) (info broker.Info, err error) {
				if name != "/q" {
					return info, reason.New(reason.QueueNotFound, "no")
				}
				info.Stats.Ready = 17
				return info, nil
			},
		},
		Rings: &fakeRings{
			subscribe: func(identity.Identity, string, ring.SubscribeOptions) (transport.Subscription, error) {
				return numberedSubscription{newFakeSubscription()}, nil
			},
			get: func(identity.Identity, string) (ring.Info, error) {
				return ring.Info{Consumers: []ring.ConsumerInfo{{ID: 8, Lag: 1}, {ID: 9, Lag: 23}}}, nil
			},
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	consume, err := h.messages.Consume(ctx)
	if err != nil {
		t.Fatal(err)
	}
	openConsume(t, consume, &ipcdv1.ConsumeOpen{Queue: "/q"})
	subscribe, err := h.rings.Subscribe(ctx, &ipcdv1.SubscribeRequest{Ring: "/r"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := subscribe.Recv(); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() { _, _ = h.messages.Receive(ctx, &ipcdv1.ReceiveRequest{Queue: "/gone"}) })
	<-receiving

	all := listClients(t, h.unix)
	if len(all) != 2 {
		t.Fatalf("clients %v, want this one and that of the other door", all)
	}
	me := all[0]
	if c := me.Caller; me.Door != "unix" || c.Kind != "unix" || int(c.GetPid()) != os.Getpid() || int(c.GetUid()) != os.Geteuid() || !c.Admin {
		t.Errorf("client %v", me)
	}
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	if me.Command != strings.TrimSpace(string(comm)) || !strings.HasPrefix(me.UserAgent, "grpc-go/") || me.Calls != 4 || me.CallsTotal != 0 || me.RemoteAddress != "" {
		t.Errorf("client %v", me)
	}
	use := func(method string) *ipcdv1.ClientUse {
		t.Helper()
		i := slices.IndexFunc(me.Uses, func(u *ipcdv1.ClientUse) bool { return u.Method == method })
		if i < 0 {
			t.Fatalf("no %s in %v", method, me.Uses)
		}
		return me.Uses[i]
	}
	if u := use("Consume"); u.Name != "/q" || u.Outstanding != 42 || u.Behind != 17 || u.Since.AsTime().Before(me.ConnectTime.AsTime().Add(-time.Minute)) {
		t.Errorf("%v", u)
	}
	if u := use("Subscribe"); u.Name != "/r" || u.Behind != 23 {
		t.Errorf("%v", u)
	}
	if u := use("Receive"); u.Name != "/gone" || u.Behind != 0 {
		t.Errorf("%v", u)
	}
	if len(me.Uses) != 3 {
		t.Errorf("uses %v", me.Uses)
	}
	if a := all[1]; a.Door != "attach" || a.Caller.GetUid() != 77 || a.Caller.Admin || len(a.Uses) != 1 || a.Uses[0].Method != "produce" {
		t.Errorf("of the other door: %v", a)
	}
	cancel()
	group.Wait()
	eventually(t, "the calls are over", func() bool {
		c := h.server.Clients()[0]
		return c.Calls == 0 && len(c.Uses) == 0 && c.CallsTotal == 4
	})

	// Who is nobody in particular sees itself alone.
	again := dial(t, h.tcp.Target())
	defer again.Close()
	if _, err := whoIs(t, again); err != nil {
		t.Fatal(err)
	}
	others := listClients(t, h.tcp)
	if len(others) != 1 || others[0].Caller.Kind != "anonymous" || others[0].Caller.Uid != nil || !strings.HasPrefix(others[0].RemoteAddress, "127.0.0.1:") || others[0].Door != "tcp" {
		t.Errorf("anonymous callers see %v", others)
	}
	if n := h.server.Connections(); n["unix"] != 1 || n["tcp"] != 2 {
		t.Errorf("connections %v", n)
	}
	ids := map[uint64]bool{}
	for _, c := range h.server.Clients() {
		ids[c.ID] = true
	}
	if len(ids) != 3 {
		t.Errorf("ids %v", ids)
	}
	h.unix.Close()
	eventually(t, "the client is gone", func() bool { return len(h.server.Clients()) == 2 })
}

func TestCertificatesSeeTheirOwnConnections(t *testing.T) {
	h := serveTLS(t, Options{}, nil)
	named := func(name string) *grpc.ClientConn {
		conn := h.dial(h.config(h.clients.client(t, func(c *x509.Certificate) { c.Subject.CommonName = name }).tls()))
		if _, err := whoIs(t, conn); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	a, again, _ := named("a"), named("a"), named("b")
	for _, conn := range []*grpc.ClientConn{a, again} {
		all := listClients(t, conn)
		if len(all) != 2 || all[0].Caller.Name != "CN=a,O=Works" || all[1].Caller.Name != "CN=a,O=Works" {
			t.Errorf("a sees %v", all)
		}
	}
	if all := listClients(t, h.unix); len(all) != 4 {
		t.Errorf("an admin sees %v", all)
	}
}

func TestOperatorsReloadAndSeeMetrics(t *testing.T) {
	system := &fakeSystem{reloaded: transport.Reloaded{Applied: []string{"a"}, NeedRestart: []string{"b"}, Refused: []string{"c"}}}
	h := serveOptions(t, Options{Broker: &fakeBroker{}, System: system})
	r, err := h.system.Reload(t.Context(), &ipcdv1.ReloadRequest{})
	if err != nil || !slices.Equal(r.Applied, []string{"a"}) || !slices.Equal(r.NeedRestart, []string{"b"}) || !slices.Equal(r.Refused, []string{"c"}) {
		t.Errorf("%v, %v", r, err)
	}
	system.reloadErr = reason.New(reason.ConfigInvalid, "line 3")
	_, err = h.system.Reload(t.Context(), &ipcdv1.ReloadRequest{})
	wantReason(t, err, reason.ConfigInvalid)
	m, err := h.system.GetMetrics(t.Context(), &ipcdv1.GetMetricsRequest{})
	if err != nil || string(m.Text) != "ipcd_queues 3\n" {
		t.Errorf("%v, %v", m, err)
	}
	others := ipcdv1.NewSystemServiceClient(h.tcp)
	_, err = others.Reload(t.Context(), &ipcdv1.ReloadRequest{})
	wantReason(t, err, reason.AccessDenied)
	_, err = others.GetMetrics(t.Context(), &ipcdv1.GetMetricsRequest{})
	wantReason(t, err, reason.AccessDenied)
	_, err = others.SetQuota(t.Context(), &ipcdv1.SetQuotaRequest{})
	wantReason(t, err, reason.AccessDenied)
	if n := h.logs.FilterMessageSnippet("access denied").Len(); n != 3 {
		t.Errorf("%d denials logged, want 3", n)
	}
}

func TestDaemonWithoutASystemSaysSo(t *testing.T) {
	h := serve(t, &fakeBroker{})
	_, err := h.system.Reload(t.Context(), &ipcdv1.ReloadRequest{})
	wantReason(t, err, reason.Unimplemented)
	_, err = h.system.GetMetrics(t.Context(), &ipcdv1.GetMetricsRequest{})
	wantReason(t, err, reason.Unimplemented)
	_, err = h.system.SetQuota(t.Context(), &ipcdv1.SetQuotaRequest{})
	wantReason(t, err, reason.Unimplemented)
}

// callLog is told of calls.
type callLog struct {
	mu    sync.Mutex
	calls []string
}

func (l *callLog) Call(method, code string, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took < 0 {
		code += " before it began"
	}
	l.calls = append(l.calls, method+" "+code)
}

func TestEveryCallIsObserved(t *testing.T) {
	log := new(callLog)
	h := serveOptions(t, Options{Calls: log, Broker: &fakeBroker{
		get: func(_ identity.Identity, name string) (broker.Info, error) {
			return broker.Info{}, reason.New(reason.QueueNotFound, "no")
		},
		list: func(string) ([]broker.Info, error) { return nil, nil },
		send: func(context.Context, broker.SendRequest) (queue.Stored, error) { panic("boom") },
	}})
	truncated := []byte{0x0a, 0x20, '/'}
	var answer []byte
	for _, call := range []struct {
		make func()
		want string
	}{
		{func() { _, _ = whoIs(t, h.unix) }, "ipcd.v1.SystemService/GetInfo OK"},
		{func() { _, _ = h.admin.GetQueue(t.Context(), &ipcdv1.GetQueueRequest{Name: "/q"}) }, "ipcd.v1.QueueAdminService/GetQueue NotFound"},
		{func() {
			list, _ := h.admin.ListQueues(t.Context(), &ipcdv1.ListQueuesRequest{})
			_, _ = list.Recv()
		}, "ipcd.v1.QueueAdminService/ListQueues OK"},
		{func() {
			_, _ = h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
		}, "ipcd.v1.MessageService/Send Internal"},
		{func() {
			_ = h.unix.Invoke(t.Context(), ipcdv1.MessageService_Receive_FullMethodName, &truncated, &answer, grpc.ForceCodec(rawCodec{}))
		}, "ipcd.v1.MessageService/Receive Internal"},
		{func() {
			_ = h.unix.Invoke(t.Context(), "/ipcd.v1.MessageService/Levitate", &ipcdv1.GetInfoRequest{}, &ipcdv1.GetInfoResponse{})
		}, "unknown Unimplemented"},
		{func() {
			_, _ = grpc_health_v1.NewHealthClient(h.unix).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
		}, "grpc.health.v1.Health/Check OK"},
	} {
		call.make()
		eventually(t, call.want, func() bool {
			log.mu.Lock()
			defer log.mu.Unlock()
			return slices.Contains(log.calls, call.want)
		})
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if len(log.calls) != 7 {
		t.Errorf("calls %q, want each once", log.calls)
	}
}

func TestHealthSaysWhetherTheDaemonWorks(t *testing.T) {
	h := serve(t, &fakeBroker{})
	want := func(status grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, service := range []string{"", "ipcd.v1.MessageService", "ipcd.v1.SystemService"} {
			r, err := grpc_health_v1.NewHealthClient(h.unix).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil || r.Status != status {
				t.Errorf("health of %q: %v, %v; want %v", service, r, err, status)
			}
		}
	}
	want(grpc_health_v1.HealthCheckResponse_SERVING)
	h.server.SetServing(false)
	want(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	h.server.SetServing(true)
	want(grpc_health_v1.HealthCheckResponse_SERVING)
	h.server.Drain()
	h.server.SetServing(true)
	want(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
}

// totalledRings tell their totals.
type totalledRings struct{ *fakeRings }

func (totalledRings) Totals() ring.Totals { return ring.Totals{Rings: 4, Bytes: 1234} }

func TestInfoTellsOfRings(t *testing.T) {
	h := serveRings(t, totalledRings{&fakeRings{}})
	info, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	if err != nil || info.Rings != 4 || info.RingMemoryBytes != 1234 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestLookingAroundIsNoDenial(t *testing.T) {
	var asked sync.Map
	h := serveOptions(t, Options{Broker: &fakeBroker{
		storage: broker.Storage{Damaged: []string{"/theirs"}},
		get: func(id identity.Identity, name string) (broker.Info, error) {
			asked.Store(id.Kind, true)
			return broker.Info{Name: name, Settings: queue.Settings{OwnerUID: 4711, Mode: 0o600}}, nil
		},
	}})
	stranger, err := ipcdv1.NewSystemServiceClient(h.tcp).GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	if err != nil || stranger.Storage.Damaged != 1 || len(stranger.Storage.DamagedQueues) != 0 {
		t.Errorf("a stranger is told %v, %v", stranger, err)
	}
	root, err := h.system.GetInfo(t.Context(), &ipcdv1.GetInfoRequest{})
	if err != nil || !slices.Equal(root.Storage.DamagedQueues, []string{"/theirs"}) {
		t.Errorf("an admin is told %v, %v", root, err)
	}
	if _, ok := asked.Load(identity.Anonymous); ok {
		t.Error("the broker was asked as the stranger, which it denies and logs")
	}
}
