//go:build linux

package c_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	rings "github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/shm"
	"golang.org/x/sys/unix"
)

// TestForkedChildDoesNotKeepADeadProducerAlive kills a producer that has forked. The child lives and holds the socket open, so that
// no hang-up comes, and memory that it had mapped would stay charged for as long as it lives.
func TestForkedChildDoesNotKeepADeadProducerAlive(t *testing.T) {
	d := newDaemon(t, false)
	cmd := exec.Command(program(t, "testdata/forks.c"), d.path, "/ring")
	cmd.Stderr = os.Stderr
	input, err := cmd.StdinPipe() // the child ends when it is closed
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { input.Close() })
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { output.Close() })
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	var child int
	if _, err := fmt.Fscan(output, &child); err != nil {
		t.Fatalf("it does not say who its child is: %v", err)
	}
	charged := d.info().Bytes
	if charged < shm.LaneSize(capacity) {
		t.Errorf("a lane is charged %d bytes, and has %d", charged, shm.LaneSize(capacity))
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Wait()
	eventually(t, "the producer's death is seen", func() bool {
		lanes := d.info().Lanes
		return len(lanes) == 1 && lanes[0].Ended
	})
	if info := d.info(); info.Lanes[0].Sequence != 1 || info.Bytes != charged {
		t.Errorf("of the lane %+v is kept, for %d bytes; want one message, for %d", info.Lanes[0], info.Bytes, charged)
	}
	if _, err := d.rings.Update(t.Context(), self, "/ring", func(s *rings.Settings) error { s.Retain = 0; return nil }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is charged although the child lives", func() bool { return d.info().Bytes == 0 })
	if info := d.info(); len(info.Lanes) != 0 {
		t.Errorf("lanes %+v are kept", info.Lanes)
	}
	// All of that counts only if the child is there and has the socket.
	if !holdsSocket(t, child) {
		t.Error("the child has no socket open")
	}
}

// holdsSocket reports whether a process, which must live, has a socket open.
func holdsSocket(t *testing.T, pid int) bool {
	t.Helper()
	if err := unix.Kill(pid, 0); err != nil {
		t.Fatalf("process %d: %v", pid, err)
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, "socket:") {
			return true
		}
	}
	return false
}
