package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/schema"
)

func newDecoder(s client.Schema) *schema.Decoder {
	bindings := make([]schema.Binding, len(s.Types))
	for i, t := range s.Types {
		bindings[i] = schema.Binding(t)
	}
	return schema.NewDecoder(s.Descriptors, bindings)
}

// loadSchema gets what is needed to show a queue's messages decoded.
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
		a.schemas = map[string]*schema.Decoder{}
	}
	a.schemas[name] = newDecoder(s)
	return nil
}

// decoded is a body as the queue's schema understands it.
type decoded struct {
	message string          // full name; "": the type has none
	text    json.RawMessage // nil: it could not be decoded
	err     error           // why not or, if it could, what the JSON does not tell
}

// decode decodes a body, if loadSchema found what is needed.
func (a *app) decode(m *shown) {
	if d := a.schemas[m.queue]; d != nil {
		m.decoded.message = d.Message(m.Type)
		m.decoded.text, m.decoded.err = d.Decode(m.Type, m.Body, max(len(m.Body), m.truncatedFrom))
	}
}

// encoder returns what makes a body of JSON for a queue. typ is the type of the message; 0 becomes the only one that the
// schema has.
func (a *app) encoder(ctx context.Context, c *client.Client, name string, typ *int64) (func([]byte) ([]byte, error), error) {
	s, _, err := c.Queue(name).Schema(ctx, 0)
	if err != nil {
		return nil, err
	}
	d := newDecoder(s)
	types := d.Types()
	if *typ == 0 {
		if len(types) != 1 {
			return nil, usagef("--json needs --type: the schema of %s has messages for %s", name, listTypes(types))
		}
		*typ = types[0]
	}
	if d.Message(*typ) == "" {
		return nil, usagef("--json: the schema of %s has no message for type %d, but for %s", name, *typ, listTypes(types))
	}
	return func(text []byte) ([]byte, error) {
		body, err := d.Encode(*typ, text)
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
