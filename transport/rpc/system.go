package rpc

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// system serves ipcd.v1.SystemService.
type system struct {
	ipcdv1.UnimplementedSystemServiceServer
	*Server
}

func (s system) GetInfo(ctx context.Context, _ *ipcdv1.GetInfoRequest) (*ipcdv1.GetInfoResponse, error) {
	totals, caller := s.broker.Totals(), callerFrom(ctx)
	out := &ipcdv1.GetInfoResponse{
		Version:   s.version,
		Instance:  s.broker.Instance(),
		Pid:       int32(os.Getpid()),
		StartTime: timestamppb.New(s.started),
		StateDir:  s.stateDir,
		Addresses: s.addresses,
		Queues:    uint64(totals.Queues),
		Messages:  uint64(totals.Messages),
		Bytes:     uint64(totals.Bytes),
		Caller:    s.encodeCaller(caller),
		GoVersion: runtime.Version(),
		Storage:   s.storage(ctx, caller),

		AttachSocket: s.attachSocket,

		TemporaryQueues:  uint64(totals.Temporary),
		LateRepliesTotal: totals.LateReplies,
	}
	if rings, ok := s.rings.(ringTotals); ok {
		t := rings.Totals()
		out.Rings, out.RingMemoryBytes = uint64(t.Rings), uint64(t.Bytes)
	}
	return out, nil
}

// ringTotals is what rings tell of themselves, if they do.
type ringTotals interface{ Totals() ring.Totals }

func (s *Server) encodeCaller(id identity.Identity) *ipcdv1.Caller {
	out := &ipcdv1.Caller{Kind: id.Kind.String(), Groups: id.Groups, Pid: id.PID, Name: id.Name, Admin: s.access.Admin(id)}
	if _, ok := id.User(); ok {
		out.Uid, out.Gid = &id.UID, &id.GID
	}
	return out
}

// Reload has the configuration read again.
func (s system) Reload(ctx context.Context, _ *ipcdv1.ReloadRequest) (*ipcdv1.ReloadResponse, error) {
	if err := s.access.CheckAdmin(callerFrom(ctx), "reload the configuration"); err != nil {
		return nil, err
	}
	if s.Server.system == nil {
		return nil, s.without("configuration to reload")
	}
	r, err := s.Server.system.Reload(ctx)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.ReloadResponse{Applied: r.Applied, NeedRestart: r.NeedRestart, Refused: r.Refused, Warnings: r.Warnings}, nil
}

// GetMetrics returns all metrics.
func (s system) GetMetrics(ctx context.Context, _ *ipcdv1.GetMetricsRequest) (*ipcdv1.GetMetricsResponse, error) {
	if err := s.access.CheckAdmin(callerFrom(ctx), "see the metrics"); err != nil {
		return nil, err
	}
	if s.Server.system == nil {
		return nil, s.without("metrics")
	}
	var text bytes.Buffer
	if err := s.Server.system.WriteMetrics(&text); err != nil {
		return nil, err
	}
	return &ipcdv1.GetMetricsResponse{Text: text.Bytes()}, nil
}

// without answers for a daemon that was put together without something.
func (s *Server) without(what string) error {
	return reason.New(reason.Unimplemented, "this daemon has no %s", what)
}

func (s system) storage(ctx context.Context, caller identity.Identity) *ipcdv1.Storage {
	from := s.broker.Storage()
	out := &ipcdv1.Storage{
		Durable:       from.Durable,
		Segments:      uint32(from.Segments),
		UsedBytes:     uint64(from.UsedBytes),
		DiskBytes:     uint64(from.DiskBytes),
		LiveBytes:     uint64(from.LiveBytes),
		MemoryBytes:   uint64(from.MemoryBytes),
		CommitsTotal:  from.Commits,
		SyncTimeTotal: durationpb.New(time.Duration(from.SyncNanos)),
		SyncTimeMax:   durationpb.New(time.Duration(from.SyncMaxNanos)),
		Full:          from.Full,
		Damaged:       uint32(len(from.Damaged)),
		Damage:        from.Damage,
	}
	// Everybody may call GetInfo; which queues there are is told only to those who may look at them.
	for _, name := range from.Damaged {
		if _, may := s.shown(ctx, caller, name); may {
			out.DamagedQueues = append(out.DamagedQueues, name)
		}
	}
	return out
}
