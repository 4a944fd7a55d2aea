package client

import (
	"context"
	"errors"
	"io"
	"iter"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// TapOptions says what Tap copies. The zero value means everything.
type TapOptions struct {
	Selector     Selector
	Headers      map[string][]byte // headers that must be there with exactly these values
	MaxBodyBytes int               // cut bodies to this many bytes; 0: whole
	// OnOpen is called once the tap is open: what is sent from now on is copied. It may be nil.
	OnOpen func()
	// OnSkipped is called where messages were left out, because they came faster than they were read, with how many, before
	// those that came after them. It may be nil.
	OnSkipped func(messages uint64)
}

// Tap copies what arrives in the queue from now on, whoever consumes it, and changes nothing. Messages come in the order in
// which they become visible; those with a delay come when they are stored.
//
// It ends with an error when the connection breaks, for what arrives meanwhile is not seen, or the queue is deleted; the
// end of ctx is none.
func (q *Queue) Tap(ctx context.Context, o TapOptions) iter.Seq2[*Peeked, error] {
	return func(yield func(*Peeked, error) bool) {
		if o.MaxBodyBytes < 0 {
			yield(nil, newError(reason.InvalidArgument, "body bytes %d: they must not be negative", o.MaxBodyBytes).on(q.name))
			return
		}
		streamCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		filter := Filter{Selector: o.Selector, Headers: o.Headers}
		stream, err := q.c.messages.Tap(streamCtx, &ipcdv1.TapRequest{Queue: q.name, Filter: filter.proto(), MaxBodyBytes: uint64(o.MaxBodyBytes)})
		for first := true; err == nil; first = false {
			var r *ipcdv1.TapResponse
			if r, err = stream.Recv(); err != nil {
				break
			}
			if first && o.OnOpen != nil {
				o.OnOpen()
			}
			if r.GetSkipped() > 0 && o.OnSkipped != nil {
				o.OnSkipped(r.GetSkipped())
			}
			for _, p := range r.GetMessages() {
				if !yield(q.peeked(p), nil) {
					return
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, io.EOF) {
			yield(nil, newError(reason.Unreachable, "the daemon ended the tap").on(q.name))
			return
		}
		yield(nil, q.c.rpcError(err, q.name))
	}
}
