package vfs

import (
	"io"
	"io/fs"
	"syscall"
)

// maxCrashFileSize limits a file of Crash, in bytes.
const maxCrashFileSize = 1 << 40

// crashFile is an open file of Crash.
type crashFile struct {
	c        *Crash
	f        *inode
	name     string
	readOnly bool
	closed   bool // guarded by c.mu
}

// do performs an operation on the open file.
func (h *crashFile) do(kind string, apply func() error) error {
	return h.c.do(kind, h.name, func() error {
		if h.closed {
			return fs.ErrClosed
		}
		return apply()
	})
}

// change performs an operation that needs a file opened for writing, and whose
// end, in bytes, must be a possible size.
func (h *crashFile) change(kind string, end int64, apply func() error) error {
	return h.do(kind, func() error {
		switch {
		case h.readOnly:
			return syscall.EBADF
		case end < 0:
			return syscall.EINVAL
		case end > maxCrashFileSize:
			return syscall.EFBIG
		}
		return apply()
	})
}

// ReadAt implements File.
func (h *crashFile) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	err := h.do(OpRead, func() error {
		if off < 0 {
			return syscall.EINVAL
		}
		n = h.f.readAt(p, off)
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements File.
func (h *crashFile) WriteAt(p []byte, off int64) (int, error) {
	n := 0
	end := off
	if off >= 0 {
		end = min(off, maxCrashFileSize+1) + int64(len(p))
	}
	err := h.change(OpWrite, end, func() (err error) {
		if h.c.down {
			h.c.writeSomeSectors(h.f, p, off)
			return nil
		}
		n, err = h.c.write(h.f, p, off)
		return err
	})
	return n, err
}

// writeSomeSectors is a write during which the power fails.
func (c *Crash) writeSomeSectors(f *inode, p []byte, off int64) {
	l := newLottery(c.rng)
	for len(p) > 0 {
		n := min(int64(len(p)), sectorSize-off%sectorSize)
		if l.pick(1) == 1 {
			if _, err := c.write(f, p[:n], off); err != nil {
				return
			}
		}
		p, off = p[n:], off+n
	}
}

// write writes p page by page until the file system is full.
func (c *Crash) write(f *inode, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if f.needsSpace(at / pageSize) {
			if (c.used+1)*pageSize > c.capacity {
				break
			}
			f.page(at / pageSize).charged = true
			c.used++
		}
		n := min(len(p)-done, int(pageSize-at%pageSize))
		f.writePage(at/pageSize, int(at%pageSize), p[done:done+n])
		done += n
	}
	if done > 0 {
		f.resize(extent{max(f.now.size, off+int64(done)), f.now.reserved})
	}
	if done < len(p) {
		return done, syscall.ENOSPC
	}
	return done, nil
}

// Sync implements File.
func (h *crashFile) Sync() error {
	return h.do(OpSync, func() error {
		h.f.sync()
		return nil
	})
}

// failSync is a Sync that the disk refused.
func (h *crashFile) failSync() {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	if !h.c.down {
		h.f.failSync()
	}
}

// Allocate implements File.
func (h *crashFile) Allocate(size int64) error {
	return h.change(OpAllocate, size, func() error {
		reserved := max(h.f.now.reserved, pagesOf(size))
		// Pages that were paid for one by one become part of the reserve.
		more := reserved - h.f.now.reserved - h.f.chargedBelow(reserved)
		if (h.c.used+more)*pageSize > h.c.capacity && more > 0 {
			return syscall.ENOSPC
		}
		h.c.used += more
		h.f.reserve(reserved, size)
		return nil
	})
}

// Truncate implements File.
func (h *crashFile) Truncate(size int64) error {
	return h.change(OpTruncate, size, func() error {
		before := h.f.pagesUsed()
		h.f.truncate(size)
		h.c.used += h.f.pagesUsed() - before
		return nil
	})
}

// Size implements File.
func (h *crashFile) Size() (int64, error) {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	switch {
	case h.c.down:
		return 0, &fs.PathError{Op: "size", Path: h.name, Err: ErrCrashed}
	case h.closed:
		return 0, &fs.PathError{Op: "size", Path: h.name, Err: fs.ErrClosed}
	}
	return h.f.now.size, nil
}

// Close implements File.
func (h *crashFile) Close() error {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	switch {
	case h.c.down:
		return &fs.PathError{Op: "close", Path: h.name, Err: ErrCrashed}
	case h.closed:
		return &fs.PathError{Op: "close", Path: h.name, Err: fs.ErrClosed}
	}
	h.closed = true
	h.f.handles--
	h.c.release(h.f)
	return nil
}
