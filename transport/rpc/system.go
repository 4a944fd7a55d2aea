package rpc

import (
	"context"
	"os"
	"runtime"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/identity"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// system serves ipcd.v1.SystemService.
type system struct {
	ipcdv1.UnimplementedSystemServiceServer
	*Server
}

func (s system) GetInfo(ctx context.Context, _ *ipcdv1.GetInfoRequest) (*ipcdv1.GetInfoResponse, error) {
	totals, caller := s.broker.Totals(), callerFrom(ctx)
	return &ipcdv1.GetInfoResponse{
		Version:   s.version,
		Instance:  s.broker.Instance(),
		Pid:       int32(os.Getpid()),
		StartTime: timestamppb.New(s.started),
		StateDir:  s.stateDir,
		Addresses: s.addresses,
		Queues:    uint64(totals.Queues),
		Messages:  uint64(totals.Messages),
		Bytes:     uint64(totals.Bytes),
		Caller:    &ipcdv1.Caller{Kind: caller.Kind.String(), Uid: caller.UID, Gid: caller.GID, Groups: caller.Groups, Pid: caller.PID},
		GoVersion: runtime.Version(),
		Storage:   s.storage(ctx, caller),

		AttachSocket: s.attachSocket,
	}, nil
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
	}
	// Everybody may call GetInfo; which queues there are is told only to those who may look at them.
	for _, name := range from.Damaged {
		if _, err := s.broker.GetQueue(ctx, caller, name); err == nil {
			out.DamagedQueues = append(out.DamagedQueues, name)
		}
	}
	return out
}
