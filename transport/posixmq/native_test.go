package posixmq

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

var nativeDir string // where the C programs of testdata are, compiled

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "posixmq")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"mqsend", "mqreceive", "mqflood"} {
		text, err := exec.Command("gcc", "-Wall", "-O1", "-o", filepath.Join(dir, name), "testdata/"+name+".c").CombinedOutput()
		if err != nil {
			panic(fmt.Sprintf("compile %s: %v\n%s", name, err, text))
		}
	}
	nativeDir = dir
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Println(err)
		return 1
	}
	return code
}

// newMQ makes a kernel queue of its own for the test.
func newMQ(t *testing.T, messages, size int) *MQ {
	t.Helper()
	m, err := Create(fmt.Sprintf("/ipcd-test-%d-%x", os.Getpid(), rand.Uint64()), Geometry{messages, size})
	if err == unix.ENOSYS {
		t.Skip("this kernel has no POSIX message queues")
	}
	if err != nil {
		t.Fatal(Explain(err, "of the test", Geometry{messages, size}))
	}
	t.Cleanup(func() {
		m.Unlink()
		m.Close()
	})
	return m
}

// reopen opens the kernel queue as a native program would have it, on a descriptor of its own.
func reopen(t *testing.T, m *MQ) *MQ {
	t.Helper()
	other, err := Open(m.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return other
}

func quiet() *zap.Logger { return zap.NewNop() }

// native is a C program that is running.
type native struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startNative(t *testing.T, name string, args ...string) *native {
	t.Helper()
	cmd := exec.Command(filepath.Join(nativeDir, name), args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &native{t: t, cmd: cmd, in: in, lines: bufio.NewScanner(out)}
	t.Cleanup(n.kill)
	return n
}

func (n *native) kill() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
}

// line returns the program's next line.
func (n *native) line() string {
	n.t.Helper()
	if !n.lines.Scan() {
		n.t.Fatalf("%v ended: %v", n.cmd, n.lines.Err())
	}
	return n.lines.Text()
}

func (n *native) expect(want string) {
	n.t.Helper()
	if got := n.line(); got != want {
		n.t.Fatalf("%v says %q, want %q", n.cmd, got, want)
	}
}

func (n *native) say(format string, args ...any) {
	n.t.Helper()
	if _, err := io.WriteString(n.in, fmt.Sprintf(format, args...)+"\n"); err != nil {
		n.t.Fatal(err)
	}
}

// awaitCurrent waits until the kernel queue holds so many messages.
func awaitCurrent(t *testing.T, m *MQ, want int) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; runtime.Gosched() {
		n, err := m.Current()
		if err != nil {
			t.Fatal(err)
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the kernel queue holds %d messages, want %d", n, want)
		}
	}
}

func letters(n int) string { return strings.Repeat("x", n) }
