package service

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// asChild makes the test program a process that inherits, and tells what.
const asChild = "SERVICE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

// report is what a child says of what it has inherited.
type report struct {
	Err               string
	Unix, Attach, TCP []string // addresses
	Stored            []string // names, and what is in the files
	OpenOnExec        []string // descriptors that a child of its own would have
	Left              []string // variables that are still there
}

func child() {
	var r report
	s, err := Inherit()
	if err != nil {
		r.Err = err.Error()
	}
	for _, l := range s.Unix {
		r.Unix = append(r.Unix, answer(l))
	}
	for _, l := range s.Attach {
		r.Attach = append(r.Attach, answer(l))
	}
	for _, l := range s.TCP {
		r.TCP = append(r.TCP, answer(l))
	}
	for _, f := range s.Stored {
		b := make([]byte, 100)
		n, _ := f.File.ReadAt(b, 0)
		r.Stored = append(r.Stored, f.Name+"="+string(b[:n]))
	}
	for fd := 3; fd < 8 && err == nil; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			what, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			r.OpenOnExec = append(r.OpenOnExec, what)
		}
	}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "LISTEN_") {
			r.Left = append(r.Left, v)
		}
	}
	s.Close()
	json.NewEncoder(os.Stdout).Encode(r)
}

// answer accepts the connection that waits, and answers it.
func answer(l net.Listener) string {
	c, err := l.Accept()
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err := c.Write([]byte("served")); err != nil {
		return err.Error()
	}
	return l.Addr().Network()
}

// inherit runs a child with files from descriptor 3 on. environment is evaluated by a shell: $$ is the child's pid.
func inherit(t *testing.T, environment string, files ...*os.File) report {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/bin/sh", "-c", environment+` exec "$0"`, self)
	c.Env = append(os.Environ(), asChild+"=1", "GORACE=atexit_sleep_ms=0")
	c.ExtraFiles = files
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(r.Left) != 0 {
		t.Errorf("left in the environment: %v", r.Left)
	}
	return r
}

// listener is a socket that listens, as a file.
func listener(t *testing.T, network, address string) (f *os.File, at string) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err = l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, l.Addr().String()
}

// memory is a file as the daemon stores them.
func memory(t *testing.T, content string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
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

// pipe is a file that is neither a socket nor stored.
func pipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r
}

func TestSocketsAndStoredFilesAreInherited(t *testing.T) {
	dir := t.TempDir()
	stream, streamAt := listener(t, "unix", filepath.Join(dir, "s"))
	packet, packetAt := listener(t, "unixpacket", filepath.Join(dir, "a"))
	tcp4, tcp4At := listener(t, "tcp", "127.0.0.1:0")
	var replies []func() string
	for _, to := range [][2]string{{"unix", streamAt}, {"unixpacket", packetAt}, {"tcp", tcp4At}} {
		c, err := net.Dial(to[0], to[1]) // it waits in the queue of the socket
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		replies = append(replies, func() string {
			b := make([]byte, 100)
			n, _ := c.Read(b)
			return string(b[:n])
		})
	}
	r := inherit(t, `LISTEN_PID=$$ LISTEN_FDS=5 LISTEN_FDNAMES=ipcd.socket:stored-ring.1:ipcd.socket::stored-x LISTEN_PIDFDID=1`+"; export LISTEN_PID LISTEN_FDS LISTEN_FDNAMES LISTEN_PIDFDID;",
		stream, memory(t, "one"), tcp4, packet, memory(t, "two"))
	if r.Err != "" || fmt.Sprint(r.Unix, r.Attach, r.TCP) != "[unix] [unixpacket] [tcp]" {
		t.Errorf("%+v", r)
	}
	if fmt.Sprint(r.Stored) != "[ring.1=one x=two]" {
		t.Errorf("stored: %v", r.Stored)
	}
	if len(r.OpenOnExec) != 0 {
		t.Errorf("a child would have %v", r.OpenOnExec)
	}
	for i, reply := range replies {
		if got := reply(); got != "served" {
			t.Errorf("connection %d: %q", i, got)
		}
	}
	for _, path := range []string{streamAt, packetAt} {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("the name of a socket of the service manager is gone: %v", err)
		}
	}
}

func TestWhatIsForOthersIsLeftAlone(t *testing.T) {
	f := pipe(t)
	for _, environment := range []string{
		"",
		"export LISTEN_PID=1 LISTEN_FDS=1;",
		"export LISTEN_FDS=1;",
		"export LISTEN_PID=$$;",
		"export LISTEN_PID=$$ LISTEN_FDS=0;",
		"export LISTEN_PID=x LISTEN_FDS=1;",
		"export LISTEN_PID= LISTEN_FDS=x;",
	} {
		if r := inherit(t, environment, f); r.Err != "" || len(r.Unix)+len(r.Attach)+len(r.TCP)+len(r.Stored) != 0 {
			t.Errorf("%s: %+v", environment, r)
		}
	}
}

func TestWhatCanNotBeServedIsAnError(t *testing.T) {
	dir := t.TempDir()
	good, _ := listener(t, "unix", filepath.Join(dir, "s"))
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "d")})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	datagram, err := packets.File()
	if err != nil {
		t.Fatal(err)
	}
	defer datagram.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	deaf, other := os.NewFile(uintptr(pair[0]), "deaf"), os.NewFile(uintptr(pair[1]), "other")
	defer deaf.Close()
	defer other.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for what, c := range map[string]struct {
		count string
		files []*os.File
		words []string
	}{
		"a pipe":                 {"2", []*os.File{good, pipe(t)}, []string{"descriptor 4", `name "fifo.socket"`, "no socket but pipe:[", "ListenSequentialPacket"}},
		"a file":                 {"1", []*os.File{null}, []string{"descriptor 3", "/dev/null"}},
		"memory of another name": {"1", []*os.File{memory(t, "")}, []string{"descriptor 3", "memfd"}},
		"a datagram socket":      {"1", []*os.File{datagram}, []string{"descriptor 3", "type 2"}},
		"a connection":           {"1", []*os.File{deaf}, []string{"descriptor 3", "does not listen"}},
		"more than there are":    {"60", []*os.File{good}, []string{"descriptor 4"}},
		"far too many":           {"2000000000", []*os.File{good}, []string{"descriptor 4"}},
		"no number":              {"x", []*os.File{good}, []string{`LISTEN_FDS is "x"`}},
		"a negative number":      {"-1", []*os.File{good}, []string{`LISTEN_FDS is "-1"`}},
		"no number of this size": {"99999999999999999999", []*os.File{good}, []string{"LISTEN_FDS"}},
	} {
		r := inherit(t, "export LISTEN_PID=$$ LISTEN_FDS="+c.count+" LISTEN_FDNAMES=ipcd.socket:fifo.socket;", c.files...)
		for _, word := range c.words {
			if !strings.Contains(r.Err, word) {
				t.Errorf("%s: %q does not say %q", what, r.Err, word)
			}
		}
		if len(r.Unix)+len(r.Attach)+len(r.TCP)+len(r.Stored) != 0 {
			t.Errorf("%s: and yet something was taken: %+v", what, r)
		}
	}
}
