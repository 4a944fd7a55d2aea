//go:build linux

package ringbench

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Paths that do not exist, which a child asks for to mark the beginning and the end of what it does in a trace of its system calls.
const (
	markBegin = "/ringbench/begin"
	markEnd   = "/ringbench/end"
)

func TestPublishingToNobodyWhoSleepsMakesNoSystemCall(t *testing.T) {
	const messages = 100_000
	calls := trace(t, "publish traced", messages)
	if ours := wakes(calls); len(ours) > 0 {
		t.Errorf("%d wakes of nobody, such as\n%s", len(ours), ours[0])
	}
	// Go's runtime makes a few calls of its own, whatever the thread does.
	if len(calls) > messages/1000 {
		t.Errorf("%d system calls while %d messages were published, such as\n%s", len(calls), messages, strings.Join(calls[:10], "\n"))
	}
}

// The trace would show one: the first message wakes, and what follows finds the sleeper woken.
func TestPublishingToSomebodyWhoSleepsMakesOneSystemCall(t *testing.T) {
	if ours := wakes(trace(t, "publish traced to a sleeper", 1_000)); len(ours) != 1 {
		t.Errorf("the messages woke\n%s\nwant one wake for them all", strings.Join(ours, "\n"))
	}
}

// wakes are those of futexes in shared memory. Those of Go's scheduler are private.
func wakes(calls []string) []string {
	return slices.DeleteFunc(slices.Clone(calls), func(call string) bool { return !strings.Contains(call, "FUTEX_WAKE,") })
}

// trace has a child do a job under strace and returns the system calls that the job's thread made between the marks.
func trace(t *testing.T, name string, n int) []string {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("there is no strace")
	}
	if err := exec.Command(strace, "-o", os.DevNull, "true").Run(); err != nil {
		t.Skip("strace may not trace here: ", err)
	}
	log := filepath.Join(t.TempDir(), "log")
	// Go's scheduler stops threads by signals now and then, whatever they do.
	t.Setenv("GODEBUG", "asyncpreemptoff=1")
	startChild(t, roleTraced, -1, nil, strace, "-f", "-o", log).do(name, n)
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	thread := ""
	for line := range strings.Lines(string(text)) {
		id, call, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case strings.Contains(call, markBegin):
			thread, calls = id, nil
		case id == thread && strings.Contains(call, markEnd):
			return calls
		case id == thread && !strings.HasPrefix(strings.TrimSpace(call), "<..."):
			calls = append(calls, strings.TrimSpace(call))
		}
	}
	t.Fatalf("the trace has no end mark:\n%s", text)
	return nil
}

// roleTraced is a child that publishes by itself.
const roleTraced = "traced"

// tracedJobs publish with one consumer that does not run: awake, or asleep.
func tracedJobs() (map[string]job, error) {
	jobs := map[string]job{}
	for name, asleep := range map[string]bool{"publish traced": false, "publish traced to a sleeper": true} {
		jobs[name] = func(n int, ready func()) ([]int64, error) {
			runtime.LockOSThread()
			defer debug.SetGCPercent(debug.SetGCPercent(-1))
			w, err := newWriter(1, asleep)
			if err != nil {
				return nil, err
			}
			defer w.Close()
			payload, ctx := make([]byte, payloadBytes), context.Background()
			ready()
			mark(markBegin)
			for range n {
				if err := w.Publish(ctx, 1, payload); err != nil {
					return nil, err
				}
			}
			mark(markEnd)
			return nil, nil
		}
	}
	return jobs, nil
}

func mark(path string) {
	var s unix.Stat_t
	_ = unix.Stat(path, &s)
}
