package rpc

import (
	"context"

	"github.com/ipcd/ipcd/broker"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func (s queueAdmin) MoveMessages(ctx context.Context, r *ipcdv1.MoveMessagesRequest) (*ipcdv1.MoveMessagesResponse, error) {
	filter, err := decodeFilter(r.Filter, s.now())
	if err != nil {
		return nil, onQueue(err, r.Source)
	}
	limit, err := decodeCount("limit", r.Limit)
	if err != nil {
		return nil, onQueue(err, r.Source)
	}
	messages, cursor, err := s.broker.Move(ctx, callerFrom(ctx), broker.MoveRequest{
		From: r.Source, To: r.Destination, Filter: filter, Max: limit, DryRun: r.DryRun, Cursor: r.Cursor,
	})
	if err != nil {
		return nil, err
	}
	return &ipcdv1.MoveMessagesResponse{Messages: uint64(messages), Cursor: cursor}, nil
}

func (s queueAdmin) RedriveMessages(ctx context.Context, r *ipcdv1.RedriveMessagesRequest) (*ipcdv1.RedriveMessagesResponse, error) {
	filter, err := decodeFilter(r.Filter, s.now())
	if err != nil {
		return nil, onQueue(err, r.Name)
	}
	limit, err := decodeCount("limit", r.Limit)
	if err != nil {
		return nil, onQueue(err, r.Name)
	}
	redriven, err := s.broker.Redrive(ctx, callerFrom(ctx), broker.RedriveRequest{Queue: r.Name, Filter: filter, Max: limit, DryRun: r.DryRun})
	if err != nil {
		return nil, err
	}
	response := &ipcdv1.RedriveMessagesResponse{Redriven: make([]*ipcdv1.Redriven, len(redriven))}
	for i, one := range redriven {
		response.Redriven[i] = &ipcdv1.Redriven{Queue: one.Queue, Messages: uint64(one.Messages)}
		if one.Err != nil {
			response.Redriven[i].Error = s.toError(ipcdv1.QueueAdminService_RedriveMessages_FullMethodName, one.Err)
		}
	}
	return response, nil
}
