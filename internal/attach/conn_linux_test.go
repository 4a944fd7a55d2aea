package attach

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pair returns the two ends of a connection.
func pair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
		ends[i].SetDeadline(time.Now().Add(20 * time.Second))
	}
	return ends[0], ends[1]
}

func memfd(t *testing.T, content string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(content); err != nil {
		t.Fatal(err)
	}
	return f
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func send(t *testing.T, c *net.UnixConn, b []byte, fds ...int) {
	t.Helper()
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := c.WriteMsgUnix(b, oob, nil); err != nil {
		t.Fatal(err)
	}
}

func TestDescriptorsArriveInTheirOrder(t *testing.T) {
	client, daemon := pair(t)
	m := Members{Epoch: 1}
	var files []*os.File
	for i := range MaxEntries {
		m.Entries = append(m.Entries, Entry{ID: uint64(i), Kind: EntryLane, Slot: uint32(i), File: i%2 == 1})
		if i%2 == 1 {
			files = append(files, memfd(t, string(rune('a'+i))))
		}
	}
	if err := Send(daemon, m, files...); err != nil {
		t.Fatal(err)
	}
	p, got, err := ReceiveReply(client)
	if err != nil || p.Kind() != KindMembers || len(got) != len(files) {
		t.Fatalf("%v, %d descriptors, %v", p, len(got), err)
	}
	for i, f := range got {
		b := make([]byte, 8)
		n, _ := f.ReadAt(b, 0)
		if want := string(rune('a' + 2*i + 1)); string(b[:n]) != want {
			t.Errorf("descriptor %d holds %q, want %q", i, b[:n], want)
		}
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("descriptor %d would go to a program that is executed: %#x, %v", i, flags, err)
			}
		})
		f.Close()
	}
}

