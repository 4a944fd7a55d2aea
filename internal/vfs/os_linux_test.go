package vfs

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestOSMakesPrivateFilesAndDirectories(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	dir := filepath.Join(t.TempDir(), "a", "b")
	must(t, OS{}.MkdirAll(dir))
	must(t, OS{}.MkdirAll(dir))
	name := filepath.Join(dir, "f")
	must(t, create(t, OS{}, name).Close())
	for path, want := range map[string]fs.FileMode{
		dir: fs.ModeDir | 0o700, filepath.Dir(dir): fs.ModeDir | 0o700, name: 0o600,
	} {
		info, err := os.Lstat(path)
		must(t, err)
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", filepath.Base(path), info.Mode(), want)
		}
	}
	if err := (OS{}).MkdirAll(filepath.Join(name, "c")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a directory below a file: error is %v, want ENOTDIR", err)
	}
}

func TestOSFilesAreNotInherited(t *testing.T) {
	f := create(t, OS{}, filepath.Join(t.TempDir(), "f")).(osFile)
	defer f.Close()
	must(t, f.call("fcntl", func(fd int) error {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			t.Error("the file is inherited by other programs")
		}
		return err
	}))
}

func TestOSDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	must(t, create(t, OS{}, filepath.Join(dir, "f")).Close())
	link := filepath.Join(dir, "link")
	must(t, os.Symlink("f", link))
	for i, open := range []func(string) (File, error){OS{}.Open, OS{}.OpenRead, OS{}.Create} {
		if _, err := open(link); !errors.Is(err, unix.ELOOP) && !errors.Is(err, fs.ErrExist) {
			t.Errorf("way %d to open a link: error is %v", i, err)
		}
	}
}

func TestOSReportsMissingAndExistingNames(t *testing.T) {
	dir := t.TempDir()
	name, none := filepath.Join(dir, "f"), filepath.Join(dir, "none")
	must(t, create(t, OS{}, name).Close())
	if _, err := (OS{}).Create(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating twice: error is %v", err)
	}
	_, errOpen := OS{}.Open(none)
	_, errOpenRead := OS{}.OpenRead(none)
	_, errReadDir := OS{}.ReadDir(none)
	_, _, errFree := OS{}.Free(none)
	for i, err := range []error{
		errOpen, errOpenRead, errReadDir, errFree, OS{}.Remove(none), OS{}.Rename(none, name), OS{}.SyncDir(none),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("operation %d: error is %v, want ErrNotExist", i, err)
		}
	}
}

func TestOSRemovesOnlyFilesAndRenamesOnlyWithinADirectory(t *testing.T) {
	dir := t.TempDir()
	sub := filepath.Join(dir, "sub")
	must(t, OS{}.MkdirAll(sub))
	if err := (OS{}).Remove(sub); err == nil {
		t.Error("a directory was removed")
	}
	name := filepath.Join(dir, "f")
	must(t, create(t, OS{}, name).Close())
	for _, fsys := range []FS{OS{}, NewCrash(seeded(1))} {
		if err := fsys.Rename(name, filepath.Join(sub, "f")); !errors.Is(err, syscall.EXDEV) {
			t.Errorf("%T: rename to another directory: error is %v, want EXDEV", fsys, err)
		}
	}
}

func TestOSAllocateReservesBlocksAndKeepsData(t *testing.T) {
	f := create(t, OS{}, filepath.Join(t.TempDir(), "f")).(osFile)
	defer f.Close()
	write(t, f, "abc", 0)
	must(t, f.Allocate(0))
	if size(t, f) != 3 {
		t.Errorf("size is %d after allocating nothing", size(t, f))
	}
	must(t, f.Allocate(1<<20))
	must(t, f.Allocate(1<<10))
	if size(t, f) != 1<<20 {
		t.Errorf("size is %d, want 1 MiB", size(t, f))
	}
	info, err := f.Stat()
	must(t, err)
	if blocks := info.Sys().(*syscall.Stat_t).Blocks; blocks*512 < 1<<20 {
		t.Errorf("only %d bytes are reserved", blocks*512)
	}
	head := make([]byte, 4)
	if _, err := f.ReadAt(head, 0); err != nil || string(head) != "abc\x00" {
		t.Errorf("read %q, %v", head, err)
	}
	if err := f.Allocate(-1); err == nil {
		t.Error("a negative size was accepted")
	}
}

func TestWhereBlocksCannotBeReservedZerosAreWritten(t *testing.T) {
	c := NewCrash(seeded(1))
	f := durable(t, c, "f", "abc")
	must(t, growWithZeros(f, 200_001))
	_, errRead := f.ReadAt(make([]byte, 1), 200_000)
	if size(t, f) != 200_001 || errRead != nil {
		t.Errorf("size is %d", size(t, f))
	}
	free, total, err := c.Free(".")
	must(t, err)
	if total-free != pagesOf(200_001)*pageSize {
		t.Errorf("%d bytes were written", total-free)
	}
	must(t, growWithZeros(f, 10))
	if got := content(t, c, "f"); got != "abc"+filled(0, 200_001-3) {
		t.Error("the content is not what it was, and zeros")
	}
	c.SetCapacity(total - free)
	if err := growWithZeros(f, 300_000); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error is %v, want ENOSPC", err)
	}
}

func TestOSFreeIsThatOfTheFileSystem(t *testing.T) {
	dir := t.TempDir()
	free, total, err := OS{}.Free(dir)
	must(t, err)
	var s unix.Statfs_t
	must(t, unix.Statfs(dir, &s))
	if free < 0 || free > total || total != int64(s.Blocks)*s.Frsize {
		t.Errorf("free are %d of %d bytes", free, total)
	}
}

func TestOSWriteFileAtomicReplaces(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "state")
	for _, text := range []string{oldText, newText} {
		must(t, WriteFileAtomic(OS{}, name, []byte(text)))
		data, err := ReadFile(OS{}, name, 1<<20)
		must(t, err)
		if !bytes.Equal(data, []byte(text)) {
			t.Errorf("content is %s", oldOrNew(string(data)))
		}
	}
	names, err := OS{}.ReadDir(dir)
	must(t, err)
	if !slices.Equal(names, []string{"state"}) {
		t.Errorf("left %q", names)
	}
}

func TestInterruptedCallsAreRepeatedAndOthersAreNot(t *testing.T) {
	for _, c := range []struct {
		answers []error
		want    error
	}{
		{[]error{unix.EINTR, unix.EINTR, nil}, nil},
		{[]error{unix.EINTR, unix.EIO, nil}, unix.EIO},
	} {
		calls := 0
		err := retry("call", "f", func() error {
			calls++
			return c.answers[calls-1]
		})
		if !errors.Is(err, c.want) {
			t.Errorf("answers %v: error is %v, want %v", c.answers, err, c.want)
		}
	}
}

func TestOSSyncAsksTheKernel(t *testing.T) {
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	if err := (osFile{w}).Sync(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a pipe cannot be synced: error is %v, want EINVAL", err)
	}
}
