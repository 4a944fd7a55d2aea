package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/ipcd/ipcd/internal/suggest"
)

// Problem is a mistake in the configuration: where it stands, what is wrong and what is allowed.
type Problem struct {
	File    string // "": the command line, or the environment
	Line    int    // 0: the file as a whole
	Key     string // as in queues./jobs.lease; "": the file as a whole
	Message string
}

// String is the problem on one line.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Error is all that is wrong with a configuration.
type Error struct{ Problems []Problem }

// problemsShown is how many problems the text of an Error has: a file that is something else altogether has one on
// each line.
const problemsShown = 100

// Error lists the problems, one on each line.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems[:min(len(e.Problems), problemsShown)] {
		lines = append(lines, p.String())
	}
	if more := len(e.Problems) - problemsShown; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d problems more", more))
	}
	return strings.Join(lines, "\n")
}

// Join returns what is wrong by any of some errors of Load and Check, each problem once; nil if nothing is.
func Join(errs ...error) error {
	var all Error
	for _, err := range errs {
		var e *Error
		switch {
		case errors.As(err, &e):
			for _, p := range e.Problems {
				if !slices.Contains(all.Problems, p) {
					all.Problems = append(all.Problems, p)
				}
			}
		case err != nil:
			all.Problems = append(all.Problems, Problem{Message: err.Error()})
		}
	}
	return all.orNil()
}

// orNil returns the problems in the order of the files, and of the lines in them; nil if there are none.
func (e *Error) orNil() error {
	if len(e.Problems) == 0 {
		return nil
	}
	slices.SortStableFunc(e.Problems, func(a, b Problem) int {
		switch {
		case a.File == b.File:
			return cmp.Compare(a.Line, b.Line)
		case a.File == "": // the command line, or about all files
			return 1
		case b.File == "":
			return -1
		}
		// The directory of the file is the beginning of that of conf.d's, which are read after it.
		return cmp.Or(strings.Compare(filepath.Dir(a.File), filepath.Dir(b.File)), strings.Compare(a.File, b.File))
	})
	return e
}

// origin is where a key stands, and the value it has there.
type origin struct {
	file  string
	line  int
	value any
}

func (o origin) String() string { return fmt.Sprintf("%s:%d", o.file, o.line) }

// join is the path of a key in a map. What strangers may have written is quoted unless it is plain.
func join(path, name string) string {
	plain := name != "" && len(name) <= 220 && !strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '"'
	})
	if !plain {
		name = fmt.Sprintf("%.80q", name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

// didYouMean completes a message about an unknown word, if one of those that are known is much like it.
func didYouMean(word string, known []string) string {
	best := suggest.Nearest(word, known)
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// list writes words as in "a, b or c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
