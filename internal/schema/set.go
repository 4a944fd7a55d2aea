// Package schema knows of what bodies are made: a set of protobuf messages that was not known when ipcd was built. It says
// whether a body is such a message, shows one as JSON and makes one of JSON, and tells what a newer set breaks.
//
// Descriptor sets and bodies come from strangers: what they may cost is bounded before anything is made of them.
package schema

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/ipcd/ipcd/internal/limits"
)

// Set is a compiled descriptor set. It is safe for concurrent use.
type Set struct {
	files      *protoregistry.Files
	types      *dynamicpb.Types
	extensions map[protoreflect.FullName][]protoreflect.ExtensionDescriptor // by the message that they extend
}

// Binding says what the bodies of one type are.
type Binding struct {
	Type     int64
	Message  string // full name of a message in the set
	Validate bool   // other bodies are refused
}

// Compile reads a serialized google.protobuf.FileDescriptorSet, which must hold all that its files import.
func Compile(descriptors []byte) (*Set, error) {
	if len(descriptors) == 0 {
		return nil, errors.New("the descriptor set is empty: protoc --descriptor_set_out --include_imports makes one")
	}
	if len(descriptors) > limits.SchemaBytes {
		return nil, fmt.Errorf("a descriptor set of %d bytes: it may have %d; leave source info and unused files out", len(descriptors), limits.SchemaBytes)
	}
	if err := countElements(descriptors); err != nil {
		return nil, err
	}
	var parsed descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(descriptors, &parsed); err != nil {
		return nil, notASet(err)
	}
	if err := checkFiles(parsed.GetFile()); err != nil {
		return nil, err
	}
	files, err := link(&parsed)
	if err != nil {
		return nil, fmt.Errorf("the descriptor set does not hold together: %w", err)
	}
	s := &Set{files: files, types: dynamicpb.NewTypes(files), extensions: map[protoreflect.FullName][]protoreflect.ExtensionDescriptor{}}
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		s.collect(f)
		return true
	})
	return s, nil
}

func notASet(err error) error {
	return fmt.Errorf("this is no descriptor set (protoc --descriptor_set_out --include_imports makes one): %w", err)
}

// link resolves the names in the files. What the library does not expect of a hostile set must not end the daemon.
func link(parsed *descriptorpb.FileDescriptorSet) (files *protoregistry.Files, err error) {
	defer func() {
		if p := recover(); p != nil {
			files, err = nil, fmt.Errorf("%v", p)
		}
	}()
	return protodesc.NewFiles(parsed)
}

// collect gathers the extensions that a file or a message declares.
func (s *Set) collect(in interface {
	Messages() protoreflect.MessageDescriptors
	Extensions() protoreflect.ExtensionDescriptors
}) {
	for i := range in.Extensions().Len() {
		x := in.Extensions().Get(i)
		extended := x.ContainingMessage().FullName()
		s.extensions[extended] = append(s.extensions[extended], x)
	}
	for i := range in.Messages().Len() {
		s.collect(in.Messages().Get(i))
	}
}

// message returns the message of that full name.
func (s *Set) message(name string) (protoreflect.MessageDescriptor, error) {
	d, err := s.files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil, fmt.Errorf("the descriptor set has no message %.200q: give its full name, such as acme.Order", name)
	}
	m, ok := d.(protoreflect.MessageDescriptor)
	if !ok || m.IsMapEntry() {
		return nil, fmt.Errorf("%.200s in the descriptor set is no message", name)
	}
	return m, nil
}

// fields are the fields of a message, its extensions in the set included, by number.
func (s *Set) fields(m protoreflect.MessageDescriptor) map[protoreflect.FieldNumber]protoreflect.FieldDescriptor {
	declared, extensions := m.Fields(), s.extensions[m.FullName()]
	all := make(map[protoreflect.FieldNumber]protoreflect.FieldDescriptor, declared.Len()+len(extensions))
	for i := range declared.Len() {
		all[declared.Get(i).Number()] = declared.Get(i)
	}
	for _, x := range extensions {
		all[x.Number()] = x
	}
	return all
}

// Check says what is wrong with bindings to the set's messages, if anything.
func (s *Set) Check(bindings []Binding) error {
	if len(bindings) == 0 {
		return errors.New("no type has a message: bind at least one, such as type 7 to acme.Order")
	}
	if len(bindings) > limits.SchemaTypes {
		return fmt.Errorf("%d types with a message: a schema may have %d", len(bindings), limits.SchemaTypes)
	}
	seen := make(map[int64]bool, len(bindings))
	for _, b := range bindings {
		if b.Type <= 0 {
			return fmt.Errorf("type %d: types are positive", b.Type)
		}
		if seen[b.Type] {
			return fmt.Errorf("type %d has two messages: it may have one", b.Type)
		}
		seen[b.Type] = true
		if _, err := s.message(b.Message); err != nil {
			return fmt.Errorf("type %d: %w", b.Type, err)
		}
	}
	return nil
}

// Files visits the descriptors of the set's files, in no order.
func (s *Set) Files(visit func(protoreflect.FileDescriptor)) {
	s.files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		visit(f)
		return true
	})
}