func TestEveryPacketCrosses(t *testing.T) {
	client, daemon := pair(t)
	for name, p := range packets() {
		files := make([]*os.File, p.Files())
		for i := range files {
			files[i] = memfd(t, name)
		}
		from := client
		if _, ok := p.(Reply); ok {
			from = daemon
		}
		if err := Send(from, p, files...); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var err error
		var got Packet
		if from == client {
			var f *os.File
			got, f, err = ReceiveRequest(daemon, true)
			if (f != nil) != (len(files) == 1) {
				t.Errorf("%s: file %v", name, f)
			}
			f.Close()
		} else {
			var fs []*os.File
			got, fs, err = ReceiveReply(client)
			if len(fs) != len(files) {
				t.Errorf("%s: %d files", name, len(fs))
			}
			for _, f := range fs {
				f.Close()
			}
		}
		if err != nil || got.Kind() != p.Kind() {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSendWantsAsManyFilesAsThePacketHas(t *testing.T) {
	client, daemon := pair(t)
	f := memfd(t, "")
	if err := Send(client, Ready{}, f); err == nil {
		t.Error("READY was sent with a descriptor")
	}
	if err := Send(daemon, Attached{}, f); err == nil {
		t.Error("ATTACHED was sent with one descriptor")
	}
	closed := memfd(t, "")
	closed.Close()
	if err := Send(daemon, Attached{}, f, closed); err == nil {
		t.Error("a closed file was sent")
	}
}

// Whatever comes along with a packet, nothing of it stays open when the packet is refused.
func TestStrangeDescriptorsAreRefusedAndClosed(t *testing.T) {
	client, daemon := pair(t)
	memory := int(memfd(t, "").Fd())
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	sockets, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	open := func(path string, flags int) int {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range append(append(pipe[:], sockets[:]...), epoll) {
		t.Cleanup(func() { unix.Close(fd) })
	}
	adopt, ready, attach := encode(t, packets()["adopt"]), encode(t, Ready{}), encode(t, packets()["attach"])
	zero, path := open("/dev/zero", unix.O_RDWR), open("/", unix.O_PATH)
	for _, c := range []struct {
		what  string
		bytes []byte
		fds   []int
		first bool
		want  string
	}{
		{"pipe", adopt, pipe[:1], true, "memfd"},
		{"socket", adopt, sockets[:1], true, "memfd"},
		{"O_PATH", adopt, []int{path}, true, "memfd"},
		{"/dev/zero", adopt, []int{zero}, true, "memfd"},
		{"directory", adopt, []int{open("/", unix.O_RDONLY)}, true, "memfd"},
		{"epoll", adopt, []int{epoll}, true, "memfd"},
		{"none", adopt, nil, true, "0 descriptors"},
		{"two", adopt, []int{memory, memory}, true, "more descriptors"},
		{"253", adopt, many(memory, 253), true, "more descriptors"},
		{"253 pipes", adopt, many(pipe[0], 253), true, "more descriptors"},
		{"with ATTACH", attach, []int{memory}, true, "1 descriptors"},
		{"with garbage", []byte{1, 2, 3}, []int{memory}, true, "shorter than its header"},
		{"late", adopt, []int{memory}, false, "first packet"},
		{"with READY", ready, []int{zero}, false, "first packet"},
	} {
		send(t, client, c.bytes, c.fds...)
		before := openDescriptors(t)
		p, f, err := ReceiveRequest(daemon, c.first)
		if !isProtocol(err) || !strings.Contains(err.Error(), c.want) || f != nil {
			t.Errorf("%s: %v, %v, %v; want an error with %q", c.what, p, f, err, c.want)
		}
		if after := openDescriptors(t); after != before {
			t.Errorf("%s: %d descriptors were open before, %d after", c.what, before, after)
		}
	}
	// The connection works on.
	send(t, client, ready)
	if p, _, err := ReceiveRequest(daemon, false); err != nil || p != (Ready{}) {
		t.Errorf("%v, %v", p, err)
	}
	for what, fds := range map[string][]int{"none": nil, "one": {memory}, "three": {memory, memory, memory}, "a pipe": {memory, pipe[0]}, "253": many(memory, 253)} {
		send(t, daemon, encode(t, Attached{}), fds...)
		before := openDescriptors(t)
		if p, files, err := ReceiveReply(client); !isProtocol(err) {
			t.Errorf("ATTACHED with %s: %v, %v, %v", what, p, files, err)
		}
		if after := openDescriptors(t); after != before {
			t.Errorf("ATTACHED with %s: %d descriptors were open before, %d after", what, before, after)
		}
	}
}

func many(fd, n int) []int {
	fds := make([]int, n)
	for i := range fds {
		fds[i] = fd
	}
	return fds
}

func TestOversizedPacketsAreRefused(t *testing.T) {
	client, daemon := pair(t)
	for _, n := range []int{513, MaxPacket + 1, 100_000} {
		b := make([]byte, n)
		copy(b, encode(t, Ready{}))
		wire(b).setU32(4, uint32(n))
		send(t, client, b)
		if _, _, err := ReceiveRequest(daemon, true); !isProtocol(err) {
			t.Errorf("a request of %d bytes: %v", n, err)
		}
		send(t, daemon, b)
		if _, _, err := ReceiveReply(client); !isProtocol(err) {
			t.Errorf("a reply of %d bytes: %v", n, err)
		}
	}
}

func TestAHangUpIsTheEnd(t *testing.T) {
	client, daemon := pair(t)
	client.Close()
	if _, _, err := ReceiveRequest(daemon, true); err != io.EOF {
		t.Errorf("after a hang-up: %v", err)
	}
	// One that left replies unread is a reset to the kernel.
	client, daemon = pair(t)
	if err := Send(daemon, Detached{}); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if _, _, err := ReceiveRequest(daemon, false); err != io.EOF {
		t.Errorf("after a hang-up with a reply unread: %v", err)
	}
	// A packet without bytes cannot be told from a hang-up, and its descriptors are closed.
	client, daemon = pair(t)
	before := openDescriptors(t)
	sendEmpty(t, client, int(memfd(t, "").Fd()))
	if _, _, err := ReceiveRequest(daemon, true); !errors.Is(err, io.EOF) {
		t.Errorf("an empty packet: %v", err)
	}
	if after := openDescriptors(t); after != before+1 { // the memfd
		t.Errorf("%d descriptors were open before, %d after", before, after)
	}
}

// sendEmpty sends a packet of no bytes; Go's own calls add one.
func sendEmpty(t *testing.T, c *net.UnixConn, fd int) {
	t.Helper()
	oob := unix.UnixRights(fd)
	message := unix.Msghdr{Control: &oob[0]}
	message.SetControllen(len(oob))
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(socket uintptr) {
		if _, _, errno := unix.Syscall(unix.SYS_SENDMSG, socket, uintptr(unsafe.Pointer(&message)), 0); errno != 0 {
			t.Error(errno)
		}
	})
}

func TestReceivingKeepsTheDeadline(t *testing.T) {
	_, daemon := pair(t)
	daemon.SetReadDeadline(time.Now().Add(-time.Second))
	if _, _, err := ReceiveRequest(daemon, true); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
