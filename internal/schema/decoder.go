package schema

import (
	"fmt"
	"maps"
	"slices"
)

// Decoder shows the bodies of a queue's messages as its schema understands them, and makes such bodies. It is safe for
// concurrent use.
type Decoder struct {
	set    *Set
	types  map[int64]*Message
	broken error // why the schema is of no use
	names  map[int64]string
}

// NewDecoder returns the decoder of a schema. What is wrong with that is told by Decode and Encode.
func NewDecoder(descriptors []byte, bindings []Binding) *Decoder {
	d := &Decoder{types: map[int64]*Message{}, names: map[int64]string{}}
	for _, b := range bindings {
		d.names[b.Type] = b.Message
	}
	if d.set, d.broken = Compile(descriptors); d.broken != nil {
		return d
	}
	shapes := d.set.Shapes()
	for _, b := range bindings {
		if d.types[b.Type], d.broken = shapes.Of(b.Message); d.broken != nil {
			break
		}
	}
	return d
}

// Types are the types that have a message, rising.
func (d *Decoder) Types() []int64 { return slices.Sorted(maps.Keys(d.names)) }

// Message is the full name of the message that a type has, "" if it has none.
func (d *Decoder) Message(typ int64) string { return d.names[typ] }

// Decode returns a body as JSON, nil if it can not be decoded. The error says why not or, beside JSON, what that does not tell:
// that the body has unknown fields, say. Of a type without a message there is neither. whole is the body's length: it may be cut.
func (d *Decoder) Decode(typ int64, body []byte, whole int) (text []byte, err error) {
	switch {
	case d.names[typ] == "":
		return nil, nil
	case d.broken != nil:
		return nil, d.broken
	case len(body) < whole:
		return nil, fmt.Errorf("only %d of its %d bytes are here", len(body), whole)
	}
	if text, err = d.set.toJSON(d.types[typ], d.names[typ], body); err == nil {
		err = d.types[typ].Validate(body)
	}
	return text, err
}

// Encode makes a body of JSON.
func (d *Decoder) Encode(typ int64, text []byte) ([]byte, error) {
	if d.broken != nil {
		return nil, d.broken
	}
	return d.set.FromJSON(d.names[typ], text)
}
