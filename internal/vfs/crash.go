package vfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// ErrCrashed is the answer to every operation on a Crash that has lost power.
var ErrCrashed = errors.New("the simulated machine has crashed: go on with the file system that Crash returns")

// defaultCapacity is the size of a Crash unless SetCapacity says otherwise.
const defaultCapacity = 1 << 40

// Crash is an in-memory file system that knows what is durable. It promises
// no more than this, and after a power cut often keeps no more:
//
//   - Content and size of a file are durable after Sync. Until then each
//     512-byte sector written since holds, each by itself, the durable version
//     or one of those written since, never a mix, and the size is any that the
//     file had since, or a growth to it that stopped at a sector.
//   - Entries of a directory are durable after SyncDir. Until then a prefix of
//     the creates, renames and removes since takes effect. A file's Sync does
//     not make its entry durable, nor SyncDir the content of files.
//   - After a Sync that Fault made fail, the sectors written before are as
//     Linux leaves them (since 4.13): they read as written, but a later Sync
//     does not make them durable, only writing them again and syncing does.
//
// Everything that chance decides comes from the generators given to NewCrash
// and Crash, so that equal seeds and equal operations give equal outcomes.
type Crash struct {
	mu       sync.Mutex // guards all below, and all directories, inodes and files
	rng      *rand.Rand
	dirs     map[string]*crashDir // by cleaned path
	capacity int64                // bytes
	used     int64                // pages that files have or reserve
	ops      int64
	crashAt  int64  // the operation during which the power fails, or 0
	down     bool   // the power has failed
	next     *Crash // what Crash returned, or nil
}

var _ FS = (*Crash)(nil)

// NewCrash makes an empty file system with the directories "." and "/". It
// takes rng over: nobody else may use it at the same time.
func NewCrash(rng *rand.Rand) *Crash {
	return &Crash{
		rng:      rng,
		dirs:     map[string]*crashDir{".": newCrashDir(), "/": newCrashDir()},
		capacity: defaultCapacity,
	}
}

// SetCapacity sets the size of the file system in bytes; 1 TiB if never
// called. It counts the 4 KiB pages of files, written or reserved; what would
// need more fails with syscall.ENOSPC. It survives crashes.
func (c *Crash) SetCapacity(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.capacity = bytes
}

// Ops returns how many operations there were, those that failed included.
func (c *Crash) Ops() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops
}

// CrashAfter makes the power fail during the n-th operation from now, counting
// from 1. That one has no effect, or its effect, or if it is a write that on
// random sectors; it and all later ones fail with ErrCrashed. With n of 0 or
// less no such crash happens.
func (c *Crash) CrashAfter(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashAt = 0
	if n > 0 {
		c.crashAt = c.ops + int64(n)
	}
}

// do counts an operation and performs it, unless the power is off. If the
// power fails during the operation, apply sees down set, or is not called.
func (c *Crash) do(kind, name string, apply func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return &fs.PathError{Op: kind, Path: name, Err: ErrCrashed}
	}
	c.ops++
	var err error
	if c.ops == c.crashAt {
		c.down = true
		if c.rng.IntN(2) == 0 {
			_ = apply() // whether it worked, nobody will learn
		}
		err = ErrCrashed
	} else {
		err = apply()
	}
	if err != nil {
		return &fs.PathError{Op: kind, Path: name, Err: err}
	}
	return nil
}

// MkdirAll implements FS. If the power fails meanwhile, some of the parents
// may be there without dir.
func (c *Crash) MkdirAll(dir string) error {
	return c.do(OpMkdir, dir, func() error {
		missing := []string{}
		for at := filepath.Clean(dir); c.dirs[at] == nil; at = filepath.Dir(at) {
			if _, err := c.lookup(at); err == nil {
				return syscall.ENOTDIR
			}
			missing = append(missing, at)
		}
		n := len(missing)
		if c.down {
			n = c.rng.IntN(n + 1)
		}
		for i := range n {
			c.dirs[missing[len(missing)-1-i]] = newCrashDir()
		}
		return nil
	})
}

