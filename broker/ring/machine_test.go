package ring

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
)

// machine is a directory with the files of proc and sys.
func machine(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestMemoryLimitIsThatOfTheOwnCgroupOrOneAbove(t *testing.T) {
	for what, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing":      {nil, 0},
		"no limit, v2": {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 0},
		"own, v2":      {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "4000\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 4000},
		"above, v2":    {map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "4000\n", "sys/fs/cgroup/a/memory.max": "3000\n"}, 3000},
		"another's":    {map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "4000\n", "sys/fs/cgroup/b/memory.max": "3\n"}, 4000},
		"namespace":    {map[string]string{"proc/self/cgroup": "0::/elsewhere\n", "sys/fs/cgroup/memory.max": "5000\n"}, 5000},
		"outside":      {map[string]string{"proc/self/cgroup": "0::/../../a\n", "sys/fs/cgroup/a/memory.max": "4000\n"}, 4000},
		"own, v1":      {map[string]string{"proc/self/cgroup": "9:cpu:/x\n4:memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "6000\n"}, 6000},
		"shared, v1":   {map[string]string{"proc/self/cgroup": "4:cpu,memory:/a\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "6000\n"}, 6000},
		"both":         {map[string]string{"proc/self/cgroup": "4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "6000\n", "sys/fs/cgroup/memory.max": "7000"}, 6000},
		"nonsense":     {map[string]string{"proc/self/cgroup": "x\n\n0::/a\n", "sys/fs/cgroup/a/memory.max": "-5\n", "sys/fs/cgroup/memory.max": "lots"}, 0},
	} {
		if got := memoryLimit(machine(t, c.files)); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
}

func TestRingsGetAtMostAQuarterOfTheCgroup(t *testing.T) {
	for _, c := range []struct {
		limit string
		asked int64
		want  int64
	}{
		{"max", 0, limits.RingMemoryDefault},
		{"400001", 0, 100000},
		{"400000", 99999, 99999},
		{"400000", 100001, 100000},
		{"9223372036854771712", 0, limits.RingMemoryDefault}, // none, as version 1 says it
	} {
		root := machine(t, map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": c.limit + "\n"})
		w := newWorld(t, Options{Root: root, Memory: c.asked})
		if got := w.Totals().MemoryLimit; got != c.want {
			t.Errorf("limit %s, asked %d: %d, want %d", c.limit, c.asked, got, c.want)
		}
	}
}

func TestBootIDIsTheKernels(t *testing.T) {
	const name = "proc/sys/kernel/random/boot_id"
	if id, err := bootID(machine(t, map[string]string{name: "abc\n"})); err != nil || id != "abc" {
		t.Errorf("%q, %v", id, err)
	}
	for _, root := range []string{machine(t, nil), machine(t, map[string]string{name: "\n"})} {
		if _, err := Open(Options{Dir: t.TempDir(), Root: root}); err == nil {
			t.Error("opened without a boot id")
		}
	}
	r, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatalf("on this machine: %v", err)
	}
	r.Close()
}
