//go:build linux

package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/client"
)

// fault is a system call that is made to fail.
type fault struct {
	call  string
	errno string
	when  string // as strace(1) has it: 7 is the seventh call alone, 7+ that and all later ones
}

// needStrace skips the test where strace cannot be had or may not trace.
func needStrace(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not installed: internal/crash/install-strace installs it for root")
	}
	if output, err := exec.Command("strace", "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, output)
	}
}

// under lets the home's daemons run under strace, with a fault. The trace goes into the file that it returns.
func (h *home) under(f fault) (trace string) {
	trace = filepath.Join(h.dir, "trace")
	h.wrap = []string{"strace", "-f", "-qq", "--seccomp-bpf", "-o", trace, "-e", "trace=" + f.call, "-e", "signal=none",
		"-e", fmt.Sprintf("inject=%s:error=%s:when=%s", f.call, f.errno, f.when)}
	return trace
}

// traced are the lines of a trace.
func traced(t *testing.T, trace string) []string {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// succeeded counts the calls that returned well.
func succeeded(lines []string) (n int) {
	for _, line := range lines {
		if strings.Contains(line, " = ") && !strings.Contains(line, "INJECTED") && !strings.Contains(line, " = -1 ") {
			n++
		}
	}
	return n
}

// sendUntilFailure sends numbered messages one at a time until the daemon does not answer any more, and
// returns the numbers of those that were acked. Now and then it receives and acks one, so that a full disk
// alone does not end the writing; the number of that one is left out.
func (d *daemon) sendUntilFailure() (acked map[string]bool, last error) {
	t := d.t
	t.Helper()
	q := d.dial().Queue("/q")
	ctx := d.lifetime()
	acked = map[string]bool{}
	for i := range 100_000 {
		text := fmt.Sprintf("message %d", i)
		_, err := q.Send(ctx, client.Message{Body: []byte(text)})
		switch {
		case err == nil:
			acked[text] = true
		case errors.Is(err, client.ErrDiskFull):
			deliveries, err := q.Receive(ctx, 1, client.ReceiveOptions{})
			for _, d := range deliveries {
				delete(acked, string(d.Body)) // from here on it may be gone
				err = d.Ack(ctx)
			}
			if err != nil {
				return acked, err
			}
		default:
			return acked, err
		}
	}
	t.Fatal("the fault never shows")
	return nil, nil
}

// recovered starts a daemon without faults and fails unless everything acked is there, once. Beside it only
// the message may be there whose outcome is open.
func (h *home) recovered(acked map[string]bool) {
	t := h.t
	t.Helper()
	h.wrap = nil
	h.clean()
	d := h.start()
	q := h.dial().Queue("/q")
	there := map[string]int{}
	for {
		deliveries, err := q.Receive(within(t), 1000, client.ReceiveOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(deliveries) == 0 {
			break
		}
		for _, m := range deliveries {
			there[string(m.Body)]++
			if err := m.Ack(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for text := range acked {
		if there[text] != 1 {
			t.Errorf("%q was acked and is there %d times", text, there[text])
		}
		delete(there, text)
	}
	if len(there) > 1 {
		t.Errorf("%d messages are there that were not acked: %v", len(there), there)
	}
	d.stop()
	h.clean()
}

func TestFailedSyncOrWriteIsFinal(t *testing.T) {
	needStrace(t)
	seed := number(t, seedVariable, rand.Uint64())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, f := range []fault{
		// The first few calls belong to the start.
		{"fdatasync", "EIO", "1"}, {"fdatasync", "EIO", "2"}, {"fdatasync", "EIO", "4"}, {"fdatasync", "EIO", "20"},
		{"fdatasync", "EIO", fmt.Sprint(30 + rng.IntN(300))},
		{"fdatasync", "EIO", fmt.Sprint(30+rng.IntN(300)) + "+"},
		{"pwrite64", "EIO", "5+"}, {"pwrite64", "EIO", fmt.Sprint(30+rng.IntN(300)) + "+"},
		{"pwrite64", "ENOSPC", "20+"}, {"pwrite64", "ENOSPC", fmt.Sprint(30+rng.IntN(300)) + "+"},
	} {
		t.Run(fmt.Sprintf("%s %s %s", f.call, f.errno, f.when), func(t *testing.T) {
			h := newHome(t, smallSegments...)
			d := h.start()
			create(t, h.dial(), "/q")
			d.kill()
			trace := h.under(f)
			d = h.launch()
			acked := map[string]bool{}
			if d.serves() {
				before := succeeded(traced(t, trace))
				var last error
				acked, last = d.sendUntilFailure()
				if !transient(last) {
					t.Errorf("the last call failed with %v, want a word about the daemon's health or none from it", last)
				}
				if code := d.exitCode(); code != exitDisk {
					t.Errorf("exit %d, want %d; the log:\n%s", code, exitDisk, d.log)
				}
				after := traced(t, trace)
				// One message at a time: each needs a call of its own to be durable.
				if good := succeeded(after) - before; len(acked) > good {
					t.Errorf("%d messages were acked after %d successful calls of %s", len(acked), good, f.call)
				}
			} else if code := d.exitCode(); code != exitDisk {
				t.Errorf("exit %d at the start, want %d; the log:\n%s", code, exitDisk, d.log)
			}
			if !strings.Contains(strings.Join(traced(t, trace), "\n"), "INJECTED") {
				t.Fatal("nothing was made to fail")
			}
			h.recovered(acked)
		})
	}
}

// TestFailedSyncIsNeverRepeated lets one sync fail and later ones succeed, as a kernel does that has
// dropped what it could not write.
func TestFailedSyncIsNeverRepeated(t *testing.T) {
	needStrace(t)
	h := newHome(t, smallSegments...)
	d := h.start()
	create(t, h.dial(), "/q")
	d.kill()
	trace := h.under(fault{"fdatasync", "EIO", "40"})
	d = h.start()
	acked, _ := d.sendUntilFailure()
	if code := d.exitCode(); code != exitDisk {
		t.Errorf("exit %d, want %d; the log:\n%s", code, exitDisk, d.log)
	}
	failed := false
	for _, line := range traced(t, trace) {
		if failed {
			t.Errorf("a sync after the one that failed: %s", line)
		}
		failed = failed || strings.Contains(line, "INJECTED")
	}
	h.recovered(acked)
}

// TestAckWaitsForTheSync makes every sync slow. A daemon that acks before would be done long before it has
// synced that often.
func TestAckWaitsForTheSync(t *testing.T) {
	needStrace(t)
	h := newHome(t, smallSegments...)
	d := h.start()
	create(t, h.dial(), "/q")
	d.kill()
	trace := filepath.Join(h.dir, "trace")
	h.wrap = []string{"strace", "-f", "-qq", "--seccomp-bpf", "-o", trace, "-e", "trace=fdatasync", "-e", "signal=none",
		"-e", "inject=fdatasync:delay_enter=30000"} // microseconds
	d = h.start()
	q := h.dial().Queue("/q")
	for i := range 10 {
		before := succeeded(traced(t, trace))
		if _, err := q.Send(within(t), client.Message{Body: []byte("m")}); err != nil {
			t.Fatal(err)
		}
		if after := succeeded(traced(t, trace)); after == before {
			t.Fatalf("message %d was acked, and nothing was synced since it was sent", i)
		}
	}
	d.stop()
}
