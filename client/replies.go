package client

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// replies matches replies with the requests of a client.
type replies struct {
	late atomic.Int64

	mu     sync.Mutex // guards all below
	box    *replyBox  // where the replies to the next requests go; nil: it is to be opened
	lastID uint64
	closed bool
	boxes  sync.WaitGroup // that have not ended
}

// replyBox is a temporary queue for replies. The way of a request: expect registers it; the box's goroutine hands over its
// reply, or closes lost; forget ends it.
type replyBox struct {
	cancel  context.CancelFunc
	waiting map[string]*waitingReply // by correlation id; guarded by replies.mu
	opened  chan struct{}            // closed when name or failed is set
	name    string                   // of the queue
	failed  error                    // why it could not be opened
	lost    chan struct{}            // closed when no more replies come; why is set before
	why     *Error
}

// waitingReply is a request that waits for its reply.
type waitingReply struct {
	box   *replyBox
	id    string        // its correlation id
	came  chan struct{} // closed when the reply is there
	reply *Delivery     // guarded by replies.mu
}

// expect registers a request. The first one, and the first after a box was lost, opens a box.
func (r *replies) expect(ctx context.Context, c *Client) (*waitingReply, error) {
	for {
		r.mu.Lock()
		if r.closed {
			r.mu.Unlock()
			return nil, errClosed()
		}
		box := r.box
		if box == nil {
			box = &replyBox{waiting: map[string]*waitingReply{}, opened: make(chan struct{}), lost: make(chan struct{})}
			var boxCtx context.Context
			boxCtx, box.cancel = context.WithCancel(context.Background())
			r.box = box
			r.boxes.Go(func() { r.run(boxCtx, c, box) })
		}
		r.mu.Unlock()
		select {
		case <-box.opened:
		case <-ctx.Done():
			return nil, contextError(ctx)
		}
		if box.failed != nil {
			return nil, box.failed
		}
		r.mu.Lock()
		if r.box != box { // lost meanwhile
			r.mu.Unlock()
			continue
		}
		r.lastID++
		w := &waitingReply{box: box, id: strconv.FormatUint(r.lastID, 10), came: make(chan struct{})}
		box.waiting[w.id] = w
		r.mu.Unlock()
		return w, nil
	}
}

// await waits until there is a reply, which forget then returns, or no hope of one: then the error says why.
func (r *replies) await(ctx context.Context, w *waitingReply, queue string) error {
	select {
	case <-w.came:
		return nil
	case <-w.box.lost:
		lost := *w.box.why // shared with other requests
		return lost.on(queue)
	case <-ctx.Done():
		e := contextError(ctx)
		if e.is(reason.TimedOut) {
			e.Message = "the request was sent, and no reply came in time: is somebody working on the queue?"
		}
		return e.on(queue)
	}
}

// forget ends a request: a reply that comes from now on is late. It returns the one that came just before, or nil.
func (r *replies) forget(w *waitingReply) *Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(w.box.waiting, w.id)
	return w.reply
}

// run opens a box and hands over replies until it is lost.
func (r *replies) run(ctx context.Context, c *Client, box *replyBox) {
	defer box.cancel()
	queue, err := c.openTemporary(ctx, ctx, QueueSettings{MaxMessageSize: new(limits.MessageSizeMax)})
	if err != nil {
		r.retire(box)
		box.failed = err
		close(box.opened)
		return
	}
	box.name = queue.Name()
	close(box.opened)
	err = queue.Consume(queue.ctx, func(_ context.Context, d *Delivery) error {
		r.arrived(box, d)
		return nil
	}, ConsumeOptions{AtOnce: true})
	queue.Close()
	r.retire(box)
	if err == nil {
		err = queue.Err()
	}
	box.why = errReplyLost(err)
	if r.isClosed() {
		box.why = errClosed()
	}
	close(box.lost)
}

func errReplyLost(cause error) *Error {
	text := ErrReplyLost.Error() + ": it is not known whether the request was handled, or will be"
	if cause != nil {
		text += " (" + cause.Error() + ")"
	}
	return newError(reason.OutcomeUnknown, "%s", text).because(ErrReplyLost)
}

// arrived hands a reply to whoever waits for it.
func (r *replies) arrived(box *replyBox, d *Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := box.waiting[d.CorrelationID]
	if w == nil {
		r.late.Add(1)
		return
	}
	delete(box.waiting, w.id) // a second reply is late
	w.reply = d
	close(w.came)
}

// retire lets the next request open another box.
func (r *replies) retire(box *replyBox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.box == box {
		r.box = nil
	}
}

func (r *replies) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// close lets no request begin any more, and ends the box and its queue. The function that it returns waits for the box.
func (r *replies) close(c *Client) (ended func()) {
	r.mu.Lock()
	box := r.box
	r.closed = true
	r.mu.Unlock()
	if box == nil {
		return r.boxes.Wait
	}
	select {
	case <-box.opened:
		if box.failed == nil {
			c.endTemporary(box.name)
		}
	default: // nobody knows its name yet
	}
	box.cancel()
	return r.boxes.Wait
}
