package client

import (
	"context"
	"errors"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// requestPatience is how long a request waits for its reply where its context says nothing.
const requestPatience = 30 * time.Second

// ErrReplyLost says that the queue in which a reply was expected is gone: the connection broke, or the daemon started anew.
// Whether the request was handled, or will be, is not known; the error is ErrOutcomeUnknown too.
var ErrReplyLost = errors.New("the queue in which the reply was expected is gone")

// Request sends a message to a queue and returns the reply, which some Respond there, or any program that sends to the
// message's ReplyTo with its CorrelationID, makes. Request sets these two itself, and the TTL so that nobody begins with a
// request that nobody waits for any more. The reply has been consumed: nothing needs settling.
//
// It waits until ctx ends, or 30 seconds where ctx has no deadline, and then fails with ErrTimedOut. A reply that comes
// later is dropped and counted by LateReplies. ErrReplyLost says that the connection broke meanwhile.
//
// All requests of a Client share one temporary queue, which is opened by the first.
func (c *Client) Request(ctx context.Context, queue string, m Message) (*Delivery, error) {
	queue = queueName(queue)
	if m.ReplyTo != "" || m.CorrelationID != "" {
		return nil, newError(reason.InvalidArgument, "ReplyTo and CorrelationID of a request are set by Request: leave them empty").on(queue)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		var cancel context.CancelFunc
		deadline = time.Now().Add(requestPatience)
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	w, err := c.expectReply(ctx)
	if err != nil {
		return nil, err
	}
	left := min(max(time.Until(deadline), time.Millisecond), limits.DelayMax)
	if m.TTL == 0 || m.TTL > left {
		m.TTL = left
	}
	m.ReplyTo, m.CorrelationID = w.box.name, w.id
	_, err = c.Queue(queue).Send(ctx, m)
	if err == nil {
		err = c.replies.await(ctx, w, queue)
	}
	if d := c.replies.forget(w); d != nil {
		return d, nil // also where the answer to the send was lost
	}
	return nil, err
}

// expectReply registers a request. Where the daemon is stopping it waits for the one that comes next, as Send does.
func (c *Client) expectReply(ctx context.Context) (*waitingReply, error) {
	var until time.Time
	for try := 0; ; try++ {
		w, err := c.replies.expect(ctx, c)
		if err == nil {
			return w, nil
		}
		var e *Error
		if !errors.As(err, &e) || !c.mayComeBack(ctx, e, false, &until) || c.reconnect(ctx, until, try) != nil {
			return nil, err
		}
	}
}

// LateReplies is how many replies came too late: those to this client's requests that nobody waited for any more, and those
// that its Respond and Reply made for requesters who had gone.
func (c *Client) LateReplies() int64 { return c.replies.late.Load() }
