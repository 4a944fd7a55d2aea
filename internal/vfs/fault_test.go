package vfs

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
)

// exercise does one operation of each kind and returns their errors by kind.
func exercise(t *testing.T, fsys FS) map[string]error {
	t.Helper()
	inner := durable(t, NewCrash(seeded(1)), "unused", "abc")
	errs := map[string]error{}
	errs[OpMkdir] = fsys.MkdirAll("d")
	f, err := fsys.Create("f")
	if errs[OpCreate] = err; err != nil {
		f = inner // of which no operation fails
	}
	_, errs[OpWrite] = f.WriteAt([]byte("abc"), 0)
	errs[OpAllocate] = f.Allocate(4)
	errs[OpTruncate] = f.Truncate(3)
	errs[OpSync] = f.Sync()
	if _, errs[OpRead] = f.ReadAt(make([]byte, 2), 1); errs[OpRead] == io.EOF {
		errs[OpRead] = nil
	}
	must(t, f.Close())
	errs[OpSyncDir] = fsys.SyncDir(".")
	_, errs[OpReadDir] = fsys.ReadDir(".")
	_, _, errs[OpFree] = fsys.Free(".")
	if errs[OpCreate] == nil {
		_, errs[OpOpen] = fsys.Open("f")
		errs[OpRename] = fsys.Rename("f", "g")
		name := "g"
		if errs[OpRename] != nil {
			name = "f"
		}
		errs[OpRemove] = fsys.Remove(name)
	}
	return errs
}

func TestTheHookSeesEveryOperation(t *testing.T) {
	var seen []Op
	c := NewCrash(seeded(1))
	f := NewFault(c, func(op Op) Verdict {
		seen = append(seen, op)
		return Pass()
	})
	for kind, err := range exercise(t, f) {
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	want := []Op{
		{1, OpMkdir, "d", 0, 0}, {2, OpCreate, "f", 0, 0}, {3, OpWrite, "f", 0, 3}, {4, OpAllocate, "f", 0, 4},
		{5, OpTruncate, "f", 0, 3}, {6, OpSync, "f", 0, 0}, {7, OpRead, "f", 1, 2}, {8, OpSyncDir, ".", 0, 0},
		{9, OpReadDir, ".", 0, 0}, {10, OpFree, ".", 0, 0}, {11, OpOpen, "f", 0, 0}, {12, OpRename, "f", 0, 0},
		{13, OpRemove, "g", 0, 0},
	}
	if !slices.Equal(seen, want) {
		t.Errorf("saw\n%v\nwant\n%v", seen, want)
	}
	if f.Ops() != 13 || c.Ops() != 13 {
		t.Errorf("Fault counted %d and Crash %d operations, want 13", f.Ops(), c.Ops())
	}
}

func TestEveryKindCanFail(t *testing.T) {
	for _, kind := range []string{
		OpMkdir, OpReadDir, OpOpen, OpCreate, OpRename, OpRemove, OpSyncDir, OpFree, OpRead, OpWrite, OpSync,
		OpAllocate, OpTruncate,
	} {
		errs := exercise(t, NewFault(NewCrash(seeded(1)), FailNth(1, syscall.EIO, true, kind)))
		for other, err := range errs {
			if failed := errors.Is(err, syscall.EIO); failed != (other == kind) {
				t.Errorf("%s should fail; %s: %v", kind, other, err)
			}
		}
	}
}

func TestFailNthFailsOnceOrForGood(t *testing.T) {
	for _, c := range []struct {
		permanent bool
		want      string
	}{{false, "[false false true false false]"}, {true, "[false false true true true]"}} {
		f := NewFault(NewCrash(seeded(1)), FailNth(3, syscall.EIO, c.permanent))
		var failed []bool
		for range 5 {
			failed = append(failed, f.SyncDir(".") != nil)
		}
		if got := fmt.Sprint(failed); got != c.want {
			t.Errorf("permanent %v: failed %s, want %s", c.permanent, got, c.want)
		}
	}
}

func TestAFailedOperationHasNoEffect(t *testing.T) {
	c := NewCrash(seeded(1))
	must(t, durable(t, c, "f", "abc").Close())
	f := NewFault(c, func(op Op) Verdict {
		if op.Kind == OpOpen {
			return Pass()
		}
		return Fail(syscall.EIO)
	})
	file, err := f.Open("f")
	must(t, err)
	_, errWrite := file.WriteAt([]byte("x"), 0)
	for i, err := range []error{
		errWrite, file.Truncate(0), file.Allocate(9), f.Remove("f"), f.Rename("f", "g"), f.MkdirAll("d"),
	} {
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("operation %d: error is %v", i, err)
		}
	}
	names, err := c.ReadDir(".")
	must(t, err)
	if got := content(t, c, "f"); got != "abc" || len(names) != 1 {
		t.Errorf("left %q with %q", names, got)
	}
}

func TestAShortWriteWritesItsBeginning(t *testing.T) {
	for _, c := range []struct {
		n    int
		give error
		want error
		left string
	}{
		{2, syscall.ENOSPC, syscall.ENOSPC, "xxc"},
		{2, nil, io.ErrShortWrite, "xxc"},
		{0, syscall.EIO, syscall.EIO, "abc"},
		{9, syscall.EIO, syscall.EIO, "xxx"},
	} {
		fsys := NewCrash(seeded(1))
		must(t, durable(t, fsys, "f", "abc").Close())
		f, err := NewFault(fsys, func(op Op) Verdict {
			if op.Kind == OpWrite {
				return ShortWrite(c.n, c.give)
			}
			return Pass()
		}).Open("f")
		must(t, err)
		n, err := f.WriteAt([]byte("xxx"), 0)
		if n != min(c.n, 3) || !errors.Is(err, c.want) {
			t.Errorf("short write of %d: wrote %d, error %v", c.n, n, err)
		}
		if got := content(t, fsys, "f"); got != c.left {
			t.Errorf("short write of %d left %q, want %q", c.n, got, c.left)
		}
	}
}
