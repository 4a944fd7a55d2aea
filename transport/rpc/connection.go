package rpc

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
)

// connection is an accepted connection: who is at its other end, what is charged for it, and what it does.
//
//	accepted ──> identified ──> left       charged from identified to left, and listed
//	    │             └── over a quota: every call is answered so, and soon it is closed
//	    └── handshake failed, too slow, or given up for another: left
type connection struct {
	net.Conn
	all       *connections
	id        uint64 // never that of another connection of this run
	door      string // "unix" or "tcp"
	connected time.Time
	ready     readyReader

	// Set by identify, and fixed from then on.
	who     identity.Identity
	command string         // the name of its process, "" if unknown
	account *quota.Account // nil: nothing is charged
	refused error          // what every call is answered with, or nil
	peer    *tlsPeer       // nil: no TLS
	holder  *holder        // of what it has coming in
	framed  *framed        // as gRPC reads it

	userAgent atomic.Pointer[string] // nil until the first call
	ended     atomic.Uint64          // calls that have ended

	mu    sync.Mutex         // guards calls, and of each what is said to be so guarded
	calls map[*call]struct{} // under way

	held     atomic.Int64        // bytes that are coming in; see incoming.go
	arriving sync.Mutex          // guards arrivals, and what is in them
	arrivals map[uint32]*arrival // of the calls that gRPC has begun, by stream; nil: it was cut off

	// Guarded by all.mu.
	identified bool
	left       bool
	timer      *time.Timer // closes it: it is over a quota, or its certificate may have expired
}

// Close closes the connection, and gives back what it was charged.
func (c *connection) Close() error {
	err := c.Conn.Close()
	c.all.leave(c)
	c.letGo()
	return err
}

// newConnection prepares an accepted connection.
func newConnection(conn net.Conn, all *connections, door string, now time.Time) *connection {
	c := &connection{Conn: conn, all: all, door: door, connected: now, calls: map[*call]struct{}{}, arrivals: map[uint32]*arrival{}}
	if s, ok := conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			c.ready = readyReader{raw: raw}
			c.ready.read = c.ready.readOnce
		}
	}
	return c
}

// readyReader reads from a socket. What would be locals are fields, so that a read allocates nothing.
type readyReader struct {
	raw    syscall.RawConn
	read   func(fd uintptr) bool
	size   int
	pool   mem.BufferPool
	buffer *[]byte
	n      int
	err    error
}

func (r *readyReader) next(size int, pool mem.BufferPool) (*[]byte, int, error) {
	r.size, r.pool = size, pool
	err := r.raw.Read(r.read)
	if err == nil {
		err = r.err
	}
	buffer, n := r.buffer, r.n
	r.pool, r.buffer, r.n, r.err = nil, nil, 0, nil
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil && buffer != nil {
		pool.Put(buffer)
		buffer = nil
	}
	return buffer, n, err
}

// readOnce reports whether there was anything: bytes, the end, or an error.
func (r *readyReader) readOnce(fd uintptr) bool {
	buffer := r.pool.Get(r.size)
	n, err := syscall.Read(int(fd), *buffer)
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), *buffer)
	}
	if err != nil {
		r.pool.Put(buffer)
		if err == syscall.EAGAIN {
			return false
		}
		r.err = os.NewSyscallError("read", err)
		return true
	}
	r.buffer, r.n = buffer, n
	return true
}
