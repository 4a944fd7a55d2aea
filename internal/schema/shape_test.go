package schema

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/ipcd/ipcd/internal/limits"
)

// A set of 1 MiB may have tens of thousands of fields of one closed enum with as many values: held once for each field they
// would take gigabytes.
func TestFieldsOfOneEnumShareItsValues(t *testing.T) {
	const n = 100
	enum := &descriptorpb.EnumDescriptorProto{Name: proto.String("E")}
	m := &descriptorpb.DescriptorProto{Name: proto.String("M")}
	for i := range n {
		enum.Value = append(enum.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String(fmt.Sprintf("v%x", i)), Number: proto.Int32(int32(i))})
		m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{Name: proto.String(fmt.Sprintf("f%x", i)), Number: proto.Int32(int32(i + 1)),
			Type: descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum(), TypeName: proto.String(".E"), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()})
	}
	b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{Name: proto.String("a"), Syntax: proto.String("proto2"),
		MessageType: []*descriptorpb.DescriptorProto{m}, EnumType: []*descriptorpb.EnumDescriptorProto{enum}}}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	shape, err := set.Shapes().Of("M")
	if err != nil {
		t.Fatal(err)
	}
	first := shape.fields[0].values
	if len(first) != n {
		t.Fatalf("%d values", len(first))
	}
	for i := range shape.fields {
		if &shape.fields[i].values[0] != &first[0] {
			t.Fatalf("field %d has values of its own", i)
		}
	}
}

func TestFindingsAreFewAndShort(t *testing.T) {
	name := strings.Repeat("M", 50<<10)
	m := &descriptorpb.DescriptorProto{Name: &name}
	compile := func() *Set {
		b, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{Name: proto.String("a"), Syntax: proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{m}}}})
		if err != nil {
			t.Fatal(err)
		}
		set, err := Compile(b)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	is := compile()
	for i := range 5000 {
		m.ReservedName = append(m.ReservedName, fmt.Sprintf("a%x", i))
	}
	was := compile()
	b := []Binding{{Type: 1, Message: name}}
	found := Incompatibilities(was, is, b, b)
	if len(found) != limits.SchemaFindings+1 || found[limits.SchemaFindings] != "and 4900 more" || len(found[0]) > 1000 {
		t.Errorf("%d findings, the first with %d bytes, the last %.100q", len(found), len(found[0]), found[len(found)-1])
	}
}
