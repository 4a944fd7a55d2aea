package broker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/schema"
)

// schemaByteWork is what it takes to compile a byte of a descriptor set, about: see fair.
const schemaByteWork = 500 * time.Nanosecond

// RegisterSchema makes the next version of a queue's schema. See transport.Broker.
func (b *Broker) RegisterSchema(ctx context.Context, id identity.Identity, r SchemaRequest) (_ SchemaOutcome, err error) {
	defer b.access.Tell(id, &err)
	if err := b.adminTurn(ctx, id, adminWork+time.Duration(len(r.Descriptors))*schemaByteWork); err != nil {
		return SchemaOutcome{}, err
	}
	s, err := b.find(id, r.Queue, access.Manage) // who may not does not get as far as to the compiler
	if err != nil {
		return SchemaOutcome{}, err
	}
	r.Types = slices.SortedFunc(slices.Values(r.Types), func(x, y queue.TypeSchema) int { return cmp.Compare(x.Type, y.Type) })
	set, checks, err := compileSchema(r.Descriptors, r.Types)
	if err != nil {
		return SchemaOutcome{}, reason.New(reason.SchemaInvalid, "%v", err).On(s.name)
	}
	if err := b.admitSchema(ctx, s, &r); err != nil {
		return SchemaOutcome{}, on(s, err)
	}
	for {
		was, err := s.currentSchema(id)
		if err != nil {
			return SchemaOutcome{}, on(s, err)
		}
		if was.Version > 0 && slices.Equal(was.Descriptors, r.Descriptors) && slices.Equal(was.Types, r.Types) {
			return SchemaOutcome{Schema: was}, b.Await(ctx, s.ticket())
		}
		found := s.incompatibilities(was, set, r.Types)
		if len(found) > 0 && !r.AllowIncompatible && !r.DryRun {
			return SchemaOutcome{}, reason.New(reason.SchemaIncompatible, "programs that know version %d could trip over it: %s%s; keep to what it says, or allow it",
				was.Version, found[0], andMore(len(found)-1)).On(s.name)
		}
		if r.DryRun {
			next := queue.Schema{Version: was.Version, Descriptors: r.Descriptors, Types: r.Types}
			return SchemaOutcome{Schema: next, Created: true, Incompatibilities: found}, nil
		}
		made, done, err := s.addSchema(id, &r, was.Version, checks)
		if err != nil {
			return SchemaOutcome{}, on(s, err)
		}
		if done {
			b.log.Info("schema registered", zap.String("queue", s.name), zap.Uint32("version", made.Version), zap.Stringer("by", id))
			return SchemaOutcome{Schema: made, Created: true, Incompatibilities: found}, b.Await(ctx, s.ticket())
		}
	}
}

