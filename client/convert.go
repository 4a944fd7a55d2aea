package client

import (
	"math"
	"math/rand/v2"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// timeOf is the zero time for an unset timestamp.
func timeOf(p *timestamppb.Timestamp) time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.AsTime().Local()
}

// durationProto is unset for zero.
func durationProto(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// jitter is between three quarters of d and d, so that many clients do not come at once.
func jitter(d time.Duration) time.Duration {
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// size is what the message is charged: body, headers and ids.
func (m *Message) size() int {
	n := len(m.Body) + len(m.DedupID) + len(m.CorrelationID) + len(m.ReplyTo) + len(m.ContentType)
	for k, v := range m.Headers {
		n += len(k) + len(v)
	}
	return n
}

// batchProto turns a batch into its protobuf form, and tells its size in bytes, unless it is larger than any
// batch may be. What else may be wrong with a message the daemon knows.
func batchProto(batch []Message) (messages []*ipcdv1.Message, size int, e *Error) {
	if len(batch) == 0 {
		return nil, 0, newError(reason.InvalidArgument, "no messages: a batch has 1 to %d", limits.BatchMessages)
	}
	if len(batch) > limits.BatchMessages {
		return nil, 0, newError(reason.InvalidArgument, "%d messages: a batch may have %d; send several", len(batch), limits.BatchMessages)
	}
	for i := range batch {
		size += batch[i].size()
	}
	if size > limits.BatchBytes {
		return nil, 0, newError(reason.InvalidArgument, "%d bytes of bodies, headers and ids: a batch may have %d; send several", size, limits.BatchBytes)
	}
	messages = make([]*ipcdv1.Message, len(batch))
	block := make([]ipcdv1.Message, len(batch))
	for i := range batch {
		m, p := &batch[i], &block[i]
		if field := m.notText(); field != "" {
			e = newError(reason.InvalidArgument, "%s is not valid UTF-8: bytes of other kinds belong in a body or a header's value", field)
			e.Index, e.Field = i, field
			return nil, 0, e
		}
		if m.Delay != 0 && !m.NotBefore.IsZero() {
			e = newError(reason.InvalidArgument, "both Delay and NotBefore are set: set one")
			e.Index, e.Field = i, "delay"
			return nil, 0, e
		}
		p.Type, p.Priority, p.Body, p.Headers = m.Type, uint32(m.Priority), m.Body, m.Headers
		p.DedupId, p.CorrelationId, p.ReplyTo, p.ContentType = m.DedupID, m.CorrelationID, m.ReplyTo, m.ContentType
		p.Ttl = durationProto(m.TTL)
		if m.Delay != 0 {
			p.Schedule = &ipcdv1.Message_Delay{Delay: durationpb.New(m.Delay)}
		} else if !m.NotBefore.IsZero() {
			p.Schedule = &ipcdv1.Message_NotBefore{NotBefore: timestamppb.New(m.NotBefore)}
		}
		messages[i] = p
	}
	return messages, size, nil
}

// notText returns the first field that cannot be sent for want of being UTF-8, or "".
func (m *Message) notText() string {
	for _, text := range [...]struct{ field, value string }{
		{"dedup_id", m.DedupID}, {"correlation_id", m.CorrelationID}, {"reply_to", m.ReplyTo}, {"content_type", m.ContentType},
	} {
		if !utf8.ValidString(text.value) {
			return text.field
		}
	}
	for name := range m.Headers {
		if !utf8.ValidString(name) {
			return "headers"
		}
	}
	return ""
}

func messageOf(p *ipcdv1.Message) Message {
	m := Message{
		Type:          p.GetType(),
		Priority:      uint16(min(p.GetPriority(), math.MaxUint16)),
		Body:          p.GetBody(),
		Headers:       p.GetHeaders(),
		DedupID:       p.GetDedupId(),
		CorrelationID: p.GetCorrelationId(),
		ReplyTo:       p.GetReplyTo(),
		ContentType:   p.GetContentType(),
	}
	if p.GetTtl() != nil {
		m.TTL = p.GetTtl().AsDuration()
	}
	switch s := p.GetSchedule().(type) {
	case *ipcdv1.Message_Delay:
		m.Delay = s.Delay.AsDuration()
	case *ipcdv1.Message_NotBefore:
		m.NotBefore = timeOf(s.NotBefore)
	}
	return m
}

// fill sets everything but lease.
func (d *Delivery) fill(p *ipcdv1.Delivery, queue string) {
	d.Message = messageOf(p.GetMessage())
	d.Queue = p.GetQueue()
	if d.Queue == "" {
		d.Queue = queue
	}
	d.Sequence = p.GetSequence()
	d.Attempts = int(p.GetAttempts())
	d.SentAt = timeOf(p.GetSendTime())
	d.LeaseExpires = timeOf(p.GetLeaseExpireTime())
	d.Receipt = Receipt(p.GetReceipt())
	d.TruncatedFrom = int(p.GetTruncatedFrom())
}

// sentOf gives each message of a batch its outcome. It checks what the daemon says: an answer that does
// not fit the batch is ErrInternal.
func sentOf(stored *ipcdv1.Stored, count int) ([]Sent, *Error) {
	if int(stored.GetCount()) != count {
		return nil, newError(reason.Internal, "%d messages were sent, the answer is about %d", count, stored.GetCount())
	}
	sent := make([]Sent, count)
	at := timeOf(stored.GetSendTime())
	for _, d := range stored.GetDuplicates() {
		if int(d.GetIndex()) >= count {
			return nil, newError(reason.Internal, "%d messages were sent, the answer has a duplicate at %d", count, d.GetIndex())
		}
		sent[d.GetIndex()] = Sent{Sequence: d.GetSequence(), Duplicate: true}
	}
	next := stored.GetFirstSequence()
	for i := range sent {
		sent[i].SentAt = at
		if !sent[i].Duplicate {
			sent[i].Sequence = next
			next++
		}
	}
	return sent, nil
}

func (f *Filter) proto() *ipcdv1.Filter {
	p := &ipcdv1.Filter{
		Selector:    f.Selector.proto(),
		MinSequence: f.MinSequence,
		MaxSequence: f.MaxSequence,
		OlderThan:   durationProto(f.OlderThan),
		Headers:     f.Headers,
	}
	for _, s := range f.States {
		// The numbers are the same; what is out of range the daemon refuses.
		p.States = append(p.States, ipcdv1.MessageState(s))
	}
	return p
}
