package schema

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
)

// body makes a body of JSON.
func body(t testing.TB, s *Set, message, text string) []byte {
	t.Helper()
	b, err := s.FromJSON(message, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const fullOrder = `{"id":"7","note":"grüß","items":[{"name":"a","count":2},{}],"counts":{"x":1},"state":"STATE_OPEN",` +
	`"at":"2026-01-02T03:04:05Z","more":{"@type":"type.googleapis.com/acme.Item","name":"in"},"numbers":[-1,2],"card":"9",` +
	`"weight":1.5,"raw":"AAE=","child":{"id":"8"},"size":0.5,"fixed":[1,2]}`

func TestWholeMessagesAreValid(t *testing.T) {
	s, old := compile(t, orders), compile(t, legacy)
	for _, c := range []struct {
		set           *Set
		message, text string
	}{
		{s, "acme.Order", fullOrder},
		{s, "acme.Order", `{}`},
		{s, "acme.Order", `{"state":99}`}, // an open enum
		{old, "acme.Old", `{"a":1,"b":"x","color":"GREEN","inner":{"y":2},"children":[{"a":3,"b":""}],"[acme.extra]":"more"}`},
	} {
		if err := c.set.Validate(c.message, body(t, c.set, c.message, c.text)); err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
	}
}

func TestPackedAndUnpackedNumbersAreValid(t *testing.T) {
	s := compile(t, orders)
	var b []byte
	b = protowire.AppendVarint(protowire.AppendTag(b, 8, protowire.VarintType), 3)
	b = protowire.AppendBytes(protowire.AppendTag(b, 8, protowire.BytesType), []byte{1, 2, 3})
	b = protowire.AppendFixed32(protowire.AppendTag(b, 16, protowire.Fixed32Type), 3)
	if err := s.Validate("acme.Order", b); err != nil {
		t.Error(err)
	}
}

func TestWhatIsWrongWithABodyIsNamed(t *testing.T) {
	s, old := compile(t, orders), compile(t, legacy)
	tag := protowire.AppendTag
	item := func(inner []byte) []byte { return protowire.AppendBytes(tag(nil, 3, protowire.BytesType), inner) }
	var deep []byte
	for range 101 {
		deep = protowire.AppendBytes(tag(nil, 14, protowire.BytesType), deep)
	}
	for _, c := range []struct {
		set     *Set
		message string
		body    []byte
		want    string
	}{
		{s, "acme.Order", []byte{0x12}, "no protobuf message"},
		{s, "acme.Order", []byte{0x08}, "in the middle of a field"},
		{s, "acme.Order", protowire.AppendVarint(tag(nil, 9, protowire.VarintType), 1), "field 9 is not known to acme.Order"},
		{s, "acme.Order", item(protowire.AppendVarint(tag(nil, 5, protowire.VarintType), 1)), "field 5 is not known to acme.Item"},
		{s, "acme.Order", protowire.AppendVarint(tag(nil, 2, protowire.VarintType), 1), "field 2 (note) of acme.Order has wire type 0: it must be 2"},
		{s, "acme.Order", protowire.AppendBytes(tag(nil, 1, protowire.BytesType), []byte{1}), "field 1 (id) of acme.Order has wire type 2: it must be 0"},
		{s, "acme.Order", protowire.AppendBytes(tag(nil, 2, protowire.BytesType), []byte{0xff}), "field 2 (note) of acme.Order is no UTF-8"},
		{s, "acme.Order", protowire.AppendBytes(tag(nil, 16, protowire.BytesType), []byte{1, 2, 3}), "in the middle of a field"},
		{s, "acme.Order", tag(nil, 1, protowire.EndGroupType), "where none began"},
		{s, "acme.Order", deep, "nested more than 100 deep in acme.Order"},
		{s, "acme.Order", protowire.AppendBytes(tag(nil, 4, protowire.BytesType), protowire.AppendVarint(tag(nil, 3, protowire.VarintType), 1)), "field 3 is not known to acme.Order.CountsEntry"},
		{old, "acme.Old", nil, "acme.Old requires 2 fields"},
		{old, "acme.Old", []byte{8, 1, 8, 1}, "field 2 (b) is missing"},
		{old, "acme.Old", []byte{8, 1, 18, 0, 24, 9}, "is 9, which acme.Color does not know"},
		{old, "acme.Old", []byte{8, 1, 18, 0, 35, 8, 1, 36}, "field 2 (y) is missing"},
		{old, "acme.Old", []byte{8, 1, 18, 0, 35, 16, 1}, "does not end"},
		{old, "acme.Old", []byte{8, 1, 18, 0, 42, 2, 8, 1}, "acme.Old requires 2 fields"},
	} {
		if err := c.set.Validate(c.message, c.body); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("% x: %v, want %q", c.body, err, c.want)
		}
	}
}

func TestValidatingAllocatesNothingForTheBody(t *testing.T) {
	m, err := compile(t, orders).Shapes().Of("acme.Order")
	if err != nil {
		t.Fatal(err)
	}
	hostile := bytes.Repeat([]byte{0x1a, 0x00}, 1<<16) // as many items as there can be
	if n := testing.AllocsPerRun(3, func() { err = m.Validate(hostile) }); n > 0 || err != nil {
		t.Errorf("%v allocations, %v", n, err)
	}
}

// FuzzValidate holds the walk against the library: what is valid can be decoded, and has nothing unknown.
func FuzzValidate(f *testing.F) {
	sets := []struct {
		set     *Set
		message string
	}{{compile(f, orders), "acme.Order"}, {compile(f, legacy), "acme.Old"}}
	f.Add(body(f, sets[0].set, "acme.Order", fullOrder))
	f.Add(body(f, sets[1].set, "acme.Old", `{"a":1,"b":"x","color":"GREEN","inner":{"y":2},"children":[{"a":3,"b":""}],"[acme.extra]":"more"}`))
	f.Add([]byte{0x23, 0x10, 0x01, 0x24})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range sets {
			if err := c.set.Validate(c.message, b); err != nil {
				continue
			}
			d, err := c.set.message(c.message)
			if err != nil {
				t.Fatal(err)
			}
			m := dynamicpb.NewMessage(d)
			if err := (proto.UnmarshalOptions{Resolver: c.set.types}).Unmarshal(b, m); err != nil {
				t.Fatalf("%s: % x is valid and can not be decoded: %v", c.message, b, err)
			}
			if len(m.GetUnknown()) > 0 {
				t.Fatalf("%s: % x is valid and has unknown fields % x", c.message, b, m.GetUnknown())
			}
		}
	})
}
