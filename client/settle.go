package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Outcome is what becomes of a delivery.
type Outcome uint8

// The outcomes.
const (
	OutcomeAck     Outcome = iota // done: the message is removed
	OutcomeNack                   // failed: it counts as an attempt and comes again
	OutcomeTouch                  // the lease restarts from now
	OutcomeRelease                // given back, not counted as an attempt
	OutcomeBury                   // set aside until it is kicked
)

// String returns the outcome's name: ack, nack, touch, release or bury.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

var outcomeNames = [...]string{"ack", "nack", "touch", "release", "bury"}

// Backoff as the delay of a nack means the queue's own back-off.
const Backoff time.Duration = -1

// Settlement says what becomes of one delivery.
type Settlement struct {
	Receipt Receipt
	Outcome Outcome
	Delay   time.Duration // OutcomeNack: before it comes again; 0: at once; Backoff: the queue's back-off
	Lease   time.Duration // OutcomeTouch: from now; 0: as long as the lease was
	Reason  string        // OutcomeNack and OutcomeBury: why; at most 256 bytes
}

// SettleError tells which settlements failed. errors.Is and errors.As look at each.
type SettleError struct {
	Failures []*Error // Index is the settlement's place in the call, counted from 0
	Total    int      // settlements in the call; those that are not among the failures are done
}

// verdict is an outcome with its particulars, as in Settlement.
type verdict struct {
	outcome Outcome
	delay   time.Duration
	lease   time.Duration
	reason  string
}

// Error names the first failure and how many there are.
func (e *SettleError) Error() string {
	if len(e.Failures) == 1 && e.Total == 1 {
		return e.Failures[0].Message
	}
	return fmt.Sprintf("%d of %d settlements failed, first %v", len(e.Failures), e.Total, e.Failures[0])
}

// Unwrap returns the failures.
func (e *SettleError) Unwrap() []error {
	all := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		all[i] = f
	}
	return all
}

// Settle says what becomes of deliveries, possibly of different queues, each for itself. Where some
// fail, with ErrStaleReceipt for instance, the error is a *SettleError and the others are done. Any other
// error leaves open which are done; settling again is harmless.
func (c *Client) Settle(ctx context.Context, s ...Settlement) error {
	failed := &SettleError{Total: len(s)}
	for start := 0; start < len(s); start += limits.SettlementsPerFrame {
		part := s[start:min(start+limits.SettlementsPerFrame, len(s))]
		settlements := make([]*ipcdv1.Settlement, len(part))
		for i := range part {
			v := verdict{part[i].Outcome, part[i].Delay, part[i].Lease, part[i].Reason}
			p, err := v.proto()
			if err != nil {
				err.Index = start + i
				return err
			}
			p.Target = &ipcdv1.Settlement_Receipt{Receipt: string(part[i].Receipt)}
			settlements[i] = p
		}
		response, err := c.messages.Settle(ctx, &ipcdv1.SettleRequest{Settlements: settlements})
		if err != nil {
			e := c.rpcError(err, "")
			if e.Index != Whole {
				e.Index += start
			}
			return e
		}
		for _, f := range response.GetFailures() {
			e := answer(f.GetError(), "")
			e.Index = start + int(f.GetIndex())
			failed.Failures = append(failed.Failures, e)
		}
	}
	if len(failed.Failures) > 0 {
		return failed
	}
	return nil
}

// Touch restarts the lease of a delivery from now, for as long as given or, with 0, as long as it was. It
// returns the lease's new end by the daemon's clock.
func (c *Client) Touch(ctx context.Context, r Receipt, lease time.Duration) (time.Time, error) {
	return c.settleOne(ctx, r, verdict{outcome: OutcomeTouch, lease: lease})
}

func (c *Client) settleOne(ctx context.Context, r Receipt, v verdict) (time.Time, error) {
	p, invalid := v.proto()
	if invalid != nil {
		return time.Time{}, invalid
	}
	p.Target = &ipcdv1.Settlement_Receipt{Receipt: string(r)}
	response, err := c.messages.Settle(ctx, &ipcdv1.SettleRequest{Settlements: []*ipcdv1.Settlement{p}})
	if err != nil {
		return time.Time{}, c.rpcError(err, "")
	}
	if failures := response.GetFailures(); len(failures) > 0 {
		return time.Time{}, answer(failures[0].GetError(), "")
	}
	if touched := response.GetTouched(); len(touched) > 0 {
		return timeOf(touched[0].GetLeaseExpireTime()), nil
	}
	return time.Time{}, nil
}

func (d *Delivery) settle(ctx context.Context, v verdict) (time.Time, error) {
	if d.lease == nil {
		return time.Time{}, newError(reason.InvalidArgument, "the message was consumed at once: there is nothing to settle").on(d.Queue)
	}
	return d.lease.settle(ctx, d, v)
}

// settle makes the client the lease of deliveries that have receipts.
func (c *Client) settle(ctx context.Context, d *Delivery, v verdict) (time.Time, error) {
	ends, err := c.settleOne(ctx, d.Receipt, v)
	if e, ok := err.(*Error); ok && !e.broken() {
		e.on(d.Queue)
	}
	return ends, err
}

// proto returns the outcome without its target.
func (v verdict) proto() (*ipcdv1.Settlement, *Error) {
	p := new(ipcdv1.Settlement)
	switch v.outcome {
	case OutcomeAck:
		p.Outcome = &ipcdv1.Settlement_Ack{Ack: &ipcdv1.Ack{}}
	case OutcomeNack:
		nack := &ipcdv1.Nack{Reason: strings.ToValidUTF8(v.reason, "\ufffd")}
		if v.delay >= 0 {
			nack.Delay = durationpb.New(v.delay)
		}
		p.Outcome = &ipcdv1.Settlement_Nack{Nack: nack}
	case OutcomeTouch:
		touch := new(ipcdv1.Touch)
		if v.lease != 0 {
			touch.Lease = durationpb.New(v.lease)
		}
		p.Outcome = &ipcdv1.Settlement_Touch{Touch: touch}
	case OutcomeRelease:
		p.Outcome = &ipcdv1.Settlement_Release{Release: &ipcdv1.Release{}}
	case OutcomeBury:
		p.Outcome = &ipcdv1.Settlement_Bury{Bury: &ipcdv1.Bury{Reason: strings.ToValidUTF8(v.reason, "\ufffd")}}
	default:
		return nil, newError(reason.InvalidArgument, "%v: it must be ack, nack, touch, release or bury", v.outcome)
	}
	return p, nil
}
