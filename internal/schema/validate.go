package schema

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ipcd/ipcd/internal/limits"
)

// Message is a message of a set, ready to hold bodies against. It is safe for concurrent use.
type Message struct {
	name     string
	fields   []field // by number
	required []*field
}

// field is what a body may have under one number.
type field struct {
	number   protowire.Number
	name     string
	wire     protowire.Type // of a value
	packable bool           // many values may stand together in one
	text     bool           // it must be UTF-8
	message  *Message       // or nil
	required int            // place in the message's required fields, from 1; 0: it may be missing
	enum     string         // name of a closed enum, of which other values are not known; "": it is none
	values   []int32        // its values, rising
}

// Shapes makes messages of a set ready to validate, what they have in common once. It is not safe for concurrent use.
type Shapes struct {
	set   *Set
	known map[string]*Message
	enums map[string][]int32 // values of closed enums, rising: a set may have many fields of one enum with many values
}

// Shapes returns a maker of such messages.
func (s *Set) Shapes() *Shapes { return &Shapes{s, map[string]*Message{}, map[string][]int32{}} }

// Of returns the message of that full name.
func (x *Shapes) Of(message string) (*Message, error) {
	m, err := x.set.message(message)
	if err != nil {
		return nil, err
	}
	return x.shape(m), nil
}

// shape makes a Message, and those that it is made of, each once.
func (x *Shapes) shape(d protoreflect.MessageDescriptor) *Message {
	name := string(d.FullName())
	if m := x.known[name]; m != nil {
		return m
	}
	m := &Message{name: name}
	x.known[name] = m
	all := x.set.fields(d)
	m.fields = make([]field, len(all))
	for i, number := range slices.Sorted(maps.Keys(all)) {
		fd, f := all[number], &m.fields[i]
		*f = field{number: number, name: string(fd.Name()), wire: wireTypes[fd.Kind()], packable: fd.IsList() && packable(fd.Kind())}
		switch fd.Kind() {
		case protoreflect.MessageKind, protoreflect.GroupKind:
			f.message = x.shape(fd.Message())
		case protoreflect.StringKind:
			f.text = enforcesUTF8(fd)
		case protoreflect.EnumKind:
			if e := fd.Enum(); e.IsClosed() {
				f.enum, f.values = string(e.FullName()), x.valuesOf(e)
			}
		}
		if fd.Cardinality() == protoreflect.Required {
			m.required = append(m.required, f)
			f.required = len(m.required)
		}
	}
	return m
}

// valuesOf returns the values of an enum, which all its fields share.
func (x *Shapes) valuesOf(e protoreflect.EnumDescriptor) []int32 {
	name := string(e.FullName())
	values, known := x.enums[name]
	if !known {
		values = make([]int32, e.Values().Len())
		for i := range values {
			values[i] = int32(e.Values().Get(i).Number())
		}
		slices.Sort(values)
		x.enums[name] = values
	}
	return values
}

// field returns what may stand under a number, nil if nothing may.
func (m *Message) field(number protowire.Number) *field {
	if i := int(number) - 1; i < len(m.fields) && m.fields[i].number == number { // most number them so
		return &m.fields[i]
	}
	i, found := slices.BinarySearchFunc(m.fields, number, func(f field, n protowire.Number) int { return cmp.Compare(f.number, n) })
	if !found {
		return nil
	}
	return &m.fields[i]
}

// wireTypes is how a value of each kind stands in a body.
var wireTypes = map[protoreflect.Kind]protowire.Type{
	protoreflect.BoolKind: protowire.VarintType, protoreflect.EnumKind: protowire.VarintType,
	protoreflect.Int32Kind: protowire.VarintType, protoreflect.Sint32Kind: protowire.VarintType, protoreflect.Uint32Kind: protowire.VarintType,
	protoreflect.Int64Kind: protowire.VarintType, protoreflect.Sint64Kind: protowire.VarintType, protoreflect.Uint64Kind: protowire.VarintType,
	protoreflect.Sfixed32Kind: protowire.Fixed32Type, protoreflect.Fixed32Kind: protowire.Fixed32Type, protoreflect.FloatKind: protowire.Fixed32Type,
	protoreflect.Sfixed64Kind: protowire.Fixed64Type, protoreflect.Fixed64Kind: protowire.Fixed64Type, protoreflect.DoubleKind: protowire.Fixed64Type,
	protoreflect.StringKind: protowire.BytesType, protoreflect.BytesKind: protowire.BytesType, protoreflect.MessageKind: protowire.BytesType,
	protoreflect.GroupKind: protowire.StartGroupType,
}

func packable(k protoreflect.Kind) bool {
	return wireTypes[k] != protowire.BytesType && wireTypes[k] != protowire.StartGroupType
}

