package service

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

const (
	statusBytes = 1024        // of a status line; the service manager takes messages of up to 4096
	sendTimeout = time.Second // for a service manager that does not read what it is told
)

// Manager is the service manager. One without a socket does nothing, without an error. It is safe for concurrent use.
type Manager struct {
	address  string // NOTIFY_SOCKET; "": there is none
	watchdog time.Duration

	mu   sync.Mutex    // guards conn, not its use
	conn *net.UnixConn // kept, so that descriptors that have run out do not look like a hang; nil: to be made
}

// Connect returns the manager that the environment names, and clears what it says: no child is to speak for this
// process. It is called once.
func Connect() *Manager {
	m := &Manager{address: os.Getenv("NOTIFY_SOCKET")}
	os.Unsetenv("NOTIFY_SOCKET")
	interval, err := daemon.SdWatchdogEnabled(true)
	if err == nil && m.address != "" {
		m.watchdog = interval
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.dialLocked() // or when there is something to say
	return m
}

// dialLocked connects, unless there is a connection or no manager.
func (m *Manager) dialLocked() error {
	if m.conn != nil || m.address == "" {
		return nil
	}
	if m.address[0] != '/' && m.address[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET is %.200q: it must be an absolute path, or @ and an abstract name", m.address)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: m.address})
	if err != nil {
		return fmt.Errorf("connect to the service manager: %w", err)
	}
	m.conn = c
	return nil
}

// Ready says that the service serves, also after Reloading.
func (m *Manager) Ready() error { return m.send(daemon.SdNotifyReady, nil) }

// Stopping says that the service has begun to stop.
func (m *Manager) Stopping() error { return m.send(daemon.SdNotifyStopping, nil) }

// Reloading says that the service reads its configuration again. Ready follows.
func (m *Manager) Reloading() error {
	return m.send(daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec(), nil)
}

// Alive is to be called at least once in each WatchdogInterval, and better twice.
func (m *Manager) Alive() error { return m.send(daemon.SdNotifyWatchdog, nil) }

// WatchdogInterval is how long the service may be silent before it is killed; 0: for ever.
func (m *Manager) WatchdogInterval() time.Duration { return m.watchdog }

// Extend says that starting or stopping takes longer: it may take d from now on.
func (m *Manager) Extend(d time.Duration) error {
	return m.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", max(d, 0).Microseconds()), nil)
}

// Status shows people a line of text.
func (m *Manager) Status(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	text = strings.ToValidUTF8(text[:min(len(text), statusBytes)], "")
	text = strings.Map(func(c rune) rune {
		if c < ' ' { // a line break would begin another assignment
			return ' '
		}
		return c
	}, text)
	return m.send("STATUS="+text, nil)
}

// Store has the manager keep a file over a restart of the service, or a crash. Inherit returns it then, under the same
// name. The manager may refuse, for instance beyond FileDescriptorStoreMax, and does not say so. The file stays the
// caller's.
func (m *Manager) Store(name string, f *os.File) error {
	if err := checkName(name); err != nil {
		return err
	}
	// Without FDPOLL=0 it would drop what it finds to be hung up.
	return m.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+storedPrefix+name, f)
}

// Discard has the manager close what it keeps under that name.
func (m *Manager) Discard(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return m.send("FDSTOREREMOVE=1\nFDNAME="+storedPrefix+name, nil)
}

// send sends a message, with a file or without.
func (m *Manager) send(message string, f *os.File) error {
	if m.address == "" {
		return nil
	}
	err := m.try(message, f)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, net.ErrClosed) { // it was started anew
		m.disconnect()
		err = m.try(message, f)
	}
	return err
}

// Close lets go of the manager's socket. Messages make a connection again.
func (m *Manager) Close() { m.disconnect() }

func (m *Manager) disconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		m.conn.Close()
		m.conn = nil
	}
}

// try sends a message once.
func (m *Manager) try(message string, f *os.File) error {
	m.mu.Lock()
	err := m.dialLocked()
	conn := m.conn
	m.mu.Unlock()
	if err != nil {
		return err
	}
	what, _, _ := strings.Cut(message, "\n")
	if err := conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("tell the service manager %.40s: %w", what, err)
	}
	if f == nil {
		_, err = conn.Write([]byte(message))
	} else {
		err = sendFile(conn, message, f)
	}
	if err != nil {
		return fmt.Errorf("tell the service manager %.40s: %w", what, err)
	}
	return nil
}

// sendFile sends a message with a descriptor, see SCM_RIGHTS in unix(7).
func sendFile(conn *net.UnixConn, message string, f *os.File) error {
	file, err := f.SyscallConn()
	if err != nil {
		return err
	}
	socket, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var writeErr, sendErr error
	// Under Control the descriptor cannot be closed meanwhile.
	err = file.Control(func(fd uintptr) {
		rights := unix.UnixRights(int(fd))
		writeErr = socket.Write(func(to uintptr) bool {
			sendErr = unix.Sendmsg(int(to), []byte(message), rights, nil, unix.MSG_NOSIGNAL)
			return sendErr != unix.EAGAIN // else it is called again when there is room
		})
	})
	return cmp.Or(err, writeErr, sendErr)
}
