package client

import (
	"context"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// connectedAt is when the fake's other clients connected.
var connectedAt = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

func (f *fake) Reload(context.Context, *ipcdv1.ReloadRequest) (*ipcdv1.ReloadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mistake != nil {
		return nil, statusOf(f.mistake)
	}
	return &ipcdv1.ReloadResponse{
		Applied: []string{"log_level", "queues./jobs"}, NeedRestart: []string{"state_dir"}, Refused: []string{"rings./ticks: policy: it is settled when a ring is made"},
	}, nil
}

func (f *fake) GetMetrics(context.Context, *ipcdv1.GetMetricsRequest) (*ipcdv1.GetMetricsResponse, error) {
	return &ipcdv1.GetMetricsResponse{Text: []byte("ipcd_up 1\n")}, nil
}

func (f *fake) ListClients(_ *ipcdv1.ListClientsRequest, s grpc.ServerStreamingServer[ipcdv1.ListClientsResponse]) error {
	for _, c := range []*ipcdv1.ClientConnection{
		{Id: 3, Door: "unix", Caller: &ipcdv1.Caller{Kind: "unix", Uid: new(uint32(7)), Gid: new(uint32(8)), Pid: 42}, Command: "worker", ConnectTime: timestamppb.New(connectedAt),
			Uses:  []*ipcdv1.ClientUse{{Method: "Consume", Name: "/jobs", Since: timestamppb.New(connectedAt), Outstanding: 4, Behind: 5}},
			Calls: 2, CallsTotal: 6, UserAgent: "worker/1"},
		{Id: 4, Door: "tcp", Caller: &ipcdv1.Caller{Kind: "certificate", Name: "spiffe://example.org/a"}, RemoteAddress: "192.0.2.1:7"},
	} {
		if err := s.Send(&ipcdv1.ListClientsResponse{Client: c}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) quotas() []*ipcdv1.Quota {
	f.mu.Lock()
	defer f.mu.Unlock()
	quotas := []*ipcdv1.Quota{{Resource: "streams", Used: 3, Source: "exempt"}}
	for _, resource := range slices.Sorted(maps.Keys(f.limits)) {
		quotas = append(quotas, &ipcdv1.Quota{Resource: resource, Used: 1, Limit: new(f.limits[resource]), Source: "set"})
	}
	return quotas
}

func (f *fake) ListQuotas(_ *ipcdv1.ListQuotasRequest, s grpc.ServerStreamingServer[ipcdv1.ListQuotasResponse]) error {
	for _, p := range []*ipcdv1.Principal{
		{Kind: &ipcdv1.Principal_Uid{Uid: 7}}, {Kind: &ipcdv1.Principal_Certificate{Certificate: "CN=a"}}, {Kind: &ipcdv1.Principal_Anonymous{Anonymous: true}},
	} {
		if err := s.Send(&ipcdv1.ListQuotasResponse{Principal: p, Quotas: f.quotas()}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) SetQuota(_ context.Context, r *ipcdv1.SetQuotaRequest) (*ipcdv1.SetQuotaResponse, error) {
	f.note("set quota %v limits %v unlimited %v reset %v", principalOf(r.GetPrincipal()), r.GetLimits(), r.GetUnlimited(), r.GetReset_())
	f.mu.Lock()
	f.limits = r.GetLimits()
	f.mu.Unlock()
	return &ipcdv1.SetQuotaResponse{Quotas: f.quotas()}, nil
}
