package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OS is the real file system. Files are opened close-on-exec and never through
// a symbolic link in the last part of their name; directories may be links.
type OS struct{}

var _ FS = OS{}

// MkdirAll implements FS.
func (o OS) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return &fs.PathError{Op: "mkdir", Path: dir, Err: unix.ENOTDIR}
	case err == nil:
		return o.syncExisting(dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if err := o.MkdirAll(parent); err != nil {
		return err
	}
	// Somebody else may have made it in the meantime.
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return o.SyncDir(parent)
}

// syncExisting makes the entry of a directory that is already there durable:
// an earlier MkdirAll may have been killed before it could. Where the parent
// may not be read, this process has not made the directory.
func (o OS) syncExisting(dir string) error {
	err := o.SyncDir(filepath.Dir(dir))
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// ReadDir implements FS.
func (OS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Open implements FS.
func (OS) Open(name string) (File, error) { return openOS(name, os.O_RDWR) }

// OpenRead implements FS.
func (OS) OpenRead(name string) (File, error) { return openOS(name, os.O_RDONLY) }

// Create implements FS.
func (OS) Create(name string) (File, error) { return openOS(name, os.O_RDWR|os.O_CREATE|os.O_EXCL) }

// openOS opens a file; package os adds O_CLOEXEC.
func openOS(name string, flags int) (File, error) {
	f, err := os.OpenFile(name, flags|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename implements FS.
func (OS) Rename(from, to string) error {
	if err := sameDir(from, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// Remove implements FS.
func (OS) Remove(name string) error {
	return retry("unlink", name, func() error { return unix.Unlink(name) })
}

// SyncDir implements FS.
func (OS) SyncDir(dir string) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Free implements FS.
func (OS) Free(dir string) (free, total int64, err error) {
	var s unix.Statfs_t
	if err := retry("statfs", dir, func() error { return unix.Statfs(dir, &s) }); err != nil {
		return 0, 0, err
	}
	return int64(s.Bavail) * s.Frsize, int64(s.Blocks) * s.Frsize, nil
}

// osFile is a file of OS. Reading, writing and closing are package os's.
type osFile struct{ *os.File }

// Sync implements File.
func (f osFile) Sync() error {
	return f.call("fdatasync", unix.Fdatasync)
}

// Allocate implements File.
func (f osFile) Allocate(size int64) error {
	if size == 0 {
		return nil // fallocate refuses an empty range
	}
	err := f.call("fallocate", func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return growWithZeros(f, size)
	}
	return err
}

// growWithZeros writes zeros from the end of the file up to size. What the
// file already has is left alone, holes included.
func growWithZeros(f File, size int64) error {
	at, err := f.Size()
	if err != nil || at >= size {
		return err
	}
	zeros := make([]byte, min(size-at, 64<<10))
	for at < size {
		n, err := f.WriteAt(zeros[:min(size-at, int64(len(zeros)))], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// Size implements File.
func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// call makes a system call on the descriptor, which cannot be closed meanwhile.
func (f osFile) call(op string, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = raw.Control(func(fd uintptr) {
		callErr = retry(op, f.Name(), func() error { return do(int(fd)) })
	})
	if err != nil {
		return err
	}
	return callErr
}

// retry repeats a system call that a signal interrupted, and no other failure.
func retry(op, name string, call func() error) error {
	for {
		err := call()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return &fs.PathError{Op: op, Path: name, Err: err}
		}
	}
}
