package schema

import (
	"bytes"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/ipcd/ipcd/internal/limits"
)

// ToJSON shows a body as the protobuf JSON format has it (https://protobuf.dev/programming-guides/json), on one line. What
// stands in a google.protobuf.Any must be in the set too. Fields that the set does not know are left out: Validate tells
// whether there are any.
func (s *Set) ToJSON(message string, body []byte) ([]byte, error) {
	shape, err := s.Shapes().Of(message)
	if err != nil {
		return nil, err
	}
	return s.toJSON(shape, message, body)
}

// toJSON is ToJSON for a message that is ready to be held against.
func (s *Set) toJSON(shape *Message, message string, body []byte) ([]byte, error) {
	m, err := s.message(message)
	if err != nil {
		return nil, err
	}
	// Checked before anything is made of it: two bytes may be a message of hundreds.
	if _, err := (&walk{lenient: true, left: limits.SchemaJSONParts}).message(shape, body, 0, 0); err != nil {
		return nil, err
	}
	decoded := dynamicpb.NewMessage(m)
	if err := (proto.UnmarshalOptions{Resolver: s.types}).Unmarshal(body, decoded); err != nil {
		return nil, fmt.Errorf("it is no %s: %w", message, err)
	}
	text, err := protojson.MarshalOptions{Resolver: s.types}.Marshal(decoded)
	if err != nil {
		return nil, fmt.Errorf("it can not be shown as JSON: %w", err)
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil { // the library varies its spaces on purpose
		return nil, err
	}
	return line.Bytes(), nil
}

// FromJSON makes a body of a message in the protobuf JSON format. The same text makes the same body.
func (s *Set) FromJSON(message string, text []byte) ([]byte, error) {
	m, err := s.message(message)
	if err != nil {
		return nil, err
	}
	decoded := dynamicpb.NewMessage(m)
	if err := (protojson.UnmarshalOptions{Resolver: s.types}).Unmarshal(text, decoded); err != nil {
		return nil, fmt.Errorf("it is no %s in JSON: %w", message, err)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(decoded)
}
