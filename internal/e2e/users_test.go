//go:build linux

package e2e

import (
	"context"
	"errors"
	"net"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/client"
)

// caller is a user that no host gives to anybody, as which a test connects.
type caller struct {
	uid, gid uint32
	groups   []uint32
}

var (
	stranger = caller{uid: strangerUID, gid: strangerGID}
	other    = caller{uid: strangerUID + 10, gid: strangerGID + 10}
)

// connect connects to a unix socket as that user: the kernel tells the daemon the credentials of the thread that
// connects, and these are changed, for one thread, by the bare system calls.
func (c caller) connect(network, path string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with its credentials
		if err = c.become(); err == nil {
			conn, err = net.Dial(network, path)
		}
	}()
	<-done
	return conn, err
}

func (c caller) become() error {
	groups := unsafe.Pointer(unsafe.SliceData(c.groups))
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETGROUPS, uintptr(len(c.groups)), uintptr(groups), 0); errno != 0 {
		return errno
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESGID, uintptr(c.gid), uintptr(c.gid), uintptr(c.gid)); errno != 0 {
		return errno
	}
	// The saved uid stays root's: a thread without any privilege could be traced by the user.
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(c.uid), uintptr(c.uid), 0); errno != 0 {
		return errno
	}
	runtime.KeepAlive(c.groups)
	return nil
}

// dialAs returns a client that connects as a user.
func (d *daemon) dialAs(t *testing.T, c caller) *client.Client {
	t.Helper()
	return dial(t, d.socket, client.WithDialer(func(context.Context) (net.Conn, error) { return c.connect("unix", d.socket) }))
}

// connAs returns a bare gRPC connection of a user.
func (d *daemon) connAs(t *testing.T, c caller) *grpc.ClientConn {
	t.Helper()
	return d.conn(t, grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return c.connect("unix", d.socket) }))
}

// allowed fails unless a call succeeded where it may, and was denied where it may not.
func allowed(t *testing.T, what string, err error, may bool) {
	t.Helper()
	if may && err != nil || !may && !errors.Is(err, client.ErrAccessDenied) {
		t.Errorf("%s: %v, allowed %v", what, err, may)
	}
}

// in is the caller with these supplementary groups.
func (c caller) in(groups ...uint32) caller {
	c.groups = groups
	return c
}

func TestConnectionsAreOfTheirUser(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d := start(t)
	for _, c := range []caller{stranger, other.in(sharedGID), {}} {
		info, err := d.dialAs(t, c).Info(within(t))
		if err != nil {
			t.Fatal(err)
		}
		who := info.Caller
		if who.Kind != "unix" || who.UID != c.uid || who.GID != c.gid || len(c.groups) > 0 && (len(who.Groups) != 1 || who.Groups[0] != c.groups[0]) || who.Admin != (c.uid == 0) {
			t.Errorf("%+v is seen as %+v", c, who)
		}
	}
}
