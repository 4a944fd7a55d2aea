package shmring

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// errDead says that a process has ended.
var errDead = errors.New("the process is gone")

// openProcess returns a pidfd of the process that opened the connection: of SO_PEERPIDFD from Linux 6.5
// on, which cannot be of another one, else by the pid of the credentials. It is nil if the kernel cannot
// tell.
func openProcess(c *net.UnixConn, pid int32) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var callErr error
	err = raw.Control(func(socket uintptr) {
		fd, callErr = unix.GetsockoptInt(int(socket), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	})
	if err != nil {
		return nil, err
	}
	if callErr == unix.ENOPROTOOPT {
		return openPID(pid)
	}
	return pidfdFile(fd, callErr)
}

// openPID is for kernels that know no SO_PEERPIDFD. The file is nil for a process in a pid namespace that
// this side cannot see into, and before Linux 5.3.
func openPID(pid int32) (*os.File, error) {
	if pid == 0 {
		return nil, nil
	}
	return pidfdFile(unix.PidfdOpen(int(pid), 0))
}

// pidfdFile makes a file of what one of the two calls returned.
func pidfdFile(fd int, err error) (*os.File, error) {
	switch err {
	case nil:
	case unix.ESRCH, unix.EINVAL: // EINVAL of SO_PEERPIDFD: it was waited for already
		return nil, errDead
	case unix.ENODATA, unix.ENOSYS:
		return nil, nil
	default:
		return nil, fmt.Errorf("pidfd of the peer: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pidfd of the peer: %w", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil // the kernel makes it close-on-exec
}

// awaitExit returns errDead when the process has ended, and another error when the pidfd was closed.
func awaitExit(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = raw.Read(func(fd uintptr) bool {
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(ready, 0)
		if err != nil && err != unix.EINTR {
			pollErr = err
			return true
		}
		return n > 0
	})
	if err == nil {
		err = pollErr
	}
	if err != nil {
		return err
	}
	return errDead
}

// unread returns how many bytes of what was sent the peer has not taken, by the kernel's accounting: 0
// if and only if there is no packet.
func unread(c *net.UnixConn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var callErr error
	if err := raw.Control(func(fd uintptr) { n, callErr = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }); err != nil {
		return 0, err
	}
	return n, callErr
}

// shut ends the conversation in both directions. What was sent can still be read by the peer. What came
// and was not read is thrown away: were it still there when the socket is closed, the peer would be told
// ECONNRESET before it could read the last reply.
func shut(c *net.UnixConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		if unix.Shutdown(int(fd), unix.SHUT_RDWR) != nil {
			return
		}
		var buffer [1]byte
		for {
			// Without room for descriptors the kernel throws them away unopened.
			n, _, err := unix.Recvfrom(int(fd), buffer[:], unix.MSG_DONTWAIT)
			if n <= 0 && err != unix.EINTR {
				return
			}
		}
	})
}
