//go:build linux

package rules

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demo returns a run of the demo on a log of so many lines, with temporary files in a directory of its own.
func demo(t *testing.T, lines int) (run *exec.Cmd, temporary string) {
	t.Helper()
	dir := t.TempDir()
	buildBinaries(t, filepath.Join(dir, "bin"))
	var log bytes.Buffer
	for i := range lines {
		action := []string{"status", "status", "install", "configure"}[i%4]
		if i > lines/2 && i%20 == 0 {
			action = "remove"
		}
		fmt.Fprintf(&log, "2026-01-02 03:04:05 %s package%d\t<none> 1.%d\n", action, i, i)
	}
	if err := os.WriteFile(filepath.Join(dir, "dpkg.log"), log.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	temporary, err := os.MkdirTemp("", "demo") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temporary) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	run = exec.CommandContext(ctx, "demo/run")
	run.Dir = root
	run.Env = cleanEnvironment("BIN="+filepath.Join(dir, "bin"), "LOG="+filepath.Join(dir, "dpkg.log"), "TMPDIR="+temporary)
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return run, temporary
}

// expectNothingLeft fails if the demo has left a file behind.
func expectNothingLeft(t *testing.T, temporary string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(temporary, "ipcd-demo.*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestDemoAccountsForEveryLine(t *testing.T) {
	run, temporary := demo(t, 301)
	output, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, line := range []string{`(?m)^ +301 lines in the log$`, `(?m)^ +151 sent over gRPC$`, `(?m)^ +150 sent with mq_send$`, `(?m)^ +0 left in the queue$`} {
		if !regexp.MustCompile(line).Match(output) {
			t.Errorf("the output has no line %s:\n%s", line, output)
		}
	}
	if bytes.ContainsRune(output, 0x1b) {
		t.Error("the output has colours, but goes to no terminal")
	}
	expectNothingLeft(t, temporary)
}

func TestDemoCleansUpWhenInterrupted(t *testing.T) {
	run, temporary := demo(t, 301)
	var output notifying
	output.text, output.seen = "created /log", make(chan struct{})
	run.Stdout, run.Stderr = &output, &output
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	select {
	case <-output.seen:
	case err := <-ended:
		t.Fatalf("the demo ended before it was interrupted: %v\n%s", err, output.buffer.String())
	}
	// As Ctrl-C does: to the whole process group.
	if err := syscall.Kill(-run.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ended
	if code := run.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130\n%s", code, output.buffer.String())
	}
	expectNothingLeft(t, temporary)
}

// notifying is a buffer that closes seen once text was written to it.
type notifying struct {
	buffer bytes.Buffer
	text   string
	seen   chan struct{}
	done   bool
}

func (n *notifying) Write(p []byte) (int, error) {
	n.buffer.Write(p)
	if !n.done && strings.Contains(n.buffer.String(), n.text) {
		n.done = true
		close(n.seen)
	}
	return len(p), nil
}
