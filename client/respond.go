package client

import (
	"context"
	"errors"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Responder works on one request and returns the reply. Its CorrelationID is set to the request's. All else is as with a
// Handler: an error nacks the request.
type Responder func(ctx context.Context, d *Delivery) (Message, error)

// Respond is Consume of requests: each reply is sent to the queue that its request names in ReplyTo, and once it is stored
// the request is acked. So a request may be worked on, and answered, more than once. A reply that cannot be sent nacks the
// request, but where the requester has gone, and its temporary queue with it: then the request is acked and the reply
// counted by LateReplies. The reply to a request that names no queue is dropped.
//
// Replies are sent with the rights of this program to whatever queue a request names: who may send requests can let it
// send there.
func (q *Queue) Respond(ctx context.Context, h Responder, o ConsumeOptions) error {
	return q.Consume(ctx, func(ctx context.Context, d *Delivery) error {
		reply, err := h(ctx, d)
		if err != nil || d.ReplyTo == "" {
			return err
		}
		_, err = q.c.Reply(ctx, d, reply)
		return err
	}, o)
}

// Reply sends the reply to a request, with its correlation id, to the queue that it names in ReplyTo; the request is
// settled apart, best after this. late tells that the requester has gone, and its temporary queue with it: that is no
// error, and LateReplies counts it. Any other queue that is not there is a mistake: ErrQueueNotFound.
func (c *Client) Reply(ctx context.Context, d *Delivery, reply Message) (late bool, err error) {
	if d.ReplyTo == "" {
		return false, newError(reason.InvalidArgument, "message %d asks for no reply: it names no queue for one", d.Sequence).on(d.Queue)
	}
	reply.CorrelationID = d.CorrelationID
	to := c.Queue(d.ReplyTo)
	_, err = to.Send(ctx, reply)
	if strings.HasPrefix(to.name, limits.TemporaryPrefix) && (errors.Is(err, ErrQueueNotFound) || errors.Is(err, ErrQueueDeleted)) {
		c.replies.late.Add(1)
		return true, nil
	}
	return false, err
}
