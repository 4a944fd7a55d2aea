package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	unixPrefix      = "unix:"
	socketMode      = 0o660
	socketPathBytes = 107 // sun_path of unix(7) has 108 with the final zero
)

// Listen listens at "host:port", or at "unix:/path" with mode 0660. A socket that a dead process left behind is
// replaced; one at which somebody listens, and any other file, never.
func Listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		l, err := listenUnix(path)
		if err != nil {
			return nil, fmt.Errorf("http address %s: %w", address, err)
		}
		return l, nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("http address %.200q: it must be host:port, such as 127.0.0.1:9475, or unix:/path", address)
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("http address %s: %w", address, err)
	}
	return l, nil
}

func listenUnix(path string) (net.Listener, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("the path after unix: must be absolute")
	}
	if len(path) > socketPathBytes {
		return nil, fmt.Errorf("the path has %d bytes and may have %d (see unix(7)); choose a shorter one", len(path), socketPathBytes)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// A socket's file gets the mode that the socket has when it is bound, less the umask: so it never has more than
	// it should, and then it gets all that it should have.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes the socket at path if nobody listens at it.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file of this name that is no socket, and it is left alone: move it away, or choose another path")
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return errors.New("another process listens at it: stop that one, or choose another path")
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("cannot tell whether somebody listens at it: %w", err)
	}
	return os.Remove(path)
}
