package rpc

import (
	"context"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/broker"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// queueAdmin serves ipcd.v1.QueueAdminService.
type queueAdmin struct {
	ipcdv1.UnimplementedQueueAdminServiceServer
	*Server
}

func (s queueAdmin) CreateQueue(ctx context.Context, r *ipcdv1.CreateQueueRequest) (*ipcdv1.CreateQueueResponse, error) {
	info, created, err := s.broker.CreateQueue(ctx, callerFrom(ctx), r.Name, createEdit(r.Settings), r.Exclusive)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.CreateQueueResponse{Queue: encodeQueue(info, s.now()), Created: created}, nil
}

func (s queueAdmin) GetQueue(ctx context.Context, r *ipcdv1.GetQueueRequest) (*ipcdv1.GetQueueResponse, error) {
	info, err := s.broker.GetQueue(ctx, callerFrom(ctx), r.Name)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.GetQueueResponse{Queue: encodeQueue(info, s.now())}, nil
}

func (s queueAdmin) UpdateQueue(ctx context.Context, r *ipcdv1.UpdateQueueRequest) (*ipcdv1.UpdateQueueResponse, error) {
	caller := callerFrom(ctx)
	edit, err := updateEdit(r.Settings, r.UpdateMask, caller)
	if err != nil {
		return nil, err
	}
	info, err := s.broker.UpdateQueue(ctx, caller, r.Name, edit)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.UpdateQueueResponse{Queue: encodeQueue(info, s.now())}, nil
}

func (s queueAdmin) DeleteQueue(ctx context.Context, r *ipcdv1.DeleteQueueRequest) (*ipcdv1.DeleteQueueResponse, error) {
	messages, err := s.broker.DeleteQueue(ctx, callerFrom(ctx), r.Name)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.DeleteQueueResponse{Messages: uint64(messages)}, nil
}

func (s queueAdmin) ListQueues(r *ipcdv1.ListQueuesRequest, stream grpc.ServerStreamingServer[ipcdv1.ListQueuesResponse]) error {
	ctx := stream.Context()
	infos, err := s.broker.ListQueues(ctx, callerFrom(ctx), r.Glob)
	if err != nil {
		return err
	}
	now := s.now()
	for _, info := range infos {
		if err := stream.Send(&ipcdv1.ListQueuesResponse{Queue: encodeQueue(info, now)}); err != nil {
			return streamEnded{err}
		}
	}
	return nil
}

func (s queueAdmin) PauseQueue(ctx context.Context, r *ipcdv1.PauseQueueRequest) (*ipcdv1.PauseQueueResponse, error) {
	info, err := s.broker.PauseQueue(ctx, callerFrom(ctx), r.Name, true)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.PauseQueueResponse{Queue: encodeQueue(info, s.now())}, nil
}

func (s queueAdmin) ResumeQueue(ctx context.Context, r *ipcdv1.ResumeQueueRequest) (*ipcdv1.ResumeQueueResponse, error) {
	info, err := s.broker.PauseQueue(ctx, callerFrom(ctx), r.Name, false)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.ResumeQueueResponse{Queue: encodeQueue(info, s.now())}, nil
}

func (s queueAdmin) PurgeQueue(ctx context.Context, r *ipcdv1.PurgeQueueRequest) (*ipcdv1.PurgeQueueResponse, error) {
	request, err := s.decodeSelect(r)
	if err != nil {
		return nil, err
	}
	messages, cursor, err := s.broker.Purge(ctx, callerFrom(ctx), request)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.PurgeQueueResponse{Messages: uint64(messages), Cursor: cursor}, nil
}

func (s queueAdmin) KickMessages(ctx context.Context, r *ipcdv1.KickMessagesRequest) (*ipcdv1.KickMessagesResponse, error) {
	request, err := s.decodeSelect(r)
	if err != nil {
		return nil, err
	}
	messages, cursor, err := s.broker.Kick(ctx, callerFrom(ctx), request)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.KickMessagesResponse{Messages: uint64(messages), Cursor: cursor}, nil
}

// selectRequest is what PurgeQueueRequest and KickMessagesRequest have in common.
type selectRequest interface {
	GetName() string
	GetFilter() *ipcdv1.Filter
	GetLimit() uint64
	GetDryRun() bool
	GetCursor() string
}

func (s *Server) decodeSelect(r selectRequest) (out broker.SelectRequest, err error) {
	out = broker.SelectRequest{Queue: r.GetName(), DryRun: r.GetDryRun(), Cursor: r.GetCursor()}
	if out.Filter, err = decodeFilter(r.GetFilter(), s.now()); err != nil {
		return out, err
	}
	out.Max, err = decodeCount("limit", r.GetLimit())
	return out, err
}
