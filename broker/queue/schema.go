package queue

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/ipcd/ipcd/internal/limits"
)

// Schema is a version of what the bodies of a queue's messages are made of. It is never changed in place.
type Schema struct {
	Version     uint32
	CreatedAt   int64  // wall time, ns since 1970
	Descriptors []byte // a serialized google.protobuf.FileDescriptorSet
	Types       []TypeSchema
}

// TypeSchema says what the bodies of one type are.
type TypeSchema struct {
	Type     int64
	Message  string // full name of a protobuf message in the descriptors
	Validate bool   // sends of other bodies are refused
}

// bytes is roughly what the version takes, in memory and in the journal.
func (s *Schema) bytes() int64 {
	n := len(s.Descriptors)
	for _, t := range s.Types {
		n += len(t.Message)
	}
	return int64(n) + int64(len(s.Types))*typeBytes + typeBytes
}

// typeBytes is what a bound type takes beside its message's name.
const typeBytes = 40

// schemas are the versions that are kept.
type schemas struct {
	all   []Schema // rising
	last  uint32   // that was given out; never used again
	bytes int64

	// Where they were last emitted to: generations of the journal. What was emitted again is unstamped until Stamp.
	gens  []uint64 // of all
	noGen uint64   // of the record that there are none
	fresh bool     // something is unstamped
}

// schemaRecord is a version as a record has it.
type schemaRecord struct {
	last   uint32  // as in schemas
	schema *Schema // nil: there is none any more
}

// Schemas returns the versions that are kept, rising: the last one is current. They must not be changed.
func (q *Queue) Schemas() []Schema { return q.schemas.all }

// SchemaVersion is the current version, 0 if there is none.
func (q *Queue) SchemaVersion() uint32 {
	if all := q.schemas.all; len(all) > 0 {
		return all[len(all)-1].Version
	}
	return 0
}

// SchemaBytes is roughly what all versions take, in memory and in the journal.
func (q *Queue) SchemaBytes() int64 { return q.schemas.bytes }

// AddSchema makes the next version of the queue's schema, and returns it. The oldest goes where there are too many.
func (q *Queue) AddSchema(now Instant, descriptors []byte, types []TypeSchema) Schema {
	s := Schema{Version: q.schemas.last + 1, CreatedAt: now.Wall, Descriptors: bytes.Clone(descriptors), Types: slices.Clone(types)}
	q.issue(&Record{kind: recSchema, At: now, schema: &schemaRecord{s.Version, &s}})
	return s
}

// RemoveSchemas removes all versions.
func (q *Queue) RemoveSchemas(now Instant) {
	if len(q.schemas.all) > 0 {
		q.issue(&Record{kind: recSchema, At: now, schema: &schemaRecord{last: q.schemas.last}})
	}
}

// KeepSchemas emits again a version that was last emitted to that generation of the journal or an earlier one. more says
// that there may be others.
func (q *Queue) KeepSchemas(now Instant, gen uint64) (more bool) {
	x := &q.schemas
	for i := range x.all {
		if x.gens[i] <= gen {
			q.issue(&Record{kind: recSchema, At: now, schema: &schemaRecord{x.last, &x.all[i]}})
			return true
		}
	}
	if len(x.all) == 0 && x.last > 0 && x.noGen <= gen {
		q.issue(&Record{kind: recSchema, At: now, schema: &schemaRecord{last: x.last}})
	}
	return false
}

// SchemaBytesIn is roughly what of the schemas was last emitted to that generation of the journal.
func (q *Queue) SchemaBytesIn(gen uint64) (bytes int64) {
	for i := range q.schemas.all {
		if q.schemas.gens[i] == gen {
			bytes += q.schemas.all[i].bytes()
		}
	}
	return bytes
}

// apply takes over what a record says. Of a version that is known already it is another copy.
func (x *schemas) apply(r *schemaRecord) {
	x.last, x.fresh = max(x.last, r.last), true
	if r.schema == nil {
		x.all, x.gens, x.bytes, x.noGen = nil, nil, 0, unstamped
		return
	}
	i, known := slices.BinarySearchFunc(x.all, r.schema.Version, func(s Schema, v uint32) int { return cmp.Compare(s.Version, v) })
	if known {
		x.gens[i] = unstamped
		return
	}
	// A copy: others may hold the slice.
	x.all, x.gens = slices.Insert(slices.Clip(x.all), i, *r.schema), slices.Insert(x.gens, i, unstamped)
	x.bytes += r.schema.bytes()
	if over := len(x.all) - limits.SchemaVersions; over > 0 {
		x.bytes -= x.all[0].bytes()
		x.all, x.gens = slices.Clone(x.all[over:]), x.gens[over:]
	}
}

// stamp says where lies what was emitted.
func (x *schemas) stamp(gen uint64) {
	if !x.fresh {
		return
	}
	x.fresh = false
	if x.noGen == unstamped {
		x.noGen = gen
	}
	for i := range x.gens {
		if x.gens[i] == unstamped {
			x.gens[i] = gen
		}
	}
}

func (r *schemaRecord) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(r.last))
	b = appendBool(b, r.schema != nil)
	if s := r.schema; s != nil {
		b = binary.AppendUvarint(b, uint64(s.Version))
		b = binary.AppendVarint(b, s.CreatedAt)
		b = appendString(b, string(s.Descriptors))
		b = binary.AppendUvarint(b, uint64(len(s.Types)))
		for _, t := range s.Types {
			b = binary.AppendVarint(b, t.Type)
			b = appendString(b, t.Message)
			b = appendBool(b, t.Validate)
		}
	}
	return b
}

func (d *decoder) schemaRecord() *schemaRecord {
	r := &schemaRecord{last: uint32(d.uvarint())}
	if d.byte() == 0 {
		return r
	}
	s := &Schema{Version: uint32(d.uvarint()), CreatedAt: d.varint(), Descriptors: bytes.Clone(d.bytes())}
	const shortest = 3
	for n := d.countOf(limits.SchemaTypes, shortest); n > 0 && d.err == nil; n-- {
		s.Types = append(s.Types, TypeSchema{Type: d.varint(), Message: d.string(), Validate: d.byte() != 0})
	}
	if (s.Version == 0 || s.Version > r.last || len(s.Descriptors) > limits.SchemaBytes) && d.err == nil {
		d.fail(fmt.Errorf("version %d of a schema, of %d bytes, where %d is the last", s.Version, len(s.Descriptors), r.last))
	}
	r.schema = s
	return r
}
