package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/ipcd/ipcd/client"
	"github.com/ipcd/ipcd/internal/limits"
)

// An export is a header and then messages in the order of their sequences, in one of two formats:
//
//	jsonl    a line for the header, then one for each message, as peek -o jsonl writes them with whole bodies
//	compact  gzip members, each of whole records; the first begins with compactMagic and the header's record. A record is the
//	         length of its payload (a varint), the CRC-32C of the payload (4 bytes, little endian), and the payload: the
//	         header's JSON, or an ipcd.v1.PeekedMessage in protobuf's binary form
//
// Both can be appended to, and cut back to the last whole line or member. exportVersion rises when an older reader would
// misread a file; readers refuse what is newer. Fields may be added to header and messages without that.
const (
	exportVersion = 1
	compactMagic  = "ipcd-export\n"
)

const (
	memberBytes    = 1 << 20                                                    // of records, after which a member ends
	recordBytesMax = limits.MessageSizeMax + limits.HeaderBytes + 64<<10        // of one record's payload: a message with all that it carries
	memberBytesMax = memberBytes + recordBytesMax + 64                          // of a member's records
	lineBytesMax   = 6*(limits.MessageSizeMax+limits.HeaderBytes) + (128 << 10) // of a line: JSON takes up to six for one
)

// exportHeader is what a file says of itself.
type exportHeader struct {
	Version    int          `json:"ipcd_export"`
	Queue      string       `json:"queue"`
	QueueID    uint64       `json:"queue_id"`
	ExportTime string       `json:"export_time"`
	Filter     string       `json:"filter,omitempty"` // what was asked for; "": everything
	Settings   settingsView `json:"settings"`         // the queue's
}

func (h *exportHeader) check() error {
	switch {
	case h.Version == 0:
		return errors.New("it is no export: it does not begin with the header of one")
	case h.Version > exportVersion || h.Version < 0:
		return fmt.Errorf("it has format %d, this ipcctl reads up to %d: use a newer one", h.Version, exportVersion)
	}
	return nil
}

// exportWriter writes one format. What add was given is whole in the file after flush.
type exportWriter interface {
	begin(exportHeader) error
	add(*client.Peeked, map[int64]string) error
	flush() error
}

// jsonlWriter writes lines.
type jsonlWriter struct{ w *bufio.Writer }

func newJSONLWriter(w io.Writer) *jsonlWriter { return &jsonlWriter{bufio.NewWriterSize(w, 256<<10)} }

func (j *jsonlWriter) begin(h exportHeader) error { return j.line(h) }

func (j *jsonlWriter) add(p *client.Peeked, names map[int64]string) error {
	m := showPeeked(p, names)
	return j.line(viewMessage(&m))
}

func (j *jsonlWriter) line(v any) error {
	text, err := marshalJSON(v)
	if err != nil {
		return err
	}
	_, _ = j.w.Write(text) // bufio keeps its first error
	return j.w.WriteByte('\n')
}

func (j *jsonlWriter) flush() error { return j.w.Flush() }

// compactWriter gathers records, and writes a gzip member when there are enough.
type compactWriter struct {
	w      io.Writer
	member []byte
	out    bytes.Buffer
	gzip   *gzip.Writer
}

func newCompactWriter(w io.Writer) *compactWriter {
	c := &compactWriter{w: w}
	c.gzip, _ = gzip.NewWriterLevel(&c.out, gzip.BestSpeed) // the level is valid
	return c
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c *compactWriter) begin(h exportHeader) error {
	text, err := marshalJSON(h)
	if err != nil {
		return err
	}
	c.member = append(c.member, compactMagic...)
	return c.record(text)
}

func (c *compactWriter) add(p *client.Peeked, _ map[int64]string) error {
	payload, err := p.MarshalBinary()
	if err != nil {
		return err
	}
	return c.record(payload)
}

