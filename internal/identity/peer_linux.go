package identity

import (
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FromUnixConn asks the kernel who is at the other end of a unix socket connection: the credentials
// that the peer had when it connected.
func FromUnixConn(c *net.UnixConn) (Identity, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Identity{}, fmt.Errorf("peer credentials: %w", err)
	}
	var id Identity
	var callErr error
	err = raw.Control(func(fd uintptr) { id, callErr = fromSocket(int(fd)) })
	if err == nil {
		err = callErr
	}
	if err != nil {
		return Identity{}, fmt.Errorf("peer credentials: %w", err)
	}
	return id, nil
}

func fromSocket(fd int) (Identity, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Identity{}, err
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Identity{}, err
	}
	return Identity{Kind: Unix, UID: cred.Uid, GID: cred.Gid, Groups: groups, PID: cred.Pid}, nil
}

// peerGroups reads SO_PEERGROUPS (Linux 4.13): as many groups as NGROUPS_MAX, 65536, allows. ERANGE
// comes with the length that is needed.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups)) * 4
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size) > len(groups)*4 && size <= 65536*4:
			groups = make([]uint32, size/4)
		case errno != 0:
			return nil, errno
		default:
			return groups[:size/4], nil
		}
	}
}
