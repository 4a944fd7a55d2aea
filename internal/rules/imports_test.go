package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ipcd/ipcd"

// leaves may be imported by every room. Among themselves they import only what stands in rooms.
var leaves = []string{"internal/access", "internal/config", "internal/identity", "internal/limits", "internal/manpage", "internal/quota", "internal/reason", "internal/schema", "internal/suggest", "internal/units", "internal/version"}

// rooms lists the packages of the module and what each may import of it besides the leaves. The order is
// that of the house: what stands higher uses what stands lower, never the other way.
var rooms = map[string][]string{
	"cmd/ipcd":   anything,
	"cmd/ipcctl": {"client"},
	"client":     {"proto/ipcd/v1"},

	"client/ring": {"internal/shm", "internal/attach"}, // no gRPC, and nothing of the broker

	"demo/exactlyonce": {"client"},
	"demo/grpcsend":    {"client"},
	"demo/hello":       {"client"},

	// Doors are siblings: none imports another. Only doors, which opens and closes them, knows them.
	"transport/rpc":     {"transport", "broker", "broker/queue", "broker/ring", "internal/shm", "proto/ipcd/v1"},
	"transport/doors":   {"transport", "transport/posixmq", "broker", "broker/queue"},
	"transport/posixmq": {"transport", "broker", "broker/queue"},
	"transport/shmring": {"transport", "broker/ring", "internal/shm", "internal/attach"},
	"transport/ops":     {"transport", "broker", "broker/queue", "broker/ring"},
	"transport":         {"broker", "broker/queue", "broker/ring", "internal/shm"},

	"transport/posixmq/lanetest": {"broker", "broker/queue"}, // a broker.DoorQueue for tests

	"broker":         {"broker/queue", "broker/journal", "internal/vfs"},
	"broker/journal": {"internal/vfs"},
	"broker/queue":   {},
	"broker/ring":    {"broker/queue", "internal/shm", "internal/vfs"}, // of the queue the rule for names
	"proto/ipcd/v1":  {},

	"internal/rules":    {},
	"internal/access":   {},
	"internal/attach":   {},
	"internal/checker":  {},
	"internal/config":   {},
	"internal/identity": {},
	"internal/limits":   {},
	"internal/manpage":  {},
	"internal/quota":    {"internal/vfs"},
	"internal/reason":   {},
	"internal/schema":   {},
	"internal/service":  {},
	"internal/shm":      {},
	"internal/suggest":  {},
	"internal/units":    {},
	"internal/vfs":      {},
	"internal/version":  {},
}

var anything = []string{"*"}

// leafless are the rooms for which not even every leaf is allowed.
var leafless = map[string][]string{
	"broker/queue":      {"internal/limits", "internal/reason"}, // whom a call is for is the broker's business
	"client":            {"internal/limits", "internal/reason"}, // it runs where no daemon is
	"client/ring":       {"internal/limits", "internal/reason"},
	"demo/exactlyonce":  {},
	"internal/checker":  {},
	"demo/grpcsend":     {}, // a program like any other
	"demo/hello":        {},
	"broker/journal":    {"internal/limits"}, // bytes, whoever they are of
	"internal/access":   {"internal/identity", "internal/reason"},
	"internal/attach":   {"internal/limits", "internal/reason"},
	"internal/config":   {"internal/access", "internal/identity", "internal/limits", "internal/quota", "internal/suggest", "internal/units"},
	"internal/identity": {},
	"internal/limits":   {},
	"internal/manpage":  {},
	"internal/quota":    {"internal/identity", "internal/limits", "internal/reason"},
	"internal/reason":   {},
	"internal/schema":   {"internal/limits"},
	"internal/service":  {},
	"internal/shm":      {"internal/limits"}, // memory, whoever it is of
	"internal/suggest":  {},
	"internal/units":    {},
	"internal/vfs":      {},
	"internal/version":  {},
}

