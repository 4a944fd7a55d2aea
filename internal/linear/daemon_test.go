//go:build linux

package linear

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// home is a state directory and a socket: what a daemon's next process finds again.
type home struct {
	t           *testing.T
	dir, socket string
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir, err := os.MkdirTemp("", "linear") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &home{t, dir, filepath.Join(dir, "s")}
}

// daemon is a process of ipcd.
type daemon struct {
	*home
	cmd    *exec.Cmd
	log    *logBuffer
	exited chan struct{} // closed when the process is gone
}

// start runs a daemon and returns when it serves. It ends with the test. A stop does not wait for leases: they hold.
func (h *home) start() *daemon {
	t := h.t
	t.Helper()
	d := &daemon{home: h, log: new(logBuffer), exited: make(chan struct{})}
	config := filepath.Join(h.dir, "ipcd.yaml")
	lines := "socket: " + h.socket + "\nstate_dir: " + filepath.Join(h.dir, "state") + "\nstop_timeout: 1ms\nsegment_size: 256KiB\nkeep_free: 0\n"
	if err := os.WriteFile(config, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	d.cmd = exec.Command(bin, "--config", config)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "IPCD_") && !strings.HasPrefix(v, "XDG_") {
			d.cmd.Env = append(d.cmd.Env, v)
		}
	}
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
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
	t.Cleanup(d.kill)
	for deadline := time.Now().Add(patience); !strings.Contains(d.log.String(), `"ipcd started"`); time.Sleep(2 * time.Millisecond) {
		select {
		case <-d.exited:
			t.Fatalf("the daemon ended (%v); its log:\n%s", d.cmd.ProcessState, d.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon neither serves nor ends; its log:\n%s", d.log)
		}
	}
	return d
}

// kill ends the daemon as a crash does, and returns when it is gone.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// stop ends the daemon in good order.
func (d *daemon) stop() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(patience):
		d.t.Fatalf("the daemon does not exit; its log:\n%s", d.log)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		d.t.Fatalf("exit %d after SIGTERM; the log:\n%s", code, d.log)
	}
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

// within is a context for calls that must come to an end.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
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
