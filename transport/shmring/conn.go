package shmring

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/transport"
)

// errHungUp is why a connection ends when the peer closed it.
var errHungUp = errors.New("the connection was closed")

// conn is one connection. Everything but its context and doing belongs to the goroutine handle.
type conn struct {
	server *Server
	sock   *net.UnixConn
	id     identity.Identity
	pidfd  *os.File // nil: the process cannot be watched

	ctx    context.Context // ends when the peer is gone or the server stops; its cause says why
	cancel context.CancelCauseFunc

	requests chan request  // from read to handle
	readEnd  chan struct{} // closed when read has returned
	files    int           // descriptors that were sent and, for all we know, not taken
	adopted  bool          // it came with ADOPT
	doing    doing
}

// request is what read hands to handle.
type request struct {
	packet attach.Request
	memory *os.File // of an Adopt; whoever receives the request closes it
	err    error    // instead of a packet
}

func (s *Server) newConn(sock *net.UnixConn, id identity.Identity, pidfd *os.File) *conn {
	c := &conn{server: s, sock: sock, id: id, pidfd: pidfd, requests: make(chan request), readEnd: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(s.stopping)
	c.doing.command = transport.CommandOf(id.PID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastConn++
	c.doing.id, c.doing.connected = s.lastConn, time.Now()
	s.conns[c] = struct{}{}
	return c
}

// read reads packets until the connection ends. One may be read ahead, so that a hang-up is noticed
// while handle is busy.
func (c *conn) read() {
	defer close(c.readEnd)
	for first := true; ; first = false {
		packet, memory, err := attach.ReceiveRequest(c.sock, first)
		if errors.Is(err, io.EOF) {
			c.cancel(errHungUp)
			return
		}
		select {
		case c.requests <- request{packet, memory, err}:
		case <-c.ctx.Done():
			memory.Close() // nil is allowed
			return
		}
		if err != nil {
			return
		}
	}
}

// watch waits for the process to end.
func (c *conn) watch() {
	// Once handle has closed the pidfd nobody asks for the cause any more.
	c.cancel(awaitExit(c.pidfd))
}

// handle lives as long as the connection.
func (c *conn) handle() {
	// What the peer does not take, and an answer that is under way, must not hold up the end.
	unblocked := make(chan struct{})
	unblock := context.AfterFunc(c.ctx, func() {
		c.sock.SetDeadline(time.Unix(1, 0))
		close(unblocked)
	})
	err := c.talk()
	if !unblock() {
		<-unblocked
	}
	c.lastWord(err)
	if err != nil {
		c.server.log.Debug("attach connection ended", zap.Stringer("peer", c.id), zap.Error(err))
	}
	c.cancel(err)
	if c.pidfd != nil {
		c.pidfd.Close()
	}
	shut(c.sock)
	c.sock.SetDeadline(time.Unix(1, 0))
	c.linger()
	c.sock.Close()
	select {
	case <-c.readEnd:
	case <-c.server.stopping.Done():
	}
	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
	c.server.dismiss(c.id)
}

// linger waits until the peer has taken the descriptors that were sent to it, or has closed its end. Until
// then the kernel counts them against the daemon, so they are counted against the peer's uid.
func (c *conn) linger() {
	if c.files > 0 {
		c.awaitReceived(c.server.stopping)
		c.taken() // when the server stops, nobody asks for charges any more
	}
}

// awaitReceived waits until the peer has received all that was sent to it, or is not there any more. It
// reports whether that was before the context ended.
func (c *conn) awaitReceived(ctx context.Context) bool {
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, c.server.times.linger) {
		if n, err := unread(c.sock); err != nil || n == 0 {
			return true
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}

// taken gives the charge for the descriptors of the last reply back.
func (c *conn) taken() {
	if c.files > 0 {
		c.server.charges.releaseFiles(c.id.UID, c.files)
		c.files = 0
	}
}

// next waits for the next request, at most for the timeout; 0: for ever. over is an event that ends the
// waiting too, with errOver.
func (c *conn) next(timeout time.Duration, over <-chan struct{}, what string) (request, error) {
	var expired <-chan time.Time
	if timeout > 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case r := <-c.requests:
		if r.err != nil {
			return request{}, r.err
		}
		c.doing.served()
		return r, nil
	case <-c.ctx.Done():
		return request{}, context.Cause(c.ctx)
	case <-over:
		return request{}, errOver
	case <-expired:
		return request{}, reason.New(reason.TimedOut, "no %s came for %v; attach again", what, timeout)
	}
}

// send sends a reply and, if it has descriptors, waits until they were taken.
func (c *conn) send(p attach.Reply, files ...*os.File) error {
	if len(files) > 0 {
		if err := c.server.charges.takeFiles(c.ctx, c.id.UID, len(files)); err != nil {
			return err
		}
		c.files = len(files)
	}
	if err := c.write(p, files...); err != nil || len(files) == 0 {
		return err
	}
	r, err := c.next(c.server.times.got, nil, "GOT")
	if err != nil {
		return err
	}
	r.memory.Close()
	if _, ok := r.packet.(attach.Got); !ok {
		return attach.ProtocolError(r.packet.Kind().String() + " before the GOT that must follow a reply with descriptors")
	}
	// GOT is a claim; the kernel knows. Until it says so too they count.
	ctx, cancel := context.WithTimeout(c.ctx, c.server.times.got)
	defer cancel()
	if !c.awaitReceived(ctx) {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		return attach.ProtocolError("GOT for descriptors that were not received")
	}
	c.taken()
	return nil
}

// errSilent is a peer that does not take its replies.
var errSilent = errors.New("the peer does not take its replies")

// write sends one packet. The peer has the time that it has for GOT to make room.
func (c *conn) write(p attach.Reply, files ...*os.File) error {
	c.sock.SetWriteDeadline(time.Now().Add(c.server.times.got))
	if c.ctx.Err() != nil { // its deadline, which was set before or is set after this look, must stand
		c.sock.SetWriteDeadline(time.Unix(1, 0))
	}
	err := attach.Send(c.sock, p, files...)
	for until := time.Now().Add(c.server.times.got); errors.Is(err, unix.ETOOMANYREFS) && c.ctx.Err() == nil && time.Now().Before(until); {
		// All peers together have too many descriptors on the way; they have until then to take them.
		select {
		case <-time.After(c.server.times.got / 64):
		case <-c.ctx.Done():
		}
		err = attach.Send(c.sock, p, files...)
	}
	switch {
	case err == nil:
		return nil
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errSilent
	}
	return err
}
