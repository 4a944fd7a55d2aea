package main

import (
	"encoding/json"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/schema"
)

// decoderOf returns what shows a queue's messages decoded, nil if it has no schema.
func decoderOf(found *broker.Inspection, name string) *schema.Decoder {
	s, ok := found.Schema(name)
	if !ok {
		return nil
	}
	bindings := make([]schema.Binding, len(s.Types))
	for i, t := range s.Types {
		bindings[i] = schema.Binding(t)
	}
	return schema.NewDecoder(s.Descriptors, bindings)
}

// decode returns the message that a body is by the queue's schema, and the body as JSON, if it can be decoded. The error says
// why it can not or what JSON does not tell.
func decode(decoder *schema.Decoder, m *queue.Peeked) (message string, text json.RawMessage, err error) {
	if decoder == nil {
		return "", nil, nil
	}
	text, err = decoder.Decode(m.Type, m.Body, max(len(m.Body), m.TruncatedFrom))
	return decoder.Message(m.Type), text, err
}
