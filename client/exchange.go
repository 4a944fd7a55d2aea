package client

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/ipcd/ipcd/internal/reason"
)

// exchange is a call that may be made again when its answer was lost.
type exchange struct {
	queue string // the call is about, or ""
	// call makes it, for the daemon's instance that saw the first try.
	call     func(instance string, opts ...grpc.CallOption) error
	instance string
	// leavesOpen reports whether the refusal of a repeat tells nothing about the tries before it.
	leavesOpen func(*Error) bool
	// unknown is the error where it remains open what became of the call.
	unknown func(cause *Error) *Error
}

// once makes a call until it is answered, over as many connections as that takes. SEMANTICS 9: every
// repeat carries the same ids and the instance that saw the first.
func (c *Client) once(ctx context.Context, x *exchange) *Error {
	var brokenAt time.Time     // when a connection broke with the call on it; zero: none did
	var stoppedUntil time.Time // how long a daemon that stopped may take to come back; zero: none did
	instances := 0             // how often the call followed the daemon to a new one
	for try := 0; ; try++ {
		var sentTo peer.Peer // set only once the call was handed to a connection
		err := x.call(x.instance, grpc.Peer(&sentTo))
		if err == nil {
			return nil
		}
		e := c.rpcError(err, x.queue)
		unsure := !brokenAt.IsZero() // the call went out before and was not answered
		switch {
		case !unsure && c.mayComeBack(ctx, e, sentTo.Addr != nil, &stoppedUntil):
			// Nothing was done: the daemon that comes next may do it.
			if c.reconnect(ctx, stoppedUntil, try) != nil {
				return e
			}
			if x.instance != "" {
				if instance, err := c.askInstance(ctx); err == nil {
					x.instance = instance
				}
			}
			continue
		case e.answered && e.is(reason.Unhealthy):
			unsure = true // the disk failed with the outcome on its way there
		case e.answered && !unsure:
			if !e.is(reason.OutcomeUnknown) || instances == instanceTries {
				return e
			}
			// Another instance than the one asked for refused it; nothing was done anywhere.
			instances++
			if x.instance, err = c.askInstance(ctx); err != nil {
				return c.rpcError(err, x.queue)
			}
			continue
		case e.answered && !e.broken():
			if x.leavesOpen(e) {
				return x.unknown(e)
			}
			return e
		}
		unsure = unsure || sentTo.Addr != nil
		switch {
		case !unsure:
			return e // no connection took it
		case ctx.Err() != nil:
			return x.unknown(contextError(ctx))
		case !e.broken():
			if brokenAt.IsZero() && (e.is(reason.QuotaExceeded) || e.is(reason.Unimplemented) || e.is(reason.InvalidArgument)) {
				return e // refused by gRPC itself
			}
			return x.unknown(e)
		}
		if brokenAt.IsZero() {
			brokenAt = time.Now()
		}
		if err := c.reconnect(ctx, brokenAt.Add(c.resendWindow), try); err != nil {
			if ctx.Err() != nil {
				e = contextError(ctx)
			}
			return x.unknown(e)
		}
	}
}

// mayComeBack reports whether a call that was certainly not done is to be made again: the daemon said that it is stopping, or
// said so before and is not back yet. Who gave no deadline is told at once.
func (c *Client) mayComeBack(ctx context.Context, e *Error, sent bool, until *time.Time) bool {
	deadline, ok := ctx.Deadline()
	if !ok {
		return false
	}
	switch {
	case e.answered && e.is(reason.ShuttingDown):
		if until.IsZero() {
			*until = time.Now().Add(c.resendWindow)
			if deadline.Before(*until) {
				*until = deadline
			}
		}
	case until.IsZero() || sent || !e.disconnected:
		return false
	}
	return time.Now().Before(*until)
}

// reconnect returns once there is a connection again, or with an error if that takes beyond the deadline.
func (c *Client) reconnect(ctx context.Context, deadline time.Time, try int) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := pause(ctx, try); err != nil {
		return err
	}
	return c.awaitReady(ctx)
}
