package schema

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/ipcd/ipcd/internal/limits"
)

func TestSetsThatMakeNoSenseAreRefused(t *testing.T) {
	file := func(name string, deps ...string) *descriptorpb.FileDescriptorProto {
		return &descriptorpb.FileDescriptorProto{Name: &name, Dependency: deps}
	}
	set := func(files ...*descriptorpb.FileDescriptorProto) []byte {
		return marshal(t, &descriptorpb.FileDescriptorSet{File: files})
	}
	deep := &descriptorpb.DescriptorProto{Name: proto.String("M")}
	for range limits.SchemaDepth {
		deep = &descriptorpb.DescriptorProto{Name: proto.String("M"), NestedType: []*descriptorpb.DescriptorProto{deep}}
	}
	nested := file("deep")
	nested.MessageType = []*descriptorpb.DescriptorProto{deep}

	long := &descriptorpb.DescriptorProto{Name: proto.String(strings.Repeat("m", 1000))}
	for i := range 10000 {
		long.NestedType = append(long.NestedType, &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprint("n", i))})
	}
	named := file("long")
	named.MessageType = []*descriptorpb.DescriptorProto{long}

	ladder := []*descriptorpb.FileDescriptorProto{file("0a"), file("0b")}
	for i := 1; i < 40; i++ { // 2 to the 40th ways
		for _, side := range []string{"a", "b"} {
			f := file(fmt.Sprint(i, side), fmt.Sprint(i-1, "a"), fmt.Sprint(i-1, "b"))
			f.PublicDependency = []int32{0, 1}
			ladder = append(ladder, f)
		}
	}
	circle := file("circle", "circle")
	circle.PublicDependency = []int32{0}

	var many []*descriptorpb.FileDescriptorProto
	for i := range limits.SchemaFiles + 1 {
		many = append(many, file(fmt.Sprint(i)))
	}
	for name, c := range map[string]struct {
		set  []byte
		want string
	}{
		"empty":          {nil, "is empty"},
		"text":           {[]byte("hello"), "no descriptor set"},
		"too large":      {make([]byte, limits.SchemaBytes+1), "it may have 1048576"},
		"elements":       {set(&descriptorpb.FileDescriptorProto{Name: proto.String("e"), MessageType: blankMessages(limits.SchemaElements)}), "too many parts"},
		"files":          {set(many...), "1025 files"},
		"missing import": {set(file("a", "b")), "does not hold together"},
		"depth":          {set(nested), "nested more than 100 deep"},
		"names":          {set(named), "full names"},
		"public ladder":  {set(ladder...), "publicly"},
		"public circle":  {set(circle), "in a circle"},
	} {
		if _, err := Compile(c.set); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.300v, want %q", name, err, c.want)
		}
	}
}

// blankMessages returns n of them.
func blankMessages(n int) []*descriptorpb.DescriptorProto {
	all := make([]*descriptorpb.DescriptorProto, n)
	for i := range all {
		all[i] = &descriptorpb.DescriptorProto{}
	}
	return all
}

func TestBindingsAreChecked(t *testing.T) {
	s := compile(t, orders)
	if err := s.Check([]Binding{{7, "acme.Order", true}, {8, "acme.Item", false}, {9, "google.protobuf.Timestamp", false}}); err != nil {
		t.Error(err)
	}
	many := make([]Binding, limits.SchemaTypes+1)
	for i := range many {
		many[i] = Binding{Type: int64(i + 1), Message: "acme.Order"}
	}
	for _, c := range []struct {
		bindings []Binding
		want     string
	}{
		{nil, "bind at least one"},
		{many, "a schema may have 1024"},
		{many[:limits.SchemaTypes], ""},
		{[]Binding{{0, "acme.Order", false}}, "types are positive"},
		{[]Binding{{7, "acme.Order", false}, {7, "acme.Item", false}}, "has two messages"},
		{[]Binding{{7, "acme.Nothing", false}}, `no message "acme.Nothing"`},
		{[]Binding{{7, "", false}}, `no message ""`},
		{[]Binding{{7, "acme.State", false}}, "is no message"},
		{[]Binding{{7, "acme.Order.CountsEntry", false}}, "is no message"},
	} {
		err := s.Check(c.bindings)
		switch {
		case c.want == "" && err == nil:
		case c.want != "" && err != nil && strings.Contains(err.Error(), c.want):
		default:
			t.Errorf("%.3v: %v, want %q", c.bindings, err, c.want)
		}
	}
}

