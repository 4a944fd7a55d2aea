package main

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What strangers sent must not reach a terminal as it is: control bytes move the cursor and retitle
// windows, bidi controls show one text and mean another. Everything is shown, nothing is obeyed.

// escapeLine returns s as one line that is safe on a terminal: what is not graphic (controls, bidi
// and other format characters, line separators, bytes that are no UTF-8) as \n, \x1b, \u202e and so on.
func escapeLine(s string) string { return escape(s, "") }

// escapeText is escapeLine but for line feeds, after each of which indent is written, so that no line
// of s can pass for one of ours.
func escapeText(s, indent string) string { return escape(s, "\n"+indent) }

func escape(s, lineFeed string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n' && lineFeed != "":
			b.WriteString(lineFeed)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsGraphic(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// isPlain reports whether s is printable ASCII.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// quoteArg quotes a word that somebody typed, cut so that a message about it stays one readable line.
func quoteArg(s string) string {
	const most = 80
	cut := ""
	if len(s) > most {
		end := most
		for end > most-utf8.UTFMax && !utf8.RuneStart(s[end]) {
			end--
		}
		s, cut = s[:end], "…"
	}
	return `"` + escapeLine(s) + cut + `"`
}
