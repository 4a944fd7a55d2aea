package rpc

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// schemaBroker answers as a test says.
type schemaBroker struct {
	*fakeBroker
	register func(r broker.SchemaRequest) (broker.SchemaOutcome, error)
	get      func(queue string, version uint32) (queue.Schema, []uint32, error)
	remove   func(queue string) error
}

func (f schemaBroker) RegisterSchema(_ context.Context, _ identity.Identity, r broker.SchemaRequest) (broker.SchemaOutcome, error) {
	return f.register(r)
}

func (f schemaBroker) GetSchema(_ context.Context, _ identity.Identity, name string, version uint32) (queue.Schema, []uint32, error) {
	return f.get(name, version)
}

func (f schemaBroker) RemoveSchema(_ context.Context, _ identity.Identity, name string) error {
	return f.remove(name)
}

func TestSchemasGoThereAndBack(t *testing.T) {
	stored := queue.Schema{Version: 3, CreatedAt: 1e9, Descriptors: []byte("set"), Types: []queue.TypeSchema{{Type: 7, Message: "acme.Order", Validate: true}}}
	var got broker.SchemaRequest
	h := serve(t, schemaBroker{
		fakeBroker: &fakeBroker{},
		register: func(r broker.SchemaRequest) (broker.SchemaOutcome, error) {
			got = r
			return broker.SchemaOutcome{Schema: stored, Created: true, Incompatibilities: []string{"a field is gone"}}, nil
		},
		get: func(name string, version uint32) (queue.Schema, []uint32, error) {
			if name != "/q" || version != 3 {
				return queue.Schema{}, nil, reason.New(reason.SchemaNotFound, "none").On(name)
			}
			return stored, []uint32{2, 3}, nil
		},
		remove: func(name string) error { return reason.New(reason.SchemaNotFound, "none").On(name) },
	})
	c := ipcdv1.NewSchemaServiceClient(h.unix)
	types := []*ipcdv1.TypeSchema{{Type: 7, Message: "acme.Order", Validate: true}}
	made, err := c.RegisterSchema(t.Context(), &ipcdv1.RegisterSchemaRequest{
		Queue: "/q", FileDescriptorSet: []byte("set"), Types: types, AllowIncompatible: true, DryRun: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint(broker.SchemaRequest{Queue: "/q", Descriptors: []byte("set"), Types: stored.Types, AllowIncompatible: true, DryRun: true}); fmt.Sprint(got) != want {
		t.Errorf("%v, want %v", got, want)
	}
	schema := &ipcdv1.Schema{Version: 3, Types: types, CreateTime: encodeTime(1e9)}
	if want := (&ipcdv1.RegisterSchemaResponse{Schema: schema, Created: true, Incompatibilities: []string{"a field is gone"}}); !proto.Equal(made, want) {
		t.Errorf("%v, want %v", made, want)
	}
	found, err := c.GetSchema(t.Context(), &ipcdv1.GetSchemaRequest{Queue: "/q", Version: 3})
	if err != nil {
		t.Fatal(err)
	}
	schema.FileDescriptorSet = []byte("set")
	if want := (&ipcdv1.GetSchemaResponse{Schema: schema, Versions: []uint32{2, 3}}); !proto.Equal(found, want) {
		t.Errorf("%v, want %v", found, want)
	}
	_, err = c.GetSchema(t.Context(), &ipcdv1.GetSchemaRequest{Queue: "/q"})
	wantReason(t, err, reason.SchemaNotFound)
	_, err = c.RemoveSchema(t.Context(), &ipcdv1.RemoveSchemaRequest{Queue: "/q"})
	wantReason(t, err, reason.SchemaNotFound)
}

func TestSchemasBeyondTheLimitsDoNotReachTheBroker(t *testing.T) {
	h := serve(t, schemaBroker{fakeBroker: &fakeBroker{}})
	c := ipcdv1.NewSchemaServiceClient(h.unix)
	_, err := c.RegisterSchema(t.Context(), &ipcdv1.RegisterSchemaRequest{Queue: "/q", FileDescriptorSet: make([]byte, limits.SchemaBytes+1)})
	wantInvalid(t, err, "file_descriptor_set")
	_, err = c.RegisterSchema(t.Context(), &ipcdv1.RegisterSchemaRequest{Queue: "/q", Types: make([]*ipcdv1.TypeSchema, limits.SchemaTypes+1)})
	wantInvalid(t, err, "types")
}
