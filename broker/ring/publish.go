package ring

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// publisher is the daemon as a producer of a ring.
type publisher struct {
	member *Member
	writer *shm.Writer
}

// Publish appends messages, of which it takes types and payloads, to the daemon's own lane of a ring; the lane is made at the
// first call, and who owns the ring then pays for it. It returns the lane and the sequence of the first message; the others
// follow by one. Calls are served in their order. In a lossless ring they wait for consumers until ctx ends; an error
// then says how many messages were published before.
func (r *Rings) Publish(ctx context.Context, id identity.Identity, name string, batch []shm.Message) (lane, first uint64, err error) {
	defer r.access.Tell(id, &err)
	rg, err := r.find(id, name, access.Send)
	if err != nil {
		return 0, 0, err
	}
	if err := rg.checkBatch(batch); err != nil {
		return 0, 0, err
	}
	if err := r.awaitWindow(ctx); err != nil {
		return 0, 0, err
	}
	select {
	case rg.turn <- struct{}{}:
		defer func() { <-rg.turn }()
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if err := r.access.Denial(id, rg.object(), access.Send); err != nil { // it may have been withdrawn meanwhile
		return 0, 0, err
	}
	if rg.own == nil {
		if rg.own, err = rg.openPublisher(); err != nil {
			return 0, 0, err
		}
	}
	return rg.own.publish(ctx, batch)
}

// checkBatch refuses what could not be published whole.
func (rg *ring) checkBatch(batch []shm.Message) error {
	if len(batch) == 0 || len(batch) > limits.RingPublishMessages {
		return reason.Invalid("messages", "%d messages: a publish has 1 to %d", len(batch), limits.RingPublishMessages).On(rg.name)
	}
	largest := rg.settings.Load().MaxMessage
	for i := range batch {
		if n := len(batch[i].Payload); int64(n) > largest {
			return reason.New(reason.MessageTooLarge, "a payload of %d bytes: this ring takes up to %d", n, largest).On(rg.name).At(i)
		}
		if batch[i].Type <= 0 {
			return reason.Invalid("type", "type %d: types are 1 to %d", batch[i].Type, int64(math.MaxInt64)).On(rg.name).At(i)
		}
	}
	return nil
}

func (p *publisher) publish(ctx context.Context, batch []shm.Message) (lane, first uint64, err error) {
	rg := p.member.ring
	n := 0
	first = p.writer.Sequence() + 1
	// The writer looks at consumers' memory.
	if fault := guarded(func() { n, err = p.writer.PublishBatch(ctx, batch) }); fault != nil {
		return 0, 0, internalError(fault, "publish").On(rg.name)
	}
	if err != nil {
		return 0, 0, p.member.explain(err, fmt.Sprintf("%d of %d messages were published", n, len(batch)))
	}
	return p.member.id, first, nil
}

// explain turns an error of a handle of the daemon's own into what the caller may be shown.
func (m *Member) explain(err error, so string) error {
	rg := m.ring
	var corrupt *shm.CorruptError
	var evicted *shm.EvictedError
	switch {
	case errors.Is(err, shm.ErrClosed):
		if gone := m.Err(); gone != nil {
			return gone
		}
		return shuttingDown()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		if so == "" {
			return err
		}
		return fmt.Errorf("%s: %s: %w", rg.name, so, err)
	case errors.As(err, &corrupt):
		return errors.Join(reason.New(reason.RingCorrupt, "%v", err).On(rg.name), err)
	case errors.As(err, &evicted):
		return reason.New(reason.ConsumerEvicted, "%v", err).On(rg.name)
	}
	return internalError(err, "use the ring").On(rg.name)
}

// openPublisher makes the daemon's own lane.
func (rg *ring) openPublisher() (*publisher, error) {
	s := rg.settings.Load()
	owner := identity.Identity{Kind: identity.Unix, UID: s.OwnerUID, GID: s.GroupGID}
	m, err := rg.newMember(owner, Producer, false)
	if err != nil {
		return nil, err
	}
	var w *shm.Writer
	err = rg.enterOwn(m, owner.Principal(), func(h Header, memory *shm.Memory, others shm.Members) handle {
		w = shm.NewWriter(shm.WriterConfig{Memory: memory, RingID: h.RingID, LaneID: m.id, Epoch: m.joined, Slot: m.slot, Geometry: m.geometry,
			Lossless: m.lossless, Stall: h.Stall, Pull: pulled}, others)
		return w
	})
	if err != nil {
		return nil, err
	}
	rg.mu.Lock()
	memory := m.memory // nil if the ring was deleted meanwhile
	rg.mu.Unlock()
	m.keep(memory)
	return &publisher{m, w}, nil
}

// pulled need not do anything: the daemon's own members are offered every change at once.
func pulled() {}

// handle is the daemon's own use of a member's memory.
type handle interface {
	Offer(shm.Members)
	Close()
}

// enterOwn makes a member of the daemon's own. open makes its handle, which takes over memory and others.
func (rg *ring) enterOwn(m *Member, p identity.Principal, open func(h Header, memory *shm.Memory, others shm.Members) handle) error {
	if rg.rings.stopping.Load() {
		return shuttingDown()
	}
	m.daemon, m.pid = true, uint32(os.Getpid())
	h, err := rg.join(m, p)
	if err != nil {
		return err
	}
	memory, err := m.mapOwn()
	if err != nil {
		rg.abandon(m)
		return internalError(err, "join").On(rg.name)
	}
	rg.mu.Lock()
	if err := m.refusedLocked(); err != nil {
		rg.mu.Unlock()
		memory.Release()
		rg.abandon(m)
		return err
	}
	rg.announceLocked(m)
	others := rg.membersLocked(m.role)
	rg.mu.Unlock()
	m.logged("joined its ring")

	// Making the handle looks at others' memory, so no lock is held. What changes meanwhile is offered afterwards.
	var used handle
	if fault := guarded(func() { used = open(h, memory, others) }); fault != nil {
		memory.Release()
		m.Leave("its handle could not be made")
		return internalError(fault, "join").On(rg.name)
	}
	rg.mu.Lock()
	err = m.err
	if err == nil && rg.rings.stopping.Load() {
		err = shuttingDown()
	}
	if err == nil {
		m.handle = used
		if rg.epoch != others.Epoch {
			used.Offer(rg.membersLocked(m.role))
		}
	}
	rg.mu.Unlock()
	if err != nil {
		used.Close()
		m.Leave("it came too late")
	}
	return err
}

// mapOwn maps the memory of a member of the daemon's own, and seals it.
func (m *Member) mapOwn() (*shm.Memory, error) {
	memory, err := shm.Map(m.memory.writable, m.memory.size, true)
	if err != nil {
		return nil, err
	}
	err = memory.Populate()
	if err == nil {
		err = m.memory.seal()
	}
	if err != nil {
		memory.Release()
		return nil, err
	}
	return memory, nil
}
