package rpc

import (
	"context"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// schemaService serves ipcd.v1.SchemaService.
type schemaService struct {
	ipcdv1.UnimplementedSchemaServiceServer
	*Server
}

func (s schemaService) RegisterSchema(ctx context.Context, r *ipcdv1.RegisterSchemaRequest) (*ipcdv1.RegisterSchemaResponse, error) {
	if len(r.FileDescriptorSet) > limits.SchemaBytes {
		return nil, reason.Invalid("file_descriptor_set", "a descriptor set of %d bytes: it may have %d; leave source info and unused files out",
			len(r.FileDescriptorSet), limits.SchemaBytes).On(r.Queue)
	}
	if len(r.Types) > limits.SchemaTypes {
		return nil, reason.Invalid("types", "%d types with a message: a schema may have %d", len(r.Types), limits.SchemaTypes).On(r.Queue)
	}
	request := broker.SchemaRequest{Queue: r.Queue, Descriptors: r.FileDescriptorSet, AllowIncompatible: r.AllowIncompatible, DryRun: r.DryRun}
	for _, t := range r.Types {
		request.Types = append(request.Types, queue.TypeSchema{Type: t.GetType(), Message: t.GetMessage(), Validate: t.GetValidate()})
	}
	out, err := s.broker.RegisterSchema(ctx, callerFrom(ctx), request)
	if err != nil {
		return nil, err
	}
	registered := encodeSchema(&out.Schema)
	registered.FileDescriptorSet = nil // the caller has it
	return &ipcdv1.RegisterSchemaResponse{Schema: registered, Created: out.Created, Incompatibilities: out.Incompatibilities}, nil
}

func (s schemaService) GetSchema(ctx context.Context, r *ipcdv1.GetSchemaRequest) (*ipcdv1.GetSchemaResponse, error) {
	found, versions, err := s.broker.GetSchema(ctx, callerFrom(ctx), r.Queue, r.Version)
	if err != nil {
		return nil, err
	}
	return &ipcdv1.GetSchemaResponse{Schema: encodeSchema(&found), Versions: versions}, nil
}

func (s schemaService) RemoveSchema(ctx context.Context, r *ipcdv1.RemoveSchemaRequest) (*ipcdv1.RemoveSchemaResponse, error) {
	if err := s.broker.RemoveSchema(ctx, callerFrom(ctx), r.Queue); err != nil {
		return nil, err
	}
	return &ipcdv1.RemoveSchemaResponse{}, nil
}

func encodeSchema(from *queue.Schema) *ipcdv1.Schema {
	to := &ipcdv1.Schema{Version: from.Version, FileDescriptorSet: from.Descriptors, CreateTime: optionalTime(from.CreatedAt)}
	for _, t := range from.Types {
		to.Types = append(to.Types, &ipcdv1.TypeSchema{Type: t.Type, Message: t.Message, Validate: t.Validate})
	}
	return to
}