// andMore says how many others there are.
func andMore(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

// admitSchema sees to it that there is room for a version on disk.
func (b *Broker) admitSchema(ctx context.Context, s *served, r *SchemaRequest) error {
	bytes := int64(len(r.Descriptors)) + frameOverhead
	for _, t := range r.Types {
		if len(t.Message) > limits.SchemaNameLength {
			return reason.New(reason.SchemaInvalid, "a message with a full name of %d bytes: it may have %d", len(t.Message), limits.SchemaNameLength)
		}
		bytes += int64(len(t.Message)) + frameOverhead
	}
	bytes *= 2 // metadata stands in the frame and in its segment's index
	if b.journal != nil && bytes+frameRest > b.maxFrame {
		return reason.New(reason.SchemaInvalid, "a schema of %d bytes: it must fit a segment of the journal, which takes %d; leave unused files out, or raise segment_size", bytes, b.maxFrame)
	}
	return b.admitBytes(ctx, bytes)
}

// currentSchema is the version that counts; version 0: there is none.
func (s *served) currentSchema(id identity.Identity) (queue.Schema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayLocked(id, access.Manage); err != nil {
		return queue.Schema{}, err
	}
	all := s.q.Schemas()
	if len(all) == 0 {
		return queue.Schema{}, nil
	}
	return all[len(all)-1], nil
}

// incompatibilities compares with the version before.
func (s *served) incompatibilities(was queue.Schema, set *schema.Set, types []queue.TypeSchema) []string {
	if was.Version == 0 {
		return nil
	}
	before, err := schema.Compile(was.Descriptors)
	if err != nil {
		return []string{"it can not be compared with the version before, which does not compile any more: " + err.Error()}
	}
	return schema.Incompatibilities(before, set, bindings(was.Types), bindings(types))
}

// addSchema makes the next version, unless the current one is another than was compared with.
func (s *served) addSchema(id identity.Identity, r *SchemaRequest, was uint32, checks *schemaChecks) (made queue.Schema, done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayLocked(id, access.Manage); err != nil {
		return queue.Schema{}, false, err
	}
	if s.q.SchemaVersion() != was {
		return queue.Schema{}, false, nil
	}
	if err := s.takeBytesLocked(int64(len(r.Descriptors))); err != nil {
		return queue.Schema{}, false, err
	}
	s.changeSchemaLocked(func(now queue.Instant) { made = s.q.AddSchema(now, r.Descriptors, r.Types) }, checks)
	return made, true, nil
}

// changeSchemaLocked changes the schema, also in the journal, in a frame of its own.
func (s *served) changeSchemaLocked(change func(now queue.Instant), checks *schemaChecks) {
	now := s.b.now()
	s.flushLocked()
	s.recording = s.b.journal != nil && !s.temporary
	change(now)
	s.recording = false
	s.flushLocked()
	s.checks.Store(checks)
	s.afterLocked(now)
}

// GetSchema tells a version of a queue's schema. See transport.Broker.
func (b *Broker) GetSchema(ctx context.Context, id identity.Identity, name string, version uint32) (_ queue.Schema, versions []uint32, err error) {
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return queue.Schema{}, nil, err
	}
	s, err := b.find(id, name, access.Look)
	if err != nil {
		return queue.Schema{}, nil, err
	}
	s.mu.Lock()
	all := s.q.Schemas()
	s.mu.Unlock()
	return findSchema(name, all, version)
}

// findSchema returns a version, 0 being the last, and the numbers of all.
func findSchema(name string, all []queue.Schema, version uint32) (found queue.Schema, versions []uint32, _ error) {
	if len(all) == 0 {
		return found, nil, noSchema(name)
	}
	if version == 0 {
		version = all[len(all)-1].Version
	}
	for _, s := range all {
		versions = append(versions, s.Version)
		if s.Version == version {
			found = s
		}
	}
	if found.Version == 0 {
		return found, nil, reason.New(reason.SchemaNotFound, "version %d of the schema is not there: there are %d to %d, of which the last %d are kept",
			version, versions[0], versions[len(versions)-1], limits.SchemaVersions).On(name)
	}
	return found, versions, nil
}

func noSchema(name string) error {
	return reason.New(reason.SchemaNotFound, "the queue has no schema: register one first").On(name)
}

// RemoveSchema removes a queue's schema. See transport.Broker.
func (b *Broker) RemoveSchema(ctx context.Context, id identity.Identity, name string) (err error) {
	defer b.access.Tell(id, &err)
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return err
	}
	s, err := b.find(id, name, access.Manage)
	if err != nil {
		return err
	}
	if err := b.admitBytes(ctx, frameOverhead); err != nil {
		return err
	}
	s.mu.Lock()
	err = s.mayLocked(id, access.Manage)
	if err == nil && s.q.SchemaVersion() == 0 {
		err = noSchema(name)
	}
	if err == nil {
		s.changeSchemaLocked(s.q.RemoveSchemas, nil)
	}
	s.mu.Unlock()
	if err != nil {
		return on(s, err)
	}
	b.log.Info("schema removed", zap.String("queue", name), zap.Stringer("by", id))
	return b.Await(ctx, s.ticket())
}

// keepSchemasLocked writes again the versions that were last written in a segment up to that generation.
func (s *served) keepSchemasLocked(now queue.Instant, generation uint64) {
	for !s.deleted && !s.temporary {
		s.recording = true
		more := s.q.KeepSchemas(now, generation)
		s.recording = false
		s.flushLocked()
		if !more {
			return
		}
		s.breathe()
	}
}

// Schema tells the current version of a queue's schema, if it has one.
func (i *Inspection) Schema(name string) (queue.Schema, bool) {
	q := i.byName[name]
	if q == nil || q.SchemaVersion() == 0 {
		return queue.Schema{}, false
	}
	all := q.Schemas()
	return all[len(all)-1], true
}
