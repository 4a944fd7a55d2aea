package ring

import (
	"context"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// SubscribeOptions say what a subscription reads.
type SubscribeOptions struct {
	Start    shm.Start
	Types    []int64 // none: all
	Lossless bool    // it holds producers back, which the ring's policy must allow
}

// Subscription is the daemon as a consumer, on somebody's behalf. One goroutine at a time may call Next; any may call
// Close.
type Subscription struct {
	member *Member
	reader *shm.Reader
}

// Subscribe makes a consumer. Close ends it.
func (r *Rings) Subscribe(ctx context.Context, id identity.Identity, name string, o SubscribeOptions) (_ *Subscription, err error) {
	defer r.access.Tell(id, &err)
	rg, err := r.find(id, name, rightOf(Consumer, o.Lossless))
	if err != nil {
		return nil, err
	}
	if err := checkTypes(o.Types); err != nil {
		return nil, err
	}
	m, err := rg.newMember(id, Consumer, o.Lossless)
	if err != nil {
		return nil, err
	}
	if err := r.awaitWindow(ctx); err != nil {
		return nil, err
	}
	s := &Subscription{member: m}
	err = rg.enterOwn(m, id.Principal(), func(h Header, memory *shm.Memory, others shm.Members) handle {
		s.reader = shm.NewReader(shm.ReaderConfig{Memory: memory, RingID: h.RingID, ConsumerID: m.id, Epoch: m.joined, Slot: m.slot,
			Lossless: m.lossless, Start: o.Start, Types: shm.Types(o.Types), Pull: pulled}, others)
		return s.reader
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// checkTypes says what is wrong with a selection of types.
func checkTypes(types []int64) error {
	if len(types) > limits.SelectorTypes {
		return reason.Invalid("types", "%d types: at most %d may be named", len(types), limits.SelectorTypes)
	}
	for _, t := range types {
		if t <= 0 {
			return reason.Invalid("types", "type %d: types are positive", t)
		}
	}
	return nil
}

// ID is the consumer's id.
func (s *Subscription) ID() uint64 { return s.member.id }

// Next waits for messages, at least one, and returns how many it put into into. Payloads are valid until the next call. After
// RING_CORRUPT and CONSUMER_EVICTED, each told once for a lane, it can be called again; any other error is the end.
func (s *Subscription) Next(ctx context.Context, into []shm.Message) (n int, err error) {
	// The reader looks at producers' memory.
	if fault := guarded(func() { n, err = s.reader.NextBatch(ctx, into) }); fault != nil {
		return 0, internalError(fault, "read").On(s.member.ring.name)
	}
	if err != nil {
		err = s.member.explain(err, "")
	}
	return n, err
}

// Close ends the subscription; a Next that waits returns.
func (s *Subscription) Close() { s.member.Leave("it was closed") }
