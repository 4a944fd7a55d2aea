//go:build linux

package ring

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/reason"
)

const (
	// answerTimeout bounds how long a daemon may think about each step of attaching. It may let a member
	// wait while it starts, for limits.RingAdoptWindow.
	answerTimeout = 30 * time.Second
	// detachTimeout bounds how long Close waits for the daemon.
	detachTimeout = time.Second
)

// received is a reply with its descriptors.
type received struct {
	attach.Reply
	files []*os.File
}

func (r received) closeFiles() {
	for _, f := range r.files {
		f.Close()
	}
}

// conn is a connection to the attach socket. Its goroutine receives replies, so that a hang-up is noticed
// while nothing is asked.
type conn struct {
	socket  *net.UnixConn
	path    string
	epoch   uint64        // of the last list of members that came
	replies chan received // closed when nothing will follow
	err     error         // why; set before replies is closed
	closed  chan struct{}
	close   func()
}

func dial(ctx context.Context, path string) (*conn, error) {
	socket, err := new(net.Dialer).DialContext(ctx, attach.Network, path)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, contextError(ctx.Err())
		case errors.Is(err, context.DeadlineExceeded): // the socket's clock is a little ahead of the context's
			return nil, contextError(context.DeadlineExceeded)
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, newError(reason.AccessDenied, "no access to %s: %v; the socket, or a directory before it, is closed to this user", path, err).because(err)
		}
		return nil, newError(reason.Unreachable, "no ipcd answers at %s: %v; is it running, and is this its attach socket?", path, err).because(err)
	}
	c := &conn{socket: socket.(*net.UnixConn), path: path, replies: make(chan received), closed: make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.receive()
	}()
	c.close = sync.OnceFunc(func() {
		close(c.closed)
		_ = c.socket.Close()
		<-ended
	})
	return c, nil
}

// receive hands replies over until the connection ends.
func (c *conn) receive() {
	defer close(c.replies)
	for {
		reply, files, err := attach.ReceiveReply(c.socket)
		if err != nil {
			c.err = err
			return
		}
		r := received{reply, files}
		if len(files) > 0 {
			// At once: the daemon gives little time, and populating memory may take more.
			_ = attach.Send(c.socket, attach.Got{}) // a connection that is broken is noticed by the next receive
		}
		select {
		case c.replies <- r:
		case <-c.closed:
			r.closeFiles()
			return
		}
	}
}

// ask sends a request and waits for its reply. What the daemon refused is an error. After an error the
// connection must be closed.
func (c *conn) ask(ctx context.Context, request attach.Request, files ...*os.File) (received, error) {
	if err := attach.Send(c.socket, request, files...); errors.As(err, new(attach.ProtocolError)) {
		return received{}, newError(reason.InvalidArgument, "%v", err).because(err)
	}
	// Another error is not the last word: who cannot be sent to may have said why before it hung up.
	select {
	case r, ok := <-c.replies:
		if !ok {
			return received{}, c.broken()
		}
		if no, is := r.Reply.(attach.ErrorReply); is {
			return received{}, refused(no)
		}
		return r, nil
	case <-ctx.Done():
		if context.Cause(ctx) == errSilent {
			return received{}, newError(reason.Unreachable, "the daemon at %s does not answer; is it stopped?", c.path)
		}
		return received{}, contextError(ctx.Err())
	}
}

// broken says why there are no more replies.
func (c *conn) broken() error {
	if errors.As(c.err, new(attach.ProtocolError)) {
		return newError(reason.Internal, "what came from %s makes no sense: %v", c.path, c.err).because(c.err)
	}
	return &passing{newError(reason.Unreachable, "the daemon at %s hung up", c.path).because(c.err)}
}

// unexpected is the error for a reply of another kind than was asked for.
func (c *conn) unexpected(r received) error {
	r.closeFiles()
	return newError(reason.Internal, "the daemon at %s answered with %s, which was not asked for", c.path, r.Kind())
}

// detach leaves the ring in good order, if the daemon listens.
func (c *conn) detach(ctx context.Context) {
	if r, err := c.ask(ctx, attach.Detach{}); err == nil {
		r.closeFiles()
	}
}

// errSilent is the cause of a context that ended because the daemon did not answer.
var errSilent = errors.New("the daemon does not answer")

// passing marks an error after which another try may help: the daemon is away, as opposed to having
// refused for good.
type passing struct{ error }

func (p *passing) Unwrap() error { return p.error }

func isPassing(err error) bool {
	var p *passing
	return errors.As(err, &p)
}

// refused is the error for what the daemon answered instead of doing what was asked.
func refused(e attach.ErrorReply) error {
	status := unix.Errno(e.Status)
	if e.Reason == "" {
		e.Reason = reasonOf(status)
	}
	if e.Text == "" {
		e.Text = status.Error()
	}
	err := newError(e.Reason, "%s", e.Text)
	if status == unix.EAGAIN || e.Reason == reason.ShuttingDown || e.Reason == reason.Unhealthy {
		return &passing{err}
	}
	return err
}

func reasonOf(errno unix.Errno) reason.Reason {
	switch errno {
	case unix.ENOENT:
		return reason.RingNotFound
	case unix.EACCES, unix.EPERM:
		return reason.AccessDenied
	case unix.EDQUOT, unix.ENOSPC:
		return reason.QuotaExceeded
	case unix.EIDRM:
		return reason.RingDeleted
	case unix.ESHUTDOWN:
		return reason.ShuttingDown
	case unix.EINVAL:
		return reason.InvalidArgument
	case unix.ENOSYS:
		return reason.Unimplemented
	}
	return reason.Internal
}
