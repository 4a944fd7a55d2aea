package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// receivePatience is how long a receive at least tries to get its connection back.
const receivePatience = 10 * time.Second

// WaitForever as the Wait of a receive means: as long as the context lasts.
const WaitForever time.Duration = -1

// ReceiveOptions says what Receive takes. The zero value leases whatever is ready.
type ReceiveOptions struct {
	Selector     Selector
	Wait         time.Duration // for the first message; 0: not at all; WaitForever: until the context ends
	Lease        time.Duration // 0: the queue's
	AtOnce       bool          // the messages count as consumed when they are handed out; nothing needs settling
	MaxBodyBytes int           // of a body; 0: any. A message that is larger stays queued, with ErrBufferTooSmall, unless Truncate is set.
	Truncate     bool          // cut larger bodies to MaxBodyBytes
}

// Receive returns up to n messages as soon as something matches, or none, and no error, when the wait is
// over. They are leased: they come again unless they are acked before LeaseExpires.
//
// Should the connection break meanwhile it asks again, for the rest of the wait and at least 10 seconds;
// with AtOnce it rather fails with ErrOutcomeUnknown, for messages may be lost.
func (q *Queue) Receive(ctx context.Context, n int, o ReceiveOptions) ([]*Delivery, error) {
	return q.c.receive(ctx, &ipcdv1.ReceiveRequest{Queue: q.name}, n, o)
}

// ReceiveAny is Receive from several queues, up to 256, each named once: each Delivery says from which it came. Where
// several have something, each gets its turn.
func (c *Client) ReceiveAny(ctx context.Context, queues []string, n int, o ReceiveOptions) ([]*Delivery, error) {
	names, e := queueNames(queues)
	if e != nil {
		return nil, e
	}
	return c.receive(ctx, &ipcdv1.ReceiveRequest{Queues: names}, n, o)
}

// receive completes a request that says from where, and makes it.
func (c *Client) receive(ctx context.Context, request *ipcdv1.ReceiveRequest, n int, o ReceiveOptions) ([]*Delivery, error) {
	name := request.Queue
	switch {
	case n < 1 || n > limits.ReceiveMessages:
		return nil, newError(reason.InvalidArgument, "receive %d messages: it must be 1 to %d", n, limits.ReceiveMessages).on(name)
	case o.MaxBodyBytes < 0:
		return nil, newError(reason.InvalidArgument, "a buffer of %d bytes: it must be positive, or 0 for any size", o.MaxBodyBytes).on(name)
	case o.Wait < 0 && o.Wait != WaitForever:
		return nil, newError(reason.InvalidArgument, "wait %v: it must not be negative, but for WaitForever", o.Wait).on(name)
	}
	request.Selector = o.Selector.proto()
	request.MaxMessages = uint32(n)
	request.Lease = durationProto(o.Lease)
	request.SettleMode = settleMode(o.AtOnce)
	request.MaxBodyBytes = uint64(o.MaxBodyBytes)
	request.Truncate = o.Truncate
	start := time.Now()
	for try := 0; ; {
		wait := limits.WaitMax
		if o.Wait != WaitForever {
			wait = max(0, o.Wait-time.Since(start))
		}
		request.Wait = durationpb.New(wait)
		var sentTo peer.Peer
		response, err := c.messages.Receive(ctx, request, grpc.Peer(&sentTo))
		if err == nil {
			if deliveries := response.GetDeliveries(); len(deliveries) > 0 || o.Wait != WaitForever {
				return c.deliveries(deliveries, name, o.AtOnce), nil
			}
			continue
		}
		e := c.rpcError(err, name)
		sent := sentTo.Addr != nil
		if !e.broken() || ctx.Err() != nil || !sent && try == 0 {
			return nil, e
		}
		if sent && o.AtOnce && !e.answered {
			return nil, newError(reason.OutcomeUnknown, "messages that were consumed at once may be lost: %s", e.Message).on(name).because(e)
		}
		if err := c.receiveAgain(ctx, start, o.Wait, try); err != nil {
			var refused *Error
			switch {
			case ctx.Err() != nil:
				return nil, contextError(ctx).on(name)
			case errors.As(err, &refused):
				return nil, refused
			}
			return nil, e
		}
		try++
	}
}

// receiveAgain returns when it is time for another try, or with an error if no time is left.
func (c *Client) receiveAgain(ctx context.Context, start time.Time, wait time.Duration, try int) error {
	if wait != WaitForever {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(max(wait, receivePatience)))
		defer cancel()
	}
	if err := pause(ctx, try); err != nil {
		return err
	}
	return c.awaitAccepted(ctx)
}

func settleMode(atOnce bool) ipcdv1.SettleMode {
	if atOnce {
		return ipcdv1.SettleMode_SETTLE_MODE_CONSUME
	}
	return ipcdv1.SettleMode_SETTLE_MODE_LEASE
}

// deliveries are of the queue of that name, where they do not say otherwise.
func (c *Client) deliveries(p []*ipcdv1.Delivery, name string, atOnce bool) []*Delivery {
	all := make([]*Delivery, len(p))
	for i := range p {
		d := new(Delivery)
		d.fill(p[i], name)
		if !atOnce {
			d.lease = c
		}
		all[i] = d
	}
	return all
}
