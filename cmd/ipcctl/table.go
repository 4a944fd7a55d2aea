package main

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// column is one column of a table.
type column struct {
	title string
	right bool // numbers stand at the right
}

// table lays out cells in columns. Cells are safe to print (escapeLine) when they are added.
type table struct {
	columns  []column
	rows     [][]string
	headers  bool
	maxWidth int // columns of the terminal; 0: lines may be as long as they are
	heading  func(string) string
}

// lines returns the table's lines, the heading first if there is one.
func (t *table) lines() []string {
	widths := make([]int, len(t.columns))
	for i, c := range t.columns {
		if t.headers {
			widths[i] = displayWidth(c.title)
		}
		for _, row := range t.rows {
			widths[i] = max(widths[i], displayWidth(row[i]))
		}
	}
	var out []string
	if t.headers {
		titles := make([]string, len(t.columns))
		for i, c := range t.columns {
			titles[i] = c.title
		}
		line := t.line(titles, widths)
		if t.heading != nil {
			line = t.heading(line)
		}
		out = append(out, line)
	}
	for _, row := range t.rows {
		out = append(out, t.line(row, widths))
	}
	return out
}

func (t *table) line(cells []string, widths []int) string {
	var b strings.Builder
	for i, cell := range cells {
		if i > 0 {
			b.WriteString("  ")
		}
		pad := strings.Repeat(" ", widths[i]-displayWidth(cell))
		if t.columns[i].right {
			b.WriteString(pad + cell)
		} else {
			b.WriteString(cell + pad)
		}
	}
	return cutToWidth(strings.TrimRight(b.String(), " "), t.maxWidth)
}

// displayWidth is how many columns of a terminal s takes: two for wide and fullwidth characters (UAX
// 11), none for combining ones.
func displayWidth(s string) int {
	if isPlain(s) {
		return len(s)
	}
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// cutToWidth cuts s to so many columns of a terminal, the last of which shows that it was cut. 0 is no bound.
func cutToWidth(s string, columns int) string {
	if columns <= 0 || displayWidth(s) <= columns {
		return s
	}
	n := 0
	for i, r := range s {
		if n += runeWidth(r); n > columns-1 {
			return s[:i] + "…"
		}
	}
	return s
}
