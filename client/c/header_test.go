//go:build linux

package c_test

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/shm"
)

func TestHeaderCompilesWithoutWarnings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	alone := filepath.Join(dir, "alone.c")
	other := filepath.Join(dir, "other.c")
	text := "#include \"ipcd_ring.h\"\nint main(void) { return 0; }\n"
	if err := os.WriteFile(alone, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, []byte(strings.ReplaceAll(text, "main", "other")), 0o600); err != nil {
		t.Fatal(err)
	}
	late := filepath.Join(dir, "late.c")
	if err := os.WriteFile(late, []byte("#include <stdio.h>\n#include <unistd.h>\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	for flags, word := range map[string]string{"-std=gnu11": "", "-std=c11 -D_GNU_SOURCE": "", "-std=c11": "include it before system headers"} {
		args := append(strings.Fields(flags), append(strict, "-I.", "-o", filepath.Join(dir, "out"), late)...)
		output, err := exec.Command("gcc", args...).CombinedOutput()
		if (err == nil) != (word == "") || !strings.Contains(string(output), word) {
			t.Errorf("after other headers, with %s: %v\n%s", flags, err, output)
		}
	}
	t.Run("C", func(t *testing.T) {
		for _, flags := range []string{"-std=c11 -O0", "-std=c11 -O2", "-std=gnu17 -O1 -Wshadow -Wstrict-prototypes"} {
			for _, sources := range [][]string{{alone, other}, {"testdata/member.c"}, {"example_pub.c"}, {"example_sub.c"}} {
				compiles(t, dir, "gcc", flags, sources)
			}
		}
	})
	t.Run("C++", func(t *testing.T) {
		if _, err := exec.LookPath("g++"); err != nil {
			t.Skipf("whether the header is C++ is not tested: install g++ (%v)", err)
		}
		for _, flags := range []string{"-std=c++17 -O0", "-std=c++17 -O2 -Wshadow", "-std=c++20 -O0"} {
			compiles(t, dir, "g++", flags+" -x c++", []string{alone, other})
		}
		for _, source := range []string{"testdata/member.c", "example_pub.c", "example_sub.c"} { // it takes long: with one set of flags
			compiles(t, dir, "g++", "-std=c++17 -O2 -Wshadow -x c++", []string{source})
		}
	})
}

// compiles fails unless a compiler makes a program of the sources, and has nothing to say.
func compiles(t *testing.T, dir, compiler, flags string, sources []string) {
	t.Helper()
	args := append([]string{"-I.", "-o", filepath.Join(dir, "out")}, strict...)
	args = append(append(args, strings.Fields(flags)...), sources...)
	if output, err := exec.Command(compiler, args...).CombinedOutput(); err != nil || len(output) > 0 {
		t.Errorf("%s %s: %v\n%s", compiler, strings.Join(args, " "), err, output)
	}
}

// TestLayoutIsThatOfTheDaemon has C put a number at each place that the header names, and Go find it there.
func TestLayoutIsThatOfTheDaemon(t *testing.T) {
	r := newRing(t, true)
	l, c := r.lane(3), r.consumer(21)
	cmd := exec.Command(program(t, "testdata/layout.c"))
	cmd.ExtraFiles = []*os.File{l.file, c.file}
	output, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	want := map[string]uint64{
		"VERSION": shm.Version, "MAX_LANES": shm.MaxLanes, "MAX_CONSUMERS": shm.MaxConsumers, "CAPACITY_MIN": shm.CapacityMin, "CAPACITY_MAX": shm.CapacityMax,
		"LANE_DATA": shm.LaneData, "FRAME_HEADER": shm.FrameHeader, "FRAME_ALIGN": shm.FrameAlign, "CONSUMER_SIZE": shm.ConsumerSize, "MEMBERS_SIZE": shm.MembersSize,
		"LANE_HEADER":     uint64(binary.LittleEndian.Uint16(shm.LaneHeader{}.Bytes()[10:])),
		"CONSUMER_HEADER": uint64(binary.LittleEndian.Uint16(shm.ConsumerHeader{}.Bytes()[10:])),
		"LANE_MAGIC":      binary.LittleEndian.Uint64(shm.LaneHeader{}.Bytes()),
		"CONSUMER_MAGIC":  binary.LittleEndian.Uint64(shm.ConsumerHeader{}.Bytes()),
	}
	if len(shm.LaneHeader{}.Bytes()) != 72 || len(shm.ConsumerHeader{}.Bytes()) != 48 {
		t.Error("a header's size is not what it says")
	}
	for line := range strings.Lines(string(output)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, ok := want[name]; !ok || value != uintText(n) {
			t.Errorf("in C %s is %s, in Go %d", name, value, n)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("C does not tell %s", name)
	}
	lane := shm.LaneState{
		Published: 1001, Sequence: 1002, Oldest: 1003, Seen: 1004, Blocked: true,
		Wakes: 1005, Elided: 1006, Blocks: 1007, BlockedNanos: 1008, Evictions: 1009, Backstops: 1010,
	}
	if got := shm.ReadLane(l.memory); got != lane {
		t.Errorf("the lane is %+v, not %+v", got, lane)
	}
	if got := shm.Evicted(l.memory, 21); got != 1011 {
		t.Errorf("%d was evicted, not 1011", got)
	}
	reader := shm.ConsumerState{Parked: true, Received: 2001, Lost: 2002, Parks: 2003, Backstops: 2004, Corrupt: 2005}
	if got := shm.ReadConsumer(c.memory, 21); got != reader {
		t.Errorf("the consumer is %+v, not %+v", got, reader)
	}
	id, cursor, sequence, lost := shm.ReadCursor(c.memory, 3)
	if id != 2006 || cursor != 2007 || sequence != 2008 || lost != 2009 {
		t.Errorf("the cursor is %d %d %d %d", id, cursor, sequence, lost)
	}
}
