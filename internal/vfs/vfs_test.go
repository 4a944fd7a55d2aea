package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var (
	oldText = filled('o', 1500)
	newText = filled('n', 2100)
)

// replace makes name hold oldText durably and then replaces it by newText.
// wrap goes around the file system of the replacement alone.
func replace(t *testing.T, c *Crash, wrap func(FS) FS) error {
	t.Helper()
	must(t, WriteFileAtomic(c, "state", []byte(oldText)))
	return WriteFileAtomic(wrap(c), "state", []byte(newText))
}

func unwrapped(fsys FS) FS { return fsys }

// oldOrNew names a content.
func oldOrNew(text string) string {
	switch text {
	case oldText:
		return "old"
	case newText:
		return "new"
	}
	return "neither"
}

// replaceOps is how many operations the replacement takes.
func replaceOps(t *testing.T) int {
	t.Helper()
	f := NewFault(NewCrash(seeded(1)), nil)
	must(t, replace(t, f.inner.(*Crash), func(FS) FS { return f }))
	return int(f.Ops())
}

func TestWriteFileAtomicLeavesOldOrNewAtEveryCrash(t *testing.T) {
	ops := replaceOps(t)
	first := int(opsBefore(t))
	for at := 1; at <= ops; at++ {
		seen := map[string]bool{}
		for seed := range uint64(seeds) {
			rng := seeded(seed)
			c := NewCrash(rng)
			c.CrashAfter(first + at)
			if err := replace(t, c, unwrapped); !errors.Is(err, ErrCrashed) {
				t.Fatalf("crash at operation %d: error %v", at, err)
			}
			found := oldOrNew(content(t, c.Crash(rng), "state"))
			if found == "neither" {
				t.Fatalf("crash at operation %d, seed %d: neither old nor new", at, seed)
			}
			seen[found] = true
		}
		if !seen["old"] {
			t.Errorf("crash at operation %d: never the old content", at)
		}
		// The last two are the rename and the sync of the directory.
		if renamed := at >= ops-1; renamed != seen["new"] {
			t.Errorf("crash at operation %d of %d: new content seen %v, want %v", at, ops, seen["new"], renamed)
		}
	}
}

// opsBefore is how many operations it takes to make the old content.
func opsBefore(t *testing.T) int64 {
	t.Helper()
	c := NewCrash(seeded(1))
	must(t, WriteFileAtomic(c, "state", []byte(oldText)))
	return c.Ops()
}

func TestWriteFileAtomicIsDurableWhenItReturns(t *testing.T) {
	overSeeds(t, func(t *testing.T, c *Crash, rng *rand.Rand) string {
		must(t, replace(t, c, unwrapped))
		return oldOrNew(content(t, c.Crash(rng), "state"))
	}, "new")
}

func TestWriteFileAtomicReplacesTheTemporaryFileOfACrash(t *testing.T) {
	c := NewCrash(seeded(1))
	durable(t, c, "state.tmp", filled('x', 9000))
	must(t, replace(t, c, unwrapped))
	if got := oldOrNew(content(t, c, "state")); got != "new" {
		t.Errorf("content is %s", got)
	}
}

func TestWriteFileAtomicRemovesItsTemporaryFileOnErrors(t *testing.T) {
	ops := int64(replaceOps(t))
	for n := int64(1); n <= ops; n++ {
		c := NewCrash(seeded(1))
		err := replace(t, c, func(inner FS) FS { return NewFault(inner, FailNth(n, syscall.EIO, false)) })
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("operation %d failed: error is %v, want EIO", n, err)
		}
		names, err := c.ReadDir(".")
		must(t, err)
		if !slices.Equal(names, []string{"state"}) {
			t.Errorf("operation %d failed: left %q", n, names)
		}
		want := "old"
		if n == ops { // the sync of the directory, after the rename
			want = "new"
		}
		if got := oldOrNew(content(t, c, "state")); got != want {
			t.Errorf("operation %d failed: content is %s, want %s", n, got, want)
		}
	}
}

// The simulated power cut must find what a careless replacement would lose.
func TestSkippedSyncsInAReplacementAreNoticed(t *testing.T) {
	for _, c := range []struct{ kind, found string }{{OpSync, "neither"}, {OpSyncDir, "old"}} {
		caught := 0
		for seed := range uint64(seeds) {
			rng := seeded(seed)
			fsys := NewCrash(rng)
			must(t, replace(t, fsys, func(inner FS) FS {
				return NewFault(inner, func(op Op) Verdict {
					if op.Kind == c.kind {
						return Skip()
					}
					return Pass()
				})
			}))
			if oldOrNew(content(t, fsys.Crash(rng), "state")) == c.found {
				caught++
			}
		}
		if caught < seeds/10 {
			t.Errorf("without %s: noticed in %d of %d seeds", c.kind, caught, seeds)
		}
	}
}

func TestReadFileRefusesLongerFiles(t *testing.T) {
	c := NewCrash(seeded(1))
	durable(t, c, "f", "12345")
	data, err := ReadFile(c, "f", 5)
	must(t, err)
	if !bytes.Equal(data, []byte("12345")) {
		t.Errorf("read %q", data)
	}
	if _, err := ReadFile(c, "f", 4); err == nil || !strings.Contains(err.Error(), "at most 4") {
		t.Errorf("error is %v, want one that names the limit", err)
	}
	if _, err := ReadFile(c, "none", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v, want ErrNotExist", err)
	}
}

func TestReadFileReportsFailedReads(t *testing.T) {
	c := NewCrash(seeded(1))
	durable(t, c, "f", "12345")
	if _, err := ReadFile(NewFault(c, FailNth(1, syscall.EIO, false, OpRead)), "f", 5); !errors.Is(err, syscall.EIO) {
		t.Errorf("error is %v, want EIO", err)
	}
}
