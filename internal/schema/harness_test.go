package schema

import (
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
)

// describe compiles a .proto file to a descriptor set with all its imports.
func describe(t testing.TB, source string) []byte {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"test.proto": source}),
	})}
	files, err := compiler.Compile(t.Context(), "test.proto")
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	seen := map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if !seen[f.Path()] {
			seen[f.Path()] = true
			for i := range f.Imports().Len() {
				add(f.Imports().Get(i).FileDescriptor)
			}
			set.File = append(set.File, protoutil.ProtoFromFileDescriptor(f))
		}
	}
	add(files[0])
	return marshal(t, &set)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// compile is describe and Compile.
func compile(t testing.TB, source string) *Set {
	t.Helper()
	s, err := Compile(describe(t, source))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// orders has a field of every sort.
const orders = `syntax = "proto3";
package acme;
import "google/protobuf/any.proto";
import "google/protobuf/timestamp.proto";
message Order {
  int64 id = 1;
  string note = 2;
  repeated Item items = 3;
  map<string, int32> counts = 4;
  State state = 5;
  google.protobuf.Timestamp at = 6;
  google.protobuf.Any more = 7;
  repeated sint32 numbers = 8;
  oneof paid { bool cash = 10; fixed64 card = 11; }
  double weight = 12;
  bytes raw = 13;
  Order child = 14;
  float size = 15;
  repeated fixed32 fixed = 16;
}
message Item { string name = 1; uint32 count = 2; }
enum State { STATE_UNKNOWN = 0; STATE_OPEN = 1; }
`

// legacy has what proto3 does not.
const legacy = `syntax = "proto2";
package acme;
message Old {
  required int32 a = 1;
  required string b = 2;
  optional Color color = 3;
  optional group Inner = 4 { optional int32 x = 1; required int32 y = 2; }
  repeated Old children = 5;
  extensions 100 to 199;
}
extend Old { optional string extra = 100; }
enum Color { RED = 1; GREEN = 2; }
`

// Validate is Message.Validate of a message by its name.
func (s *Set) Validate(message string, body []byte) error {
	m, err := s.Shapes().Of(message)
	if err != nil {
		return err
	}
	return m.Validate(body)
}
