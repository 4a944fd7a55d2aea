//go:build linux

package systemdtest

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mqOpen opens a kernel queue for sending; path is its name without the slash.
func mqOpen(path *byte) (int, error) {
	fd, _, e := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(path)), unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}

// mqSend sends one message.
func mqSend(fd int, body []byte) error {
	_, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDSEND, uintptr(fd), uintptr(unsafe.Pointer(&body[0])), uintptr(len(body)), 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
