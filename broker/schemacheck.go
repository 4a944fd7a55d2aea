package broker

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/schema"
)

// schemaChecks is what the bodies of a queue's messages are held against, by type. It is never changed.
type schemaChecks map[int64]typeCheck

type typeCheck struct {
	message string
	shape   *schema.Message // nil: the schema does not compile any more
}

// compileSchema checks a schema. checks is nil if it asks for none.
func compileSchema(descriptors []byte, types []queue.TypeSchema) (set *schema.Set, checks *schemaChecks, err error) {
	if set, err = schema.Compile(descriptors); err != nil {
		return nil, nil, err
	}
	if err := set.Check(bindings(types)); err != nil {
		return nil, nil, err
	}
	made := schemaChecks{}
	shapes := set.Shapes()
	for _, t := range types {
		if t.Validate {
			shape, err := shapes.Of(t.Message)
			if err != nil {
				return nil, nil, err
			}
			made[t.Type] = typeCheck{t.Message, shape}
		}
	}
	if len(made) > 0 {
		checks = &made
	}
	return set, checks, nil
}

func bindings(types []queue.TypeSchema) []schema.Binding {
	all := make([]schema.Binding, len(types))
	for i, t := range types {
		all[i] = schema.Binding(t)
	}
	return all
}

// loadChecks makes ready what bodies are held against, of a queue that was replayed.
func (s *served) loadChecks() {
	all := s.q.Schemas()
	if len(all) == 0 {
		return
	}
	current := all[len(all)-1]
	made := schemaChecks{}
	for _, t := range current.Types {
		if t.Validate {
			made[t.Type] = typeCheck{message: t.Message}
		}
	}
	if len(made) == 0 {
		return
	}
	_, checks, err := compileSchema(current.Descriptors, current.Types)
	if err != nil { // of another release, perhaps: what can not be checked is not let in
		s.b.log.Error("a schema does not compile any more; sends that it validates are refused", zap.String("queue", s.name), zap.Error(err))
		checks = &made
	}
	s.checks.Store(checks)
}

// checkBodies says which of the messages has a body that the queue's schema refuses, if one has. It is called without
// the lock: a schema that is registered meanwhile counts for the next send.
func (s *served) checkBodies(messages []queue.Message) error {
	checks := s.checks.Load()
	if checks == nil {
		return nil
	}
	for i := range messages {
		if err := s.checkBody(*checks, &messages[i]); err != nil {
			return err.At(i)
		}
	}
	return nil
}

func (s *served) checkBody(checks schemaChecks, m *queue.Message) *reason.Error {
	c, validated := checks[m.Type]
	if !validated {
		return nil
	}
	why := fmt.Errorf("the queue's schema can not be used: register it again")
	if c.shape != nil {
		if why = c.shape.Validate(m.Body); why == nil {
			return nil
		}
	}
	e := reason.New(reason.SchemaMismatch, "a body of type %d that is no %s: %v", m.Type, c.message, why).On(s.name)
	e.Field = "body"
	return e
}

// refuse answers a send with bodies that the schema refuses, unless it was stored before, when there was another schema.
func (s *served) refuse(id identity.Identity, r *SendRequest, why error) (queue.Stored, Ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayLocked(id, access.Send); err != nil {
		return queue.Stored{}, 0, s.b.late(on(s, err), s.name)
	}
	stored, repeated, err := s.q.Repeat(r.Producer, r.Batch)
	if err == nil && !repeated {
		err = why
	}
	return stored, s.last, on(s, err)
}

// onlyValid returns the messages whose bodies the queue's schema lets in, how many it refuses, and why the first.
func (s *served) onlyValid(messages []queue.Message) (valid []queue.Message, refused int, err error) {
	if err = s.checkBodies(messages); err == nil {
		return messages, 0, nil
	}
	checks := s.checks.Load()
	for i := range messages {
		if checks == nil || s.checkBody(*checks, &messages[i]) == nil {
			valid = append(valid, messages[i])
		}
	}
	return valid, len(messages) - len(valid), err
}

// checkBodies holds what may be stored against the schemas of the queues concerned. What counts of it is known under the
// locks: the operation may have been done before, and which copies come is not decided yet.
func (f *flow) checkBodies() {
	for _, p := range f.order {
		checks := p.s.checks.Load()
		if checks == nil {
			continue
		}
		if !f.single { // else it was checked before
			for _, g := range p.takes[:p.own] {
				if err := p.s.checkBody(*checks, f.messages[g]); err != nil && p.invalid == nil {
					p.invalid = err.At(f.sendOf[g])
				}
			}
		}
		for _, g := range p.copies {
			if err := p.s.checkBody(*checks, f.messages[g]); err != nil {
				if p.unfit == nil {
					p.unfit = map[int]error{}
				}
				p.unfit[g] = err
			}
		}
	}
}
