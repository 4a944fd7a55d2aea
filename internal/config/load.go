package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
)

// Load returns c as changed by the file at path and by the *.yaml files of the directory conf.d beside it, in the
// order of their names: what a later file says of a key wins, lists grow, and maps are merged; but each queue, ring,
// quota and user of a certificate may stand in one file only. Errors are *Error, with all that is wrong; what could be
// read is returned with them. What the keys mean together is for Check.
func Load(c Config, path string) (Config, error) { return load(c, path, newSystem(), false) }

// LoadAtStart is Load for a daemon that starts. What is granted to users and groups that are not known, or not any
// more, is left out, and a warning recorded: a removed user must not keep the daemon from starting.
func LoadAtStart(c Config, path string) (Config, error) { return load(c, path, newSystem(), true) }

func load(c Config, path string, accounts directory, lenient bool) (Config, error) {
	l := newLoader(&c, accounts, lenient)
	l.read(path, false)
	files, odd, err := filesBeside(path)
	if err != nil {
		l.problems = append(l.problems, Problem{File: dirBeside(path), Message: err.Error()})
	}
	c.Warnings = append(c.Warnings, odd...)
	for _, f := range files {
		l.read(f, true)
	}
	l.finish()
	return c, (&Error{l.problems}).orNil()
}

// loader reads files into a configuration.
type loader struct {
	config   *Config
	accounts directory
	lenient  bool // who is not known is left out
	file     string
	line     int // of the value that is being read
	problems []Problem
	leftOut  int // grants, for want of whom they are for
	limited  map[identity.Principal]origin
	held     map[string]int // entries in all files, by the path of what holds them
}

// place is what the keys of a map are about.
type place struct {
	config *Config
	queue  *QueueDeclaration
	ring   *RingDeclaration
	bind   *BindDeclaration
	rule   *access.Rule
	limits quota.Limits
}

func newLoader(c *Config, accounts directory, lenient bool) *loader {
	c.origins = map[string]origin{}
	c.Warnings, c.Files = nil, nil
	c.Quotas = quota.Config{Default: quota.Limits{}, Of: map[identity.Principal]quota.Limits{}}
	return &loader{config: c, accounts: accounts, lenient: lenient, limited: map[identity.Principal]origin{}, held: map[string]int{}}
}

// read reads one file.
func (l *loader) read(path string, found bool) {
	l.file, l.line = path, 0
	text, err := readFile(path, found)
	if err != nil {
		l.problem("", "%v", err)
		return
	}
	l.config.Files = append(l.config.Files, path)
	l.parse(text)
}

func (l *loader) parse(text []byte) {
	root, p := parseYAML(text)
	if p != nil {
		p.File = l.file
		l.problems = append(l.problems, *p)
		return
	}
	if root != nil {
		l.mapping(root, Keys, "", &place{config: l.config, limits: l.config.Quotas.Default})
	}
}

// problem records what is wrong at the line that is being read.
func (l *loader) problem(key, format string, args ...any) {
	switch {
	case len(l.problems) < problemsMax:
		l.problems = append(l.problems, Problem{l.file, l.line, key, fmt.Sprintf(format, args...)})
	case len(l.problems) == problemsMax:
		l.problems = append(l.problems, Problem{Message: "there are more problems than can be shown"})
	}
}

// unknown records a user or group that is not known: what was for it is left out.
func (l *loader) unknown(key, format string, args ...any) {
	l.leftOut++
	if !l.lenient {
		l.problem(key, format, args...)
		return
	}
	p := Problem{l.file, l.line, key, fmt.Sprintf(format, args...) + ": it is left out"}
	l.config.Warnings = append(l.config.Warnings, p.String())
}

// entry is a key of a map with its value.
type entry struct {
	name  string
	line  int
	value ast.Node // nil: none
}

// entries returns what is in a map. A key that comes twice is a problem, and its first value counts.
func (l *loader) entries(n ast.Node, path string, most int) []entry {
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		if line := lineOf(n); line > 0 {
			l.line = line
		}
		what := "here"
		if path != "" {
			what = "under " + path
		}
		l.problem(path, "there must be keys with values %s, as in `key: value`", what)
		return nil
	}
	if len(values) > most {
		l.problem(path, "%d entries: there may be %d", len(values), most)
		return nil
	}
	var all []entry
	first := map[string]int{}
	for _, v := range values {
		l.line = lineOf(v.Key)
		name, ok := scalar(v.Key)
		if !ok {
			l.problem(path, "a key must be a plain word")
			continue
		}
		if line, twice := first[name]; twice {
			l.problem(join(path, name), "it stands in line %d too: leave one", line)
			continue
		}
		first[name] = l.line
		all = append(all, entry{name, l.line, v.Value})
	}
	return all
}

// mapping reads a map that may have some keys.
func (l *loader) mapping(n ast.Node, keys []Key, path string, p *place) {
	for _, e := range l.entries(n, path, entriesMax) {
		l.line = e.line
		k := find(keys, e.name)
		if k == nil {
			known := names(keys)
			l.problem(join(path, e.name), "there is no such key%s; allowed are %s", didYouMean(e.name, known), strings.Join(known, ", "))
			continue
		}
		if !empty(e.value) {
			l.key(k, join(path, e.name), e.value, p)
		}
	}
}