// enforcesUTF8 reports whether a string that is no UTF-8 is refused by those who read the message.
func enforcesUTF8(fd protoreflect.FieldDescriptor) bool {
	if f, ok := fd.(interface{ EnforceUTF8() bool }); ok {
		return f.EnforceUTF8()
	}
	return fd.ParentFile().Syntax() == protoreflect.Proto3
}

// Validate says why a body is not such a message, if it is not: it must be well-formed, with all required fields and none
// that the set does not know, at any depth. What stands in a google.protobuf.Any is not looked at. It allocates next to
// nothing, whatever the body.
func (m *Message) Validate(body []byte) error {
	w := walk{left: len(body)}
	_, err := w.message(m, body, 0, 0)
	return err
}

// walk goes through a body without making anything of it.
type walk struct {
	lenient bool // fields that are not known are let pass
	left    int  // messages that there may still be within
}

var errCutOff = errors.New("it ends in the middle of a field, or is no protobuf message at all")

// message goes through one message, up to the end of its group if that is not 0, and returns what follows.
func (w *walk) message(m *Message, b []byte, group protowire.Number, depth int) (rest []byte, err error) {
	if depth > limits.SchemaDepth {
		return nil, fmt.Errorf("it is nested more than %d deep in %s", limits.SchemaDepth, m.name)
	}
	if w.left--; w.left < -1 {
		return nil, errors.New("it has too many parts")
	}
	var seen []bool // required fields
	if n := len(m.required); n > 0 && 2*n <= len(b) {
		seen = make([]bool, n)
	}
	for len(b) > 0 {
		number, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, errCutOff
		}
		b = b[n:]
		if wire == protowire.EndGroupType {
			if number != group {
				return nil, fmt.Errorf("group %d ends in %s where none began", number, m.name)
			}
			return b, m.complete(seen)
		}
		f := m.field(number)
		if f == nil {
			if !w.lenient {
				return nil, fmt.Errorf("field %d is not known to %s", number, m.name)
			}
			if n = protowire.ConsumeFieldValue(number, wire, b); n < 0 {
				return nil, errCutOff
			}
			b = b[n:]
			continue
		}
		if f.required > 0 && seen != nil {
			seen[f.required-1] = true
		}
		if b, err = w.field(m, f, wire, b, depth); err != nil {
			return nil, err
		}
	}
	if group != 0 {
		return nil, fmt.Errorf("group %d, a %s, does not end", group, m.name)
	}
	return nil, m.complete(seen)
}

// complete says which required field is missing.
func (m *Message) complete(seen []bool) error {
	if seen == nil && len(m.required) > 0 {
		return fmt.Errorf("%s requires %d fields: it is too short to have them", m.name, len(m.required))
	}
	for i, f := range m.required {
		if !seen[i] {
			return fmt.Errorf("field %d (%s) is missing, which %s requires", f.number, f.name, m.name)
		}
	}
	return nil
}

// field goes through one field, whose tag was read, and returns what follows.
func (w *walk) field(m *Message, f *field, wire protowire.Type, b []byte, depth int) (rest []byte, err error) {
	if wire != f.wire && !(f.packable && wire == protowire.BytesType) {
		return nil, fmt.Errorf("field %d (%s) of %s has wire type %d: it must be %d", f.number, f.name, m.name, wire, f.wire)
	}
	if wire == protowire.StartGroupType {
		return w.message(f.message, b, f.number, depth+1)
	}
	if wire != protowire.BytesType {
		return f.value(m, b)
	}
	v, n := protowire.ConsumeBytes(b)
	if n < 0 {
		return nil, errCutOff
	}
	switch {
	case f.message != nil:
		_, err = w.message(f.message, v, 0, depth+1)
	case f.packable:
		for len(v) > 0 && err == nil {
			v, err = f.value(m, v)
		}
	case f.text && !utf8.Valid(v):
		err = fmt.Errorf("field %d (%s) of %s is no UTF-8", f.number, f.name, m.name)
	}
	return b[n:], err
}

// knows reports whether a closed enum has the value.
func (f *field) knows(v int32) bool {
	_, found := slices.BinarySearch(f.values, v)
	return found
}

// value goes through one number and returns what follows.
func (f *field) value(m *Message, b []byte) (rest []byte, err error) {
	n := 0
	switch f.wire {
	case protowire.VarintType:
		var v uint64
		if v, n = protowire.ConsumeVarint(b); n > 0 && f.enum != "" && !f.knows(int32(v)) {
			return nil, fmt.Errorf("field %d (%s) of %s is %d, which %s does not know", f.number, f.name, m.name, int32(v), f.enum)
		}
	case protowire.Fixed32Type:
		_, n = protowire.ConsumeFixed32(b)
	case protowire.Fixed64Type:
		_, n = protowire.ConsumeFixed64(b)
	}
	if n <= 0 {
		return nil, errCutOff
	}
	return b[n:], nil
}
