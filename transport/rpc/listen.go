package rpc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// socketPathBytes is the longest path of a socket: sun_path of unix(7) has 108 bytes with the final zero.
const socketPathBytes = 107

// Address returns where l listens, as an address to dial with gRPC.
func Address(l net.Listener) string {
	address := l.Addr().String()
	switch {
	case l.Addr().Network() != "unix":
		return address
	case strings.HasPrefix(address, "@"): // abstract, see unix(7)
		return "unix-abstract:" + address[1:]
	}
	return "unix://" + address
}

// unixListener is a listening socket that knows its file.
type unixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo // of the socket, to tell whether the name is still ours
}

// Close removes the name, if it is still ours, and stops listening.
func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// ListenUnix listens at path, an absolute path. The directory is made if it is missing. A socket that
// a dead daemon left behind is replaced; one at which somebody listens, and any other file, never.
//
// Everybody may connect: mode 0666. What a caller may do is decided by the credentials that the kernel
// gives for it, and by each queue's owner, group and mode.
func ListenUnix(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("socket %s: the path must be absolute", path)
	}
	if len(path) > socketPathBytes {
		return nil, fmt.Errorf("socket %s: the path has %d bytes and may have %d (see unix(7)); choose a shorter one", path, len(path), socketPathBytes)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket directory: %w", err)
	}
	// Between looking and binding another daemon must not do the same.
	unlock, err := lockPath(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	bound, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	bound.SetUnlinkOnClose(false) // it would not ask whose the name is
	l := &unixListener{UnixListener: bound, path: path}
	err = os.Chmod(path, 0o666)
	if err == nil {
		l.file, err = os.Lstat(path)
	}
	if err != nil {
		bound.Close()
		os.Remove(path)
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	return l, nil
}

// lockPath waits for the lock of that name, a file that is there only while somebody holds or wants it.
func lockPath(name string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		for err = unix.EINTR; err == unix.EINTR; { // Go's own signals interrupt flock(2)
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			f.Close()
			return nil, &os.PathError{Op: "flock", Path: name, Err: err}
		}
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		// The holder before removed the file: the lock is then on another one, or on none yet.
		if now, err := os.Lstat(name); err == nil && os.SameFile(mine, now) {
			return func() {
				os.Remove(name)
				f.Close()
			}, nil
		}
		f.Close()
	}
}

// removeStale removes the socket at path if nobody listens at it.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("socket %s: there is a file of this name that is no socket, and it is left alone; move it away or choose another path with --socket", path)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("socket %s: another process listens at it; stop that one or choose another path with --socket", path)
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("socket %s: cannot tell whether somebody listens at it: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("stale socket: %w", err)
	}
	return nil
}

// AdoptUnix takes over a listening socket of the service manager. Its file, owner and mode stay as that made them, and
// it is never removed: the next daemon is given the same one.
func AdoptUnix(l *net.UnixListener) net.Listener {
	l.SetUnlinkOnClose(false)
	return l
}
