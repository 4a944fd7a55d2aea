package shmring

import (
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

// raw sends bytes and descriptors as they are. Whether the peer still listens is not of interest.
func (c client) raw(b []byte, fds ...int) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	c.sock.WriteMsgUnix(b, oob, nil)
}

func bytesOf(t *testing.T, p attach.Packet) []byte {
	t.Helper()
	b, err := attach.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// oddDescriptors are of everything that a stranger may pass for a memfd.
func oddDescriptors(t *testing.T, path string) map[string]int {
	t.Helper()
	odd := map[string]int{}
	add := func(what string, fd int, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		odd[what] = fd
		t.Cleanup(func() { unix.Close(fd) })
	}
	open := func(what, path string, flags int) {
		t.Helper()
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		add(what, fd, err)
	}
	var pipe [2]int
	err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	add("pipe, read end", pipe[0], err)
	add("pipe, write end", pipe[1], err)
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	add("TCP socket", socket, err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	add("unix socket", pair[0], err)
	add("its other end", pair[1], err)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	add("epoll", epoll, err)
	eventfd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	add("eventfd", eventfd, err)
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	add("pidfd", pidfd, err)
	open("O_PATH", path, unix.O_PATH)
	open("/dev/zero", "/dev/zero", unix.O_RDWR)
	open("directory", "/", unix.O_RDONLY)
	open("plain file", "/proc/self/exe", unix.O_RDONLY)
	open("procfs", "/proc/self/mem", unix.O_RDWR)
	conn := dial(t, path)
	f, err := conn.sock.File() // an attach connection that nobody has said anything on
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	odd["attach connection"] = int(f.Fd())
	return odd
}

func TestOddDescriptorsAreRefused(t *testing.T) {
	_, rings, path := start(t, nil)
	adopt := bytesOf(t, attach.Adopt{Role: attach.Producer, Name: "/ring", MemberID: 5})
	for what, fd := range oddDescriptors(t, path) {
		c := dial(t, path)
		c.raw(adopt, fd)
		if e := c.refused(reason.InvalidArgument); !strings.Contains(e.Text, "not of a memfd") || e.Status != uint32(unix.EPROTO) {
			t.Errorf("%s: %+v", what, e)
		}
		c.sock.Close()
	}
	rings.awaitNobody()
	if len(rings.adopts) != 0 {
		t.Errorf("the broker was asked to adopt %+v", rings.adopts)
	}
}

// A connection whose own end is held open, in itself, ends all the same.
func TestAConnectionMayBeSentThroughItself(t *testing.T) {
	s, rings, path := start(t, nil)
	before := openDescriptors(t)
	adopt := bytesOf(t, attach.Adopt{Role: attach.Producer, Name: "/ring", MemberID: 5})
	for range 50 {
		// The first packet: the server opens it, and closes it.
		c := dial(t, path)
		c.raw(adopt, int(fileOf(t, c)))
		c.sock.Close()
		// A later one, with another connection in it, which holds the first one in turn.
		c, other := dial(t, path), dial(t, path)
		c.join(attach.Consumer)
		other.raw(adopt, int(fileOf(t, c)))
		c.raw(bytesOf(t, attach.Pull{}), int(fileOf(t, other)), int(fileOf(t, c)))
		c.sock.Close()
		other.sock.Close()
	}
	rings.awaitNobody()
	settle(t, s)
	descriptorsAre(t, before)
}

// fileOf returns the descriptor of the connection itself.
func fileOf(t *testing.T, c client) (fd uintptr) {
	t.Helper()
	raw, err := c.sock.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(f uintptr) { fd = f })
	return fd
}

// Random packets, whole and cut, with random descriptors, at any point of the protocol.
func TestGarbageDoesNotDisturbOthers(t *testing.T) {
	s, rings, path := start(t, func(s *Server) { s.times.hello = patience })
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 0))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	var fds []int
	for _, fd := range oddDescriptors(t, path) {
		fds = append(fds, fd)
	}
	// With the second answer to this one the server has accepted those before it and closed what it sent.
	honest := dial(t, path)
	honest.join(attach.Producer)
	honest.pull()
	honest.pull()
	memory := memfd("mine")
	defer memory.Close()
	fds = append(fds, int(memory.Fd()), int(memory.Fd()))
	requests := []attach.Request{
		attach.Attach{Role: attach.Producer, Name: "/ring"}, attach.Ready{}, attach.Pull{}, attach.Got{}, attach.Detach{},
		attach.Adopt{Role: attach.Consumer, Name: "/ring", MemberID: 1 << 40},
	}
	before := openDescriptors(t)
	adopted := uint64(1 << 40)
	for range 1500 {
		c := dial(t, path)
		for range random.IntN(8) {
			p := requests[random.IntN(len(requests))]
			if adopt, ok := p.(attach.Adopt); ok {
				adopted++
				adopt.MemberID = adopted
				p = adopt
			}
			b := bytesOf(t, p)
			switch random.IntN(6) {
			case 0:
				b = b[:random.IntN(len(b)+1)]
			case 1:
				b[random.IntN(len(b))] ^= 1 << random.IntN(8)
			case 2:
				b = make([]byte, random.IntN(20_000))
				for i := range b {
					b[i] = byte(random.Uint32())
				}
			}
			var some []int
			for range random.IntN(3) * random.IntN(3) {
				some = append(some, fds[random.IntN(len(fds))])
			}
			c.sock.SetWriteDeadline(time.Now().Add(patience))
			c.raw(b, some...)
			if random.IntN(2) == 0 {
				c.sock.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
				_, files, _ := attach.ReceiveReply(c.sock)
				for _, f := range files {
					f.Close()
				}
			}
		}
		c.sock.Close()
	}
	rings.await(func() bool { return rings.joining == 0 && len(rings.members) == 1 })
	if m := honest.pull(); len(m.Entries) != 1 {
		t.Errorf("%+v", m)
	}
	settleTo(t, s, 2) // honest, and one of oddDescriptors
	descriptorsAre(t, before)
}

