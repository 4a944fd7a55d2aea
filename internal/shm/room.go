package shm

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

const (
	backstop        = 100 * time.Millisecond // of every sleep: somebody may have requeued the sleepers of a word that it may only read
	membersPatience = 100 * time.Millisecond // how long a lossless lane waits to learn of new members
	roomSpins       = 300
)

// neverContext marks calls that do not wait.
type neverContext struct{ context.Context }

var never context.Context = neverContext{context.Background()}

// holder is a consumer as far as it can hold a producer back.
type holder struct {
	id, epoch uint64
	slot      uint32
	lossless  bool
	memory    *Memory
	lane      *atomic.Uint64 // the lane that the cursor is of
	at        *atomic.Uint64 // its cursor
	wake      *atomic.Uint32 // it wakes blocked producers here

	cursor  uint64 // as far as it is believed: never backwards, never beyond what was published
	evicted bool
	held    time.Duration // it has held the producer up, since
	since   int64
}

func newHolder(c *ConsumerPeer, laneSlot uint32) holder {
	b := c.Memory.Bytes()
	line := cursorsAt + cursorStride*int(laneSlot)
	return holder{id: c.ID, epoch: c.Epoch, slot: c.Slot, lossless: c.Lossless, memory: c.Memory,
		lane: word64(b, line+lineLane), at: word64(b, line+lineCursor), wake: word32(b, consumerWakeAt)}
}

// holds returns the position that the writer must not overwrite, if the consumer holds it back at all.
func (w *Writer) holds(h *holder) (position uint64, ok bool) {
	if !h.lossless || h.evicted {
		return 0, false
	}
	if h.lane.Load() == w.config.LaneID {
		if at := min(h.at.Load(), w.published.Load()); at > h.cursor {
			h.cursor = at
		}
		return h.cursor, true
	}
	// It has not taken up this lane yet. If it was there before the lane it will read it from its beginning.
	return h.cursor, h.epoch < w.config.Epoch
}

// room is the position up to which all who may not lose anything have read.
func (w *Writer) room() uint64 {
	least := w.position
	for i := range w.peers {
		if at, ok := w.holds(&w.peers[i]); ok {
			least = min(least, at)
		}
	}
	return least
}

// makeRoom moves oldest to the first mark that is not before want.
func (w *Writer) makeRoom(ctx context.Context, want uint64) error {
	target := w.marks[(want+w.stride-1)/w.stride%markCount]
	if w.config.Lossless && (w.epoch.Load() > max(w.seen, w.unmet) || w.pending.Load() != nil || w.room() < target) {
		if err := w.block(ctx, target); err != nil {
			return err
		}
	}
	w.oldest = target
	w.words.oldest.Store(target)
	fenceAfterOldest(w.words.oldest)
	return nil
}

// block waits until all who may not lose anything have read up to target.
func (w *Writer) block(ctx context.Context, target uint64) error {
	began := monotonic()
	last := began
	parked := false
	defer func() {
		if parked {
			w.stats.blocks++
			w.stats.blockedNanos += uint64(monotonic() - began)
			storeRelaxed(w.words.blocks, w.stats.blocks)
			storeRelaxed(w.words.blockedNanos, w.stats.blockedNanos)
		}
	}()
	var unhook func() bool
	for spins := 0; ; spins++ {
		if w.epoch.Load() > w.seen || w.pending.Load() != nil {
			w.meet()
		}
		now := monotonic()
		stale := w.epoch.Load() > max(w.seen, w.unmet)
		if stale && w.staleSince == 0 {
			w.staleSince = now
		}
		if stale && now-w.staleSince >= int64(membersPatience) {
			w.unmet = w.epoch.Load() // the daemon does not answer: go on without, and do not wait for these again
			stale = false
		}
		if !stale && w.room() >= target {
			return nil
		}
		switch {
		case ctx == never:
			return ErrFull
		case w.use.isClosed():
			return ErrClosed
		case ctx != nil && ctx.Err() != nil:
			return ctx.Err()
		}
		if spins < roomSpins && spinning {
			pause()
			continue
		}
		if !parked && ctx != nil && ctx.Done() != nil {
			unhook = context.AfterFunc(ctx, w.interrupt)
			defer unhook()
		}
		parked = true
		patience := w.charge(target, now-last, now, stale)
		last = now
		w.park(ctx, target, min(now+int64(patience), now+int64(backstop)))
	}
}

// charge adds the time to those who hold the writer up, and evicts who did so for too long. It returns how long the
// others may go on.
func (w *Writer) charge(target uint64, nanos, now int64, stale bool) time.Duration {
	patience := backstop
	for i := range w.peers {
		h := &w.peers[i]
		at, ok := w.holds(h)
		if !ok || at >= target || stale {
			continue
		}
		if now-h.since > int64(limits.RingStallWindow) {
			h.since, h.held = now, 0
		}
		h.held += min(time.Duration(nanos), 2*backstop) // longer only if everybody was stopped: a container, a virtual machine
		if h.held >= w.config.Stall {
			w.evict(h)
			return 0
		}
		patience = min(patience, w.config.Stall-h.held)
	}
	return patience
}

// evict lets a consumer lose what it has not read. It finds out by its slot.
func (w *Writer) evict(h *holder) {
	h.evicted = true
	word64(w.memory.Bytes(), evictedAt+8*int(h.slot)).Store(h.id)
	w.stats.evictions++
	storeRelaxed(w.words.evictions, w.stats.evictions)
	w.wake()
}

// park sleeps until a consumer that holds the writer back has read on, members change, or the deadline passes.
func (w *Writer) park(ctx context.Context, target uint64, deadline int64) {
	words := append(w.waiting[:0], sharedWaiter(w.page.futex, w.page.futex.Load()), privateWaiter(&w.private, w.private.Load()))
	holding := w.holding[:0]
	for i := range w.peers {
		h := &w.peers[i]
		if at, ok := w.holds(h); ok && at < target {
			was := h.wake.Load()
			words = append(words, sharedWaiter(h.wake, was))
			holding = append(holding, watched{h.wake, was})
		}
	}
	w.waiting, w.holding = words, holding
	w.stats.blocked++
	w.words.blocked.Store(w.stats.blocked) // odd: from here on who reads wakes
	// Look again: who read before that did not wake.
	again := w.pending.Load() != nil || w.use.isClosed() || ctx != nil && ctx.Err() != nil ||
		w.epoch.Load() > max(w.seen, w.pulled) || w.room() >= target && w.epoch.Load() <= max(w.seen, w.unmet)
	timedOut := false
	if !again {
		timedOut = sleep(words, deadline)
	}
	w.stats.blocked++
	w.words.blocked.Store(w.stats.blocked)
	if timedOut && w.room() >= target && !justWoken(w.wasWoken, deadline) {
		w.stats.backstops++
		storeRelaxed(w.words.backstops, w.stats.backstops)
	}
}

// watched is a consumer's wake word that a producer slept on.
type watched struct {
	wake *atomic.Uint32
	was  uint32
}

// wasWoken reports whether a word that the producer slept on is another than when the sleep began.
func (w *Writer) wasWoken() bool {
	for _, o := range w.holding {
		if o.wake.Load() != o.was {
			return true
		}
	}
	return false
}
