package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

// marshalJSON returns v as JSON on one line, in which nothing acts on a terminal: characters that are
// not graphic are written as \uXXXX, which means the same.
func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return escapeJSON(bytes.TrimSuffix(b.Bytes(), []byte("\n"))), nil
}

// escapeJSON escapes what is not graphic. In JSON such characters stand in strings only.
func escapeJSON(text []byte) []byte {
	if isPlain(string(text)) {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == '\n' || unicode.IsGraphic(r):
			out = append(out, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[size:]
	}
	return out
}

// document writes one JSON document with one list, {"messages":[…]}, an element a line, as the elements come.
type document struct {
	w     io.Writer
	list  string
	count int
}

func (d *document) add(v any) error {
	element, err := marshalJSON(v)
	if err != nil {
		return err
	}
	if d.count == 0 {
		_, err = fmt.Fprintf(d.w, "{%q:[\n%s", d.list, element)
	} else {
		_, err = fmt.Fprintf(d.w, ",\n%s", element)
	}
	d.count++
	return err
}

// end completes the document, which may have no element.
func (d *document) end() error {
	if d.count == 0 {
		_, err := fmt.Fprintf(d.w, "{%q:[]}\n", d.list)
		return err
	}
	_, err := io.WriteString(d.w, "\n]}\n")
	return err
}

// writeYAML writes v as YAML with the names and the order of its JSON.
func writeYAML(w io.Writer, v any) error {
	text, err := marshalJSON(v)
	if err != nil {
		return err
	}
	if text, err = yaml.JSONToYAML(text); err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}