// Whoever goes on talking is told all the same why nobody listens any more.
func TestTheLastWordIsHeard(t *testing.T) {
	_, _, path := start(t, nil)
	for n := range 50 {
		c := dial(t, path)
		c.raw(bytesOf(t, attach.Ready{}))
		for range n {
			c.raw(bytesOf(t, attach.Pull{}))
		}
		c.refused(reason.InvalidArgument)
	}
}

// steps is all that a client says and hears, one after the other.
var steps = []func(client){
	func(c client) { c.send(attach.Attach{Role: attach.Producer, Name: "/ring"}) },
	func(c client) { expect[attach.Memory](c) },
	func(c client) { c.send(attach.Got{}) },
	func(c client) { c.send(attach.Ready{}) },
	func(c client) { expect[attach.Attached](c) },
	func(c client) { c.send(attach.Got{}) },
	func(c client) { c.send(attach.Pull{}) },
	func(c client) { expect[attach.Members](c) },
	func(c client) { c.send(attach.Got{}) },
	func(c client) { c.send(attach.Pull{}) },
	func(c client) { expect[attach.Members](c) },
	func(c client) { c.send(attach.Detach{}) },
	func(c client) { expect[attach.Detached](c) },
}

func TestAHangUpAnywhereEndsTheMembership(t *testing.T) {
	s, rings, path := start(t, nil)
	before := openDescriptors(t)
	for range 20 {
		for n := range len(steps) + 1 {
			c := dial(t, path)
			for _, step := range steps[:n] {
				step(c)
			}
			if n%2 == 0 { // one that closes its sending side alone is gone too
				c.sock.CloseWrite()
				c.hungUpAfterReplies()
			}
			c.sock.Close()
		}
	}
	rings.awaitNobody()
	settle(t, s)
	descriptorsAre(t, before)
}

func TestDescriptorsAreBackAfter10000Members(t *testing.T) {
	s, rings, path := start(t, nil)
	const cycles = 10_000
	before := openDescriptors(t)
	for range cycles {
		c := dialQuick(t, path)
		for _, step := range steps {
			step(c)
		}
		c.sock.Close()
	}
	rings.awaitNobody()
	settle(t, s)
	descriptorsAre(t, before)
	rings.mu.Lock()
	defer rings.mu.Unlock()
	if len(rings.left) != cycles {
		t.Errorf("%d members left", len(rings.left))
	}
}

// A peer that takes no replies is dropped, and nobody waits for it.
func TestWhoNeverReadsIsDropped(t *testing.T) {
	_, rings, path := start(t, func(s *Server) { s.times.got = 500 * time.Millisecond })
	rings.mu.Lock()
	rings.others = 30
	rings.mu.Unlock()
	deaf, honest := dial(t, path), dial(t, path)
	id := deaf.join(attach.Consumer)
	honest.join(attach.Consumer)
	deaf.pull() // no descriptors after these
	honest.pull()
	pull := bytesOf(t, attach.Pull{})
	for {
		// Until the server is gone: it stops reading while its replies are not taken.
		if _, err := deaf.sock.Write(pull); err != nil {
			if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
			break
		}
		honest.pull()
	}
	if why := rings.awaitLeft(id); why != errSilent.Error() {
		t.Errorf("left: %s", why)
	}
	honest.pull()
}
