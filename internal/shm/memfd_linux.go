package shm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sealsWanted are the seals of memory that may be handed out: it can neither grow nor shrink, so that a mapping never
// faults, and nobody can newly map or write it; the writer keeps the mapping it has. See memfd_create(2), fcntl(2).
const sealsWanted = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_FUTURE_WRITE

// sealsAllowed are those that do no harm besides: whoever may write could have added them before.
const sealsAllowed = sealsWanted | unix.F_SEAL_EXEC

// Errors of memory that a stranger handed in.
var (
	ErrNotMemory = errors.New("it is no sealed shared memory of the daemon's")
)

// CreateMemory makes anonymous shared memory of a fixed size that only this user may open again. It takes no room
// before it is written to.
func CreateMemory(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("make shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	err = unix.Fchmod(fd, 0o600)
	if err == nil {
		err = unix.Ftruncate(fd, size)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make shared memory of %d bytes: %w", size, err)
	}
	return f, nil
}

// CloseToWriters seals memory against everybody who has not mapped it yet, and checks it. f must be writable.
func CloseToWriters(f *os.File, size int64) error {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err != nil {
		return fmt.Errorf("seal shared memory: %w", err)
	}
	return Verify(f, size)
}

// Verify says whether mapping f can ever fault or be changed by anybody but who had it mapped writable: the seals,
// the size, that it is this user's, and that every page is there (before it was sealed, holes could be punched).
// f may be any descriptor that a stranger passed.
func Verify(f *os.File, size int64) error {
	// Seals come first: only shared memory has them. Others' files may hang in fstat, for instance FUSE's.
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return fmt.Errorf("%w: its seals cannot be read: %w", ErrNotMemory, err)
	}
	if seals&sealsWanted != sealsWanted || seals&^sealsAllowed != 0 {
		return fmt.Errorf("%w: it has seals %#x, not %#x", ErrNotMemory, seals, sealsWanted)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("%w: %w", ErrNotMemory, err)
	}
	switch {
	case st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%w: it belongs to uid %d", ErrNotMemory, st.Uid)
	case st.Mode&0o777 != 0o600:
		return fmt.Errorf("%w: its mode is %#o", ErrNotMemory, st.Mode&0o777)
	case st.Size != size:
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrNotMemory, st.Size, size)
	case st.Blksize > PageSize:
		return fmt.Errorf("%w: it has pages of %d bytes", ErrNotMemory, st.Blksize)
	case st.Blocks*512 < size:
		return fmt.Errorf("%w: only %d of its %d bytes are there", ErrNotMemory, st.Blocks*512, size)
	}
	return nil
}

// Reopen opens the same memory anew, os.O_RDONLY or os.O_RDWR.
func Reopen(f *os.File, flags int) (*os.File, error) {
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open shared memory again: %w", err)
	}
	return again, nil
}

// Inode is the memory's inode number, which no other has while it lives.
func Inode(f *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, fmt.Errorf("inode of shared memory: %w", err)
	}
	return st.Ino, nil
}

// HasWriter reports whether a writable mapping of the memory lives anywhere. f must be writable. If none does, the
// memory is sealed against writing for good.
func HasWriter(f *os.File) (bool, error) {
	_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, unix.EBUSY):
		return true, nil
	}
	return false, fmt.Errorf("seal shared memory against writing: %w", err)
}
