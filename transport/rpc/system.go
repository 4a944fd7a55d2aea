package rpc

import (
	"context"
	"os"
	"runtime"

	"google.golang.org/protobuf/types/known/timestamppb"

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
	}, nil
}
