package posixmq

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// mountPoint is where the mqueue file system shows kernel queues as files, mq_overview(7).
const mountPoint = "/dev/mqueue"

// mqueueMagic is the type of that file system, MQUEUE_MAGIC in the kernel's ipc/mqueue.c.
const mqueueMagic = 0x19800202

// ErrHidden says that kernel queues cannot be had by path, and why.
var ErrHidden = errors.New("kernel queues cannot be had by path")

// TakeBack makes the process's user the owner of a kernel queue, with the bits to open it, by CAP_CHOWN
// alone; all other bits stay. mq_open cannot do that, as it refuses who has no bits. The object is the
// one of that name and inode: any other is left alone, and the error is unix.ENOENT. It wraps ErrHidden
// if the mqueue file system is not mounted as it should be.
func TakeBack(name string, inode uint64) error {
	fd, st, err := lookUp(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if st.Ino != inode {
		return unix.ENOENT
	}
	if err := take(fd); err != nil {
		return fmt.Errorf("take back kernel queue %s: %w", name, err)
	}
	return nil
}

// take is TakeBack of the object that a descriptor of lookUp leads to, which its owner may have unlinked by
// now, and put another in its place.
func take(fd int) error {
	if err := unix.Fchownat(fd, "", os.Geteuid(), -1, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	// Only now nobody else can change the mode any more.
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	// fchmod refuses a descriptor of O_PATH, and fchmodat2 is newer (Linux 6.6) than what we run on.
	return unix.Chmod(fmt.Sprint("/proc/self/fd/", fd), st.Mode&0o777|0o600)
}

// CanTakeBack returns nil if TakeBack will find the kernel queue while its name stands, or else an
// error that wraps ErrHidden.
func (m *MQ) CanTakeBack() error {
	fd, st, err := lookUp(m.name)
	if err == nil {
		defer unix.Close(fd)
		var own Stat
		if own, err = m.Stat(); err == nil && own.Inode == st.Ino {
			return nil
		}
	}
	if err == nil || err == unix.ENOENT {
		return fmt.Errorf("%w: %s shows another IPC namespace's, or it was replaced", ErrHidden, mountPoint)
	}
	return err
}

// lookUp returns a descriptor of O_PATH of the kernel queue, for which no permission is needed, and what
// it leads to. The error is unix.ENOENT if there is none of that name.
func lookUp(name string) (fd int, st unix.Stat_t, err error) {
	if len(name) < 2 || name[0] != '/' || strings.Contains(name[1:], "/") || name == "/." || name == "/.." {
		return -1, st, unix.EINVAL
	}
	directory, err := unix.Open(mountPoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, fmt.Errorf("%w: open %s: %w", ErrHidden, mountPoint, err)
	}
	defer unix.Close(directory)
	var fs unix.Statfs_t
	switch err := unix.Fstatfs(directory, &fs); {
	case err != nil:
		return -1, st, fmt.Errorf("%w: statfs %s: %w", ErrHidden, mountPoint, err)
	case fs.Type != mqueueMagic:
		return -1, st, fmt.Errorf("%w: the mqueue file system is not mounted on %s (mount -t mqueue mqueue %s)", ErrHidden, mountPoint, mountPoint)
	case fs.Flags&unix.ST_RDONLY != 0:
		return -1, st, fmt.Errorf("%w: the mqueue file system on %s is mounted read-only", ErrHidden, mountPoint)
	}
	fd, err = unix.Openat(directory, name[1:], unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}
