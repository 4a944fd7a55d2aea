package shmring

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
)

// socketPathBytes is the longest path of a socket: sun_path of unix(7) has 108 bytes with the final zero.
const socketPathBytes = 107

// Listener is attach.sock.
type Listener struct {
	socket *net.UnixListener
	path   string
	file   os.FileInfo // of the socket, to tell whether the name is still ours; nil: it is the service manager's
}

// Path returns where it listens.
func (l *Listener) Path() string { return l.path }

// Close removes the name, if it is still ours, and stops listening.
func (l *Listener) Close() error {
	if now, err := os.Lstat(l.path); l.file != nil && err == nil && os.SameFile(now, l.file) {
		os.Remove(l.path)
	}
	return l.socket.Close()
}

// Adopt takes over a seqpacket socket at which the service manager listens. Its name and mode stay the manager's.
func Adopt(socket *net.UnixListener) *Listener {
	socket.SetUnlinkOnClose(false)
	return &Listener{socket: socket, path: socket.Addr().String()}
}

// Listen listens at path, an absolute path. The directory is made if it is missing. A socket that a dead
// daemon left behind is replaced; one at which somebody listens, and any other file, never.
//
// Everybody may connect: mode 0666. What a caller may do is decided by the credentials that the kernel
// gives for it, and by each ring's owner, group and mode.
func Listen(path string) (*Listener, error) {
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
	socket, err := net.ListenUnix(attach.Network, &net.UnixAddr{Name: path, Net: attach.Network})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	socket.SetUnlinkOnClose(false) // it would not ask whose the name is
	l := &Listener{socket: socket, path: path}
	err = os.Chmod(path, 0o666)
	if err == nil {
		l.file, err = os.Lstat(path)
	}
	if err != nil {
		socket.Close()
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
		return fmt.Errorf("socket %s: there is a file of this name that is no socket, and it is left alone; move it away or choose another path", path)
	}
	conn, err := net.Dial(attach.Network, path)
	switch {
	case err == nil:
		conn.Close()
		fallthrough
	case errors.Is(err, unix.EPROTOTYPE): // a socket of another kind, which is nothing of a daemon's attach.sock
		return fmt.Errorf("socket %s: another process listens at it; stop that one or choose another path", path)
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("socket %s: cannot tell whether somebody listens at it: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("stale socket: %w", err)
	}
	return nil
}
