//go:build linux

package c_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// sanitized are the flags for programs that use the client of queues; a fault of memory, or a leak, ends them with an error.
var sanitized = []string{"-D_GNU_SOURCE", "ipcd.c", "-g", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-lnghttp2"}

// haveNghttp2 says whether C programs that use libnghttp2 can be compiled here.
var haveNghttp2 = sync.OnceValue(func() error {
	cmd := exec.Command("gcc", "-E", "-x", "c", "-")
	cmd.Stdin = strings.NewReader("#include <nghttp2/nghttp2.h>\n")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, output)
	}
	return nil
})

func needNghttp2(t testing.TB) {
	t.Helper()
	if err := haveNghttp2(); err != nil {
		t.Skipf("the C client of queues is not tested: install libnghttp2-dev, as client/c/install does (%v)", err)
	}
}

// buildDaemon builds ipcd once and returns where it is.
var buildDaemon = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built.dir, "ipcd")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", path, "./cmd/ipcd")
	cmd.Dir = filepath.Join("..", "..")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build ipcd: %w\n%s", err, output)
	}
	return path, nil
})

// broker is a process of ipcd.
type broker struct {
	t      testing.TB
	dir    string
	socket string

	mu     sync.Mutex // guards the process below: some tests restart it from a goroutine of their own
	cmd    *exec.Cmd
	log    *bytes.Buffer
	exited chan struct{}
}

// startDaemon runs ipcd until the test ends.
func startDaemon(t testing.TB) *broker {
	t.Helper()
	needNghttp2(t)
	dir, err := os.MkdirTemp("", "c") // short: see unix(7)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &broker{t: t, dir: dir, socket: filepath.Join(dir, "s")}
	d.start()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.log)
		}
	})
	return d
}

// start runs the process, over the state that an earlier one left.
func (d *broker) start() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	program, err := buildDaemon()
	if err != nil {
		d.t.Fatal(err)
	}
	d.log, d.exited = new(bytes.Buffer), make(chan struct{})
	d.cmd = exec.Command(program, "--socket", d.socket, "--state-dir", filepath.Join(d.dir, "state"))
	d.cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+d.dir, "XDG_STATE_HOME="+d.dir)
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	exited, cmd := d.exited, d.cmd
	go func() {
		runtime.LockOSThread() // it must outlive the child: see PR_SET_PDEATHSIG(2const)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		d.t.Fatal(err)
	}
	for end := time.Now().Add(hang); ; {
		if conn, err := net.Dial("unix", d.socket); err == nil {
			conn.Close()
			return
		}
		select {
		case <-exited:
			d.t.Fatalf("the daemon has ended:\n%s", d.log)
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(end) {
			d.t.Fatal("the daemon does not answer")
		}
	}
}

// kill ends the daemon as a crash does.
func (d *broker) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// client is a Go client of the daemon.
func (d *broker) client() *client.Client {
	d.t.Helper()
	c, err := client.Dial(d.socket)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = c.Close() })
	return c
}

// queue makes a queue and returns it, for the Go side.
func (d *broker) queue(name string, s client.QueueSettings) *client.Queue {
	d.t.Helper()
	c := d.client()
	s.Mqueue.Mode = client.KernelNone // kernel queues would outlive a daemon that is killed
	if _, err := c.CreateQueue(d.t.Context(), name, s); err != nil {
		d.t.Fatal(err)
	}
	return c.Queue(name)
}

// driver is a C program that does with a client what it is told: see testdata/queue.c.
type driver struct {
	t      testing.TB
	input  io.WriteCloser
	output *bufio.Scanner
	cmd    *exec.Cmd
}

// result is how a command of a driver ended.
type result struct {
	n       int64 // what the function returned
	errno   int64 // what ipcd_last_error says of it
	code    int64
	reason  string
	index   int64
	retry   int64
	message string
	lines   []fields // what it printed before
}

// fields are a line of output: a word, and then pairs.
type fields map[string]string

