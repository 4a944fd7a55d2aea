package client

import (
	"context"
	"time"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Schema is a version of what the bodies of a queue's messages are made of.
type Schema struct {
	Version     uint32 // rises from 1; never used twice in a queue
	Descriptors []byte // a serialized google.protobuf.FileDescriptorSet with all imports
	Types       []TypeSchema
	CreatedAt   time.Time
}

// TypeSchema says what the bodies of one type are.
type TypeSchema struct {
	Type     int64
	Message  string // full name of a protobuf message in the descriptors, such as acme.Order
	Validate bool   // refuse sends of other bodies, with ErrSchemaMismatch
}

// SchemaOptions changes what RegisterSchema does.
type SchemaOptions struct {
	// AllowIncompatible registers it although programs that know the version before could trip over it.
	AllowIncompatible bool
	DryRun            bool // check only
}

// SchemaRegistration is what came of RegisterSchema.
type SchemaRegistration struct {
	Schema  Schema // without its descriptors; after a dry run, of the version before
	Created bool   // false: the current version is the same
	// Incompatibilities is what programs that know the version before could trip over, where that was allowed, or in a dry run.
	Incompatibilities []string
}

// RegisterSchema makes the next version of the queue's schema: which types are which protobuf messages. descriptors is a
// serialized google.protobuf.FileDescriptorSet with all imports, at most 1 MiB. What types leaves out is plain bytes. It
// fails with ErrSchemaInvalid, or with ErrSchemaIncompatible unless that is allowed.
func (q *Queue) RegisterSchema(ctx context.Context, descriptors []byte, types []TypeSchema, o SchemaOptions) (SchemaRegistration, error) {
	r := &ipcdv1.RegisterSchemaRequest{Queue: q.name, FileDescriptorSet: descriptors, AllowIncompatible: o.AllowIncompatible, DryRun: o.DryRun}
	for _, t := range types {
		r.Types = append(r.Types, &ipcdv1.TypeSchema{Type: t.Type, Message: t.Message, Validate: t.Validate})
	}
	p, err := q.schemas().RegisterSchema(ctx, r)
	if err != nil {
		return SchemaRegistration{}, q.c.rpcError(err, q.name)
	}
	return SchemaRegistration{Schema: schemaOf(p.GetSchema()), Created: p.GetCreated(), Incompatibilities: p.GetIncompatibilities()}, nil
}

// Schema returns a version of the queue's schema, 0 being the current one, and which versions are kept. It fails with
// ErrSchemaNotFound where there is none.
func (q *Queue) Schema(ctx context.Context, version uint32) (s Schema, versions []uint32, err error) {
	p, err := q.schemas().GetSchema(ctx, &ipcdv1.GetSchemaRequest{Queue: q.name, Version: version})
	if err != nil {
		return Schema{}, nil, q.c.rpcError(err, q.name)
	}
	return schemaOf(p.GetSchema()), p.GetVersions(), nil
}

// RemoveSchema removes all versions of the queue's schema: bodies are plain bytes again.
func (q *Queue) RemoveSchema(ctx context.Context) error {
	if _, err := q.schemas().RemoveSchema(ctx, &ipcdv1.RemoveSchemaRequest{Queue: q.name}); err != nil {
		return q.c.rpcError(err, q.name)
	}
	return nil
}

func (q *Queue) schemas() ipcdv1.SchemaServiceClient { return ipcdv1.NewSchemaServiceClient(q.c.conn) }

func schemaOf(p *ipcdv1.Schema) Schema {
	s := Schema{Version: p.GetVersion(), Descriptors: p.GetFileDescriptorSet(), CreatedAt: timeOf(p.GetCreateTime())}
	for _, t := range p.GetTypes() {
		s.Types = append(s.Types, TypeSchema{Type: t.GetType(), Message: t.GetMessage(), Validate: t.GetValidate()})
	}
	return s
}
