package client

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// schemaKeeper keeps the schema that was registered last, and refuses one without descriptors.
type schemaKeeper struct {
	ipcdv1.UnimplementedSchemaServiceServer
	last *ipcdv1.RegisterSchemaRequest
}

func (k *schemaKeeper) RegisterSchema(_ context.Context, r *ipcdv1.RegisterSchemaRequest) (*ipcdv1.RegisterSchemaResponse, error) {
	if len(r.FileDescriptorSet) == 0 {
		return nil, schemaError(reason.SchemaIncompatible)
	}
	k.last = r
	return &ipcdv1.RegisterSchemaResponse{Created: true, Schema: &ipcdv1.Schema{Version: 3, Types: r.Types}, Incompatibilities: []string{"a field is gone"}}, nil
}

func (k *schemaKeeper) GetSchema(_ context.Context, r *ipcdv1.GetSchemaRequest) (*ipcdv1.GetSchemaResponse, error) {
	if k.last == nil || r.Queue != k.last.Queue || r.Version != 2 {
		return nil, schemaError(reason.SchemaNotFound)
	}
	s := &ipcdv1.Schema{Version: 2, Types: k.last.Types, FileDescriptorSet: k.last.FileDescriptorSet, CreateTime: timestamppb.New(time.Unix(5, 0))}
	return &ipcdv1.GetSchemaResponse{Schema: s, Versions: []uint32{2, 3}}, nil
}

func (k *schemaKeeper) RemoveSchema(_ context.Context, r *ipcdv1.RemoveSchemaRequest) (*ipcdv1.RemoveSchemaResponse, error) {
	if k.last == nil {
		return nil, schemaError(reason.SchemaNotFound)
	}
	k.last = nil
	return &ipcdv1.RemoveSchemaResponse{}, nil
}

func schemaError(r reason.Reason) error {
	s, err := status.New(r.Lookup().Code, "no").WithDetails(&errdetails.ErrorInfo{Reason: string(r), Domain: reason.Domain})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func TestSchemasGoThereAndBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	keeper := &schemaKeeper{}
	server := grpc.NewServer()
	ipcdv1.RegisterSchemaServiceServer(server, keeper)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	c, err := Dial("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := c.Queue("orders")

	if _, _, err := q.Schema(t.Context(), 0); !errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("%v, want ErrSchemaNotFound", err)
	}
	if err := q.RemoveSchema(t.Context()); !errors.Is(err, ErrSchemaNotFound) {
		t.Errorf("%v, want ErrSchemaNotFound", err)
	}
	types := []TypeSchema{{Type: 7, Message: "acme.Order", Validate: true}, {Type: 8, Message: "acme.Item"}}
	_, err = q.RegisterSchema(t.Context(), nil, types, SchemaOptions{})
	var e *Error
	if !errors.Is(err, ErrSchemaIncompatible) || !errors.As(err, &e) || e.Queue != "/orders" {
		t.Errorf("%v, want ErrSchemaIncompatible on /orders", err)
	}
	made, err := q.RegisterSchema(t.Context(), []byte("set"), types, SchemaOptions{AllowIncompatible: true, DryRun: true})
	want := SchemaRegistration{Schema: Schema{Version: 3, Types: types}, Created: true, Incompatibilities: []string{"a field is gone"}}
	if err != nil || !reflect.DeepEqual(made, want) {
		t.Errorf("%+v, %v, want %+v", made, err, want)
	}
	if r := keeper.last; r.Queue != "/orders" || !r.AllowIncompatible || !r.DryRun {
		t.Errorf("%v", r)
	}
	s, versions, err := q.Schema(t.Context(), 2)
	if err != nil || !s.CreatedAt.Equal(time.Unix(5, 0)) || !reflect.DeepEqual(s, Schema{2, []byte("set"), types, s.CreatedAt}) || !reflect.DeepEqual(versions, []uint32{2, 3}) {
		t.Errorf("%+v, %v, %v", s, versions, err)
	}
	if err := q.RemoveSchema(t.Context()); err != nil {
		t.Error(err)
	}
}
