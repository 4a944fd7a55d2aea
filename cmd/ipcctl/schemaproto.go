package main

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ipcd/ipcd/internal/schema"
)

// protoSource writes a set's files in the protobuf language, those of protobuf itself left out.
func protoSource(set *schema.Set) string {
	files := map[string]string{}
	set.Files(func(f protoreflect.FileDescriptor) {
		if !strings.HasPrefix(f.Path(), "google/protobuf/") {
			p := protoPrinter{}
			p.file(f)
			files[f.Path()] = p.b.String()
		}
	})
	var paths []string
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	var b strings.Builder
	for i, path := range paths {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString(files[path])
	}
	return b.String()
}

// protoPrinter writes declarations. All names in a set were checked to be names, so that nothing acts on a terminal.
type protoPrinter struct {
	b     strings.Builder
	depth int
}

func (p *protoPrinter) line(format string, args ...any) {
	p.b.WriteString(strings.Repeat("  ", p.depth) + fmt.Sprintf(format, args...) + "\n")
}

// block writes what stands between braces.
func (p *protoPrinter) block(head string, inner func()) {
	p.line("%s {", head)
	p.depth++
	inner()
	p.depth--
	p.line("}")
}

func (p *protoPrinter) file(f protoreflect.FileDescriptor) {
	p.line("// %s", escapeLine(f.Path()))
	if f.Syntax() == protoreflect.Editions {
		p.line("// of an edition, whose features are not shown")
	} else {
		p.line("syntax = %q;", f.Syntax().String())
	}
	if f.Package() != "" {
		p.line("package %s;", f.Package())
	}
	for i := range f.Imports().Len() {
		p.line("import %q;", f.Imports().Get(i).Path())
	}
	p.extensions(f.Extensions())
	p.messages(f.Messages())
	p.enums(f.Enums())
}

func (p *protoPrinter) messages(all protoreflect.MessageDescriptors) {
	for i := range all.Len() {
		m := all.Get(i)
		if !m.IsMapEntry() {
			p.block("message "+string(m.Name()), func() { p.message(m) })
		}
	}
}

func (p *protoPrinter) message(m protoreflect.MessageDescriptor) {
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		oneof := f.ContainingOneof()
		switch {
		case oneof == nil || oneof.IsSynthetic():
			p.field(f)
		case oneof.Fields().Get(0) == f:
			p.block("oneof "+string(oneof.Name()), func() {
				for i := range oneof.Fields().Len() {
					p.field(oneof.Fields().Get(i))
				}
			})
		}
	}
	for i := range m.ReservedRanges().Len() {
		p.line("reserved %s;", rangeText(m.ReservedRanges().Get(i)))
	}
	for i := range m.ReservedNames().Len() {
		p.line("reserved %q;", m.ReservedNames().Get(i))
	}
	for i := range m.ExtensionRanges().Len() {
		p.line("extensions %s;", rangeText(m.ExtensionRanges().Get(i)))
	}
	p.extensions(m.Extensions())
	p.messages(m.Messages())
	p.enums(m.Enums())
}

// rangeText writes a range whose end is not part of it.
func rangeText(r [2]protoreflect.FieldNumber) string {
	switch {
	case r[1] > 1<<29-1:
		return fmt.Sprintf("%d to max", r[0])
	case r[1] == r[0]+1:
		return fmt.Sprint(r[0])
	}
	return fmt.Sprintf("%d to %d", r[0], r[1]-1)
}

func (p *protoPrinter) extensions(all protoreflect.ExtensionDescriptors) {
	for i := range all.Len() {
		p.block("extend "+string(all.Get(i).ContainingMessage().FullName()), func() { p.field(all.Get(i)) })
	}
}

func (p *protoPrinter) field(f protoreflect.FieldDescriptor) {
	label := ""
	switch {
	case f.IsMap():
	case f.Cardinality() != protoreflect.Optional:
		label = f.Cardinality().String() + " "
	case f.HasOptionalKeyword():
		label = "optional "
	}
	kind := kindText(f)
	if f.IsMap() {
		kind = fmt.Sprintf("map<%s, %s>", kindText(f.MapKey()), kindText(f.MapValue()))
	}
	options := ""
	if f.HasJSONName() && f.JSONName() != jsonName(string(f.Name())) && !f.IsExtension() {
		options = fmt.Sprintf(" [json_name = %q]", f.JSONName())
	}
	p.line("%s%s %s = %d%s;", label, kind, f.Name(), f.Number(), options)
}

// jsonName is what JSON calls a field that does not say so itself.
func jsonName(name string) string {
	var b strings.Builder
	upper := false
	for _, r := range name {
		switch {
		case r == '_':
			upper = true
		case upper && 'a' <= r && r <= 'z':
			b.WriteRune(r - 'a' + 'A')
			upper = false
		default:
			b.WriteRune(r)
			upper = false
		}
	}
	return b.String()
}

func kindText(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.EnumKind:
		return string(f.Enum().FullName())
	case protoreflect.MessageKind:
		return string(f.Message().FullName())
	case protoreflect.GroupKind:
		return "group " + string(f.Message().FullName())
	}
	return f.Kind().String()
}

func (p *protoPrinter) enums(all protoreflect.EnumDescriptors) {
	for i := range all.Len() {
		e := all.Get(i)
		p.block("enum "+string(e.Name()), func() {
			for i := range e.Values().Len() {
				p.line("%s = %d;", e.Values().Get(i).Name(), e.Values().Get(i).Number())
			}
		})
	}
}
