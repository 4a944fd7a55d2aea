package posixmq

import (
	"errors"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The bounds that no privilege lifts: HARD_MSGMAX and HARD_MSGSIZEMAX of the kernel, mq_overview(7).
const (
	hardMaxMessages = 65536
	hardMessageSize = 16 << 20
)

// MQ is an open kernel message queue. Its descriptor is non-blocking and parks goroutines, not threads.
// Methods may be called concurrently, but only one goroutine may be in Await at a time in each
// direction. After Close they return os.ErrClosed.
type MQ struct {
	name        string // with its slash
	maxMessages int
	messageSize int // bytes
	file        *os.File
	conn        rawConn
}

// rawConn is what MQ uses of syscall.RawConn.
type rawConn interface {
	Control(f func(fd uintptr)) error
	Read(f func(fd uintptr) bool) error
	Write(f func(fd uintptr) bool) error
}

// Geometry is the shape of a kernel queue.
type Geometry struct {
	MaxMessages int // mq_maxmsg
	MessageSize int // mq_msgsize, in bytes
}

// Stat is what the kernel says of the object, beyond its contents.
type Stat struct {
	Inode    uint64
	Linked   bool // its name still stands: nobody has unlinked it
	UID, GID uint32
	Mode     uint32 // permission bits
	Mark     int64  // modification time in seconds: see MQ.Mark
}

// attributes is struct mq_attr of <linux/mqueue.h>: eight longs.
type attributes struct {
	flags, maxMessages, messageSize, current int
	_                                        [4]int
}

// Create makes a kernel queue that only its maker may use. It fails with unix.EEXIST if the name is
// taken by whomsoever; other errors are explained by Explain.
func Create(name string, g Geometry) (*MQ, error) {
	return open(name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, &attributes{maxMessages: g.MaxMessages, messageSize: g.MessageSize})
}

// Open opens a kernel queue that exists, to send and to receive. It changes nothing.
func Open(name string) (*MQ, error) {
	return open(name, unix.O_RDWR, nil)
}

// Inspect opens a kernel queue that exists for Stat, Attributes and Unlink. It changes nothing.
func Inspect(name string) (*MQ, error) {
	m, err := open(name, unix.O_RDONLY, nil)
	if err == unix.EACCES { // an in door of ours may have no read bits left
		m, err = open(name, unix.O_WRONLY, nil)
	}
	return m, err
}

func open(name string, flags int, a *attributes) (*MQ, error) {
	path, err := kernelName(name)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK stands before os.NewFile, which then registers the descriptor with the netpoller. The
	// mode is narrowed by the umask, which takes nothing that the descriptor itself would need.
	var fd uintptr
	err = retry(func() (e unix.Errno) {
		fd, _, e = unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(path)), uintptr(flags|unix.O_NONBLOCK|unix.O_CLOEXEC), 0o600, uintptr(unsafe.Pointer(a)), 0, 0)
		return e
	})
	if err != nil {
		return nil, err
	}
	m := &MQ{name: name, file: os.NewFile(fd, "mqueue:"+name)}
	if m.conn, err = m.file.SyscallConn(); err == nil {
		var now attributes
		now, err = m.attributes()
		m.maxMessages, m.messageSize = now.maxMessages, now.messageSize
	}
	if err != nil {
		m.file.Close()
		return nil, err
	}
	return m, nil
}

// kernelName is the name as the system calls want it: without the slash that the C library takes off.
func kernelName(name string) (*byte, error) {
	if len(name) < 2 || name[0] != '/' {
		return nil, unix.EINVAL
	}
	return unix.BytePtrFromString(name[1:])
}

// retry calls f again when a signal interrupted it.
func retry(f func() unix.Errno) error {
	for {
		if e := f(); e == 0 {
			return nil
		} else if e != unix.EINTR {
			return e
		}
	}
}

// control calls f with the descriptor.
func (m *MQ) control(f func(fd uintptr) unix.Errno) error {
	var err error
	if closed := m.conn.Control(func(fd uintptr) { err = retry(func() unix.Errno { return f(fd) }) }); closed != nil {
		return os.ErrClosed
	}
	return err
}

// Name returns the name with its slash.
func (m *MQ) Name() string { return m.name }

// Geometry returns the shape, which a kernel queue keeps for life.
func (m *MQ) Geometry() Geometry { return Geometry{m.maxMessages, m.messageSize} }

func (m *MQ) attributes() (a attributes, err error) {
	err = m.control(func(fd uintptr) unix.Errno { return getAttributes(fd, &a) })
	return a, err
}

func getAttributes(fd uintptr, a *attributes) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_MQ_GETSETATTR, fd, 0, uintptr(unsafe.Pointer(a)))
	return e
}

// Current returns how many messages the kernel queue holds.
func (m *MQ) Current() (int, error) {
	a, err := m.attributes()
	return a.current, err
}

