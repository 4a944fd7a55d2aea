package rpc

import (
	"google.golang.org/grpc"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// OpenTemporaryQueue keeps a queue for as long as the call lasts. While the daemon drains, answers may still come to it.
func (s queueAdmin) OpenTemporaryQueue(r *ipcdv1.OpenTemporaryQueueRequest, stream grpc.ServerStreamingServer[ipcdv1.OpenTemporaryQueueResponse]) error {
	ctx := stream.Context()
	if s.closing.Err() != nil {
		return shuttingDown()
	}
	info, end, err := s.broker.OpenTemporary(ctx, callerFrom(ctx), createEdit(r.Settings))
	if err != nil {
		return err
	}
	defer end()
	callOf(ctx).on(info.Name)
	if err := stream.Send(&ipcdv1.OpenTemporaryQueueResponse{Queue: encodeQueue(info, s.now())}); err != nil {
		return streamEnded{err}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing.Done():
		return shuttingDown()
	}
}
