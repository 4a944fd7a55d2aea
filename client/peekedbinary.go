package client

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// MarshalBinary returns the message, but for the queue's name, as an ipcd.v1.PeekedMessage in protobuf's binary form.
func (p *Peeked) MarshalBinary() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(p.proto())
}

// UnmarshalBinary sets all but the queue's name from what MarshalBinary returned.
func (p *Peeked) UnmarshalBinary(data []byte) error {
	var m ipcdv1.PeekedMessage
	if err := proto.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("no message: %w", err)
	}
	name := p.Queue
	*p = *(&Queue{name: name}).peeked(&m)
	return nil
}

// proto is the message without its queue.
func (p *Peeked) proto() *ipcdv1.PeekedMessage {
	return &ipcdv1.PeekedMessage{
		Message:         messageProto(&p.Message),
		Sequence:        p.Sequence,
		SendTime:        timeProto(p.SentAt),
		State:           ipcdv1.MessageState(p.State),
		Attempts:        uint32(p.Attempts),
		DueTime:         timeProto(p.Due),
		LeaseExpireTime: timeProto(p.LeaseExpires),
		ExpireTime:      timeProto(p.Expires),
		BuryReason:      p.BuryReason,
		TruncatedFrom:   uint64(p.TruncatedFrom),
	}
}

// timeProto is unset for the zero time.
func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func messageProto(m *Message) *ipcdv1.Message {
	p := &ipcdv1.Message{
		Type: m.Type, Priority: uint32(m.Priority), Body: m.Body, Headers: m.Headers, Ttl: durationProto(m.TTL),
		DedupId: m.DedupID, CorrelationId: m.CorrelationID, ReplyTo: m.ReplyTo, ContentType: m.ContentType,
	}
	switch {
	case m.Delay != 0:
		p.Schedule = &ipcdv1.Message_Delay{Delay: durationProto(m.Delay)}
	case !m.NotBefore.IsZero():
		p.Schedule = &ipcdv1.Message_NotBefore{NotBefore: timestamppb.New(m.NotBefore)}
	}
	return p
}