// Stat returns what the kernel says of the object.
func (m *MQ) Stat() (Stat, error) {
	var st unix.Stat_t
	err := m.control(func(fd uintptr) unix.Errno { return errno(unix.Fstat(int(fd), &st)) })
	return Stat{Inode: st.Ino, Linked: st.Nlink > 0, UID: st.Uid, GID: st.Gid, Mode: st.Mode & 0o777, Mark: int64(st.Mtim.Sec)}, err
}

func errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// Mark sets the modification time to so many seconds since 1970. It stays until the first message is
// sent, and so tells an object that its maker had no time to write down from anybody else's.
func (m *MQ) Mark(seconds int64) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: seconds}}
	return m.control(func(fd uintptr) unix.Errno {
		_, _, e := unix.Syscall6(unix.SYS_UTIMENSAT, fd, 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
		return e
	})
}

// Chmod sets the permission bits, whatever the umask.
func (m *MQ) Chmod(mode uint32) error {
	return m.control(func(fd uintptr) unix.Errno { return errno(unix.Fchmod(int(fd), mode)) })
}

// Chown sets owner and group; -1 leaves one as it is.
func (m *MQ) Chown(uid, gid int) error {
	return m.control(func(fd uintptr) unix.Errno { return errno(unix.Fchown(int(fd), uid, gid)) })
}

// Send puts a message in without waiting; unix.EAGAIN if the kernel queue is full.
func (m *MQ) Send(body []byte, priority uint16) error {
	p := unsafe.Pointer(unsafe.SliceData(body))
	err := m.control(func(fd uintptr) unix.Errno {
		_, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDSEND, fd, uintptr(p), uintptr(len(body)), uintptr(priority), 0, 0)
		return e
	})
	return err
}

// Receive takes the first message without waiting; unix.EAGAIN if there is none. The buffer must have
// at least the kernel queue's message size.
func (m *MQ) Receive(buffer []byte) (n int, priority uint16, err error) {
	p := unsafe.Pointer(unsafe.SliceData(buffer))
	var prio uint32
	err = m.control(func(fd uintptr) unix.Errno {
		r, _, e := unix.Syscall6(unix.SYS_MQ_TIMEDRECEIVE, fd, uintptr(p), uintptr(len(buffer)), uintptr(unsafe.Pointer(&prio)), 0, 0)
		n = int(r)
		return e
	})
	if err != nil {
		n = 0
	}
	return n, uint16(prio), err
}

// AwaitMessages waits until the kernel queue holds messages and returns how many, or until a deadline
// that SetDeadline set.
func (m *MQ) AwaitMessages() (int, error) {
	return m.await(m.conn.Read, func(current int) bool { return current > 0 })
}

// AwaitCount waits until ready is true of the number of messages that the kernel queue holds, and
// returns that number. ready is asked first, and again whenever a message has left: the kernel wakes
// the descriptor on every mq_receive that leaves room, whoever made it. It may be asked more often.
func (m *MQ) AwaitCount(ready func(current int) bool) (int, error) {
	return m.await(m.conn.Write, ready)
}

func (m *MQ) await(wait func(func(fd uintptr) bool) error, ready func(int) bool) (int, error) {
	var a attributes
	var failed error
	// The callback runs before the first wait, and readiness that came since counts: no wake-up is lost
	// though the netpoller's readiness is edge-triggered.
	err := wait(func(fd uintptr) bool {
		failed = retry(func() unix.Errno { return getAttributes(fd, &a) })
		return failed != nil || ready(a.current)
	})
	switch {
	case err == nil:
		err = failed
	case !errors.Is(err, os.ErrDeadlineExceeded):
		err = os.ErrClosed // all else that a netpoller wait ends with
	}
	return a.current, err
}

// SetDeadline ends waits at t; the zero time lifts it.
func (m *MQ) SetDeadline(t time.Time) error { return m.file.SetDeadline(t) }

// Unlink removes the name if it still stands for this object. A kernel queue can be neither renamed
// nor linked, so an object that is linked is the one that its name leads to. Between looking and
// unlinking somebody could put another in its place; that takes the right to unlink ours (its owner or
// root, as the kernel's directory of queues is sticky) and some microseconds' luck: where the process owns
// the object, root's. ours is false if the name was not ours to unlink, or if that happened after all.
func (m *MQ) Unlink() (ours bool, err error) {
	st, err := m.Stat()
	if err != nil || !st.Linked {
		return false, err
	}
	path, err := kernelName(m.name)
	if err != nil {
		return false, err
	}
	err = retry(func() unix.Errno {
		_, _, e := unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(path)), 0, 0)
		return e
	})
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	st, err = m.Stat()
	return !st.Linked, err
}

// Close closes the descriptor, waking whoever waits on it. The kernel object stays.
func (m *MQ) Close() error { return m.file.Close() }
