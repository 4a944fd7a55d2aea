package vfs

import (
	"errors"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"testing"
)

func TestSpaceIsLimitedAndGivenBack(t *testing.T) {
	c := NewCrash(seeded(1))
	c.SetCapacity(4 * pageSize)
	free := func(want int64) {
		t.Helper()
		got, total, err := c.Free(".")
		must(t, err)
		if got != want*pageSize || total != 4*pageSize {
			t.Errorf("free are %d of %d bytes, want %d pages", got, total, want)
		}
	}
	f := create(t, c, "f")
	write(t, f, "a", pageSize) // a hole costs nothing
	free(3)
	must(t, f.Allocate(3*pageSize))
	free(1)
	write(t, f, filled('a', 3*pageSize), 0)
	free(1)
	if n, err := f.WriteAt(make([]byte, 2*pageSize), 3*pageSize); n != pageSize || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d bytes into one free page, error %v", n, err)
	}
	free(0)
	if err := f.Allocate(5 * pageSize); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocating more than there is: error %v", err)
	}
	must(t, f.Truncate(2*pageSize+1))
	free(1)
	must(t, c.Remove("f"))
	free(1) // it is still open
	must(t, f.Close())
	free(4)
	must(t, WriteFileAtomic(c, "g", make([]byte, pageSize)))
	must(t, WriteFileAtomic(c, "g", make([]byte, pageSize)))
	free(3)
	c = c.Crash(seeded(2))
	free(3)
}

func TestConcurrentUseIsSafe(t *testing.T) {
	rng := seeded(1)
	c := NewCrash(rng)
	shared := durable(t, c, "shared", "a")
	var all sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		all.Go(func() {
			for range 200 {
				if err := WriteFileAtomic(c, name, []byte(name)); err != nil && !errors.Is(err, ErrCrashed) {
					t.Error(err)
				}
				_, _ = shared.WriteAt([]byte(name), 0)
				_, _ = shared.ReadAt(make([]byte, 1), 0)
				_, _ = shared.Size()
				_, _, _ = c.Free(".")
			}
		})
	}
	next := c.Crash(seeded(2))
	all.Wait()
	names, err := next.ReadDir(".")
	must(t, err)
	if !slices.Contains(names, "shared") {
		t.Errorf("found %q", names)
	}
}

func TestImpossibleSizesAreRefused(t *testing.T) {
	c := NewCrash(seeded(1))
	f := create(t, c, "f")
	_, errWrite := f.WriteAt([]byte("a"), 1<<62)
	_, errOver := f.WriteAt([]byte("a"), -1)
	_, errRead := f.ReadAt(make([]byte, 1), -1)
	for i, err := range []error{errWrite, errOver, errRead, f.Truncate(-1), f.Allocate(-1), f.Allocate(1 << 62)} {
		if err == nil {
			t.Errorf("case %d was accepted", i)
		}
	}
	if size(t, f) != 0 {
		t.Error("the file grew")
	}
	must(t, f.Truncate(1<<39)) // sparse: costs no memory
	if err := f.Close(); err != nil || !errors.Is(f.Sync(), fs.ErrClosed) {
		t.Errorf("a closed file still works, or closing failed: %v", err)
	}
}
