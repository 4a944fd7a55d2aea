package shm

import (
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Memory is shared memory that is mapped. It counts its users: the last Release unmaps it, and a slice of it that
// is used later makes the process fault.
type Memory struct {
	bytes  []byte
	mapped bool
	users  atomic.Int32
}

// Map maps a file. The file may be closed afterwards. Forked children do not inherit the mapping.
func Map(f *os.File, size int64, writable bool) (*Memory, error) {
	prot := unix.PROT_READ
	if writable {
		prot |= unix.PROT_WRITE
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of shared memory: %w", size, err)
	}
	if err := unix.Madvise(b, unix.MADV_DONTFORK); err != nil {
		_ = unix.Munmap(b)
		return nil, fmt.Errorf("keep shared memory from children: %w", err)
	}
	m := &Memory{bytes: b, mapped: true}
	m.users.Store(1)
	return m, nil
}

// Populate makes the kernel find pages for all of a writable mapping, at this process's expense. Where memory runs
// out it is this call that fails, and not a later write.
func (m *Memory) Populate() error {
	if !m.mapped {
		return nil
	}
	if err := unix.Madvise(m.bytes, unix.MADV_POPULATE_WRITE); err != nil {
		if err == unix.EINVAL { // before Linux 5.14
			for i := 0; i < len(m.bytes); i += PageSize {
				word64(m.bytes, i).Add(0)
			}
			return nil
		}
		return fmt.Errorf("populate %d bytes of shared memory: %w", len(m.bytes), err)
	}
	return nil
}

// Bytes is the memory. It must not be used after the last Release.
func (m *Memory) Bytes() []byte { return m.bytes }

// Retain adds a user.
func (m *Memory) Retain() *Memory {
	m.users.Add(1)
	return m
}

// Release takes a user away. nil is no memory.
func (m *Memory) Release() {
	if m == nil {
		return
	}
	switch n := m.users.Add(-1); {
	case n == 0:
		if m.mapped {
			_ = unix.Munmap(m.bytes)
		}
	case n < 0:
		panic("shm: memory released more often than retained")
	}
}
