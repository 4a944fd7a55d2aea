package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// What is read at most. The parser takes some hundred times the memory of a file, and time that grows with the square
// of the keys in a map.
const (
	fileBytes   = 256 << 10 // of one file
	filesInDir  = 256       // of conf.d
	itemsMax    = 10_000    // keys and entries of lists in a file
	depthMax    = 16        // of brackets in each other: the deepest key has five
	entriesMax  = 4096      // of a list or a map, in all files; queues and rings apart
	problemsMax = 1000
)

// dirName is the directory beside the file that adds to it.
const dirName = "conf.d"

// suffix is how the names of files in it end.
const suffix = ".yaml"

func dirBeside(path string) string { return filepath.Join(filepath.Dir(path), dirName) }

// filesBeside returns the files of conf.d beside a file, in the order in which they are read, and what is odd there.
func filesBeside(path string) (files, odd []string, err error) {
	dir := dirBeside(path)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, explainFile(err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."): // of editors
		case strings.HasSuffix(e.Name(), suffix):
			files = append(files, name)
		case strings.HasSuffix(e.Name(), ".yml"):
			odd = append(odd, name+": it is not read: its name does not end in "+suffix)
		}
	}
	if len(files) > filesInDir {
		return nil, nil, fmt.Errorf("%s: there are %d files, and there may be %d", dir, len(files), filesInDir)
	}
	return files, odd, nil
}

// readFile reads a file, which must be a regular one if it was found in a directory: a pipe would be waited for.
func readFile(path string, found bool) ([]byte, error) {
	flags := os.O_RDONLY
	if found {
		flags |= syscall.O_NONBLOCK
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, explainFile(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, explainFile(err)
	}
	if info.IsDir() || found && !info.Mode().IsRegular() {
		return nil, errors.New("it is no file")
	}
	text, err := io.ReadAll(io.LimitReader(f, fileBytes+1))
	if err != nil {
		return nil, explainFile(err)
	}
	if len(text) > fileBytes {
		return nil, fmt.Errorf("it is larger than %s: split it, and put the parts into %s beside it", sizeText(fileBytes), dirName)
	}
	return text, nil
}

// explainFile leaves away what a Problem says itself, and tells what to do about a missing permission.
func explainFile(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("it can not be read by uid %d: %w; run this as root, or as the daemon's user", os.Geteuid(), err)
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no such file")
	}
	return fmt.Errorf("it can not be read: %w", err)
}

// parseYAML returns what a file says, nil if nothing. The error is a Problem without its file.
func parseYAML(text []byte) (ast.Node, *Problem) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if p := checkText(text); p != nil {
		return nil, p
	}
	tokens := lexer.Tokenize(string(text))
	if p := checkTokens(tokens); p != nil {
		return nil, p
	}
	parsed, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // the loader finds them all itself
	if err != nil {
		return nil, explainSyntax(err)
	}
	var body ast.Node
	for _, doc := range parsed.Docs {
		switch {
		case doc.Body == nil:
		case body != nil:
			return nil, &Problem{Line: lineOf(doc.Body), Message: "a second document (after ---): there must be one"}
		default:
			body = doc.Body
		}
	}
	return body, nil
}

// checkText refuses what is no text. The parser is not made for it.
func checkText(text []byte) *Problem {
	line := 1
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return &Problem{Line: line, Message: fmt.Sprintf("the byte %#x is no UTF-8", text[i])}
		case r == '\n':
			line++
		case r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return &Problem{Line: line, Message: fmt.Sprintf("the control character %#x: a configuration is plain text", r)}
		}
		i += n
	}
	return nil
}

// checkTokens refuses what a configuration has no use for, before the parser spends memory and stack on it.
func checkTokens(tokens token.Tokens) *Problem {
	items, depth, dashes, line := 0, 0, 0, 0
	for _, t := range tokens {
		at := t.Position.Line
		switch t.Type {
		case token.MappingValueType, token.CollectEntryType, token.SequenceEntryType, token.DocumentHeaderType:
			items++
		}
		switch t.Type {
		case token.AnchorType, token.AliasType, token.MergeKeyType:
			return &Problem{Line: at, Message: "anchors and aliases (& * <<) are not taken: write the values out; a text that begins so needs quotes"}
		case token.TagType:
			return &Problem{Line: at, Message: "tags (!) are not taken: every key has one kind of value; a text that begins so needs quotes"}
		case token.DirectiveType:
			return &Problem{Line: at, Message: "directives (%) are not taken; a text that begins so needs quotes"}
		case token.MappingKeyType:
			return &Problem{Line: at, Message: "keys that begin with ? are not taken: write `key: value`"}
		case token.MappingStartType, token.SequenceStartType:
			depth++
		case token.MappingEndType, token.SequenceEndType:
			depth--
		case token.SequenceEntryType:
			if at != line {
				dashes, line = 0, at
			}
			dashes++
		}
		if items > itemsMax {
			return &Problem{Line: at, Message: fmt.Sprintf("more than %d keys and entries of lists: split the file, and put the parts into %s beside it", itemsMax, dirName)}
		}
		if depth > depthMax || dashes > depthMax {
			return &Problem{Line: at, Message: fmt.Sprintf("more than %d levels in each other", depthMax)}
		}
	}
	if depth != 0 && len(tokens) > 0 {
		return &Problem{Line: tokens[len(tokens)-1].Position.Line, Message: "a [ or { has no ] or }, or the reverse"}
	}
	return nil
}

// explainSyntax is the parser's error without the piece of the file that its text shows.
func explainSyntax(err error) *Problem {
	var e yaml.Error
	if !errors.As(err, &e) {
		return &Problem{Message: "it is no YAML: " + err.Error()}
	}
	p := &Problem{Message: "it is no YAML: " + e.GetMessage()}
	if t := e.GetToken(); t != nil && t.Position != nil {
		p.Line = t.Position.Line
	}
	return p
}

func lineOf(n ast.Node) int {
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return 0
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && !m.IsFlowStyle {
		return lineOf(m.Values[0].Key) // its own token is the first colon
	}
	return n.GetToken().Position.Line
}
