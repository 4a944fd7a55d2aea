package rpc

import (
	"context"
	"errors"

	"github.com/ipcd/ipcd/broker"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

const (
	// confirmationsInFlight is how many answers to settlements may wait for the disk, and
	// confirmationDetails how many failures and touched leases they may name, before no more
	// frames are read.
	confirmationsInFlight = 64
	confirmationDetails   = 4096
)

// confirmations are the answers of a Consume stream to settlements. These take effect in the handler at
// once; their answers wait in undurable for confirm, which passes them on to confirmed when they are on
// disk. So a sync holds up no delivery.
type confirmations struct {
	undurable   chan confirmation
	confirmed   chan confirmation
	unconfirmed int // answers that confirm has and the handler has not got back
	details     int // of those answers
}

func newConfirmations() confirmations {
	return confirmations{undurable: make(chan confirmation, confirmationsInFlight), confirmed: make(chan confirmation)}
}

// full reports that no more settlements may be taken before some are confirmed.
func (c *confirmations) full() bool {
	return c.unconfirmed >= confirmationsInFlight || c.details >= confirmationDetails
}

// confirmation is the answer to a frame of settlements.
type confirmation struct {
	ticket  broker.Ticket // what it waits for
	results *ipcdv1.SettleResults
	err     error // it never came on disk: nothing is confirmed any more
}

// details is how many failures and touched leases the answer names.
func (c *confirmation) details() int {
	return len(c.results.GetFailures()) + len(c.results.GetTouched())
}

// settled answers settlements once they are on disk, in order.
func (c *consumption) settled(answer confirmation) error {
	if answer.ticket == 0 && c.unconfirmed == 0 {
		return c.sendResults(answer.results)
	}
	c.unconfirmed++
	c.details += answer.details()
	c.undurable <- answer // there is room: run reads no frame while there is none
	return nil
}

// confirm passes answers on once they are on disk.
func (c *consumption) confirm(ctx context.Context) error {
	for {
		select {
		case answer := <-c.undurable:
			if answer.ticket != 0 {
				if err := c.broker.Await(ctx, answer.ticket); err != nil {
					return err
				}
			}
			if !push(ctx, c.confirmed, answer) {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// tell sends an answer that is on disk.
func (c *consumption) tell(ctx context.Context, answer confirmation) error {
	if answer.err != nil {
		c.unconfirmed = 0
		c.draining = c.draining || ctx.Err() == nil // the disk failed: no fault of the client
		return answer.err
	}
	c.unconfirmed--
	c.details -= answer.details()
	return c.sendResults(answer.results)
}

// confirmRest sends the answers that still wait for the disk when the stream ends with err, if there is
// anybody to send them to.
func (c *consumption) confirmRest(ctx context.Context, err error) error {
	var ended streamEnded
	if errors.As(err, &ended) {
		return nil
	}
	for c.unconfirmed > 0 {
		select {
		case answer := <-c.confirmed:
			if err := c.tell(ctx, answer); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (c *consumption) sendResults(r *ipcdv1.SettleResults) error {
	return c.send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_SettleResults{SettleResults: r}})
}
