package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// textBodyBytes is how much of a body the text output shows.
const textBodyBytes = 2048

// indent stands before what belongs to a message in the text output.
const indent = "    "

// messageFormat is how recv, peek, tap and request show messages.
type messageFormat struct {
	output      string
	delimiter   string
	namesQueues bool // messages of several queues are shown
}

func (f *messageFormat) add(cmd *cobra.Command) {
	f.delimiter = "\n"
	addOutput(cmd, &f.output, "text", "json", "jsonl", "raw", "hex")
	addFlag(cmd.Flags(), &f.delimiter, "delimiter", "TEXT", `after each body with -o raw (default a newline; \0, \t, \xHH; '' is none)`, parseDelimiter)
}

func (f *messageFormat) check(cmd *cobra.Command) error {
	if cmd.Flags().Changed("delimiter") && f.output != "raw" {
		return usagef("--delimiter needs -o raw")
	}
	return nil
}

// namesTypes reports whether the output shows the names of types.
func (f *messageFormat) namesTypes() bool { return f.output != "raw" }

// cutsBodies is how many bytes of a body the output can show, 0 for all.
func (f *messageFormat) cutsBodies() int {
	if f.output == "text" {
		return textBodyBytes
	}
	return 0
}

// printer writes messages to stdout. Each goes out in one write before the next is begun, so that it
// is known which have been printed when the reader goes away.
type printer struct {
	a      *app
	format *messageFormat
	buffer bytes.Buffer
	doc    document
}

func (a *app) newPrinter(f *messageFormat) *printer {
	p := &printer{a: a, format: f}
	p.doc = document{w: &p.buffer, list: "messages"}
	return p
}

func (p *printer) print(m shown) error {
	body, whole := m.Body, max(len(m.Body), m.truncatedFrom)
	if p.a.decode(&m); m.decoded.text != nil && p.format.output == "text" {
		body = escapeJSON(m.decoded.text)
		whole = len(body)
	}
	return p.write(body, whole, func() any { return viewMessage(&m) }, func() { p.writeHead(&m) })
}

// write writes one message: its body, of whole bytes in all, its view for json, or what stands before the
// body for people.
func (p *printer) write(body []byte, whole int, view func() any, writeHead func()) error {
	switch p.format.output {
	case "json", "jsonl":
		return p.record(view())
	case "raw":
		p.buffer.Reset()
		p.buffer.Write(body)
		p.buffer.WriteString(p.format.delimiter)
	case "hex":
		p.buffer.Reset()
		writeHead()
		p.buffer.WriteString(hex.Dump(body))
	default:
		p.buffer.Reset()
		writeHead()
		p.writeBody(body, whole)
	}
	return p.flush()
}

// record writes a view as json or jsonl; in other outputs it writes nothing.
func (p *printer) record(view any) error {
	p.buffer.Reset()
	switch p.format.output {
	case "json":
		if err := p.doc.add(view); err != nil {
			return err
		}
	case "jsonl":
		line, err := marshalJSON(view)
		if err != nil {
			return err
		}
		p.buffer.Write(append(line, '\n'))
	default:
		return nil
	}
	return p.flush()
}

// end completes the output.
func (p *printer) end() error {
	if p.format.output != "json" {
		return nil
	}
	p.buffer.Reset()
	if err := p.doc.end(); err != nil {
		return err
	}
	return p.flush()
}

func (p *printer) flush() error {
	_, err := p.a.out.Write(p.buffer.Bytes())
	return outputError(err)
}

// writeHead writes the line about the message, what it carries, and how to settle it.
func (p *printer) writeHead(m *shown) {
	parts := []string{fmt.Sprintf("#%d", m.sequence)}
	if p.format.namesQueues {
		parts = []string{fmt.Sprintf("%s #%d", escapeLine(m.queue), m.sequence)}
	}
	if m.state != "" {
		parts = append(parts, m.state)
	}
	if m.typeName != "" {
		parts = append(parts, fmt.Sprintf("type %s (%d)", escapeLine(m.typeName), m.Type))
	} else {
		parts = append(parts, fmt.Sprintf("type %d", m.Type))
	}
	if m.decoded.message != "" {
		parts = append(parts, escapeLine(m.decoded.message))
	}
	if m.Priority > 0 {
		parts = append(parts, fmt.Sprintf("priority %d", m.Priority))
	}
	now := time.Now()
	parts = append(parts, fmt.Sprintf("sent %s (%s ago)", clock(m.sentAt, now), humanDuration(max(0, now.Sub(m.sentAt)))))
	if m.attempts > 0 {
		parts = append(parts, count(m.attempts, "failed attempt"))
	}
	if !m.due.IsZero() {
		parts = append(parts, "due in "+humanDuration(max(0, m.due.Sub(now))))
	}
	if !m.leaseExpires.IsZero() {
		parts = append(parts, "lease ends in "+humanDuration(max(0, m.leaseExpires.Sub(now))))
	}
	if !m.expires.IsZero() {
		parts = append(parts, "expires in "+humanDuration(max(0, m.expires.Sub(now))))
	}
	p.buffer.WriteString(p.a.bold(strings.Join(parts, "  ")) + "\n")
	p.detail("receipt", m.receipt)
	p.detail("buried because", m.buryReason)
	if m.decoded.err != nil {
		p.detail("schema", m.decoded.err.Error())
	}
	p.detail("content type", m.ContentType)
	p.detail("correlation id", m.CorrelationID)
	p.detail("reply to", m.ReplyTo)
	p.detail("dedup id", m.DedupID)
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		fmt.Fprintf(&p.buffer, "%s%s%s\n", indent, p.a.dim("header "+escapeLine(name)+": "), escapeLine(string(m.Headers[name])))
	}
}

func (p *printer) detail(label, text string) {
	if text != "" {
		fmt.Fprintf(&p.buffer, "%s%s%s\n", indent, p.a.dim(label+": "), escapeLine(text))
	}
}

// writeBody writes a body of whole bytes in all, made safe for a terminal, each line indented, and at most
// textBodyBytes of it.
func (p *printer) writeBody(body []byte, whole int) {
	if len(body) > textBodyBytes {
		body = body[:textBodyBytes]
	}
	if len(body) < whole {
		body = trimPartialRune(body)
	}
	if whole == 0 {
		p.buffer.WriteString(indent + p.a.dim("(empty)") + "\n")
		return
	}
	p.buffer.WriteString(indent + escapeText(strings.TrimSuffix(string(body), "\n"), indent) + "\n")
	if len(body) < whole {
		note := fmt.Sprintf("(%d of %d bytes; -o raw, hex or json shows all)", len(body), whole)
		p.buffer.WriteString(indent + p.a.dim(note) + "\n")
	}
}

// trimPartialRune removes a UTF-8 sequence that was cut at the end of b.
func trimPartialRune(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// clock shows a time of day, with the date where it was another day.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
