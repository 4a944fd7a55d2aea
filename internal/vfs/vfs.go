// Package vfs is the file system as the journal sees it: small enough that a
// simulated one can say exactly what survives a power cut.
//
// OS is the real file system, Crash an in-memory one that can lose power, and
// Fault wraps either of them to make chosen operations fail. All are safe for
// concurrent use.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"syscall"
)

// FS is a file system. Names are slash-separated paths. Errors of a missing
// or already existing entry match fs.ErrNotExist and fs.ErrExist, and a full
// file system matches syscall.ENOSPC.
type FS interface {
	// MkdirAll makes dir and its missing parents with mode 0700. The entries
	// are durable when it returns.
	MkdirAll(dir string) error
	// ReadDir returns the names of dir's entries, sorted.
	ReadDir(dir string) ([]string, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// OpenRead opens an existing file for reading only.
	OpenRead(name string) (File, error)
	// Create makes a new file with mode 0600 for reading and writing. It is an
	// error if the name exists. The entry is durable after SyncDir.
	Create(name string) (File, error)
	// Rename gives a file another name in the same directory, atomically
	// replacing one of that name. Between directories it fails with
	// syscall.EXDEV, since two entries would have to become durable at once.
	// It is durable after SyncDir.
	Rename(from, to string) error
	// Remove removes a file, not a directory. It is durable after SyncDir.
	Remove(name string) error
	// SyncDir makes the entries of dir durable, but not the content of its
	// files.
	SyncDir(dir string) error
	// Free returns the bytes available to this process, and the size in bytes
	// of the file system that holds dir.
	Free(dir string) (free, total int64, err error)
}

// File is an open file. Offsets and sizes are in bytes.
type File interface {
	// ReadAt follows io.ReaderAt: fewer bytes than asked for come with an
	// error, io.EOF at the end of the file.
	io.ReaderAt
	// WriteAt follows io.WriterAt. After an error any part of p may have been
	// written.
	io.WriterAt
	// Sync makes the data and the size durable (fdatasync). After an error
	// nothing is known about what was written since the last success, and a
	// later success does not make up for it.
	Sync() error
	// Allocate reserves the blocks of the first size bytes and grows the file
	// to size; a larger file keeps its size. Existing data stay.
	Allocate(size int64) error
	// Truncate sets the size. Bytes beyond the old size read as zeros.
	Truncate(size int64) error
	// Size returns the size.
	Size() (int64, error)
	// Close closes the file. It makes nothing durable.
	Close() error
}

// tempSuffix marks the temporary file of WriteFileAtomic.
const tempSuffix = ".tmp"

// WriteFileAtomic replaces the content of name, or makes the file. After a
// crash the file holds its old content or data, never anything else; when it
// returns nil, data is durable. On an error the file may hold either. It
// writes name+".tmp" first and removes that on an error; one left by a crash
// is replaced. Calls for the same name must not overlap.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	temp := name + tempSuffix
	if err := fsys.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old temporary file: %w", err)
	}
	if err := writeNew(fsys, temp, data); err != nil {
		return errors.Join(err, removeIfExists(fsys, temp))
	}
	if err := fsys.Rename(temp, name); err != nil {
		return errors.Join(err, removeIfExists(fsys, temp))
	}
	return fsys.SyncDir(filepath.Dir(name))
}

// sameDir refuses a rename between directories.
func sameDir(from, to string) error {
	if filepath.Dir(from) != filepath.Dir(to) {
		return fmt.Errorf("rename %s to %s: %w: both names must be in one directory", from, to, syscall.EXDEV)
	}
	return nil
}

func removeIfExists(fsys FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeNew makes a file whose content is durable when it returns nil.
func writeNew(fsys FS, name string, data []byte) error {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// ReadFile returns the content of a file of at most limit bytes. The size is
// checked before memory is allocated.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenRead(name)
	if err != nil {
		return nil, err
	}
	data, err := readAll(f, name, limit)
	return data, errors.Join(err, f.Close())
}

func readAll(f File, name string, limit int64) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes, allowed are at most %d: check that it is the right file", name, size, limit)
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if n == len(data) {
		// io.ReaderAt may say io.EOF together with the last byte.
		return data, nil
	}
	return nil, fmt.Errorf("read %s: got %d of %d bytes: %w", name, n, size, err)
}
