package service

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// notified is a service manager that is told things.
type notified struct {
	*testing.T
	conn *net.UnixConn
}

func listenAt(t *testing.T, address string) *notified {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: address})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &notified{t, c}
}

// next returns a message, and the file that came with it, or nil.
func (n *notified) next() (string, *os.File) {
	n.Helper()
	message, control := make([]byte, 8192), make([]byte, 1024)
	size, controlSize, flags, _, err := n.conn.ReadMsgUnix(message, control)
	if err != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		n.Fatalf("flags %#x, %v", flags, err)
	}
	if size > 4096 {
		n.Errorf("a message of %d bytes: a service manager takes 4096", size)
	}
	var file *os.File
	parts, err := unix.ParseSocketControlMessage(control[:controlSize])
	if err != nil {
		n.Fatal(err)
	}
	for _, part := range parts {
		rights, err := unix.ParseUnixRights(&part)
		if err != nil || len(rights) != 1 || file != nil {
			n.Fatalf("%v, %v", rights, err)
		}
		file = os.NewFile(uintptr(rights[0]), "received")
		n.Cleanup(func() { file.Close() })
	}
	return string(message[:size]), file
}

// says fails unless that is the next message.
func (n *notified) says(want string, err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
	if got, f := n.next(); got != want || f != nil {
		n.Errorf("%q, file %v; want %q", got, f, want)
	}
}

func connect(t *testing.T, address string) *Manager {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", address)
	m := Connect()
	t.Cleanup(m.Close)
	if v, set := os.LookupEnv("NOTIFY_SOCKET"); set {
		t.Errorf("NOTIFY_SOCKET is still %q", v)
	}
	return m
}

func TestManagerIsTold(t *testing.T) {
	for _, address := range []string{filepath.Join(t.TempDir(), "notify"), "@ipcd-service-test-" + strconv.Itoa(os.Getpid())} {
		n := listenAt(t, address)
		m := connect(t, address)
		n.says("READY=1", m.Ready())
		n.says("STOPPING=1", m.Stopping())
		n.says("WATCHDOG=1", m.Alive())
		n.says("EXTEND_TIMEOUT_USEC=2500000", m.Extend(2500*time.Millisecond))
		n.says("EXTEND_TIMEOUT_USEC=0", m.Extend(-time.Second))
		n.says("STATUS=3 queues", m.Status("%d queues", 3))
		n.says("STATUS=a READY=1 b", m.Status("a\nREADY=1\rb"))
		n.says("STATUS="+strings.Repeat("x", statusBytes-1), m.Status("%sä", strings.Repeat("x", statusBytes-1)))
		if err := m.Reloading(); err != nil {
			t.Fatal(err)
		}
		got, _ := n.next()
		lines := strings.Split(strings.TrimSpace(got), "\n")
		if len(lines) != 2 || lines[0] != "RELOADING=1" {
			t.Fatalf("%q", got)
		}
		if micros, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "MONOTONIC_USEC="), 10, 64); err != nil || micros <= 0 {
			t.Errorf("%q: %v", got, err)
		}
	}
}

func TestFilesAreStoredAndDiscarded(t *testing.T) {
	for _, address := range []string{filepath.Join(t.TempDir(), "notify"), "@ipcd-service-store-" + strconv.Itoa(os.Getpid())} {
		n := listenAt(t, address)
		m := connect(t, address)
		f := memory(t, "content")
		if err := m.Store("ring.1.2", f); err != nil {
			t.Fatal(err)
		}
		got, received := n.next()
		if got != "FDSTORE=1\nFDPOLL=0\nFDNAME=stored-ring.1.2" || received == nil {
			t.Fatalf("%q, file %v", got, received)
		}
		mine, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if theirs, err := received.Stat(); err != nil || !os.SameFile(mine, theirs) {
			t.Errorf("another file was stored: %v", err)
		}
		n.says("FDSTOREREMOVE=1\nFDNAME=stored-ring.1.2", m.Discard("ring.1.2"))
	}
}

func TestNamesOfStoredFilesAreChecked(t *testing.T) {
	n := listenAt(t, filepath.Join(t.TempDir(), "notify"))
	m := connect(t, n.conn.LocalAddr().String())
	f := memory(t, "")
	longest := strings.Repeat("x", fdNameBytes-len(storedPrefix))
	for _, name := range []string{"", "a:b", "a\nFDNAME=b", "ä", "\x7f", longest + "x"} {
		for _, err := range []error{m.Store(name, f), m.Discard(name)} {
			if err == nil || !strings.Contains(err.Error(), "no colon") {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	n.says("FDSTOREREMOVE=1\nFDNAME=stored-"+longest, m.Discard(longest)) // and nothing before
	f.Close()
	if err := m.Store("closed", f); err == nil {
		t.Error("a closed file was stored")
	}
}

func TestWithoutManagerNothingHappens(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "1000000")
	for _, m := range []*Manager{connect(t, ""), {}} {
		for i, err := range []error{m.Ready(), m.Stopping(), m.Reloading(), m.Status("x"), m.Extend(1), m.Alive(), m.Store("x", memory(t, "")), m.Discard("x")} {
			if err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
		if d := m.WatchdogInterval(); d != 0 {
			t.Errorf("a watchdog of %v", d)
		}
	}
}

func TestWatchdogIsThisProcesss(t *testing.T) {
	address := listenAt(t, filepath.Join(t.TempDir(), "notify")).conn.LocalAddr().String()
	for _, c := range []struct {
		micros, pid string
		want        time.Duration
	}{
		{"2500000", strconv.Itoa(os.Getpid()), 2500 * time.Millisecond},
		{"2500000", "", 2500 * time.Millisecond},
		{"2500000", "1", 0},
		{"", "", 0},
		{"0", "", 0},
		{"-1", "", 0},
		{"soon", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.micros)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := connect(t, address).WatchdogInterval(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %v", c.micros, c.pid, got, c.want)
		}
		if v, set := os.LookupEnv("WATCHDOG_USEC"); set {
			t.Errorf("WATCHDOG_USEC is still %q", v)
		}
	}
}

func TestManagerThatIsStartedAnewIsToldAgain(t *testing.T) {
	address := filepath.Join(t.TempDir(), "notify")
	first := listenAt(t, address)
	m := connect(t, address)
	first.says("READY=1", m.Ready())
	first.conn.Close()
	if err := m.Alive(); err == nil {
		t.Error("nobody was there to be told")
	}
	if err := os.Remove(address); err != nil {
		t.Fatal(err)
	}
	second := listenAt(t, address)
	second.says("WATCHDOG=1", m.Alive())
}

func TestManagerThatDoesNotReadDoesNotHangTheService(t *testing.T) {
	n := listenAt(t, filepath.Join(t.TempDir(), "notify"))
	m := connect(t, n.conn.LocalAddr().String())
	for range 1 << 20 {
		if err := m.Alive(); err != nil {
			if !strings.Contains(err.Error(), "WATCHDOG=1") {
				t.Error(err)
			}
			return
		}
	}
	t.Error("a queue of a million messages")
}

func TestSenselessAddressIsAnError(t *testing.T) {
	for _, address := range []string{"notify", "vsock:2:1234", "/" + strings.Repeat("x", 200)} {
		if err := connect(t, address).Ready(); err == nil {
			t.Errorf("%.20s: no error", address)
		}
	}
}
