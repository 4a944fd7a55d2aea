package client

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// closeGrace is how long an end waits for the daemon to say that a temporary queue is gone.
const closeGrace = 2 * time.Second

// Temporary is a queue that lives as long as its session: until Close, or until the connection breaks or the daemon stops.
// Its name cannot be guessed: hand it to those who shall send to it. It is kept in memory, and is gone for good with all
// that is in it.
type Temporary struct {
	*Queue
	ctx    context.Context // ends with the queue
	cancel context.CancelFunc
	closed atomic.Bool // by us: its end is no error
	done   chan struct{}
	err    error // set before done is closed
}

// OpenTemporary makes a temporary queue, which lives until ctx ends at most. Of the settings, limits, lease and mode count;
// without a mode everybody who knows the name may send, and only this user receive.
func (c *Client) OpenTemporary(ctx context.Context, s QueueSettings) (*Temporary, error) {
	return c.openTemporary(ctx, ctx, s)
}

// openTemporary gives up when opening ends before the queue is there.
func (c *Client) openTemporary(ctx, opening context.Context, s QueueSettings) (*Temporary, error) {
	if e := s.check(); e != nil {
		return nil, e
	}
	ctx, cancel := context.WithCancel(ctx)
	giveUp := context.AfterFunc(opening, cancel)
	stream, err := c.admin.OpenTemporaryQueue(ctx, &ipcdv1.OpenTemporaryQueueRequest{Settings: s.proto()})
	var r *ipcdv1.OpenTemporaryQueueResponse
	if err == nil {
		r, err = stream.Recv()
	}
	if !giveUp() && err == nil {
		err = contextError(opening)
	}
	if err != nil {
		cancel()
		if opening.Err() != nil {
			return nil, contextError(opening)
		}
		return nil, c.rpcError(err, "")
	}
	t := &Temporary{Queue: c.Queue(r.GetQueue().GetName()), ctx: ctx, cancel: cancel, done: make(chan struct{})}
	go t.watch(stream)
	return t, nil
}

// watch waits for the end.
func (t *Temporary) watch(stream grpc.ServerStreamingClient[ipcdv1.OpenTemporaryQueueResponse]) {
	defer close(t.done)
	defer t.cancel()
	for {
		_, err := stream.Recv()
		switch {
		case err == nil: // of a later version, perhaps
			continue
		case t.ctx.Err() != nil, t.closed.Load():
		case errors.Is(err, io.EOF):
			t.err = newError(reason.QueueDeleted, "the daemon ended the temporary queue").on(t.name)
		default:
			t.err = t.c.rpcError(err, t.name)
		}
		return
	}
}

// Done is closed when the queue has ended.
func (t *Temporary) Done() <-chan struct{} { return t.done }

// Err says why the queue has ended, once Done is closed; nil: Close was called, or the context ended.
func (t *Temporary) Err() error {
	select {
	case <-t.done:
		return t.err
	default:
		return nil
	}
}

// Close ends the queue. What is in it is gone, and sends that begin after it has returned are refused, unless the daemon
// does not answer. It may be called again.
func (t *Temporary) Close() {
	if t.closed.CompareAndSwap(false, true) && t.Err() == nil {
		t.c.endTemporary(t.name)
	}
	t.cancel()
	<-t.done
}

// endTemporary removes a temporary queue by its name. The end of its call alone would be noticed by the daemon a moment later,
// and what is sent until then would be lost without a word.
func (c *Client) endTemporary(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	_, _ = c.DeleteQueue(ctx, name) // where it fails the end of the call still ends the queue
}
