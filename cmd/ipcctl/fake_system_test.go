package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// someInfo has something of everything.
func someInfo() *ipcdv1.GetInfoResponse {
	return &ipcdv1.GetInfoResponse{
		Version: "v1.2.3", Instance: "i1", Pid: 42, StartTime: timestamppb.New(sentAt), StateDir: "/var/lib/ipcd",
		Addresses: []string{"unix:///run/ipcd/ipcd.sock"}, AttachSocket: "/run/ipcd/attach.sock", Queues: 2, Messages: 3, Bytes: 4096, GoVersion: "go1.26",
		Caller: &ipcdv1.Caller{Kind: "unix", Uid: proto.Uint32(4000000001), Gid: proto.Uint32(4000000002), Pid: 7, Admin: true}, Rings: 2, RingMemoryBytes: 8192,
		TemporaryQueues: 1, LateRepliesTotal: 4,
		Storage: &ipcdv1.Storage{Durable: true, Segments: 3, UsedBytes: 64 << 20, DiskBytes: 96 << 20, LiveBytes: 1024, MemoryBytes: 2048, CommitsTotal: 4,
			SyncTimeTotal: durationpb.New(time.Millisecond), SyncTimeMax: durationpb.New(500 * time.Microsecond), Full: true, Damaged: 2, DamagedQueues: []string{"/bad"}},
	}
}

func (f *fake) GetInfo(ctx context.Context, _ *ipcdv1.GetInfoRequest) (*ipcdv1.GetInfoResponse, error) {
	f.mu.Lock()
	info, err := f.info, f.failInfo
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if info == nil { // it hangs
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return info, nil
}

func (f *fake) Reload(_ context.Context, r *ipcdv1.ReloadRequest) (*ipcdv1.ReloadResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	if f.reload == nil {
		return nil, refuse(reason.AccessDenied, "only admins may")
	}
	return f.reload()
}

func (f *fake) GetMetrics(context.Context, *ipcdv1.GetMetricsRequest) (*ipcdv1.GetMetricsResponse, error) {
	return &ipcdv1.GetMetricsResponse{Text: []byte("ipcd_queue_ready{queue=\"/a\u202eb\"} 1\n")}, nil
}

func (f *fake) ListClients(_ *ipcdv1.ListClientsRequest, s grpc.ServerStreamingServer[ipcdv1.ListClientsResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.clients {
		if err := s.Send(&ipcdv1.ListClientsResponse{Client: c}); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) ListQuotas(_ *ipcdv1.ListQuotasRequest, s grpc.ServerStreamingServer[ipcdv1.ListQuotasResponse]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.quotas {
		if err := s.Send(q); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) SetQuota(_ context.Context, r *ipcdv1.SetQuotaRequest) (*ipcdv1.SetQuotaResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
	response := new(ipcdv1.SetQuotaResponse)
	for _, resource := range []string{"queues", "rings", "queued_bytes", "connections", "streams", "receivers"} {
		q := &ipcdv1.Quota{Resource: resource, Used: 2, Limit: proto.Int64(2048), Source: "default"}
		if limit, set := r.Limits[resource]; set {
			q.Limit, q.Source = &limit, "set"
		}
		for _, unlimited := range r.Unlimited {
			if unlimited == resource {
				q.Limit, q.Source = nil, "set"
			}
		}
		response.Quotas = append(response.Quotas, q)
	}
	return response, nil
}
