package rpc

import (
	"cmp"
	"context"
	"math"
	"slices"

	"google.golang.org/grpc"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// peeking is one Peek call: first the pages of what is there, then, if it follows, what arrives.
type peeking struct {
	*Server
	stream  grpc.ServerStreamingServer[ipcdv1.PeekResponse]
	caller  identity.Identity
	request broker.PeekRequest
	left    uint64 // messages that may still be shown
	last    uint64 // everything up to this sequence was looked at, when following
}

// Peek shows messages, a page to a response, so that memory is bounded by a page.
func (s messages) Peek(r *ipcdv1.PeekRequest, stream grpc.ServerStreamingServer[ipcdv1.PeekResponse]) error {
	filter, err := decodeFilter(r.Filter, s.now())
	if err != nil {
		return onQueue(err, r.Queue)
	}
	bySequence, err := decodeOrder(r.Order)
	if err != nil {
		return onQueue(err, r.Queue)
	}
	p := &peeking{Server: s.Server, stream: stream, caller: callerFrom(stream.Context()), left: r.Limit,
		request: broker.PeekRequest{Queue: r.Queue, Filter: filter, Cursor: r.Cursor, MaxBody: decodeBody(r.MaxBodyBytes), BySequence: bySequence}}
	if p.left == 0 {
		p.left = math.MaxUint64
	}
	if err := p.present(stream.Context(), r.Follow); err != nil || !r.Follow {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	err = p.follow(ctx)
	if err != nil && s.stopping.Err() != nil && stream.Context().Err() == nil {
		return shuttingDown()
	}
	return err
}

// present shows what is there. A message that arrives meanwhile may sort into a later page; when
// following it is left out there, so that it is shown once.
func (p *peeking) present(ctx context.Context, follow bool) error {
	for first := true; p.left > 0; first = false {
		p.request.Max = int(min(p.left, limits.PeekPage))
		page, err := p.broker.Peek(ctx, p.caller, p.request)
		if err != nil {
			return err
		}
		if first {
			p.last = page.Last
		}
		if follow {
			page.Messages = p.upTo(page.Messages, p.last)
		}
		if err := p.show(page.Messages, page.Cursor); err != nil {
			return err
		}
		if p.request.Cursor = page.Cursor; page.Cursor == "" {
			return nil
		}
	}
	return nil
}

// follow shows what arrives, by sequence, until the limit or the filter's last sequence is reached or
// ctx ends.
func (p *peeking) follow(ctx context.Context) error {
	high := p.request.Filter.MaxSequence
	if high == 0 {
		high = math.MaxUint64
	}
	p.last = max(p.last, p.request.Filter.MinSequence-min(p.request.Filter.MinSequence, 1))
	for window := uint64(limits.PeekPage); p.left > 0 && p.last < high; {
		if err := p.broker.AwaitArrival(ctx, p.caller, p.request.Queue, p.last); err != nil {
			return err
		}
		to := high
		if high-p.last > window {
			to = p.last + window
		}
		arrived, last, fits, err := p.collect(ctx, to)
		if err != nil {
			return err
		}
		if !fits {
			window = max(window/2, 1)
			continue
		}
		window = limits.PeekPage
		slices.SortFunc(arrived, func(a, b queue.Peeked) int { return cmp.Compare(a.Sequence, b.Sequence) })
		if uint64(len(arrived)) > p.left {
			arrived = arrived[:p.left]
		}
		if err := p.show(arrived, ""); err != nil {
			return err
		}
		p.last = max(p.last, min(to, last))
	}
	return nil
}

// collect gathers the messages above p.last and up to `to`, which come in the order of receiving.
// last is the highest sequence that was visible then. If they are more than a page's bytes, fits is false.
func (p *peeking) collect(ctx context.Context, to uint64) (arrived []queue.Peeked, last uint64, fits bool, err error) {
	r := p.request
	r.Filter.MinSequence, r.Filter.MaxSequence, r.Max, r.Cursor = p.last+1, to, limits.PeekPage, ""
	bytes := 0
	for first := true; ; first = false {
		page, err := p.broker.Peek(ctx, p.caller, r)
		if err != nil {
			return nil, 0, false, err
		}
		if first {
			last = page.Last
		}
		for _, m := range p.upTo(page.Messages, last) {
			arrived = append(arrived, m)
			bytes += m.Bytes()
		}
		if len(arrived) > 1 && bytes > limits.PeekPageBytes {
			return nil, 0, false, nil
		}
		if r.Cursor = page.Cursor; page.Cursor == "" {
			return arrived, last, true, nil
		}
	}
}

// upTo leaves out messages above last.
func (p *peeking) upTo(messages []queue.Peeked, last uint64) []queue.Peeked {
	return slices.DeleteFunc(messages, func(m queue.Peeked) bool { return m.Sequence > last })
}

// show sends a page. An empty one is not worth a response: looking is bounded, so a page may hold
// nothing and yet not be the last.
func (p *peeking) show(messages []queue.Peeked, cursor string) error {
	if len(messages) == 0 {
		return nil
	}
	p.left -= uint64(len(messages))
	if err := p.stream.Send(&ipcdv1.PeekResponse{Messages: encodePeeked(messages), Cursor: cursor}); err != nil {
		return streamEnded{err}
	}
	return nil
}
