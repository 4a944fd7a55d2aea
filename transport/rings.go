package transport

import (
	"context"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/shm"
)

// Rings is the rings as those doors see them that copy messages; programs that attach to a ring's memory have
// a door of their own. Every call says on whose behalf it is made; access is checked at every call. Errors are
// *reason.Error, or the context's.
type Rings interface {
	// Create makes a ring with the default settings as changed by edit. If it exists with the same settings and
	// exclusive is false, created is false.
	Create(ctx context.Context, id identity.Identity, name string, edit ring.Edit, exclusive bool) (info ring.Info, created bool, err error)
	Get(ctx context.Context, id identity.Identity, name string) (ring.Info, error)
	// Update changes the mode, the owner, the group, how much is retained and the stall.
	Update(ctx context.Context, id identity.Identity, name string, edit ring.Edit) (ring.Info, error)
	// Delete removes a ring and throws its members out. It tells how many there were.
	Delete(ctx context.Context, id identity.Identity, name string) (members int, err error)
	// List returns the rings that the caller may look at, by name. glob is a pattern of path.Match over the name
	// without its slash; "" matches all.
	List(ctx context.Context, id identity.Identity, glob string) ([]ring.Info, error)

	// Publish publishes a batch through the daemon's own lane, in the order of the calls. It copies what it
	// publishes. A batch with a message that the ring does not take is refused as a whole. In a lossless ring it
	// waits for the slowest consumer until ctx ends; some may have been published by then.
	Publish(ctx context.Context, id identity.Identity, name string, batch []shm.Message) (lane, firstSequence uint64, err error)
	// Subscribe attaches the daemon as a consumer, for one reader.
	Subscribe(ctx context.Context, id identity.Identity, name string, o ring.SubscribeOptions) (Subscription, error)
}

// Subscription is one reader of a ring. Next is for one goroutine at a time.
type Subscription interface {
	// Next waits for messages and returns how many it put into the slice, at least one. Payloads are valid until
	// the next call. RING_CORRUPT is about one lane, which is not read on, and CONSUMER_EVICTED about one lane
	// whose producer does not wait any more: Next may be called again. Any other error ends the subscription.
	Next(ctx context.Context, into []shm.Message) (int, error)
	Close()
}

// OverRings is the rings as the doors see them.
func OverRings(r *ring.Rings) Rings { return overRings{r} }

type overRings struct{ *ring.Rings }

// Subscribe opens a Subscription.
func (o overRings) Subscribe(ctx context.Context, id identity.Identity, name string, options ring.SubscribeOptions) (Subscription, error) {
	s, err := o.Rings.Subscribe(ctx, id, name, options)
	if err != nil {
		return nil, err // not a nil *ring.Subscription in the interface
	}
	return s, nil
}
