package shmring

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestMain(m *testing.M) {
	if helper := os.Getenv("SHMRING_TEST_HELPER"); helper != "" {
		helperMain(helper)
		return
	}
	goleak.VerifyTestMain(m)
}

// patience is for what must happen; when it is over the test has failed.
const patience = 20 * time.Second

// start serves fake rings until the test ends. change may adapt the server before it serves.
func start(t *testing.T, change func(*Server)) (*Server, *fakeRings, string) {
	t.Helper()
	rings := newFakeRings(t)
	s := New(Options{Rings: rings, Logger: zaptest.NewLogger(t)})
	path := serveOn(t, s, change)
	return s, rings, path
}

func serveOn(t *testing.T, s *Server, change func(*Server)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "attach.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return path
}

// client is a peer in this process.
type client struct {
	t    *testing.T
	sock *net.UnixConn
}

// dial connects, until the test ends.
func dial(t *testing.T, path string) client {
	t.Helper()
	c := dialQuick(t, path)
	t.Cleanup(func() { c.sock.Close() })
	return c
}

// dialQuick connects; the caller closes.
func dialQuick(t *testing.T, path string) client {
	t.Helper()
	sock, err := net.DialUnix(attach.Network, nil, &net.UnixAddr{Name: path, Net: attach.Network})
	if err != nil {
		t.Fatal(err)
	}
	sock.SetDeadline(time.Now().Add(patience))
	return client{t, sock}
}

func (c client) send(p attach.Request, files ...*os.File) {
	c.t.Helper()
	if err := attach.Send(c.sock, p, files...); err != nil {
		c.t.Fatal(err)
	}
}

// receive returns the next reply; its files are closed when the test ends.
func (c client) receive() (attach.Reply, []*os.File) {
	c.t.Helper()
	p, files, err := attach.ReceiveReply(c.sock)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, f := range files {
		c.t.Cleanup(func() { f.Close() })
	}
	return p, files
}

// expect returns the next reply, which must be a P, and closes its files.
func expect[P attach.Reply](c client) P {
	c.t.Helper()
	p, files, err := attach.ReceiveReply(c.sock)
	for _, f := range files {
		f.Close()
	}
	want, ok := p.(P)
	if !ok {
		c.t.Fatalf("got %+v, %v; want a %T", p, err, want)
	}
	return want
}

// join attaches, and returns the id.
func (c client) join(role attach.Role) uint64 {
	c.t.Helper()
	c.send(attach.Attach{Role: role, Name: "/ring"})
	m := expect[attach.Memory](c)
	c.send(attach.Got{})
	c.send(attach.Ready{})
	expect[attach.Attached](c)
	c.send(attach.Got{})
	return m.MemberID
}

// pull asks for the members.
func (c client) pull() attach.Members {
	c.t.Helper()
	c.send(attach.Pull{})
	m := expect[attach.Members](c)
	if m.Files() > 0 {
		c.send(attach.Got{})
	}
	return m
}

// refused expects an error of that reason, and the hang-up that follows it.
func (c client) refused(r reason.Reason) attach.ErrorReply {
	c.t.Helper()
	e := expect[attach.ErrorReply](c)
	if e.Reason != r {
		c.t.Errorf("refused with %s, %q; want %s", e.Reason, e.Text, r)
	}
	c.hungUp()
	return e
}

// hungUp expects the end of the connection.
func (c client) hungUp() {
	c.t.Helper()
	if p, _, err := attach.ReceiveReply(c.sock); !errors.Is(err, io.EOF) {
		c.t.Errorf("got %+v, %v; want a hang-up", p, err)
	}
}

// hungUpAfterReplies expects the end of the connection, after whatever was sent before.
func (c client) hungUpAfterReplies() {
	c.t.Helper()
	for {
		_, files, err := attach.ReceiveReply(c.sock)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			c.t.Fatal(err)
		}
		for _, f := range files {
			f.Close()
		}
	}
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// look waits until the condition holds, and reports whether it came to.
func look(condition func() bool) bool {
	for until := time.Now().Add(patience); !condition(); {
		if time.Now().After(until) {
			return false
		}
		time.Sleep(time.Millisecond) // between two looks; nothing depends on how long it is
	}
	return true
}

// settle waits until the server has no connection left.
func settle(t *testing.T, s *Server) {
	t.Helper()
	settleTo(t, s, 0)
}

// settleTo waits until no more than that many connections are left.
func settleTo(t *testing.T, s *Server, conns int) {
	t.Helper()
	var all int
	if !look(func() bool {
		s.charges.mu.Lock()
		defer s.charges.mu.Unlock()
		all = s.charges.all
		return all <= conns
	}) {
		t.Errorf("%d connections are left, want %d", all, conns)
	}
}

// descriptorsAre waits until so many descriptors are open.
func descriptorsAre(t *testing.T, want int) {
	t.Helper()
	if !look(func() bool { return openDescriptors(t) == want }) {
		t.Errorf("%d descriptors were open before, %d are after", want, openDescriptors(t))
	}
}
