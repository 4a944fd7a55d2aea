package schema

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ipcd/ipcd/internal/limits"
)

// Incompatibilities tells what programs that know the old set could trip over when others use the new one, and the other
// way round, in protobuf's binary form and in JSON. Both bindings must be checked. It is empty if there is nothing.
func Incompatibilities(was, is *Set, wasBound, isBound []Binding) []string {
	c := comparison{was: was, is: is, strict: is.reachable(isBound, true), seen: map[protoreflect.FullName]bool{}}
	now := map[int64]string{}
	for _, b := range isBound {
		now[b.Type] = b.Message
	}
	wasBound = slices.SortedFunc(slices.Values(wasBound), func(a, b Binding) int { return cmp.Compare(a.Type, b.Type) })
	for _, b := range wasBound {
		switch now[b.Type] {
		case "":
			c.found("type %d was %s and has no message any more", b.Type, b.Message)
		case b.Message:
		default:
			c.found("type %d was %s and would be %s", b.Type, b.Message, now[b.Type])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was.reachable(wasBound, false))) {
		before, err := was.message(string(name))
		if err != nil {
			continue // the entry of a map is compared with its field
		}
		after, err := is.message(string(name))
		if err != nil {
			c.found("message %s is gone", name)
			continue
		}
		c.message(before, after)
	}
	if c.more > 0 {
		c.all = append(c.all, fmt.Sprintf("and %d more", c.more))
	}
	return c.all
}

// reachable are the messages that bodies are made of; with validated, of those types alone that are validated.
func (s *Set) reachable(bindings []Binding, validated bool) map[protoreflect.FullName]bool {
	seen := map[protoreflect.FullName]bool{}
	var visit func(m protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if seen[m.FullName()] {
			return
		}
		seen[m.FullName()] = true
		for _, f := range s.fields(m) {
			if f.Message() != nil {
				visit(f.Message())
			}
		}
	}
	for _, b := range bindings {
		if m, err := s.message(b.Message); err == nil && (b.Validate || !validated) {
			visit(m)
		}
	}
	return seen
}

// comparison gathers what differs between two sets.
type comparison struct {
	was, is *Set
	strict  map[protoreflect.FullName]bool // messages that may not have fields the new set does not know
	seen    map[protoreflect.FullName]bool // enums that were compared
	all     []string
	more    int // than all
}

// foundName is bytes of a name in a finding, of which the rest is cut: hostile names may be very long, and many.
const foundName = 200

