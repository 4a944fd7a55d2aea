package schema

import (
	"fmt"

	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/ipcd/ipcd/internal/limits"
)

// descriptorSet is of what a descriptor set itself is made.
var descriptorSet = new(Set).Shapes().shape((*descriptorpb.FileDescriptorSet)(nil).ProtoReflect().Descriptor())

// countElements bounds what a set takes in memory: two bytes may be a message with a descriptor of hundreds.
func countElements(descriptors []byte) error {
	w := walk{lenient: true, left: limits.SchemaElements}
	if _, err := w.message(descriptorSet, descriptors, 0, 0); err != nil {
		return notASet(err)
	}
	return nil
}

// checkFiles bounds what linking costs, which may be much more than the set's bytes say.
func checkFiles(files []*descriptorpb.FileDescriptorProto) error {
	if len(files) > limits.SchemaFiles {
		return fmt.Errorf("a descriptor set of %d files: it may have %d", len(files), limits.SchemaFiles)
	}
	names := nameBytes(limits.SchemaNameBytes)
	byPath := make(map[string]*descriptorpb.FileDescriptorProto, len(files))
	for _, f := range files {
		byPath[f.GetName()] = f
		names.file(f)
	}
	if names < 0 {
		return fmt.Errorf("a descriptor set whose full names have more than %d bytes together: nest less, or give shorter names", limits.SchemaNameBytes)
	}
	public := publicImports{byPath: byPath, count: map[string]int{}}
	total := 0
	for _, f := range files {
		if total += public.of(f.GetName()); total > limits.SchemaElements {
			return fmt.Errorf("files that import each other publicly in more than %d ways, or in a circle", limits.SchemaElements)
		}
	}
	return nil
}

// nameBytes is how many bytes full names may still have. A long name counts again in all that stands within it.
type nameBytes int

func (n *nameBytes) name(scope int, name string) (inner int) {
	inner = scope + 1 + len(name)
	*n -= nameBytes(inner)
	return inner
}

func (n *nameBytes) file(f *descriptorpb.FileDescriptorProto) {
	scope := len(f.GetPackage())
	for _, m := range f.GetMessageType() {
		n.message(scope, m)
	}
	for _, e := range f.GetEnumType() {
		n.enum(scope, e)
	}
	for _, x := range f.GetExtension() {
		n.name(scope, x.GetName())
	}
	for _, s := range f.GetService() {
		inner := n.name(scope, s.GetName())
		for _, m := range s.GetMethod() {
			n.name(inner, m.GetName())
		}
	}
}

func (n *nameBytes) message(scope int, m *descriptorpb.DescriptorProto) {
	inner := n.name(scope, m.GetName())
	if *n < 0 {
		return
	}
	for _, f := range m.GetField() {
		n.name(inner, f.GetName())
	}
	for _, x := range m.GetExtension() {
		n.name(inner, x.GetName())
	}
	for _, o := range m.GetOneofDecl() {
		n.name(inner, o.GetName())
	}
	for _, e := range m.GetEnumType() {
		n.enum(inner, e)
	}
	for _, nested := range m.GetNestedType() {
		n.message(inner, nested)
	}
}

func (n *nameBytes) enum(scope int, e *descriptorpb.EnumDescriptorProto) {
	n.name(scope, e.GetName())
	for _, v := range e.GetValue() {
		n.name(scope, v.GetName()) // an enum's values stand beside it
	}
}

// publicImports counts the ways in which files are imported publicly: linking walks each of them.
type publicImports struct {
	byPath map[string]*descriptorpb.FileDescriptorProto
	count  map[string]int
}

// underWay marks a file whose ways are being counted. To come upon it is a circle.
const underWay = limits.SchemaElements + 1

func (p *publicImports) of(path string) int {
	if n, known := p.count[path]; known {
		return n
	}
	f := p.byPath[path]
	p.count[path] = underWay
	ways := 1
	for _, i := range f.GetPublicDependency() {
		if i < 0 || int(i) >= len(f.GetDependency()) {
			continue // linking says so
		}
		ways = min(ways+p.of(f.GetDependency()[i]), underWay)
	}
	p.count[path] = ways
	return ways
}
