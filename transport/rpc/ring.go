package rpc

import (
	"context"

	"google.golang.org/grpc"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// ringService serves ipcd.v1.RingService.
type ringService struct {
	ipcdv1.UnimplementedRingServiceServer
	*Server
}

func (s ringService) CreateRing(ctx context.Context, r *ipcdv1.CreateRingRequest) (*ipcdv1.CreateRingResponse, error) {
	info, created, err := s.rings.Create(ctx, callerFrom(ctx), r.Name, ringFields.create(r.Settings), r.Exclusive)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.CreateRingResponse{Ring: encodeRing(&info), Created: created}, nil
}

func (s ringService) GetRing(ctx context.Context, r *ipcdv1.GetRingRequest) (*ipcdv1.GetRingResponse, error) {
	info, err := s.rings.Get(ctx, callerFrom(ctx), r.Name)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.GetRingResponse{Ring: encodeRing(&info)}, nil
}

func (s ringService) UpdateRing(ctx context.Context, r *ipcdv1.UpdateRingRequest) (*ipcdv1.UpdateRingResponse, error) {
	caller := callerFrom(ctx)
	edit, err := updateRingEdit(r.Settings, r.UpdateMask, caller)
	if err != nil {
		return nil, onQueue(err, r.Name)
	}
	info, err := s.rings.Update(ctx, caller, r.Name, edit)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.UpdateRingResponse{Ring: encodeRing(&info)}, nil
}

func (s ringService) DeleteRing(ctx context.Context, r *ipcdv1.DeleteRingRequest) (*ipcdv1.DeleteRingResponse, error) {
	members, err := s.rings.Delete(ctx, callerFrom(ctx), r.Name)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.DeleteRingResponse{Members: uint32(members)}, nil
}

func (s ringService) ListRings(r *ipcdv1.ListRingsRequest, stream grpc.ServerStreamingServer[ipcdv1.ListRingsResponse]) error {
	ctx := stream.Context()
	infos, err := s.rings.List(ctx, callerFrom(ctx), r.Glob)
	if err != nil {
		return err
	}
	for i := range infos {
		if err := stream.Send(&ipcdv1.ListRingsResponse{Ring: encodeRing(&infos[i])}); err != nil {
			return streamEnded{err}
		}
	}
	return nil
}