func (c *comparison) found(format string, args ...any) {
	if len(c.all) == limits.SchemaFindings {
		c.more++
		return
	}
	for i, a := range args {
		if v := reflect.ValueOf(a); v.Kind() == reflect.String && v.Len() > foundName {
			args[i] = strings.ToValidUTF8(v.String()[:foundName], "") + "..."
		}
	}
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

func (c *comparison) message(was, is protoreflect.MessageDescriptor) {
	name := was.FullName()
	before, after := c.was.fields(was), c.is.fields(is)
	for _, number := range slices.Sorted(maps.Keys(before)) {
		f := before[number]
		if g := after[number]; g != nil {
			c.field(name, f, g)
			continue
		}
		switch {
		case c.strict[name]:
			c.found("field %d (%s) of %s is gone, and sends that have it would be refused", number, f.Name(), name)
		case f.Cardinality() == protoreflect.Required:
			c.found("field %d (%s) of %s, which was required, is gone", number, f.Name(), name)
		case f.IsExtension():
			c.found("extension %d (%s) of %s is gone", number, f.FullName(), name)
		case !is.ReservedRanges().Has(number) || !is.ReservedNames().Has(f.Name()):
			c.found("field %d (%s) of %s is gone: reserve both its number and its name", number, f.Name(), name)
		}
	}
	for _, number := range slices.Sorted(maps.Keys(after)) {
		f := after[number]
		switch {
		case before[number] != nil:
		case f.Cardinality() == protoreflect.Required:
			c.found("field %d (%s) of %s is new and required: what was sent before lacks it", number, f.Name(), name)
		case was.ReservedRanges().Has(number):
			c.found("field %d (%s) of %s has a number that was reserved", number, f.Name(), name)
		case was.ReservedNames().Has(f.Name()):
			c.found("field %d (%s) of %s has a name that was reserved", number, f.Name(), name)
		}
	}
	c.reserved(was, is, after)
}

// reserved tells which reservations were given up. One whose number or name is used again was told before.
func (c *comparison) reserved(was, is protoreflect.MessageDescriptor, after map[protoreflect.FieldNumber]protoreflect.FieldDescriptor) {
	others, next := sortedRanges(is), 0 // both rise, so that hostile ones cost no more than to sort them
	for _, r := range sortedRanges(was) {
		missing := r[0]
		for ; next < len(others) && others[next][0] <= missing; next++ {
			if missing = max(missing, others[next][1]); missing >= r[1] {
				break // it may cover the next one too
			}
		}
		if missing < r[1] && after[missing] == nil {
			c.found("number %d of %s is not reserved any more", missing, was.FullName())
		}
	}
	for i := range was.ReservedNames().Len() {
		if n := was.ReservedNames().Get(i); !is.ReservedNames().Has(n) && is.Fields().ByName(n) == nil {
			c.found("name %s of %s is not reserved any more", n, was.FullName())
		}
	}
}

// sortedRanges are the reserved numbers of a message. Ranges do not overlap.
func sortedRanges(m protoreflect.MessageDescriptor) [][2]protoreflect.FieldNumber {
	sorted := make([][2]protoreflect.FieldNumber, m.ReservedRanges().Len())
	for i := range sorted {
		sorted[i] = m.ReservedRanges().Get(i)
	}
	slices.SortFunc(sorted, func(a, b [2]protoreflect.FieldNumber) int { return cmp.Compare(a[0], b[0]) })
	return sorted
}

func (c *comparison) field(message protoreflect.FullName, was, is protoreflect.FieldDescriptor) {
	told := func(format string, args ...any) {
		c.found("field %d (%s) of %s "+format, append([]any{was.Number(), was.Name(), message}, args...)...)
	}
	if was.Name() != is.Name() || was.FullName() != is.FullName() && was.IsExtension() {
		told("would be called %s: JSON has names", is.FullName())
	} else if was.JSONName() != is.JSONName() {
		told("was %q in JSON and would be %q", was.JSONName(), is.JSONName())
	}
	if before, after := kindOf(was), kindOf(is); before != after {
		told("was %s and would be %s", before, after)
	} else if was.IsMap() {
		c.field(message, was.MapKey(), is.MapKey())
		c.field(message, was.MapValue(), is.MapValue())
	}
	required := protoreflect.Required
	switch {
	case was.Cardinality() == required && is.Cardinality() != required:
		told("is not required any more: who was built with the old schema refuses what lacks it")
	case was.Cardinality() != required && is.Cardinality() == required:
		told("would be required: what was sent before may lack it")
	}
	if before, after := oneofOf(was), oneofOf(is); before != after {
		told("was in %s and would be in %s", before, after)
	}
	if was.Kind() == protoreflect.EnumKind && is.Kind() == protoreflect.EnumKind && was.Enum().FullName() == is.Enum().FullName() {
		c.enum(was.Enum(), is.Enum())
	}
}

// kindOf says in words what may stand in a field.
func kindOf(f protoreflect.FieldDescriptor) string {
	if f.IsMap() {
		return "a map"
	}
	kind := f.Kind().String()
	switch f.Kind() {
	case protoreflect.EnumKind:
		kind = "enum " + string(f.Enum().FullName())
	case protoreflect.MessageKind:
		kind = "message " + string(f.Message().FullName())
	case protoreflect.GroupKind:
		kind = "group " + string(f.Message().FullName())
	}
	if f.IsList() {
		return "repeated " + kind
	}
	return kind
}

// oneofOf says in words with which fields one excludes others.
func oneofOf(f protoreflect.FieldDescriptor) string {
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return "oneof " + string(o.Name())
	}
	return "no oneof"
}

func (c *comparison) enum(was, is protoreflect.EnumDescriptor) {
	if c.seen[was.FullName()] {
		return
	}
	c.seen[was.FullName()] = true
	if !was.IsClosed() && is.IsClosed() {
		c.found("enum %s would not take other values any more", was.FullName())
	}
	for i := range was.Values().Len() {
		v := was.Values().Get(i)
		switch same := is.Values().ByName(v.Name()); {
		case same != nil && same.Number() == v.Number():
		case same != nil:
			c.found("value %s of enum %s was %d and would be %d", v.Name(), was.FullName(), v.Number(), same.Number())
		case is.Values().ByNumber(v.Number()) != nil:
			c.found("value %d (%s) of enum %s would be called %s: JSON has names", v.Number(), v.Name(), was.FullName(), is.Values().ByNumber(v.Number()).Name())
		default:
			c.found("value %d (%s) of enum %s is gone", v.Number(), v.Name(), was.FullName())
		}
	}
}