// checkImport says what is wrong with a package of the module importing another, or "".
func checkImport(from, to string) string {
	allowed, known := rooms[from]
	if !known {
		return fmt.Sprintf("%s is no room that the import rule knows: add it to the table in internal/rules/imports_test.go and to ARCHITECTURE.md", from)
	}
	if to == "" {
		return ""
	}
	ownLeaves, restricted := leafless[from]
	if !restricted {
		ownLeaves = leaves
	}
	if allowed := slices.Concat(allowed, ownLeaves); !slices.Contains(allowed, to) && !slices.Contains(allowed, "*") {
		return fmt.Sprintf("%s must not import %s: of this module it may import %s", from, to, strings.Join(allowed, ", "))
	}
	return ""
}

// source is one parsed file that is no test.
type source struct {
	name string // relative to the root
	dir  string // its package, relative to the module
	set  *token.FileSet
	file *ast.File
}

// sources parses the files of the module that are no tests, those for every operating system. Nested
// modules, such as tools/, are not part of it.
func sources(t *testing.T) []source {
	t.Helper()
	var nested []string
	for _, name := range files(t, func(name string) bool { return path.Base(name) == "go.mod" }) {
		if dir := path.Dir(name); dir != "." {
			nested = append(nested, dir+"/")
		}
	}
	var all []source
	for _, name := range files(t, func(name string) bool {
		return isGo(name) && !strings.HasSuffix(name, "_test.go") &&
			!slices.ContainsFunc(nested, func(dir string) bool { return strings.HasPrefix(name, dir) })
	}) {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, read(t, name), parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, source{name, path.Dir(name), set, file})
	}
	return all
}

func (s source) imports() []string {
	var paths []string
	for _, spec := range s.file.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

func TestImportsPointDownwards(t *testing.T) {
	for _, s := range sources(t) {
		if wrong := checkImport(s.dir, ""); wrong != "" {
			t.Errorf("%s: %s", s.name, wrong)
			continue
		}
		for _, p := range s.imports() {
			if inside, ok := strings.CutPrefix(p, module+"/"); ok {
				if wrong := checkImport(s.dir, inside); wrong != "" {
					t.Errorf("%s: %s", s.name, wrong)
				}
			}
		}
	}
}

func TestForbiddenImportsAreNoticed(t *testing.T) {
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"cmd/ipcd", "transport/rpc", true},
		{"cmd/ipcctl", "client", true},
		{"cmd/ipcctl", "broker", false},
		{"client", "proto/ipcd/v1", true},
		{"client", "broker/queue", false},
		{"client", "internal/shm", false},
		{"client/ring", "internal/shm", true},
		{"client/ring", "client", false},
		{"client/ring", "proto/ipcd/v1", false},
		{"client/ring", "broker/ring", false},
		{"transport/shmring", "transport/rpc", false},
		{"transport/rpc", "transport/shmring", false},
		{"broker/ring", "broker", false},
		{"broker/ring", "internal/attach", false},
		{"internal/shm", "internal/attach", false},
		{"internal/attach", "internal/shm", false},
		{"client", "internal/identity", false},
		{"transport/rpc", "transport/posixmq", false},
		{"transport/posixmq", "transport/doors", false},
		{"transport", "transport/rpc", false},
		{"broker", "transport", false},
		{"broker", "internal/identity", true},
		{"broker/queue", "broker", false},
		{"broker/queue", "internal/identity", false},
		{"internal/limits", "internal/reason", false},
		{"internal/reason", "broker/queue", false},
		{"transport/carrierpigeon", "transport", false},
	} {
		if wrong := checkImport(c.from, c.to); (wrong == "") != c.allowed {
			t.Errorf("%s imports %s: allowed %v, the rule says %q", c.from, c.to, c.allowed, wrong)
		}
	}
}

func TestRoomsExist(t *testing.T) {
	there := map[string]bool{}
	for _, s := range sources(t) {
		there[s.dir] = true
	}
	for room := range rooms {
		if !there[room] {
			t.Errorf("the import rule speaks of %s, which has no Go files: take it out of the table", room)
		}
	}
}
