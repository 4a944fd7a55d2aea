package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/schema"
)

// queueSchema is what is known of a queue's bodies.
type queueSchema struct {
	set      *schema.Set
	messages map[int64]string // by type
	shapes   map[int64]*schema.Message
	err      error // why the schema is of no use
}

func newQueueSchema(s client.Schema) *queueSchema {
	q := &queueSchema{messages: map[int64]string{}, shapes: map[int64]*schema.Message{}}
	if q.set, q.err = schema.Compile(s.Descriptors); q.err != nil {
		return q
	}
	shapes := q.set.Shapes()
	for _, t := range s.Types {
		q.messages[t.Type] = t.Message
		if q.shapes[t.Type], q.err = shapes.Of(t.Message); q.err != nil {
			return q
		}
	}
	return q
}

// loadSchema gets what is needed to show a queue's messages decoded. Without it they are shown as they are.
func (a *app) loadSchema(ctx context.Context, c *client.Client, name string) error {
	if a.schemas[name] != nil {
		return nil
	}
	s, _, err := c.Queue(name).Schema(ctx, 0)
	if errors.Is(err, client.ErrSchemaNotFound) { // it was removed this moment
		return nil
	}
	if err != nil {
		return err
	}
	if a.schemas == nil {
		a.schemas = map[string]*queueSchema{}
	}
	a.schemas[name] = newQueueSchema(s)
	return nil
}

// decoded is a body as the queue's schema understands it.
type decoded struct {
	message string          // full name; "": the type has none
	text    json.RawMessage // nil: it could not be decoded
	// Why it could not be decoded or, if it could, what the JSON does not tell.
	err error
}

// decode decodes a whole body. What is cut, or no message of the schema, stays as it is.
func (a *app) decode(m *shown) {
	q := a.schemas[m.queue]
	if q == nil {
		return
	}
	d := &m.decoded
	if d.message = q.messages[m.Type]; d.message == "" {
		return
	}
	switch {
	case q.err != nil:
		d.err = q.err
	case m.truncatedFrom > 0:
		d.err = errors.New("the body was cut")
	default:
		if d.text, d.err = q.set.ToJSON(d.message, m.Body); d.err == nil {
			d.err = q.shapes[m.Type].Validate(m.Body)
		}
	}
}

// encoder returns what makes a body of JSON for a queue. typ is the type of the message, 0 for the only one that the schema has.
func (a *app) encoder(ctx context.Context, c *client.Client, name string, typ *int64) (func([]byte) ([]byte, error), error) {
	s, _, err := c.Queue(name).Schema(ctx, 0)
	if err != nil {
		return nil, err
	}
	q := newQueueSchema(s)
	if q.err != nil {
		return nil, q.err
	}
	types := slices.Sorted(maps.Keys(q.messages))
	if *typ == 0 {
		if len(types) != 1 {
			return nil, usagef("--json needs --type: the schema of %s has messages for %s", name, listTypes(types))
		}
		*typ = types[0]
	}
	message := q.messages[*typ]
	if message == "" {
		return nil, usagef("--json: the schema of %s has no message for type %d, but for %s", name, *typ, listTypes(types))
	}
	return func(text []byte) ([]byte, error) {
		body, err := q.set.FromJSON(message, text)
		if err != nil {
			return nil, fmt.Errorf("the payload: %w", err)
		}
		return body, nil
	}, nil
}

func listTypes(types []int64) string {
	words := make([]string, len(types))
	for i, t := range types {
		words[i] = fmt.Sprint(t)
	}
	const most = 20
	if len(words) > most {
		words = append(words[:most], fmt.Sprintf("%d more", len(words)-most))
	}
	return "type " + strings.Join(words, ", ")
}
