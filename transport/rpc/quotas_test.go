package rpc

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

// me is who runs the test, to whom quotas apply since they are named.
func me() identity.Principal { return identity.User(uint32(os.Geteuid())) }

// others is what is used of connections and calls beside what a test uses: root has a few, whatever the quota.
const others = limits.QuotaOperatorMin

func quotasOfMe(l quota.Limits) *quota.Table {
	for _, r := range []quota.Resource{quota.Connections, quota.Streams} {
		if n, ok := l[r]; ok {
			l[r] = n + others
		}
	}
	t := quota.New(0, quota.Config{Of: map[identity.Principal]quota.Limits{me(): l}})
	t.Add(me(), quota.Connections, others)
	t.Add(me(), quota.Streams, others)
	return t
}

func used(t *quota.Table, r quota.Resource) int64 {
	for _, e := range t.Usage(me()).Entries {
		if e.Resource == r {
			return e.Used - others
		}
	}
	return -1
}

func TestConnectionsOverTheQuotaAreToldSo(t *testing.T) {
	const allowed, asked = 10, 50
	quotas := quotasOfMe(quota.Limits{quota.Connections: allowed})
	h := serveOptions(t, Options{Broker: &fakeBroker{}, Quotas: quotas})
	var group sync.WaitGroup
	conns := make([]*grpc.ClientConn, asked)
	errs := make([]error, asked)
	for i := range conns {
		conns[i] = dial(t, "unix://"+h.socket)
		defer conns[i].Close()
		group.Go(func() { _, errs[i] = whoIs(t, conns[i]) })
	}
	group.Wait()
	var in, out *grpc.ClientConn
	n := 0
	for i, err := range errs {
		if err == nil {
			n++
			in = conns[i]
			continue
		}
		wantReason(t, err, reason.QuotaExceeded)
		out = conns[i]
	}
	if n != allowed || used(quotas, quota.Connections) != allowed {
		t.Fatalf("%d connections got in and %d are charged, want %d", n, used(quotas, quota.Connections), allowed)
	}
	eventually(t, "the refused ones are closed", func() bool { return h.server.Connections()["unix"] == allowed })
	if out.GetState() == connectivity.Ready {
		eventually(t, "the client knows", func() bool { return out.GetState() != connectivity.Ready })
	}
	in.Close()
	eventually(t, "the closed one is given back", func() bool { return used(quotas, quota.Connections) == allowed-1 })
	if _, err := whoIs(t, out); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func TestRefusedConnectionsAreBounded(t *testing.T) {
	quotas := quotasOfMe(quota.Limits{quota.Connections: 0})
	conns := newConnections(quotas, func(identity.Identity) bool { return false })
	var all []*connection
	for i := range 200 {
		c := conns.enter(nopConn{}, doorUnix, zeroTime)
		all = append(all, c)
		if err := conns.identify(c, identity.Identity{Kind: identity.Unix, UID: me().UID}, nil); (err == nil) != (i < 64) {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	for _, c := range all {
		c.Close()
		c.Close() // as gRPC does
	}
	if conns.refused != 0 || conns.charged != 0 || len(conns.all) != 0 {
		t.Errorf("left: %d refused, %d charged, %d in all", conns.refused, conns.charged, len(conns.all))
	}
}

func TestLimitOfAllConnectionsLetsAdminsIn(t *testing.T) {
	conns := newConnections(nil, identity.Identity.IsRoot)
	conns.charged = 8192
	user, root := conns.enter(nopConn{}, doorUnix, zeroTime), conns.enter(nopConn{}, doorUnix, zeroTime)
	defer user.Close()
	defer root.Close()
	if err := conns.identify(user, identity.Identity{Kind: identity.Unix, UID: 1}, nil); err != nil || user.refused == nil {
		t.Errorf("a user: %v, refused with %v", err, user.refused)
	}
	wantReason(t, user.refused, reason.QuotaExceeded)
	if err := conns.identify(root, identity.Identity{Kind: identity.Unix}, nil); err != nil || root.refused != nil {
		t.Errorf("root: %v, refused with %v", err, root.refused)
	}
}

func TestCallsOverTheQuotaAreRefusedExactly(t *testing.T) {
	const allowed, asked = 5, 40
	quotas := quotasOfMe(quota.Limits{quota.Streams: allowed})
	release := make(chan struct{})
	var reached atomic.Int64
	h := serveOptions(t, Options{Quotas: quotas, Broker: &fakeBroker{send: func(context.Context, broker.SendRequest) (queue.Stored, error) {
		reached.Add(1)
		<-release
		return queue.Stored{First: 1, Count: 1}, nil
	}}})
	conns := make([]*grpc.ClientConn, 4)
	for i := range conns {
		conns[i] = dial(t, "unix://"+h.socket)
		defer conns[i].Close()
	}
	errs := make(chan error, asked)
	for i := range asked {
		go func() {
			_, err := ipcdv1.NewMessageServiceClient(conns[i%len(conns)]).Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
			errs <- err
		}()
	}
	for range asked - allowed {
		wantReason(t, <-errs, reason.QuotaExceeded)
	}
	eventually(t, "the others have come through", func() bool { return reached.Load() == allowed })
	close(release)
	for range allowed {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := reached.Load(); got != allowed {
		t.Errorf("%d calls reached the broker, want %d", got, allowed)
	}
	eventually(t, "all is given back", func() bool { return used(quotas, quota.Streams) == 0 })
}

func TestStreamsAreGivenBackHoweverTheyEnd(t *testing.T) {
	quotas := quotasOfMe(quota.Limits{quota.Streams: 2})
	consumers := make(chan *fakeConsumer, 10)
	h := serveOptions(t, Options{Quotas: quotas, Broker: &fakeBroker{
		send: func(context.Context, broker.SendRequest) (queue.Stored, error) { panic("boom") },
		list: func(string) ([]broker.Info, error) { panic("boom") },
		consume: func(broker.ConsumeRequest) (transport.Consumer, error) {
			c := newFakeConsumer()
			consumers <- c
			return c, nil
		},
	}})
	back := func(what string) {
		t.Helper()
		eventually(t, what+" is given back", func() bool { return used(quotas, quota.Streams) == 0 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		stream, err := h.messages.Consume(ctx)
		if err != nil {
			t.Fatal(err)
		}
		openConsume(t, stream, &ipcdv1.ConsumeOpen{Queue: "/q"})
	}
	third, err := h.messages.Consume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = third.Recv()
	wantReason(t, err, reason.QuotaExceeded)
	// A call over the quota is refused before its request is read: this one is none.
	truncated := []byte{0x0a, 0x20, '/'}
	var answer []byte
	err = h.unix.Invoke(t.Context(), ipcdv1.MessageService_Send_FullMethodName, &truncated, &answer, grpc.ForceCodec(rawCodec{}))
	wantReason(t, err, reason.QuotaExceeded)
	cancel()
	back("a reset stream")

	if err = h.unix.Invoke(t.Context(), ipcdv1.MessageService_Send_FullMethodName, &truncated, &answer, grpc.ForceCodec(rawCodec{})); status.Code(err) != codes.Internal {
		t.Errorf("a request that is none: %v", err)
	}
	back("a malformed request")
	_, err = h.messages.Send(t.Context(), &ipcdv1.SendRequest{Queue: "/q", Messages: []*ipcdv1.Message{{}}})
	wantReason(t, err, reason.Internal)
	back("a call that panicked")
	list, err := h.admin.ListQueues(t.Context(), &ipcdv1.ListQueuesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = list.Recv()
	wantReason(t, err, reason.Internal)
	back("a stream that panicked")
	_ = h.unix.Invoke(t.Context(), "/ipcd.v1.MessageService/Levitate", &ipcdv1.GetInfoRequest{}, &ipcdv1.GetInfoResponse{})
	back("an unknown method")

	stream, err := h.messages.Consume(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	openConsume(t, stream, &ipcdv1.ConsumeOpen{Queue: "/q"})
	h.unix.Close()
	back("a connection that closed")
	eventually(t, "and the connection", func() bool { return used(quotas, quota.Connections) == 0 })
}

func TestRapidResetsAreGivenBack(t *testing.T) {
	quotas := quotasOfMe(quota.Limits{quota.Streams: 64})
	var under, most atomic.Int64
	h := serveOptions(t, Options{Quotas: quotas, Broker: &fakeBroker{receive: func(ctx context.Context, _ broker.ReceiveRequest) ([]queue.Delivery, error) {
		n := under.Add(1)
		defer under.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}}})
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 250 {
				ctx, cancel := context.WithCancel(t.Context())
				stream, err := h.unix.NewStream(ctx, &grpc.StreamDesc{}, ipcdv1.MessageService_Receive_FullMethodName)
				if err == nil {
					_ = stream.SendMsg(&ipcdv1.ReceiveRequest{Queue: "/q"})
				}
				cancel()
			}
		})
	}
	group.Wait()
	eventually(t, "all is given back", func() bool { return used(quotas, quota.Streams) == 0 && under.Load() == 0 })
	if most.Load() > 64 {
		t.Errorf("%d calls at once, the quota is 64", most.Load())
	}
	if _, err := whoIs(t, h.unix); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestQuotasAreShownAndSet(t *testing.T) {
	quotas := quota.New(0, quota.Config{Of: map[identity.Principal]quota.Limits{me(): {quota.Streams: 100}}})
	h := serveOptions(t, Options{Broker: &fakeBroker{}, Quotas: quotas})
	eleven := &ipcdv1.Principal{Kind: &ipcdv1.Principal_Uid{Uid: 11}}
	r, err := h.system.SetQuota(t.Context(), &ipcdv1.SetQuotaRequest{Principal: eleven, Limits: map[string]int64{"queues": 3, "queued_bytes": 0}, Unlimited: []string{"rings"}})
	if err != nil {
		t.Fatal(err)
	}
	want := func(quotas []*ipcdv1.Quota, resource string, limit int64, source string) {
		t.Helper()
		i := slices.IndexFunc(quotas, func(q *ipcdv1.Quota) bool { return q.Resource == resource })
		if i < 0 || quotas[i].Source != source || (quotas[i].Limit == nil) != (limit < 0) || quotas[i].Limit != nil && *quotas[i].Limit != limit {
			t.Errorf("%s: %v, want %d by %s", resource, quotas, limit, source)
		}
	}
	want(r.Quotas, "queues", 3, "set")
	want(r.Quotas, "queued_bytes", 0, "set")
	want(r.Quotas, "rings", -1, "set")
	want(r.Quotas, "streams", 1024, "default")
	if r, err = h.system.SetQuota(t.Context(), &ipcdv1.SetQuotaRequest{Principal: eleven, Reset_: []string{"rings", "queued_bytes"}}); err != nil {
		t.Fatal(err)
	}
	want(r.Quotas, "queues", 3, "set")
	want(r.Quotas, "rings", 64, "default")

	all := listQuotas(t, h.unix)
	if len(all) != 2 || all[0].Principal.GetUid() != me().UID || all[1].Principal.GetUid() != 11 {
		t.Fatalf("listed %v", all)
	}
	want(all[0].Quotas, "streams", 100, "config")
	for _, q := range all[0].Quotas {
		if q.Resource == "connections" && q.Used != 1 || q.Resource == "streams" && q.Used != 1 {
			t.Errorf("used %v", q)
		}
	}
	others := listQuotas(t, h.tcp)
	if len(others) != 1 || !others[0].Principal.GetAnonymous() {
		t.Errorf("anonymous callers see %v", others)
	}

	for _, bad := range []struct {
		request *ipcdv1.SetQuotaRequest
		field   string
	}{
		{&ipcdv1.SetQuotaRequest{Limits: map[string]int64{"queues": 1}}, "principal"},
		{&ipcdv1.SetQuotaRequest{Principal: &ipcdv1.Principal{Kind: &ipcdv1.Principal_Anonymous{}}, Limits: map[string]int64{"queues": 1}}, "principal"},
		{&ipcdv1.SetQuotaRequest{Principal: &ipcdv1.Principal{Kind: &ipcdv1.Principal_Certificate{}}, Limits: map[string]int64{"queues": 1}}, "principal.certificate"},
		{&ipcdv1.SetQuotaRequest{Principal: eleven}, "limits"},
		{&ipcdv1.SetQuotaRequest{Principal: eleven, Limits: map[string]int64{"queues": -1}}, "limits"},
		{&ipcdv1.SetQuotaRequest{Principal: eleven, Limits: map[string]int64{"quacks": 1}}, "limits"},
		{&ipcdv1.SetQuotaRequest{Principal: eleven, Unlimited: []string{"quacks"}}, "unlimited"},
		{&ipcdv1.SetQuotaRequest{Principal: eleven, Unlimited: []string{"rings", "rings"}}, "unlimited"},
		{&ipcdv1.SetQuotaRequest{Principal: eleven, Limits: map[string]int64{"queues": 1}, Reset_: []string{"queues"}}, "reset"},
		{&ipcdv1.SetQuotaRequest{Principal: eleven, Reset_: []string{""}}, "reset"},
	} {
		_, err := h.system.SetQuota(t.Context(), bad.request)
		wantInvalid(t, err, bad.field)
	}
	for _, u := range listQuotas(t, h.unix) {
		if u.Principal.GetUid() == 11 {
			want(u.Quotas, "queues", 3, "set")
		}
	}
}

func listQuotas(t *testing.T, conn grpc.ClientConnInterface) (all []*ipcdv1.ListQuotasResponse) {
	t.Helper()
	stream, err := ipcdv1.NewSystemServiceClient(conn).ListQuotas(t.Context(), &ipcdv1.ListQuotasRequest{})
	for err == nil {
		var r *ipcdv1.ListQuotasResponse
		if r, err = stream.Recv(); err == nil {
			all = append(all, r)
		}
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return all
}