// ReadDir implements FS.
func (c *Crash) ReadDir(dir string) ([]string, error) {
	var names []string
	err := c.do(OpReadDir, dir, func() error {
		path := filepath.Clean(dir)
		d := c.dirs[path]
		if d == nil {
			return fs.ErrNotExist
		}
		names = d.names(c.dirs, path)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}

// Open implements FS.
func (c *Crash) Open(name string) (File, error) { return c.open(name, false) }

// OpenRead implements FS.
func (c *Crash) OpenRead(name string) (File, error) { return c.open(name, true) }

func (c *Crash) open(name string, readOnly bool) (File, error) {
	var f *inode
	err := c.do(OpOpen, name, func() (err error) {
		if f, err = c.lookup(name); err != nil {
			return err
		}
		f.handles++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &crashFile{c: c, f: f, name: name, readOnly: readOnly}, nil
}

// Create implements FS.
func (c *Crash) Create(name string) (File, error) {
	f := newInode()
	err := c.do(OpCreate, name, func() error {
		d, base, err := c.parent(name)
		if err != nil {
			return err
		}
		if d.entries[base] != nil || c.dirs[filepath.Clean(name)] != nil {
			return fs.ErrExist
		}
		d.change(entryOp{create: f, to: base})
		f.linked = true
		f.handles++
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &crashFile{c: c, f: f, name: name}, nil
}

// Rename implements FS.
func (c *Crash) Rename(from, to string) error {
	return c.do(OpRename, from, func() error {
		if err := sameDir(filepath.Clean(from), filepath.Clean(to)); err != nil {
			return err
		}
		f, err := c.lookup(from)
		if err != nil {
			return err
		}
		d, base, err := c.parent(to)
		if err != nil {
			return err
		}
		if c.dirs[filepath.Clean(to)] != nil {
			return syscall.EISDIR
		}
		old := d.entries[base]
		if old == f {
			return nil
		}
		d.change(entryOp{from: filepath.Base(from), to: base})
		if old != nil {
			c.unlink(old)
		}
		return nil
	})
}

// Remove implements FS.
func (c *Crash) Remove(name string) error {
	return c.do(OpRemove, name, func() error {
		f, err := c.lookup(name)
		if err != nil {
			return err
		}
		d, base, err := c.parent(name)
		if err != nil {
			return err
		}
		d.change(entryOp{from: base})
		c.unlink(f)
		return nil
	})
}

// SyncDir implements FS.
func (c *Crash) SyncDir(dir string) error {
	return c.do(OpSyncDir, dir, func() error {
		d := c.dirs[filepath.Clean(dir)]
		if d == nil {
			return fs.ErrNotExist
		}
		d.sync()
		return nil
	})
}

// Free implements FS. Directories take no space.
func (c *Crash) Free(dir string) (free, total int64, err error) {
	err = c.do(OpFree, dir, func() error {
		if c.dirs[filepath.Clean(dir)] == nil {
			return fs.ErrNotExist
		}
		free, total = max(0, c.capacity-c.used*pageSize), c.capacity
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	return free, total, nil
}

// parent returns the directory that holds name's entry, and the entry's name.
func (c *Crash) parent(name string) (*crashDir, string, error) {
	name = filepath.Clean(name)
	dir, base := filepath.Dir(name), filepath.Base(name)
	d := c.dirs[dir]
	switch {
	case base == "." || base == ".." || base == "/":
		return nil, "", syscall.EISDIR
	case d == nil:
		return nil, "", fs.ErrNotExist
	}
	return d, base, nil
}

// lookup returns the file of that name.
func (c *Crash) lookup(name string) (*inode, error) {
	if strings.HasSuffix(name, "/") || c.dirs[filepath.Clean(name)] != nil {
		return nil, syscall.EISDIR
	}
	d, base, err := c.parent(name)
	if err != nil {
		return nil, err
	}
	f := d.entries[base]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return f, nil
}

// unlink notes that a file has lost its entry. Its space is free once nobody
// has it open.
func (c *Crash) unlink(f *inode) {
	f.linked = false
	c.release(f)
}

// release frees the space of a file that has neither an entry nor a handle.
func (c *Crash) release(f *inode) {
	if !f.linked && f.handles == 0 {
		c.used -= f.pagesUsed()
	}
}
