//go:build linux

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// result is what a program said and how it ended.
type result struct {
	out, err string
	exit     int
}

// command returns a run of a program from bin, with the daemon's address in its environment.
func (d *daemon) command(ctx context.Context, program string, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), arguments...)
	cmd.Env = environment("IPCD_ADDRESS=" + d.socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// ctl runs ipcctl.
func (d *daemon) ctl(t *testing.T, arguments ...string) result {
	t.Helper()
	return finish(t, d.command(within(t), "ipcctl", arguments...))
}

// ctlWith runs ipcctl with input.
func (d *daemon) ctlWith(t *testing.T, input string, arguments ...string) result {
	t.Helper()
	cmd := d.command(within(t), "ipcctl", arguments...)
	cmd.Stdin = strings.NewReader(input)
	return finish(t, cmd)
}

// finish runs a program to its end.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	err := cmd.Run()
	r := result{out.String(), words.String(), -1}
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	r.exit = cmd.ProcessState.ExitCode()
	for _, bad := range []string{"DATA RACE", "panic", "goroutine "} {
		if strings.Contains(r.err, bad) {
			t.Errorf("%v: stderr has %q:\n%s", cmd.Args, bad, r.err)
		}
	}
	return r
}

// ok fails unless a program ended well, and returns its output.
func (r result) ok(t *testing.T) string {
	t.Helper()
	return r.exits(t, 0).out
}

// exits fails unless a program ended with this code.
func (r result) exits(t *testing.T, code int) result {
	t.Helper()
	if r.exit != code {
		t.Fatalf("exit %d, want %d; stdout:\n%s\nstderr:\n%s", r.exit, code, r.out, r.err)
	}
	return r
}

// says fails unless stderr contains all of these.
func (r result) says(t *testing.T, words ...string) result {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("stderr does not say %q:\n%s", w, r.err)
		}
	}
	return r
}

// messageJSON is what ipcctl shows of a message.
type messageJSON struct {
	Queue      string            `json:"queue"`
	Sequence   uint64            `json:"sequence"`
	State      string            `json:"state"`
	Type       int64             `json:"type"`
	TypeName   string            `json:"type_name"`
	Priority   int               `json:"priority"`
	Body       *string           `json:"body"`
	BodyBase64 *string           `json:"body_base64"`
	Headers    map[string]string `json:"headers"`
	Attempts   int               `json:"attempts"`
	BuryReason string            `json:"bury_reason"`
	Receipt    string            `json:"receipt"`
}

// messages reads the output of -o json.
func (r result) messages(t *testing.T) []messageJSON {
	t.Helper()
	var document struct{ Messages []messageJSON }
	if err := json.Unmarshal([]byte(r.ok(t)), &document); err != nil {
		t.Fatalf("%v:\n%s", err, r.out)
	}
	return document.Messages
}

// running is a program under way.
type running struct {
	cmd        *exec.Cmd
	out, words logBuffer
	exited     chan struct{}
}

// background starts a program, which is killed at the end of the test if it is still there.
func background(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{cmd: cmd, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &r.out, &r.words
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(r.exited)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-r.exited
	})
	return r
}

// wait returns how the program ended.
func (r *running) wait() result {
	<-r.exited
	return result{r.out.String(), r.words.String(), r.cmd.ProcessState.ExitCode()}
}

// unmarshal reads JSON.
func unmarshal(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
}
