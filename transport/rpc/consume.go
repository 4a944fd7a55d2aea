package rpc

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
	"github.com/ipcd/ipcd/transport"
)

const (
	// frameMessages and frameBytes bound a Deliveries frame; one larger message passes alone.
	frameMessages = 512
	frameBytes    = 1 << 20
)

const consumeMethod = ipcdv1.MessageService_Consume_FullMethodName

// consumption is one Consume stream. Four goroutines share the work: receive reads frames, deliver
// waits for deliveries and encodes them, confirm waits until settlements are on disk, and the handler (run)
// does all else; it alone writes.
//
//	open ──> delivering ── drain, or the daemon stops ──> draining ──> drained
//	             │                                           │
//	             ├── client closes its side: leases return uncounted (all three)
//	             └── stream breaks: leases count as failed; uncounted once draining
type consumption struct {
	*Server
	stream   grpc.BidiStreamingServer[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]
	consumer transport.Consumer
	caller   identity.Identity
	consume  bool // messages are consumed at once
	receipts bool
	draining bool // leases that are left at the end are returned uncounted
	closed   bool // the client closed its side
	confirmations
}

// Consume hands out messages within the credit and takes settlements.
func (s messages) Consume(stream grpc.BidiStreamingServer[ipcdv1.ConsumeRequest, ipcdv1.ConsumeResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	frames := receive(s.Server, consumeMethod, stream, done)

	request, err := first(s.Server, frames)
	if err != nil {
		return err
	}
	open, ok := request.Kind.(*ipcdv1.ConsumeRequest_Open)
	if !ok {
		return firstFrame(request.Kind)
	}
	r, err := decodeConsumeOpen(open.Open)
	if err != nil {
		return onQueue(err, r.Queue)
	}
	callOf(ctx).on(r.Queue)
	c := &consumption{Server: s.Server, stream: stream, caller: callerFrom(ctx), consume: r.Consume, receipts: open.Open.GetReceipts(), confirmations: newConfirmations()}
	if c.consumer, err = s.broker.Consume(ctx, c.caller, r); err != nil {
		return err
	}
	callOf(ctx).delivers(c.consumer.Outstanding)

	var helpers sync.WaitGroup
	out := make(chan outgoing, 1) // each may be as large as a message
	defer helpers.Wait()
	defer cancel()
	defer func() { c.consumer.Close(c.draining || c.closed) }()
	helpers.Go(func() {
		if err := s.guard(consumeMethod, func() error { return c.deliver(ctx, out) }); err != nil {
			push(ctx, out, outgoing{err: err})
		}
	})
	helpers.Go(func() {
		if err := s.guard(consumeMethod, func() error { return c.confirm(ctx) }); err != nil {
			push(ctx, c.confirmed, confirmation{err: err})
		}
	})
	err = c.run(ctx, frames, out)
	if lastErr := c.confirmRest(ctx, err); err == nil {
		err = lastErr
	}
	return err
}

func decodeConsumeOpen(open *ipcdv1.ConsumeOpen) (out broker.ConsumeRequest, err error) {
	out.Queue = open.GetQueue()
	if out.Selector, err = decodeSelector(open.GetSelector()); err != nil {
		return out, err
	}
	if out.Lease, err = decodeLease(open.GetLease()); err != nil {
		return out, err
	}
	out.Consume, err = decodeConsume(open.GetSettleMode())
	return out, err
}

// run is the stream's loop. It returns nil when the client closed its side.
func (c *consumption) run(ctx context.Context, frames <-chan frame[ipcdv1.ConsumeRequest], out <-chan outgoing) error {
	opened := new(ipcdv1.ConsumeOpened)
	if lease := c.consumer.Lease(); lease > 0 {
		opened.Lease = durationpb.New(lease)
	}
	if err := c.send(&ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Opened{Opened: opened}}); err != nil {
		return err
	}
	stopping := c.stopping.Done()
	for {
		readable := frames
		if c.confirmations.full() {
			readable = nil // HTTP/2 flow control holds the client back
		}
		select {
		case f := <-readable:
			switch {
			case errors.Is(f.err, io.EOF):
				c.closed = true
				if !c.consume {
					return nil
				}
				// What was consumed must still be handed over; `drained` ends it.
				frames = nil
				c.consumer.Drain()
			case f.err != nil:
				return f.err
			default:
				if err := c.handle(ctx, f.request); err != nil {
					return err
				}
			}
		case o := <-out:
			if o.err != nil {
				// The queue went away, or the daemon stops: no fault of the client.
				c.draining = c.draining || ctx.Err() == nil
				return o.err
			}
			err := c.send(o.response)
			if o.slab != nil {
				o.slab.recycle()
			}
			if err != nil {
				return err
			}
			if c.closed && o.response.GetDrained() != nil {
				return nil
			}
		case done := <-c.confirmed:
			if err := c.tell(ctx, done); err != nil {
				return err
			}
		case <-stopping:
			stopping = nil
			c.drain()
		case <-c.closing.Done():
			return shuttingDown()
		}
	}
}

