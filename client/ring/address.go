//go:build linux

package ring

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

const (
	systemSocket = "/run/ipcd/attach.sock"
	socketName   = "attach.sock"
	// socketPathLength is what fits sockaddr_un's sun_path of 108 bytes with its final NUL; see unix(7).
	socketPathLength = 107
)

// DefaultAttach returns the path of the socket at which handles attach when their options name none:
// that in IPCD_ATTACH; else attach.sock beside the unix socket in IPCD_ADDRESS; else, for an ordinary
// user, $XDG_RUNTIME_DIR/ipcd/attach.sock if that exists; else /run/ipcd/attach.sock.
func DefaultAttach() string {
	if path := os.Getenv("IPCD_ATTACH"); path != "" {
		return path
	}
	if path, ok := unixPath(os.Getenv("IPCD_ADDRESS")); ok {
		return filepath.Join(filepath.Dir(path), socketName)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && os.Geteuid() != 0 {
		path := filepath.Join(dir, "ipcd", socketName)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return systemSocket
}

// unixPath returns the path in an address such as unix:///run/ipcd/ipcd.sock or /run/ipcd/ipcd.sock.
func unixPath(address string) (path string, ok bool) {
	if rest, cut := strings.CutPrefix(address, "unix:"); cut {
		if trimmed, slashes := strings.CutPrefix(rest, "//"); slashes {
			rest = trimmed
		}
		address = rest
	}
	return address, filepath.IsAbs(address)
}

// attachPath returns the path of the socket to attach at: the given one, or the default.
func attachPath(given string) (string, *Error) {
	if given == "" {
		given = DefaultAttach()
	}
	path, ok := unixPath(given)
	if !ok {
		return "", newError(reason.InvalidArgument, "attach socket %q: it must be an absolute path, such as %s", given, systemSocket)
	}
	if len(path) > socketPathLength {
		return "", newError(reason.InvalidArgument, "attach socket %q: a socket's path may have %d bytes, this one has %d: use a shorter directory", given, socketPathLength, len(path))
	}
	return path, nil
}

// checkName says what is wrong with a ring's name as far as the attach protocol is concerned. What else
// a name must be, the daemon says.
func checkName(name string) *Error {
	if !strings.HasPrefix(name, "/") || len(name) < 2 || len(name) > 1+limits.NameLength || strings.ContainsRune(name, 0) {
		return newError(reason.InvalidArgument, "name %q: it must be a slash and then 1 to %d characters, as in /ticks", name, limits.NameLength)
	}
	return nil
}
