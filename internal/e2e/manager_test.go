//go:build linux

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// manager does what a service manager does: it holds the sockets, and is told how the daemon is. See sd_listen_fds(3)
// and sd_notify(3).
type manager struct {
	dir    string
	notify string // the socket at which it is told
	files  []*os.File
	names  []string

	mu   sync.Mutex // guards told
	told []string   // assignments, in order
}

// manage makes a manager that has no sockets yet.
func manage(t *testing.T) *manager {
	t.Helper()
	m := &manager{dir: shortDir(t)}
	m.notify = filepath.Join(m.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		buffer, rights := make([]byte, 8<<10), make([]byte, 1<<10)
		for {
			n, oob, _, _, err := conn.ReadMsgUnix(buffer, rights)
			if err != nil {
				return
			}
			closeRights(rights[:oob])
			m.mu.Lock()
			m.told = append(m.told, strings.Split(strings.TrimSuffix(string(buffer[:n]), "\n"), "\n")...)
			m.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		conn.Close()
		reading.Wait()
		for _, f := range m.files {
			f.Close()
		}
	})
	return m
}

// closeRights closes descriptors that came with a message.
func closeRights(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}
}

// give adds a file to those that the daemon gets.
func (m *manager) give(t *testing.T, name string, f *os.File, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	m.files, m.names = append(m.files, f), append(m.names, name)
}

// listen makes the sockets that a daemon is given, and returns the address of that for TCP.
func (m *manager) listen(t *testing.T) (tcp string) {
	t.Helper()
	for network, path := range map[string]string{"unix": "s", "unixpacket": "attach.sock"} {
		l, err := net.ListenUnix(network, &net.UnixAddr{Name: filepath.Join(m.dir, path), Net: network})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		m.give(t, "ipcd.socket", f, err)
		l.Close()
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	m.give(t, "ipcd.socket", f, err)
	return l.Addr().String()
}

// launch starts a daemon with what was given, and waits for nothing. environment is more of it.
func (m *manager) launch(t *testing.T, environment []string, arguments ...string) *daemon {
	t.Helper()
	return launchWith(t, m.dir, func(cmd *exec.Cmd) {
		through(cmd, "export LISTEN_PID=$$")
		cmd.ExtraFiles = m.files
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.notify, "LISTEN_FDS="+strconv.Itoa(len(m.files)), "LISTEN_FDNAMES="+strings.Join(m.names, ":"))
		cmd.Env = append(cmd.Env, environment...)
	}, arguments...)
}

// count returns how often something was told since the n-th assignment.
func (m *manager) count(since int, begins string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.told[since:] {
		if strings.HasPrefix(s, begins) {
			n++
		}
	}
	return n
}

// until returns how many assignments there are.
func (m *manager) until() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.told)
}

// await waits until something was told n times since an assignment.
func (m *manager) await(t *testing.T, since, n int, begins string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is told %d times", begins, n), func() bool { return m.count(since, begins) >= n })
}