// handle does what a frame of the client says.
func (c *consumption) handle(ctx context.Context, r *ipcdv1.ConsumeRequest) error {
	switch kind := r.Kind.(type) {
	case *ipcdv1.ConsumeRequest_Credit:
		return c.consumer.Credit(kind.Credit.GetMessages(), kind.Credit.GetBytes())
	case *ipcdv1.ConsumeRequest_Settlements:
		settled, ticket, err := c.settle(ctx, c.caller, kind.Settlements.GetSettlements(), c.consumer)
		if err != nil {
			return err
		}
		return c.settled(confirmation{ticket: ticket, results: &ipcdv1.SettleResults{
			SettleId: kind.Settlements.GetSettleId(),
			Failures: c.encodeFailures(consumeMethod, settled.Failures),
			Touched:  encodeTouched(settled.Touched),
		}})
	case *ipcdv1.ConsumeRequest_Drain:
		c.drain()
		return nil
	}
	return unexpectedFrame(r.Kind, "credit, settlements and drain")
}

func (c *consumption) drain() {
	c.draining = true
	c.consumer.Drain()
}

func (c *consumption) send(r *ipcdv1.ConsumeResponse) error {
	if err := c.stream.Send(r); err != nil {
		return streamEnded{err}
	}
	return nil
}

// outgoing is a frame for the client, or why there are no more deliveries.
type outgoing struct {
	response *ipcdv1.ConsumeResponse
	slab     *deliverySlab // where the response's memory comes from, or nil
	err      error
}

// push reports whether o was taken.
func push[T any](ctx context.Context, out chan<- T, o T) bool {
	select {
	case out <- o:
		return true
	case <-ctx.Done():
		return false
	}
}

// deliver encodes deliveries as they come, then says `drained`.
func (c *consumption) deliver(ctx context.Context, out chan<- outgoing) error {
	for {
		next, err := c.consumer.Next(ctx)
		switch {
		case errors.Is(err, io.EOF), reason.Of(err) == reason.ShuttingDown:
			// A stopping daemon delivers nothing more, but what was delivered can still be settled.
			push(ctx, out, outgoing{response: &ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Drained{Drained: &ipcdv1.Drained{}}}})
			return nil
		case err != nil:
			return err
		}
		for tag, rest := next.First, next.Deliveries; len(rest) > 0; {
			n := frameLength(rest)
			slab := slabs.Get().(*deliverySlab)
			o := outgoing{slab: slab, response: &ipcdv1.ConsumeResponse{Kind: &ipcdv1.ConsumeResponse_Deliveries{Deliveries: &ipcdv1.Deliveries{
				FirstTag:   tag,
				Deliveries: slab.encode(rest[:n], "", c.receipts),
			}}}}
			if !push(ctx, out, o) {
				return nil
			}
			tag, rest = tag+uint64(n), rest[n:]
		}
	}
}

// frameLength returns how many deliveries go into one frame.
func frameLength(deliveries []queue.Delivery) int {
	bytes := 0
	for i := range deliveries[:min(len(deliveries), frameMessages)] {
		if bytes += wireBytes(&deliveries[i]); bytes > frameBytes && i > 0 {
			return i
		}
	}
	return min(len(deliveries), frameMessages)
}
