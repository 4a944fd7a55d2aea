package vfs

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// seeds is over how many seeds a test looks for what chance may do.
const seeds = 300

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// overSeeds runs try on a new Crash for each seed and counts its answers. Every
// wanted answer must occur, and no other.
func overSeeds(t *testing.T, try func(t *testing.T, c *Crash, rng *rand.Rand) string, want ...string) {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(seeds) {
		rng := seeded(seed)
		answer := try(t, NewCrash(rng), rng)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
		seen[answer]++
		known := false
		for _, w := range want {
			known = known || w == answer
		}
		if !known {
			t.Fatalf("seed %d: found %q, allowed are %q", seed, answer, want)
		}
	}
	for _, w := range want {
		if seen[w] == 0 {
			t.Errorf("never found %q in %d seeds: %v", w, seeds, seen)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fsys FS, name string) File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	return f
}

func write(t *testing.T, f File, text string, off int64) {
	t.Helper()
	n, err := f.WriteAt([]byte(text), off)
	must(t, err)
	if n != len(text) {
		t.Fatalf("wrote %d of %d bytes without an error", n, len(text))
	}
}

// durable makes a file whose content and entry are durable.
func durable(t *testing.T, fsys FS, name, text string) File {
	t.Helper()
	f := create(t, fsys, name)
	write(t, f, text, 0)
	must(t, f.Sync())
	must(t, fsys.SyncDir("."))
	return f
}

// content returns what a file has, or "absent".
func content(t *testing.T, fsys FS, name string) string {
	t.Helper()
	names, err := fsys.ReadDir(".")
	must(t, err)
	for _, n := range names {
		if n == name {
			data, err := ReadFile(fsys, name, 1<<20)
			must(t, err)
			return string(data)
		}
	}
	return "absent"
}

func size(t *testing.T, f File) int64 {
	t.Helper()
	n, err := f.Size()
	must(t, err)
	return n
}

// filled returns n bytes of one letter.
func filled(letter byte, n int) string { return string(bytes.Repeat([]byte{letter}, n)) }
