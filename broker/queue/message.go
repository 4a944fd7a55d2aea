package queue

import (
	"math"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Header is one name and value that travels with a message.
type Header struct {
	Key   string
	Value []byte
}

// Message is what a sender hands in. The queue copies all of it.
type Message struct {
	Type          int64 // positive
	Priority      uint16
	Body          []byte
	Headers       []Header
	DedupID       string
	CorrelationID string
	ReplyTo       string
	ContentType   string
	Delay         time.Duration // 0: none. Not together with NotBefore.
	NotBefore     int64         // wall time in ns since 1970, 0: none
	TTL           time.Duration // 0: none
}

// Bytes is what the message is charged: body, headers and ids.
func (m *Message) Bytes() int {
	n := len(m.Body) + len(m.DedupID) + len(m.CorrelationID) + len(m.ReplyTo) + len(m.ContentType)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// check holds the message against every limit that does not depend on the queue's contents.
func (m *Message) check(maxSize int) *reason.Error {
	switch {
	case m.Type <= 0:
		return reason.Invalid("type", "type %d: a message's type must be 1 to %d", m.Type, int64(math.MaxInt64))
	case m.Priority > limits.PriorityMax:
		return reason.Invalid("priority", "priority %d: it must be 0 to %d", m.Priority, limits.PriorityMax)
	case len(m.Body) > maxSize:
		e := reason.New(reason.MessageTooLarge,
			"a body of %d bytes: the queue takes at most %d; raise its max_message_size (up to %d) or send less", len(m.Body), maxSize, limits.MessageSizeMax)
		e.Field = "body"
		return e
	case m.Delay < 0 || m.Delay > limits.DelayMax:
		return reason.Invalid("delay", "delay %v: it must be 0 to %v", m.Delay, limits.DelayMax)
	case m.NotBefore < 0:
		return reason.Invalid("not_before", "not_before lies before 1970")
	case m.TTL < 0 || m.TTL > limits.DelayMax:
		return reason.Invalid("ttl", "ttl %v: it must be 0 (none) to %v", m.TTL, limits.DelayMax)
	case len(m.Headers) > limits.Headers:
		return reason.Invalid("headers", "%d headers: a message may have %d", len(m.Headers), limits.Headers)
	}
	if max(len(m.DedupID), len(m.CorrelationID), len(m.ReplyTo), len(m.ContentType)) > limits.IDLength {
		return m.tooLongID()
	}
	if len(m.Headers) == 0 {
		return nil
	}
	total := 0
	for _, h := range m.Headers {
		if len(h.Key) == 0 || len(h.Key) > limits.HeaderKeyLength {
			return reason.Invalid("headers", "a header's name of %d bytes: it must have 1 to %d", len(h.Key), limits.HeaderKeyLength)
		}
		total += len(h.Key) + len(h.Value)
	}
	if total > limits.HeaderBytes {
		return reason.Invalid("headers", "headers of %d bytes: they may have %d together", total, limits.HeaderBytes)
	}
	return nil
}

// tooLongID says which of the ids is too long.
func (m *Message) tooLongID() *reason.Error {
	for _, id := range [...]struct{ field, value string }{
		{"dedup_id", m.DedupID}, {"correlation_id", m.CorrelationID}, {"reply_to", m.ReplyTo}, {"content_type", m.ContentType},
	} {
		if len(id.value) > limits.IDLength {
			return reason.Invalid(id.field, "a %s of %d bytes: it may have %d", id.field, len(id.value), limits.IDLength)
		}
	}
	return nil
}

// Delivery is a message as it is handed out. Body and Headers may share memory with the other
// deliveries of the same call, never with the queue.
type Delivery struct {
	Message               // Delay and NotBefore are zero: they are over
	Sequence      uint64  //
	SentAt        int64   // wall time, ns since 1970
	Attempts      int     // leases that failed before
	LeaseEnds     int64   // wall time, ns since 1970; 0: consumed at once
	Receipt       Receipt // zero: consumed at once
	TruncatedFrom int     // the length of the whole body, if it was cut; else 0
	Queue         string  // its name, where several queues were asked; else ""
}

// Stored is the outcome of a batch: its messages got the sequences First and on, in order, leaving
// out the duplicates.
type Stored struct {
	First      uint64
	Count      int // messages in the batch, duplicates included
	SentAt     int64
	Duplicates []Duplicate // in the order of Index
}

// Duplicate is a message of a batch that was not stored, because its dedup id was seen before.
type Duplicate struct {
	Index    int
	Sequence uint64 // of the first message with that id
}
