package service

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// firstDescriptor is where what the service manager gives begins: SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstDescriptor = 3

// Sockets is what the service manager gave. All of it is close-on-exec, and the receiver's to close.
type Sockets struct {
	Unix   []*net.UnixListener // SOCK_STREAM
	Attach []*net.UnixListener // SOCK_SEQPACKET
	TCP    []*net.TCPListener
	Stored []StoredFile // what Manager.Store of an earlier run left
}

// StoredFile is a file that was kept over a restart.
type StoredFile struct {
	Name string // as it was stored
	File *os.File
}

// Close closes everything.
func (s *Sockets) Close() {
	for _, l := range s.Unix {
		l.Close()
	}
	for _, l := range s.Attach {
		l.Close()
	}
	for _, l := range s.TCP {
		l.Close()
	}
	for _, f := range s.Stored {
		f.File.Close()
	}
}

// Inherit takes what the service manager gave to this process, and clears the environment variables that say so: it
// is called once, before anything is opened. Without a service manager there is nothing. What is neither a socket that
// the daemon can serve nor a stored file is an error; nothing is taken then.
func Inherit() (*Sockets, error) {
	defer clearEnvironment()
	n, names, err := given()
	if err != nil || n == 0 {
		return &Sockets{}, err
	}
	// All are looked at before one is made a file: what is not there may be a descriptor of the Go runtime's, which
	// must not be closed.
	kinds := make([]kind, 0, min(n, 64))
	for i := range n {
		k, err := look(firstDescriptor+i, name(names, i))
		if err != nil {
			return &Sockets{}, err
		}
		kinds = append(kinds, k)
	}
	all := &Sockets{}
	for i, f := range activation.Files(false) {
		if kinds[i] == storedFile {
			all.Stored = append(all.Stored, StoredFile{Name: strings.TrimPrefix(name(names, i), storedPrefix), File: f})
			continue
		}
		l, err := net.FileListener(f)
		f.Close() // the listener has a descriptor of its own
		if err != nil {
			all.Close()
			return &Sockets{}, fmt.Errorf("descriptor %d of the service manager: %w", firstDescriptor+i, err)
		}
		switch kinds[i] {
		case unixStream:
			all.Unix = append(all.Unix, l.(*net.UnixListener))
		case unixPacket:
			all.Attach = append(all.Attach, l.(*net.UnixListener))
		case tcp:
			all.TCP = append(all.TCP, l.(*net.TCPListener))
		}
	}
	return all, nil
}

// given reads how many descriptors there are for this process, and their names.
func given() (n int, names []string, err error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return 0, nil, nil // they are for another process
	}
	n, err = strconv.Atoi(count)
	if err != nil || n < 0 {
		return 0, nil, fmt.Errorf("LISTEN_FDS is %.100q: it must be how many descriptors the service manager gives; start the daemon without it, or by a service manager", count)
	}
	return n, strings.Split(os.Getenv("LISTEN_FDNAMES"), ":"), nil
}

// clearEnvironment makes sure that no child takes the descriptors for its own.
func clearEnvironment() {
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		os.Unsetenv(v)
	}
}

// name is that of descriptor i: "" if it has none.
func name(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return ""
}

// kind is what a descriptor is for.
type kind uint8

const (
	storedFile kind = iota
	unixStream
	unixPacket
	tcp
)

// look tells what a descriptor is for, without touching it.
func look(fd int, name string) (kind, error) {
	refuse := func(what string) (kind, error) {
		return 0, fmt.Errorf("descriptor %d of the service manager (name %.255q) is %s: it must be a socket that listens, unix stream (ListenStream=/path), "+
			"unix seqpacket (ListenSequentialPacket=/path) or TCP (ListenStream=address:port), with Accept=no; correct the socket unit", fd, name, what)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return refuse("not there")
	}
	if strings.HasPrefix(name, storedPrefix) {
		return storedFile, nil
	}
	option := func(o int) int {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, o)
		if err != nil {
			return -1
		}
		return v
	}
	domain, typ, protocol := option(unix.SO_DOMAIN), option(unix.SO_TYPE), option(unix.SO_PROTOCOL)
	var k kind
	switch {
	case domain < 0:
		what, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			what = "of an unknown kind"
		}
		return refuse("no socket but " + what)
	case domain == unix.AF_UNIX && typ == unix.SOCK_STREAM:
		k = unixStream
	case domain == unix.AF_UNIX && typ == unix.SOCK_SEQPACKET:
		k = unixPacket
	case (domain == unix.AF_INET || domain == unix.AF_INET6) && typ == unix.SOCK_STREAM && (protocol == unix.IPPROTO_TCP || protocol == unix.IPPROTO_MPTCP):
		k = tcp
	default:
		return refuse(fmt.Sprintf("a socket of domain %d, type %d and protocol %d (see socket(2))", domain, typ, protocol))
	}
	if option(unix.SO_ACCEPTCONN) != 1 {
		return refuse("a socket that does not listen")
	}
	return k, nil
}
