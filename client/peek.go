package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// PeekOrder is the order in which Peek shows messages.
type PeekOrder uint8

// The orders.
const (
	ByState    PeekOrder = iota // ready ones in the order of receipt, delayed ones by due time, leased ones by deadline, buried ones by sequence
	BySequence                  // whatever the state
)

// PeekOptions says what Peek shows. The zero value means all ready messages.
type PeekOptions struct {
	Filter       Filter
	Limit        int64  // messages at most; 0: all
	Cursor       string // where an earlier Peek with the same filter stopped, as OnPage was told
	Follow       bool   // go on with messages as they arrive, by sequence, until the context ends
	MaxBodyBytes int    // cut bodies to this many bytes; 0: whole
	Order        PeekOrder
	// OnPage is called after each page of messages with the cursor at which another Peek may go on; ""
	// is the end. It may be nil.
	OnPage func(cursor string)
}

// Peeked is a message as it stands in its queue.
type Peeked struct {
	Message
	Queue         string
	Sequence      uint64
	SentAt        time.Time
	State         State
	Attempts      int       // leases that ended in nack, expiry or a broken stream
	Due           time.Time // when a delayed message becomes ready; else zero
	LeaseExpires  time.Time // when a leased message's lease ends; zero for those in the kernel queue of a door
	Expires       time.Time // when its TTL ends; zero: never
	BuryReason    string    // why a buried message was buried
	TruncatedFrom int       // the length in bytes of the whole body, if it was cut; else 0
}

// Peek shows messages and changes nothing: no lease, no attempt, no order. An error ends the sequence; the end of the context of a Peek that follows is none.
func (q *Queue) Peek(ctx context.Context, o PeekOptions) iter.Seq2[*Peeked, error] {
	return func(yield func(*Peeked, error) bool) {
		if o.Limit < 0 || o.MaxBodyBytes < 0 {
			yield(nil, newError(reason.InvalidArgument, "limit %d, body bytes %d: they must not be negative", o.Limit, o.MaxBodyBytes).on(q.name))
			return
		}
		streamCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := q.c.messages.Peek(streamCtx, &ipcdv1.PeekRequest{
			Queue:        q.name,
			Filter:       o.Filter.proto(),
			Limit:        uint64(o.Limit),
			Cursor:       o.Cursor,
			Follow:       o.Follow,
			MaxBodyBytes: uint64(o.MaxBodyBytes),
			Order:        o.Order.proto(),
		})
		for err == nil {
			var page *ipcdv1.PeekResponse
			if page, err = stream.Recv(); err != nil {
				break
			}
			for _, p := range page.GetMessages() {
				if !yield(q.peeked(p), nil) {
					return
				}
			}
			if o.OnPage != nil {
				o.OnPage(page.GetCursor())
			}
		}
		if errors.Is(err, io.EOF) || o.Follow && ctx.Err() != nil {
			return
		}
		yield(nil, q.c.rpcError(err, q.name))
	}
}

// proto is STATE or SEQUENCE; what is neither the daemon refuses.
func (o PeekOrder) proto() ipcdv1.PeekOrder {
	return ipcdv1.PeekOrder(o) + ipcdv1.PeekOrder_PEEK_ORDER_STATE
}

func (q *Queue) peeked(p *ipcdv1.PeekedMessage) *Peeked {
	return &Peeked{
		Message:       messageOf(p.GetMessage()),
		Queue:         q.name,
		Sequence:      p.GetSequence(),
		SentAt:        timeOf(p.GetSendTime()),
		State:         State(p.GetState()),
		Attempts:      int(p.GetAttempts()),
		Due:           timeOf(p.GetDueTime()),
		LeaseExpires:  timeOf(p.GetLeaseExpireTime()),
		Expires:       timeOf(p.GetExpireTime()),
		BuryReason:    p.GetBuryReason(),
		TruncatedFrom: int(p.GetTruncatedFrom()),
	}
}
