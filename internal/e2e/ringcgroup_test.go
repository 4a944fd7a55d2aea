//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// memoryCgroup makes a memory cgroup with a limit in bytes, for which version of them there is. join moves this process in, and what
// it returns moves it back. The test is skipped where cgroups cannot be made.
func memoryCgroup(t *testing.T, limit int64) (join func() (back func())) {
	t.Helper()
	parent, file := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat(filepath.Join(parent, file)); err != nil {
		parent, file = "/sys/fs/cgroup", "memory.max"
	}
	dir := filepath.Join(parent, fmt.Sprintf("ipcd-e2e-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("memory cgroups cannot be made here: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove the cgroup: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, limit), 0o644); err != nil {
		t.Skipf("memory cgroups cannot be limited here: %v", err)
	}
	move := func(to string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), fmt.Append(nil, os.Getpid()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	was := ownCgroup(t, parent)
	return func() func() {
		move(dir)
		return func() { move(was) }
	}
}

// ownCgroup is the memory cgroup that this process is in.
func ownCgroup(t *testing.T, parent string) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[1] == "memory" || parts[1] == "" && parent == "/sys/fs/cgroup") {
			if dir := filepath.Join(parent, parts[2]); isDir(dir) {
				return dir
			}
		}
	}
	return parent
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}

// Shared memory beyond a cgroup's limit kills who touches it. The daemon hands out and takes only what it can bear.
func TestDaemonSurvivesTheLimitOfItsMemoryCgroup(t *testing.T) {
	join := memoryCgroup(t, 128<<20)
	back := join()
	d := start(t)
	back()
	d.ctl(t, "ring", "create", "/big", "--capacity", "256MiB").exits(t, 1).says(t, "ring_memory", "quarter")
	d.ctl(t, "ring", "create", "/small", "--capacity", "1MiB").ok(t)
	for range 40 { // one MiB of lane, used more than once
		d.ctl(t, "ring", "pub", "/small", strings.Repeat("x", 100_000)).ok(t)
	}
	for i := range 100 { // more rings than fit: the daemon's own lane in each is charged
		name := fmt.Sprintf("/r%d", i)
		d.ctl(t, "ring", "create", name, "--capacity", "1MiB").ok(t)
		if r := d.ctl(t, "ring", "pub", name, "x"); r.exit != 0 {
			r.exits(t, 1).says(t, "ring_memory")
			if i < 10 {
				t.Errorf("ring %d is refused already:\n%s", i, r.err)
			}
		} else if i > 40 {
			t.Errorf("ring %d is not refused: a quarter of 128 MiB is passed", i)
		}
		if i > 45 {
			break
		}
	}
	d.ctl(t, "ring", "pub", "/small", "still there").ok(t)
	d.ctl(t, "info").ok(t)
}