// key reads the value or values of a key.
func (l *loader) key(k *Key, path string, n ast.Node, p *place) {
	switch k.Shape {
	case List:
		l.list(k, path, n, p)
	case Named:
		l.named(k, path, n, p)
	default:
		switch {
		case k.Kind != Map:
			l.single(k, path, "", n, p)
		case k.enter == nil:
			l.config.origins[path] = origin{file: l.file, line: l.line}
			l.mapping(n, k.Keys, path, p)
		case l.once(path):
			l.nested(k, path, "", n, p)
		}
	}
}

func (l *loader) list(k *Key, path string, n ast.Node, p *place) {
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		l.problem(path, "there must be a list, as in `[%s]`%s", example(k), lineBelow(k))
		return
	}
	if len(sequence.Values) > entriesMax {
		l.problem(path, "%d entries: there may be %d", len(sequence.Values), entriesMax)
		return
	}
	if k.Kind == Map && !l.hold(path, len(sequence.Values), entriesMax) {
		return
	}
	for i, v := range sequence.Values {
		if line := lineOf(v); line > 0 {
			l.line = line
		}
		at := fmt.Sprintf("%s[%d]", path, i+1)
		if k.Kind == Map {
			l.nested(k, at, at, v, p)
		} else if v == nil || empty(v) {
			l.problem(at, "there is nothing: leave the entry out")
		} else {
			l.single(k, at, "", v, p)
		}
	}
}

func (l *loader) named(k *Key, path string, n ast.Node, p *place) {
	most := entriesMax
	if k.most > 0 && k.Kind == Map {
		most = int(k.most)
	}
	entries := l.entries(n, path, most)
	if !l.hold(path, len(entries), most) {
		return
	}
	if k.begin != nil {
		k.begin(p)
	}
	for _, e := range entries {
		l.line = e.line
		at := join(path, e.name)
		switch {
		case k.Kind == Map:
			if l.once(at) {
				l.nested(k, at, e.name, e.value, p)
			}
		case empty(e.value):
			l.problem(at, "it has no value")
		case l.once(at):
			l.single(k, at, e.name, e.value, p)
		}
	}
}

// hold counts n more entries of a list or map that grows from file to file. It reports whether there is room for them.
func (l *loader) hold(path string, n, most int) bool {
	l.held[path] += n
	if l.held[path] > most {
		l.problem(path, "%d entries in all files: there may be %d", l.held[path], most)
		return false
	}
	return true
}

// nested reads a map that has a place of its own.
func (l *loader) nested(k *Key, path, name string, n ast.Node, p *place) {
	line := l.line
	inner, done := k.enter(l, p, name)
	if inner == nil {
		return
	}
	if !empty(n) {
		l.mapping(n, k.Keys, path, inner)
	}
	l.line = line
	done()
}

// once records where something stands that may be in one file only. It reports whether it is the first.
func (l *loader) once(path string) bool {
	if first, there := l.config.origins[path]; there {
		l.problem(path, "it stands at %v too: leave one", first)
		return false
	}
	l.config.origins[path] = origin{file: l.file, line: l.line}
	return true
}

// single reads one value and puts it where it belongs.
func (l *loader) single(k *Key, path, name string, n ast.Node, p *place) {
	if line := lineOf(n); line > 0 {
		l.line = line
	}
	text, ok := scalar(n)
	if !ok {
		l.problem(path, "there must be one value (%v)%s", k.Kind, lineBelow(k))
		return
	}
	v, wrong := k.parseScalar(text)
	if wrong == "" {
		wrong = k.wrong(v, text)
	}
	if wrong != "" {
		l.problem(path, "%s", wrong)
		return
	}
	switch k.Kind {
	case User:
		v, ok = l.user(path, text)
	case Group:
		v, ok = l.group(path, text)
	}
	if k.Shape == One {
		name = text
		l.config.origins[path] = origin{l.file, l.line, v}
	}
	if !ok {
		if k.Shape == One { // what another file granted is not meant any more
			reflect.ValueOf(k.at(p)).Elem().SetZero()
		}
		return
	}
	if k.put != nil {
		k.put(l, p, name, v)
		return
	}
	if a, user := v.(account); user {
		v = int64(a.uid)
	}
	store(k.at(p), name, v)
}

func (l *loader) user(path, name string) (account, bool) {
	a, err := l.accounts.user(name)
	if err != nil {
		l.unknown(path, "user %s: %v", quote(name), err)
	}
	return a, err == nil
}

func (l *loader) group(path, name string) (int64, bool) {
	gid, err := l.accounts.group(name)
	if err != nil {
		l.unknown(path, "group %s: %v", quote(name), err)
	}
	return int64(gid), err == nil
}

// scalar returns a value as it was written, without quotes.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		if n.GetToken() == nil {
			return "", false
		}
		return n.GetToken().Value, true
	}
	return "", false
}

// empty reports whether there is no value: it is as if the key were not there.
func empty(n ast.Node) bool {
	_, null := n.(*ast.NullNode)
	return n == nil || null
}
