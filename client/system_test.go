package client

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/ipcd/ipcd/internal/reason"
)

func TestInfoTellsOfRingsAndOfTheCaller(t *testing.T) {
	info, err := startFake(t).dial(t).Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Rings != 2 || info.RingMemoryBytes != 4096 {
		t.Errorf("%d rings, %d bytes", info.Rings, info.RingMemoryBytes)
	}
	if want := (Caller{Kind: "unix", User: true, UID: 7, GID: 8, Groups: []uint32{9}, PID: 10, Admin: true}); !reflect.DeepEqual(info.Caller, want) {
		t.Errorf("%+v, want %+v", info.Caller, want)
	}
}

func TestHealthIsWhatTheDaemonSays(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	if err := c.CheckHealth(t.Context()); err != nil {
		t.Error(err)
	}
	f.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	if err := c.CheckHealth(t.Context()); !errors.Is(err, ErrUnhealthy) || !strings.Contains(err.Error(), "NOT_SERVING") {
		t.Errorf("%v, want ErrUnhealthy", err)
	}
	f.stop()
	if err := c.CheckHealth(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v, want ErrUnreachable", err)
	}
}

func TestReloadTellsWhatCameOfIt(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	r, err := c.Reload(t.Context())
	if err != nil || len(r.Applied) != 2 || !slices.Equal(r.NeedRestart, []string{"state_dir"}) || len(r.Refused) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	f.mu.Lock()
	f.mistake = reason.New(reason.ConfigInvalid, "/etc/ipcd/ipcd.yaml:3: no such key")
	f.mu.Unlock()
	if _, err := c.Reload(t.Context()); !errors.Is(err, ErrConfigInvalid) || err.Error() != "/etc/ipcd/ipcd.yaml:3: no such key" {
		t.Errorf("%v, want ErrConfigInvalid", err)
	}
}

func TestMetricsAreWhatTheDaemonWrites(t *testing.T) {
	text, err := startFake(t).dial(t).Metrics(t.Context())
	if err != nil || string(text) != "ipcd_up 1\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestClientsListsConnections(t *testing.T) {
	var all []ClientConnection
	for c, err := range startFake(t).dial(t).Clients(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	at := connectedAt.Local()
	want := []ClientConnection{
		{ID: 3, Door: "unix", Caller: Caller{Kind: "unix", User: true, UID: 7, GID: 8, PID: 42}, Command: "worker", ConnectedAt: at,
			Uses:  []ClientUse{{Method: "Consume", Name: "/jobs", Since: at, Outstanding: 4, Behind: 5}},
			Calls: 2, CallsTotal: 6, UserAgent: "worker/1"},
		{ID: 4, Door: "tcp", Caller: Caller{Kind: "certificate", Name: "spiffe://example.org/a"}, RemoteAddress: "192.0.2.1:7"},
	}
	if !reflect.DeepEqual(all, want) {
		t.Errorf("%+v\nwant %+v", all, want)
	}
}

func TestQuotasListsWhoUsesWhat(t *testing.T) {
	f := startFake(t)
	f.limits = map[string]int64{"queues": 10}
	var who []Principal
	for q, err := range f.dial(t).Quotas(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		who = append(who, q.Who)
		if want := []Quota{{"streams", 3, Unlimited, "exempt"}, {"queues", 1, 10, "set"}}; !slices.Equal(q.Quotas, want) {
			t.Errorf("%v: %v, want %v", q.Who, q.Quotas, want)
		}
	}
	if !slices.Equal(who, []Principal{User(7), Certificate("CN=a"), Anonymous()}) {
		t.Errorf("%v", who)
	}
}

func TestAListThatFailsSaysSo(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	f.stop()
	for _, err := range c.Clients(t.Context()) {
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("clients: %v", err)
		}
	}
	for _, err := range c.Quotas(t.Context()) {
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("quotas: %v", err)
		}
	}
}

func TestSetQuotaTellsLimitsFromNone(t *testing.T) {
	f := startFake(t)
	c := f.dial(t)
	q, err := c.SetQuota(t.Context(), Certificate("CN=a"), QuotaChange{
		Limits: map[string]int64{ResourceQueues: 0, ResourceStreams: Unlimited, ResourceReceivers: Unlimited}, Reset: []string{ResourceRings}})
	if err != nil || q.Who != Certificate("CN=a") || len(q.Quotas) != 2 || q.Quotas[1] != (Quota{"queues", 1, 0, "set"}) {
		t.Errorf("%v, %v", q, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if want := `set quota certificate "CN=a" limits map[queues:0] unlimited [receivers streams] reset [rings]`; !slices.Contains(f.seen, want) {
		t.Errorf("%q, want %q", f.seen, want)
	}
	if _, err := c.SetQuota(t.Context(), Principal{}, QuotaChange{}); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("nobody: %v", err)
	}
}
