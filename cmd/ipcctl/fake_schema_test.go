package main

import (
	"context"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// fakeSchemas keeps the last schema of each queue. One without fields is incompatible with every other.
type fakeSchemas struct {
	ipcdv1.UnimplementedSchemaServiceServer
	f *fake
}

func (s fakeSchemas) RegisterSchema(_ context.Context, r *ipcdv1.RegisterSchemaRequest) (*ipcdv1.RegisterSchemaResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	q, err := s.f.enter(r.Queue, r)
	if err != nil {
		return nil, err
	}
	answer := &ipcdv1.RegisterSchemaResponse{Created: true, Schema: &ipcdv1.Schema{Types: r.Types, CreateTime: timestamppb.New(sentAt)}}
	if q.schema != nil {
		answer.Schema.Version = q.schema.Version
		if proto.Equal(&ipcdv1.Schema{FileDescriptorSet: r.FileDescriptorSet, Types: r.Types}, &ipcdv1.Schema{FileDescriptorSet: q.schema.FileDescriptorSet, Types: q.schema.Types}) {
			answer.Created = false
			return answer, nil
		}
		if len(r.FileDescriptorSet) < len(q.schema.FileDescriptorSet) {
			answer.Incompatibilities = []string{"field 1 (id) of acme.Order is gone", "value 1 (\x1b) is gone"}
		}
		if len(answer.Incompatibilities) > 0 && !r.AllowIncompatible && !r.DryRun {
			return nil, refuse(reason.SchemaIncompatible, "programs that know version %d could trip over it: %s (and 1 more)", q.schema.Version, answer.Incompatibilities[0])
		}
	}
	if !r.DryRun {
		answer.Schema.Version++
		q.schema = proto.CloneOf(answer.Schema)
		q.schema.FileDescriptorSet = r.FileDescriptorSet
		q.info.SchemaVersion = q.schema.Version
	}
	return answer, nil
}

func (s fakeSchemas) GetSchema(_ context.Context, r *ipcdv1.GetSchemaRequest) (*ipcdv1.GetSchemaResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	q, err := s.f.enter(r.Queue, r)
	if err != nil {
		return nil, err
	}
	if q.schema == nil || r.Version > q.schema.Version {
		return nil, refuse(reason.SchemaNotFound, "the queue has no schema: register one first")
	}
	return &ipcdv1.GetSchemaResponse{Schema: q.schema, Versions: []uint32{q.schema.Version}}, nil
}

func (s fakeSchemas) RemoveSchema(_ context.Context, r *ipcdv1.RemoveSchemaRequest) (*ipcdv1.RemoveSchemaResponse, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	q, err := s.f.enter(r.Queue, r)
	if err != nil {
		return nil, err
	}
	q.schema, q.info.SchemaVersion = nil, 0
	return &ipcdv1.RemoveSchemaResponse{}, nil
}
