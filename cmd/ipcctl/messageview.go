package main

import (
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/ipcd/ipcd/client"
)

// shown is a message on its way to an output: a delivery, or one that was peeked at.
type shown struct {
	client.Message
	queue         string
	sequence      uint64
	typeName      string // "": the type has none
	sentAt        time.Time
	attempts      int
	state         string // "": delivered
	due           time.Time
	leaseExpires  time.Time
	expires       time.Time
	buryReason    string
	receipt       string
	truncatedFrom int
	decoded       decoded
}

func showDelivery(d *client.Delivery, names map[int64]string) shown {
	return shown{
		Message: d.Message, queue: d.Queue, sequence: d.Sequence, typeName: names[d.Type], sentAt: d.SentAt, attempts: d.Attempts,
		leaseExpires: d.LeaseExpires, receipt: string(d.Receipt), truncatedFrom: d.TruncatedFrom,
	}
}

func showPeeked(p *client.Peeked, names map[int64]string) shown {
	return shown{
		Message: p.Message, queue: p.Queue, sequence: p.Sequence, typeName: names[p.Type], sentAt: p.SentAt, attempts: p.Attempts,
		state: p.State.String(), due: p.Due, leaseExpires: p.LeaseExpires, expires: p.Expires, buryReason: p.BuryReason,
		truncatedFrom: p.TruncatedFrom,
	}
}

// messageView is a message as json and jsonl show it: the names of the protobuf schema in snake case.
// Either body or body_base64 is there, always, but where json tells all of it. Fields may be added; what is there stays.
type messageView struct {
	Queue           string            `json:"queue"`
	Sequence        uint64            `json:"sequence"`
	State           string            `json:"state,omitempty"`
	Type            int64             `json:"type"`
	TypeName        string            `json:"type_name,omitempty"`
	MessageType     string            `json:"message_type,omitempty"` // that the queue's schema has for the type
	Priority        uint16            `json:"priority"`
	Body            *string           `json:"body,omitempty"`         // where it is UTF-8
	BodyBase64      *string           `json:"body_base64,omitempty"`  // where it is not
	JSON            json.RawMessage   `json:"json,omitempty"`         // the body, decoded
	SchemaError     string            `json:"schema_error,omitempty"` // why it could not be, or what json does not tell
	TruncatedFrom   int               `json:"truncated_from,omitempty"`
	Headers         map[string]string `json:"headers"`
	HeadersBase64   map[string]string `json:"headers_base64,omitempty"` // those whose value is no UTF-8
	ContentType     string            `json:"content_type,omitempty"`
	CorrelationID   string            `json:"correlation_id,omitempty"`
	ReplyTo         string            `json:"reply_to,omitempty"`
	DedupID         string            `json:"dedup_id,omitempty"`
	Delay           string            `json:"delay,omitempty"`
	NotBefore       string            `json:"not_before,omitempty"`
	TTL             string            `json:"ttl,omitempty"`
	SendTime        string            `json:"send_time"`
	Attempts        int               `json:"attempts"`
	DueTime         string            `json:"due_time,omitempty"`
	LeaseExpireTime string            `json:"lease_expire_time,omitempty"`
	ExpireTime      string            `json:"expire_time,omitempty"`
	BuryReason      string            `json:"bury_reason,omitempty"`
	Receipt         string            `json:"receipt,omitempty"`
}

func viewMessage(m *shown) messageView {
	v := messageView{
		Queue: m.queue, Sequence: m.sequence, State: m.state, Type: m.Type, TypeName: m.typeName, Priority: m.Priority,
		TruncatedFrom: m.truncatedFrom, Headers: map[string]string{},
		ContentType: m.ContentType, CorrelationID: m.CorrelationID, ReplyTo: m.ReplyTo, DedupID: m.DedupID,
		NotBefore: timeOrNone(m.NotBefore), SendTime: machineTime(m.sentAt), Attempts: m.attempts,
		DueTime: timeOrNone(m.due), LeaseExpireTime: timeOrNone(m.leaseExpires), ExpireTime: timeOrNone(m.expires),
		BuryReason: m.buryReason, Receipt: m.receipt,
	}
	v.MessageType, v.JSON = m.decoded.message, m.decoded.text
	if err := m.decoded.err; err != nil {
		v.SchemaError = err.Error()
	}
	text, isText := textOrBase64(m.Body)
	switch {
	case v.JSON != nil && v.SchemaError == "":
	case isText:
		v.Body = &text
	default:
		v.BodyBase64 = &text
	}
	for name, value := range m.Headers {
		text, isText := textOrBase64(value)
		if isText {
			v.Headers[name] = text
			continue
		}
		if v.HeadersBase64 == nil {
			v.HeadersBase64 = map[string]string{}
		}
		v.HeadersBase64[name] = text
	}
	if m.Delay > 0 {
		v.Delay = machineDuration(m.Delay)
	}
	if m.TTL > 0 {
		v.TTL = machineDuration(m.TTL)
	}
	return v
}

// textOrBase64 returns b as text if it is UTF-8, else in base64.
func textOrBase64(b []byte) (text string, isText bool) {
	if utf8.Valid(b) {
		return string(b), true
	}
	return base64.StdEncoding.EncodeToString(b), false
}

func timeOrNone(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return machineTime(t)
}
