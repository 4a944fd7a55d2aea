package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// pure are the rooms that have no I/O, no goroutine and no clock of their own: the same calls give the
// same state, which is what replaying records rests on.
var pure = []string{"broker/queue"}

// impurePackages do I/O, wait, or bring in chance.
var impurePackages = []string{
	"context", "crypto/rand", "io/fs", "io/ioutil", "log", "log/slog", "math/rand", "math/rand/v2", "os", "os/exec",
	"os/signal", "path/filepath", "sync", "sync/atomic", "syscall",
}

// clockFuncs are the functions of package time that read a clock or wait for one.
var clockFuncs = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

// impurities says, with its line, what in a file is not pure.
func impurities(s source) []string {
	var found []string
	note := func(at token.Pos, format string, args ...any) {
		found = append(found, fmt.Sprintf("%s:%d: %s", s.name, s.set.Position(at).Line, fmt.Sprintf(format, args...)))
	}
	for i, p := range s.imports() {
		third := strings.Contains(strings.Split(p, "/")[0], ".") && !strings.HasPrefix(p, module+"/")
		if slices.Contains(impurePackages, p) || p == "net" || strings.HasPrefix(p, "net/") || third {
			note(s.file.Imports[i].Pos(), "imports %s", p)
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			note(n.Pos(), "starts a goroutine")
		case *ast.ChanType:
			note(n.Pos(), "uses a channel")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clockFuncs, n.Sel.Name) {
				note(n.Pos(), "reads the clock with time.%s: take the time as an argument", n.Sel.Name)
			}
		}
		return true
	})
	return found
}

func TestPureRoomsHaveNoIOAndNoClock(t *testing.T) {
	for _, s := range sources(t) {
		if slices.Contains(pure, s.dir) {
			for _, wrong := range impurities(s) {
				t.Error(wrong)
			}
		}
	}
}

func TestImpurityIsNoticed(t *testing.T) {
	const text = `package queue

import (
	"fmt"
	"sync"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"golang.org/x/sys/unix"
)

var _ = limits.Queues
var mu sync.Mutex
var now = time.Now()
var wait = 3 * time.Second

func run(c chan int) { go fmt.Println(unix.Getpid()) }
`
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "broken.go", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	got := impurities(source{"broken.go", "broker/queue", set, file})
	want := []string{
		"broken.go:5: imports sync",
		"broken.go:9: imports golang.org/x/sys/unix",
		"broken.go:14: reads the clock with time.Now: take the time as an argument",
		"broken.go:17: uses a channel",
		"broken.go:17: starts a goroutine",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
