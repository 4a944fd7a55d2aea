//go:build linux

package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// patience is how long anything may take that must happen. Nothing waits for it to pass unless it fails.
const patience = 60 * time.Second

// Exit codes of the daemon, as its manual has them.
const (
	exitDamage = 65 // the journal is damaged
	exitDisk   = 74 // the journal could not be written
)

// home is a state directory, a socket and a configuration: what a daemon's next process finds again.
type home struct {
	t      *testing.T
	dir    string
	socket string
	state  string
	config string
	// wrap goes before the daemon's command line: a program that runs it.
	wrap []string
}

// newHome makes a home. more are further lines of its configuration.
func newHome(t *testing.T, more ...string) *home {
	t.Helper()
	dir, err := os.MkdirTemp("", "crash") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &home{t: t, dir: dir, socket: filepath.Join(dir, "s"), state: filepath.Join(dir, "state"), config: filepath.Join(dir, "ipcd.yaml")}
	for _, line := range more {
		if state, ok := strings.CutPrefix(line, "state_dir: "); ok {
			h.state = state
		}
	}
	lines := append([]string{"socket: " + h.socket}, more...)
	if !slices.Contains(more, "state_dir: "+h.state) {
		lines = append(lines, "state_dir: "+h.state)
	}
	if err := os.WriteFile(h.config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return h
}

// smallSegments are lines of a configuration: segments go round often.
var smallSegments = []string{"segment_size: 256KiB", "keep_free: 0"}

func (h *home) journal() string { return filepath.Join(h.state, "journal") }

// daemon is a process of ipcd.
type daemon struct {
	*home
	pid    int // of ipcd, also where another program runs it
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{} // closed when the process is gone
}

// start runs a daemon and returns when it serves.
func (h *home) start(arguments ...string) *daemon {
	h.t.Helper()
	d := h.launch(arguments...)
	if !d.serves() {
		h.t.Fatalf("the daemon ended (%v); its log:\n%s", d.cmd.ProcessState, d.log)
	}
	return d
}

// launch starts the process and waits for nothing. It ends with the test.
func (h *home) launch(arguments ...string) *daemon {
	t := h.t
	t.Helper()
	line := append(append(append([]string{}, h.wrap...), filepath.Join(bin, "ipcd"), "--config", h.config), arguments...)
	d := &daemon{home: h, log: new(logBuffer), exited: make(chan struct{})}
	d.cmd = exec.Command(line[0], line[1:]...)
	d.cmd.Env = environment()
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	// The thread that starts a child with a parent death signal must outlive it; see PR_SET_PDEATHSIG(2const).
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := d.cmd.Start()
		started <- err
		if err == nil {
			_ = d.cmd.Wait()
			close(d.exited)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	d.pid = d.cmd.Process.Pid
	t.Cleanup(func() {
		d.kill()
		for _, bad := range []string{"DATA RACE", "panic:", "internal error", "fatal error"} {
			if strings.Contains(d.log.String(), bad) {
				t.Errorf("the daemon's log has %q:\n%s", bad, d.log)
				return
			}
		}
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.log)
		}
	})
	return d
}

// serves waits until the daemon serves, and reports false if it ended instead.
func (d *daemon) serves() bool {
	d.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		for line := range strings.Lines(d.log.String()) {
			if strings.Contains(line, `"ipcd started"`) && strings.HasSuffix(line, "\n") {
				var entry struct{ PID int }
				if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.PID == 0 {
					d.t.Fatalf("log entry %s: %v", line, err)
				}
				d.pid = entry.PID
				return true
			}
		}
		select {
		case <-d.exited:
			return false
		default:
		}
	}
	d.t.Fatalf("the daemon neither serves nor ends; its log:\n%s", d.log)
	return false
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() {
	select {
	case <-d.exited:
		return
	default:
	}
	// By its own id and that of whoever runs it; neither is reaped yet, unless exited is closed.
	if d.pid != d.cmd.Process.Pid {
		_ = syscall.Kill(d.pid, syscall.SIGKILL)
	}
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// stop ends the daemon in good order.
func (d *daemon) stop() {
	d.t.Helper()
	_ = syscall.Kill(d.pid, syscall.SIGTERM)
	if code := d.exitCode(); code != 0 {
		d.t.Fatalf("exit %d after SIGTERM; the log:\n%s", code, d.log)
	}
}

// exitCode waits for the daemon's end.
func (d *daemon) exitCode() int {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatalf("the daemon does not exit; its log:\n%s", d.log)
	}
	return d.cmd.ProcessState.ExitCode()
}

// lifetime is a context that ends with the daemon: clients rather wait for the next one.
func (d *daemon) lifetime() context.Context {
	ctx, cancel := context.WithCancel(within(d.t))
	go func() {
		defer cancel()
		select {
		case <-d.exited:
		case <-ctx.Done():
		}
	}()
	return ctx
}

// dial returns a client of whichever daemon listens at the socket.
func (h *home) dial() *client.Client {
	h.t.Helper()
	c, err := client.Dial(h.socket)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// create makes a queue without kernel doors.
func create(t *testing.T, c *client.Client, name string, change ...func(*client.QueueSettings)) *client.Queue {
	t.Helper()
	s := client.QueueSettings{Mqueue: client.KernelQueue{Mode: client.KernelNone}, MaxAttempts: 65535}
	for _, f := range change {
		f(&s)
	}
	if _, err := c.CreateQueue(within(t), name, s); err != nil {
		t.Fatal(err)
	}
	return c.Queue(name)
}

// within is a context for calls that must come to an end.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// result is what a program said and how it ended.
type result struct {
	out, err string
	exit     int
}

// run runs a program from bin to its end.
func (h *home) run(ctx context.Context, program string, arguments ...string) (result, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), arguments...)
	cmd.Env = environment("IPCD_ADDRESS=" + h.socket)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return result{}, err
	}
	r := result{out.String(), words.String(), cmd.ProcessState.ExitCode()}
	for _, bad := range []string{"DATA RACE", "panic:"} {
		if strings.Contains(r.err, bad) {
			return r, fmt.Errorf("%v says %q:\n%s", cmd.Args, bad, r.err)
		}
	}
	return r, nil
}

// fsck looks at the state directory while no daemon has it, and returns the exit code.
func (h *home) fsck() result {
	h.t.Helper()
	r, err := h.run(within(h.t), "ipcd", "fsck", "--state-dir", h.state)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// clean fails unless fsck finds nothing.
func (h *home) clean() {
	h.t.Helper()
	if r := h.fsck(); r.exit != 0 {
		h.t.Fatalf("fsck: exit %d\n%s%s", r.exit, r.out, r.err)
	}
}

// logBuffer gathers what a process says.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about: %s", what)
		}
	}
}

// environment is that of every process: nothing that would send it to another daemon, and a race
// detector that does not wait a second at the end.
func environment(more ...string) []string {
	var kept []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "IPCD_"), strings.HasPrefix(name, "XDG_"), name == "GORACE", name == "NO_COLOR":
		default:
			kept = append(kept, v)
		}
	}
	return append(append(kept, "GORACE=atexit_sleep_ms=0", "TZ=UTC"), more...)
}
