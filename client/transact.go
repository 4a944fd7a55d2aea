package client

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// Tx gathers what a transaction is to do. Its methods may be called concurrently, until the function that
// was handed it has returned; after that Send and Ack do nothing.
type Tx struct {
	mu       sync.Mutex // guards all below
	over     bool
	failed   *Error // the first thing wrong with what was gathered
	sends    []*ipcdv1.TransactSend
	receipts []string
	acked    []*Delivery
	stored   []Sent
}

// Send adds messages for a queue, named with or without its slash. What is wrong with them Transact says.
func (tx *Tx) Send(queue string, m ...Message) {
	queue = queueName(queue)
	messages, _, e := batchProto(m)
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.over {
		return
	}
	if e != nil && tx.failed == nil {
		if e.Index != Whole {
			e.Message = fmt.Sprintf("message %d: %s", e.Index, e.Message)
		}
		e.Index = len(tx.sends)
		tx.failed = e.on(queue)
	}
	tx.sends = append(tx.sends, &ipcdv1.TransactSend{Queue: queue, Messages: messages})
}

// Ack adds that deliveries are done. They need receipts: what Receive returns has them, what Consume hands
// out has them with ConsumeOptions.Receipts.
func (tx *Tx) Ack(d ...*Delivery) {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.over {
		return
	}
	for _, one := range d {
		if one.Receipt == "" && tx.failed == nil {
			tx.failed = newError(reason.InvalidArgument, "delivery %d has no receipt to ack it by: set Receipts in ConsumeOptions, and do not consume at once", one.Sequence).on(one.Queue)
		}
		tx.receipts = append(tx.receipts, string(one.Receipt))
		tx.acked = append(tx.acked, one)
	}
}

// Stored returns the outcome of each message, in the order in which they were added, once Transact has
// returned nil; before that, nothing.
func (tx *Tx) Stored() []Sent {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	return tx.stored
}

// Transact calls fn, which says what is to be done, and then does all of it or nothing, in one call of the
// daemon: messages are stored and deliveries acked together, also across a crash. If fn returns an error
// nothing is done and Transact returns that error; where there is nothing to do it returns nil.
//
// It never waits for room. One stale receipt or full queue refuses all; the *Error's Index is then the Send
// or, counted after all of them, the acked delivery. A queue kept in memory cannot take messages
// together with acks of one in the journal: ErrDurabilityMismatch.
//
// Should the connection break meanwhile, the same is repeated under ids by which the daemon does it once.
// Where it remains open whether it was done, the error is ErrOutcomeUnknown; so it is where there were only
// acks, which have no ids, and the repeat found one of them stale. A daemon that is stopping is waited for as by Send.
//
// In the handler of a Consume, a delivery that was acked so is settled: what the handler returns counts
// for nothing.
func (c *Client) Transact(ctx context.Context, fn func(tx *Tx) error) error {
	tx := new(Tx)
	err := fn(tx)
	tx.mu.Lock()
	tx.over = true
	tx.mu.Unlock()
	switch {
	case err != nil:
		return err
	case tx.failed != nil:
		return tx.failed
	case len(tx.sends) == 0 && len(tx.receipts) == 0:
		return nil
	}
	stored, e := c.transact(ctx, tx)
	if e != nil {
		return e
	}
	sent, e := tx.outcome(stored)
	if e != nil {
		return e
	}
	tx.mu.Lock()
	tx.stored = sent
	tx.mu.Unlock()
	for _, d := range tx.acked {
		if h, ok := d.lease.(*held); ok {
			h.settledElsewhere()
		}
	}
	return nil
}

// transact makes the call.
func (c *Client) transact(ctx context.Context, tx *Tx) ([]*ipcdv1.Stored, *Error) {
	request := &ipcdv1.TransactRequest{Sends: tx.sends, Receipts: tx.receipts}
	var stored []*ipcdv1.Stored
	x := &exchange{
		call: func(instance string, opts ...grpc.CallOption) error {
			request.Instance = instance
			response, err := c.messages.Transact(ctx, request, opts...)
			stored = response.GetStored()
			return err
		},
		leavesOpen: func(e *Error) bool {
			return e.leavesOpen() || len(tx.sends) == 0 && e.is(reason.StaleReceipt)
		},
		unknown: func(cause *Error) *Error {
			return newError(reason.OutcomeUnknown, "it is not known whether the transaction was done (%s); look with peek", cause.Message).because(cause)
		},
	}
	if len(tx.sends) == 0 {
		e := c.once(ctx, x)
		return stored, e
	}
	var err error
	if x.instance, err = c.daemonInstance(ctx); err != nil {
		return nil, c.rpcError(err, "")
	}
	l := c.lanes.take()
	request.ProducerId, request.BatchId = l.producer, l.nextBatch()
	e := c.once(ctx, x)
	c.lanes.giveUnless(l, e)
	return stored, e
}

// outcome gives each message its own.
func (tx *Tx) outcome(stored []*ipcdv1.Stored) ([]Sent, *Error) {
	if len(stored) != len(tx.sends) {
		return nil, newError(reason.Internal, "%d sends were made, the answer is about %d", len(tx.sends), len(stored))
	}
	var all []Sent
	for i, send := range tx.sends {
		sent, e := sentOf(stored[i], len(send.GetMessages()))
		if e != nil {
			e.Index = i
			return nil, e.on(send.GetQueue())
		}
		all = append(all, sent...)
	}
	return all, nil
}