func (f fields) number(key string) int64 {
	n, err := strconv.ParseInt(f[key], 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s in %v: %v", key, f, err))
	}
	return n
}

// drive starts a driver that talks to a socket.
func drive(t *testing.T, socket string, environment ...string) *driver {
	t.Helper()
	needNghttp2(t)
	return driveWith(t, program(t, "testdata/queue.c", sanitized...), socket, environment...)
}

func driveWith(t testing.TB, path, socket string, environment ...string) *driver {
	t.Helper()
	d := &driver{t: t, cmd: exec.Command(path)}
	d.cmd.Env = append(append(os.Environ(), "IPCD_ADDRESS="+socket), environment...)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{}
	var complaints bytes.Buffer
	d.cmd.Stderr = &complaints
	var err error
	if d.input, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.output = bufio.NewScanner(output)
	d.output.Buffer(nil, 64<<20)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(3*hang, func() { _ = d.cmd.Process.Kill() })
	t.Cleanup(func() {
		d.input.Close()
		for d.output.Scan() { // to the end: Wait closes the pipe
		}
		if err := d.cmd.Wait(); err != nil || complaints.Len() > 0 {
			t.Errorf("the C program: %v\n%s", err, &complaints)
		}
		watchdog.Stop()
	})
	d.do("open")
	return d
}

var resultLine = regexp.MustCompile(`^result (-?\d+) errno=(-?\d+) code=(\d+) reason=(\S*) index=(-?\d+) retry=(-?\d+) (.*)$`)

// tell sends a command and waits for nothing.
func (d *driver) tell(format string, args ...any) {
	d.t.Helper()
	if _, err := fmt.Fprintf(d.input, format+"\n", args...); err != nil {
		d.t.Error(err)
	}
}

// answer waits for the end of a command.
func (d *driver) answer() result {
	d.t.Helper()
	var r result
	for d.output.Scan() {
		line := d.output.Text()
		if m := resultLine.FindStringSubmatch(line); m != nil {
			number := func(i int) int64 {
				n, _ := strconv.ParseInt(m[i], 10, 64)
				return n
			}
			r.n, r.errno, r.code, r.reason, r.index, r.retry, r.message = number(1), number(2), number(3), m[4], number(5), number(6), m[7]
			if min(r.n, 0) != r.errno || r.n >= 0 && r.reason != "" {
				d.t.Errorf("the result and ipcd_last_error differ: %+v", r)
			}
			return r
		}
		words := strings.Split(line, " ")
		f := fields{"": words[0]}
		for i, word := range words[1:] {
			key, value, pair := strings.Cut(word, "=")
			if !pair {
				key, value = strconv.Itoa(i+1), word
			}
			f[key] = value
		}
		f["line"] = line
		r.lines = append(r.lines, f)
	}
	d.t.Fatalf("the C program ended before it answered: %v", d.output.Err())
	return r
}

// do gives a command and waits for its end.
func (d *driver) do(format string, args ...any) result {
	d.t.Helper()
	d.tell(format, args...)
	return d.answer()
}

// good is do of what must go well.
func (d *driver) good(format string, args ...any) result {
	d.t.Helper()
	r := d.do(format, args...)
	if r.n < 0 {
		d.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), r)
	}
	return r
}

// bad is do of what must fail.
func (d *driver) bad(errno syscall.Errno, reason, format string, args ...any) result {
	d.t.Helper()
	r := d.do(format, args...)
	if r.n != -int64(errno) || r.reason != reason || r.message == "" {
		d.t.Fatalf("%s: %s, not %v %s", fmt.Sprintf(format, args...), r, errno, reason)
	}
	return r
}

func (r result) String() string {
	return fmt.Sprintf("%d %s (code %d, index %d, retry %d ms): %s", r.n, r.reason, r.code, r.index, r.retry, r.message)
}

// all is one value of every line of a kind.
func (r result) all(kind, key string) (values []string) {
	for _, f := range r.lines {
		if f[""] == kind {
			values = append(values, f[key])
		}
	}
	return values
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, not %q", what, got, want)
	}
}
