package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/schema"
)

const (
	textBodyBytes = 2048 // of a body that the text output shows
	indent        = "    "
)

// messagePrinter writes messages, each when it comes.
type messagePrinter struct {
	w       io.Writer
	output  string
	queue   string
	decoder *schema.Decoder  // or nil
	types   map[int64]string // the queue's names for types
	printed int
}

// maxBody is how much of a body the output shows, 0 for all.
func (p *messagePrinter) maxBody() int {
	if p.output == "text" {
		return textBodyBytes
	}
	return 0
}

func (p *messagePrinter) print(m *queue.Peeked) (err error) {
	switch p.output {
	case "raw":
		_, err = p.w.Write(append(m.Body[:len(m.Body):len(m.Body)], '\n'))
	case "json":
		before := ",\n"
		if p.printed == 0 {
			before = "{\"messages\": [\n"
		}
		var b bytes.Buffer
		if err = writeJSON(&b, viewMessage(p.queue, p.types, m, p.decoder)); err == nil {
			_, err = io.WriteString(p.w, before+strings.TrimSuffix(b.String(), "\n"))
		}
	default:
		_, err = io.WriteString(p.w, messageText(m, p.types, p.decoder))
	}
	p.printed++
	return err
}

// end completes the output.
func (p *messagePrinter) end() (err error) {
	switch {
	case p.output == "json" && p.printed == 0:
		_, err = io.WriteString(p.w, "{\"messages\": []}\n")
	case p.output == "json":
		_, err = io.WriteString(p.w, "\n]}\n")
	}
	return err
}

// messageText is a message for people: a line about it, what it carries, its body.
func messageText(m *queue.Peeked, types map[int64]string, decoder *schema.Decoder) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#%d  %s  type ", m.Sequence, m.State)
	if name := types[m.Type]; name != "" {
		fmt.Fprintf(&b, "%s (%d)", escapeLine(name), m.Type)
	} else {
		fmt.Fprint(&b, m.Type)
	}
	message, decoded, decodeErr := decode(decoder, m)
	if message != "" {
		fmt.Fprintf(&b, "  %s", escapeLine(message))
	}
	if m.Priority > 0 {
		fmt.Fprintf(&b, "  priority %d", m.Priority)
	}
	fmt.Fprintf(&b, "  sent %s", localTime(m.SentAt))
	if m.Attempts > 0 {
		fmt.Fprintf(&b, "  failed attempts %d", m.Attempts)
	}
	for _, moment := range []struct {
		label string
		wall  int64
	}{{"due", m.Due}, {"lease ends", m.LeaseEnds}, {"expires", m.Expires}} {
		if moment.wall != 0 {
			fmt.Fprintf(&b, "  %s %s", moment.label, localTime(moment.wall))
		}
	}
	b.WriteString("\n")
	if decodeErr != nil {
		fmt.Fprintf(&b, "%sschema: %s\n", indent, escapeLine(decodeErr.Error()))
	}
	for _, detail := range [][2]string{
		{"buried because", m.BuryReason}, {"content type", m.ContentType}, {"correlation id", m.CorrelationID},
		{"reply to", m.ReplyTo}, {"dedup id", m.DedupID},
	} {
		if detail[1] != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", indent, detail[0], escapeLine(detail[1]))
		}
	}
	for _, h := range m.Headers {
		fmt.Fprintf(&b, "%sheader %s: %s\n", indent, escapeLine(h.Key), escapeLine(string(h.Value)))
	}
	body := m.Body
	if m.TruncatedFrom > 0 {
		body = trimPartialRune(body)
	}
	if decoded != nil {
		body = decoded
	}
	if len(body) == 0 {
		b.WriteString(indent + "(empty)\n")
	} else {
		b.WriteString(indent + escapeText(strings.TrimSuffix(string(body), "\n"), indent) + "\n")
	}
	if m.TruncatedFrom > 0 {
		fmt.Fprintf(&b, "%s(%d of %d bytes; -o raw or json shows all)\n", indent, len(body), m.TruncatedFrom)
	}
	return b.String()
}

// trimPartialRune removes a UTF-8 sequence that was cut at the end of b.
func trimPartialRune(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

func localTime(wall int64) string { return time.Unix(0, wall).Format(time.DateTime) }

// messageView is a message in JSON, with the names that ipcctl uses: either body or body_base64 is there,
// always, but where json tells all of it. Fields may be added; what is there stays.
type messageView struct {
	Queue           string            `json:"queue"`
	Sequence        uint64            `json:"sequence"`
	State           string            `json:"state"`
	Type            int64             `json:"type"`
	TypeName        string            `json:"type_name,omitempty"`
	MessageType     string            `json:"message_type,omitempty"` // that the queue's schema has for the type
	Priority        uint16            `json:"priority"`
	Body            *string           `json:"body,omitempty"`         // where it is UTF-8
	BodyBase64      *string           `json:"body_base64,omitempty"`  // where it is not
	JSON            json.RawMessage   `json:"json,omitempty"`         // the body, decoded
	SchemaError     string            `json:"schema_error,omitempty"` // why it could not be, or what json does not tell
	Headers         map[string]string `json:"headers"`
	HeadersBase64   map[string]string `json:"headers_base64,omitempty"` // those whose value is no UTF-8
	ContentType     string            `json:"content_type,omitempty"`
	CorrelationID   string            `json:"correlation_id,omitempty"`
	ReplyTo         string            `json:"reply_to,omitempty"`
	DedupID         string            `json:"dedup_id,omitempty"`
	SendTime        string            `json:"send_time"`
	Attempts        int               `json:"attempts"`
	DueTime         string            `json:"due_time,omitempty"`
	LeaseExpireTime string            `json:"lease_expire_time,omitempty"`
	ExpireTime      string            `json:"expire_time,omitempty"`
	BuryReason      string            `json:"bury_reason,omitempty"`
}

func viewMessage(name string, types map[int64]string, m *queue.Peeked, decoder *schema.Decoder) messageView {
	v := messageView{
		Queue: name, Sequence: m.Sequence, State: m.State.String(), Type: m.Type, TypeName: types[m.Type], Priority: m.Priority, Headers: map[string]string{},
		ContentType: m.ContentType, CorrelationID: m.CorrelationID, ReplyTo: m.ReplyTo, DedupID: m.DedupID,
		SendTime: machineTime(m.SentAt), Attempts: m.Attempts, DueTime: timeOrNone(m.Due),
		LeaseExpireTime: timeOrNone(m.LeaseEnds), ExpireTime: timeOrNone(m.Expires), BuryReason: m.BuryReason,
	}
	var decodeErr error
	if v.MessageType, v.JSON, decodeErr = decode(decoder, m); decodeErr != nil {
		v.SchemaError = decodeErr.Error()
	}
	text, isText := textOrBase64(m.Body)
	switch {
	case v.JSON != nil && decodeErr == nil:
	case isText:
		v.Body = &text
	default:
		v.BodyBase64 = &text
	}
	for _, h := range m.Headers {
		text, isText := textOrBase64(h.Value)
		if isText {
			v.Headers[h.Key] = text
			continue
		}
		if v.HeadersBase64 == nil {
			v.HeadersBase64 = map[string]string{}
		}
		v.HeadersBase64[h.Key] = text
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

func timeOrNone(wall int64) string {
	if wall == 0 {
		return ""
	}
	return machineTime(wall)
}
