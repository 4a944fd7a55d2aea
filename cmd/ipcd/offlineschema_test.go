package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
)

func TestPeekDecodesBodiesOfQueuesWithASchema(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(wrapperspb.File_google_protobuf_wrappers_proto)}}
	descriptors, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	body, err := proto.Marshal(wrapperspb.String("a\x1bb"))
	if err != nil {
		t.Fatal(err)
	}
	dir := killed(t, func(s *store) {
		s.create("/jobs")
		_, err := s.RegisterSchema(t.Context(), rootUser, broker.SchemaRequest{
			Queue: "/jobs", Descriptors: descriptors, Types: []queue.TypeSchema{{Type: 7, Message: "google.protobuf.StringValue"}},
		})
		s.must(err)
		s.send("/jobs", queue.Message{Type: 7, Body: body}, queue.Message{Type: 7, Body: []byte("plain")}, queue.Message{Body: []byte("other")})
	})
	text := ipcd(t, dir, "peek", "jobs").fine(t).out
	for _, want := range []string{"type 7  google.protobuf.StringValue  sent", "\n    \"a\\u001bb\"\n", "    schema: ", "\n    plain\n", "\n    other\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	json := ipcd(t, dir, "peek", "jobs", "-o", "json").fine(t).out
	for _, want := range []string{`"message_type": "google.protobuf.StringValue"`, `"json": "a\u001bb"`, `"body": "plain"`, `"schema_error": `, `"body": "other"`} {
		if !strings.Contains(json, want) {
			t.Errorf("%q is not in\n%s", want, json)
		}
	}
	if n := strings.Count(json, `"body`); n != 2 {
		t.Errorf("%d bodies, want 2:\n%s", n, json)
	}
}