func TestJSONGoesThereAndBack(t *testing.T) {
	s := compile(t, orders)
	b := body(t, s, "acme.Order", fullOrder)
	text, err := s.ToJSON("acme.Order", b)
	if err != nil || string(text) != fullOrder {
		t.Errorf("%s\n%s\n%v", text, fullOrder, err)
	}
	if again := body(t, s, "acme.Order", string(text)); !bytes.Equal(again, b) {
		t.Errorf("% x\n% x", again, b)
	}
}

func TestWhatCanNotBeShownAsJSONIsAnError(t *testing.T) {
	s, old := compile(t, orders), compile(t, legacy)
	other := body(t, s, "acme.Order", `{"more":{"@type":"type.googleapis.com/acme.Item","name":"in"}}`)
	other = bytes.Replace(other, []byte("acme.Item"), []byte("acme.Itex"), 1)
	for _, c := range []struct {
		set     *Set
		message string
		body    []byte
	}{
		{s, "acme.Order", []byte("hello")},
		{s, "acme.Order", other}, // an Any of a message that the set does not have
		{s, "acme.Order", bytes.Repeat([]byte{0x1a, 0x00}, limits.SchemaJSONParts+1)},
		{s, "acme.Nothing", nil},
		{old, "acme.Old", nil},
	} {
		if text, err := c.set.ToJSON(c.message, c.body); err == nil {
			t.Errorf("%.20q: %.50s", c.body, text)
		}
	}
	for _, text := range []string{"", "{", `{"nothing":1}`, `{"id":"x"}`, `[]`, `{} {}`} {
		if b, err := s.FromJSON("acme.Order", []byte(text)); err == nil {
			t.Errorf("%s: % x", text, b)
		}
	}
	if text, err := s.ToJSON("acme.Order", []byte{0x48, 0x01, 0x08, 0x07}); err != nil || string(text) != `{"id":"7"}` {
		t.Errorf("a body with an unknown field: %s, %v", text, err)
	}
}

// FuzzCompile feeds Compile what strangers send: whatever compiles must also be of use.
func FuzzCompile(f *testing.F) {
	f.Add(describe(f, orders))
	f.Add(describe(f, legacy))
	f.Add([]byte{0x0a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Compile(b)
		if err != nil {
			return
		}
		var bindings []Binding
		for _, name := range []string{"acme.Order", "acme.Old", "google.protobuf.Timestamp"} {
			binding := []Binding{{int64(len(bindings) + 1), name, true}}
			if s.Check(binding) != nil {
				continue
			}
			bindings = append(bindings, binding...)
			if err := s.Validate(name, []byte{0x08, 0x01}); err == nil {
				_, _ = s.ToJSON(name, []byte{0x08, 0x01})
			}
			_, _ = s.FromJSON(name, []byte(`{"id":"1"}`))
		}
		if found := Incompatibilities(s, s, bindings, bindings); len(found) > 0 {
			t.Errorf("a set is not compatible with itself: %q", found)
		}
	})
}

func TestADecoderTellsWhatItCanOfABody(t *testing.T) {
	bound := []Binding{{9, "acme.Item", false}, {7, "acme.Order", false}}
	d := NewDecoder(describe(t, orders), bound)
	if got := fmt.Sprint(d.Types(), d.Message(7), d.Message(8)); got != "[7 9]acme.Order" {
		t.Error(got)
	}
	b, err := d.Encode(7, []byte(`{"id":"7"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		typ   int64
		body  []byte
		whole int
		text  string
		err   string
	}{
		{7, b, len(b), `{"id":"7"}`, ""},
		{7, append(b[:len(b):len(b)], 0x48, 1), 4, `{"id":"7"}`, "field 9 is not known to acme.Order"},
		{7, []byte("hello"), 5, "", "wire type"},
		{7, b, 3, "", "only 2 of its 3 bytes"},
		{8, b, len(b), "", ""},
	} {
		text, err := d.Decode(c.typ, c.body, c.whole)
		if string(text) != c.text || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("type %d, % x: %s, %v, want %s, %q", c.typ, c.body, text, err, c.text, c.err)
		}
	}
	for _, broken := range []*Decoder{NewDecoder([]byte("hello"), bound), NewDecoder(describe(t, legacy), bound)} {
		if text, err := broken.Decode(7, b, len(b)); text != nil || err == nil {
			t.Errorf("decoded by a broken schema: %s", text)
		}
		if b, err := broken.Encode(7, []byte("{}")); err == nil {
			t.Errorf("encoded by a broken schema: % x", b)
		}
		if text, err := broken.Decode(1, b, len(b)); text != nil || err != nil {
			t.Errorf("a type without a message: %s, %v", text, err)
		}
	}
}