func (c *compactWriter) record(payload []byte) error {
	c.member = binary.AppendUvarint(c.member, uint64(len(payload)))
	c.member = binary.LittleEndian.AppendUint32(c.member, crc32.Checksum(payload, castagnoli))
	c.member = append(c.member, payload...)
	if len(c.member) < memberBytes {
		return nil
	}
	return c.flush()
}

// flush writes the member in one piece.
func (c *compactWriter) flush() error {
	if len(c.member) == 0 {
		return nil
	}
	c.out.Reset()
	c.gzip.Reset(&c.out)
	_, _ = c.gzip.Write(c.member) // into memory
	if err := c.gzip.Close(); err != nil {
		return err
	}
	c.member = c.member[:0]
	_, err := c.w.Write(c.out.Bytes())
	return err
}

// peekedOf reads a message as viewMessage wrote it.
func (v *messageView) peekedOf() (*client.Peeked, error) {
	p := &client.Peeked{
		Message: client.Message{
			Type: v.Type, Priority: v.Priority, ContentType: v.ContentType, CorrelationID: v.CorrelationID, ReplyTo: v.ReplyTo, DedupID: v.DedupID,
		},
		Queue: v.Queue, Sequence: v.Sequence, Attempts: v.Attempts, BuryReason: v.BuryReason, TruncatedFrom: v.TruncatedFrom,
	}
	if v.Type <= 0 || v.Attempts < 0 {
		return nil, fmt.Errorf("type %d, attempts %d: a type is positive, and attempts are not negative", v.Type, v.Attempts)
	}
	if err := p.State.UnmarshalText([]byte(v.State)); err != nil {
		return nil, errors.New(err.Error()) // the file is wrong, not what was asked for
	}
	switch {
	case (v.Body == nil) == (v.BodyBase64 == nil):
		return nil, errors.New("it needs either body or body_base64")
	case v.Body != nil:
		p.Body = []byte(*v.Body)
	default:
		body, err := base64.StdEncoding.DecodeString(*v.BodyBase64)
		if err != nil {
			return nil, fmt.Errorf("body_base64: %w", err)
		}
		p.Body = body
	}
	if len(v.Headers)+len(v.HeadersBase64) > 0 {
		p.Headers = make(map[string][]byte, len(v.Headers)+len(v.HeadersBase64))
	}
	for name, text := range v.Headers {
		p.Headers[name] = []byte(text)
	}
	for name, text := range v.HeadersBase64 {
		value, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("headers_base64: %s: %w", quoteArg(name), err)
		}
		p.Headers[name] = value
	}
	for _, field := range [...]struct {
		name, text string
		to         *time.Time
	}{
		{"send_time", v.SendTime, &p.SentAt}, {"not_before", v.NotBefore, &p.NotBefore}, {"due_time", v.DueTime, &p.Due},
		{"lease_expire_time", v.LeaseExpireTime, &p.LeaseExpires}, {"expire_time", v.ExpireTime, &p.Expires},
	} {
		if field.text == "" {
			continue
		}
		t, err := time.Parse(time.RFC3339Nano, field.text)
		if err != nil {
			return nil, fmt.Errorf("%s: %s is no time of RFC 3339", field.name, quoteArg(field.text))
		}
		*field.to = t
	}
	for _, field := range [...]struct {
		name, text string
		to         *time.Duration
	}{{"delay", v.Delay, &p.Delay}, {"ttl", v.TTL, &p.TTL}} {
		if field.text == "" {
			continue
		}
		d, err := time.ParseDuration(field.text)
		if err != nil || d < 0 {
			return nil, fmt.Errorf("%s: %s is no duration", field.name, quoteArg(field.text))
		}
		*field.to = d
	}
	return p, nil
}

func headerOf(text []byte) (h exportHeader, err error) {
	if err := json.Unmarshal(text, &h); err != nil {
		return h, fmt.Errorf("it is no export: its header is no JSON: %w", err)
	}
	return h, h.check()
}
