package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"strconv"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// RingPosition is where a subscriber begins. The zero value is FromNewest. Lanes that come later are read
// from their beginning in any case.
type RingPosition struct {
	kind     ringFrom
	sequence uint64
}

type ringFrom uint8

const (
	fromNewest ringFrom = iota
	fromOldest
	fromSequence
)

// FromNewest begins with what is published from now on.
func FromNewest() RingPosition { return RingPosition{} }

// FromOldest begins with what is still there.
func FromOldest() RingPosition { return RingPosition{kind: fromOldest} }

// FromSequence begins with the first message of each lane that has this sequence or a later one.
func FromSequence(n uint64) RingPosition { return RingPosition{kind: fromSequence, sequence: n} }

// ParseRingPosition reads what String writes: newest, oldest, or a sequence.
func ParseRingPosition(text string) (RingPosition, error) {
	switch text {
	case "newest":
		return FromNewest(), nil
	case "oldest":
		return FromOldest(), nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return RingPosition{}, newError(reason.InvalidArgument, "position %.40q: it must be oldest, newest or a sequence such as 4711", text)
	}
	return FromSequence(n), nil
}

// String returns newest, oldest, or the sequence.
func (p RingPosition) String() string {
	switch p.kind {
	case fromOldest:
		return "oldest"
	case fromSequence:
		return strconv.FormatUint(p.sequence, 10)
	}
	return "newest"
}

// RingSubscribeOptions says what Subscribe hands out. The zero value means all that is published from now on.
type RingSubscribeOptions struct {
	From  RingPosition
	Types []int64 // only messages of these types, up to 1024; none: all
	// Lossless lets the producers wait for this subscriber. It is for rings with RingLossless, and for those
	// who may both read and write. Who holds a producer up for too long is ended with ErrConsumerEvicted.
	Lossless bool
	// OnOpen is called, from the goroutine that ranges, once the subscriber has its place: what is published
	// from then on will be seen. It may be nil.
	OnOpen func()
}

// RingDelivery is a message that was published. It is the receiver's to keep.
type RingDelivery struct {
	RingMessage
	LaneID      uint64
	Sequence    uint64    // its place in its lane, from 1
	PublishedAt time.Time // zero: its producer tells no times
	Lost        uint64    // messages of the lane, of whatever type, that were overwritten just before this one could be read
}

// Subscribe hands out messages as they are published, in order within each lane, until ctx ends, which is no
// error. Where the ring overwrites and the caller is slow, messages are lost; each delivery tells how many.
//
// ErrRingCorrupt is about one lane alone, that of the delivery beside it: it is not read on, the
// others are, and the sequence goes on where the caller does. Any other error ends it.
func (r *Ring) Subscribe(ctx context.Context, o RingSubscribeOptions) iter.Seq2[RingDelivery, error] {
	return func(yield func(RingDelivery, error) bool) {
		if e := checkTypes(o.Types); e != nil {
			yield(RingDelivery{}, e.on(r.name))
			return
		}
		streamCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := r.c.rings.Subscribe(streamCtx, o.proto(r.name))
		for opened := false; err == nil; opened = true {
			var response *ipcdv1.SubscribeResponse
			if response, err = stream.Recv(); err != nil {
				break
			}
			if !opened && o.OnOpen != nil {
				o.OnOpen()
			}
			for _, d := range response.GetDeliveries() {
				if !yield(ringDeliveryOf(d), nil) {
					return
				}
			}
			for _, l := range response.GetLaneErrors() {
				if !yield(RingDelivery{LaneID: l.GetLaneId()}, answer(l.GetError(), r.name)) {
					return
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, io.EOF) {
			err = newError(reason.Unreachable, "the daemon at %s ended the stream", r.c.target)
		}
		yield(RingDelivery{}, r.c.rpcError(err, r.name))
	}
}

func checkTypes(types []int64) *Error {
	if len(types) > limits.SelectorTypes {
		return newError(reason.InvalidArgument, "%d types: there may be %d; leave them out and look at each message", len(types), limits.SelectorTypes)
	}
	for _, t := range types {
		if t <= 0 {
			return newError(reason.InvalidArgument, "type %d: types are positive", t)
		}
	}
	return nil
}

func (o *RingSubscribeOptions) proto(ring string) *ipcdv1.SubscribeRequest {
	p := &ipcdv1.SubscribeRequest{Ring: ring, Types: o.Types, Lossless: o.Lossless}
	switch o.From.kind {
	case fromNewest:
		p.From = &ipcdv1.SubscribeRequest_Newest{Newest: new(ipcdv1.RingNewest)}
	case fromOldest:
		p.From = &ipcdv1.SubscribeRequest_Oldest{Oldest: new(ipcdv1.RingOldest)}
	case fromSequence:
		p.From = &ipcdv1.SubscribeRequest_Sequence{Sequence: o.From.sequence}
	}
	return p
}

func ringDeliveryOf(p *ipcdv1.RingDelivery) RingDelivery {
	return RingDelivery{
		RingMessage: RingMessage{Type: p.GetType(), Payload: p.GetPayload()},
		LaneID:      p.GetLaneId(),
		Sequence:    p.GetSequence(),
		PublishedAt: timeOf(p.GetPublishTime()),
		Lost:        p.GetLost(),
	}
}
