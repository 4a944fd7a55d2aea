package shm

import (
	"slices"
	"sync/atomic"
)

// sleeper is a consumer as far as a producer wakes it.
type sleeper struct {
	parked *atomic.Uint32 // a generation, odd while it sleeps
	woken  uint32         // the generation that this producer last woke
}

// wakeSleepers wakes those who sleep and were not woken yet. A consumer that was woken may take long to come up;
// until it does, every further message finds it asleep, and must not cost a system call.
func (w *Writer) wakeSleepers() {
	fresh := false
	for i := range w.consumers {
		c := &w.consumers[i]
		if g := c.parked.Load(); g&1 == 1 && g != c.woken {
			c.woken = g
			fresh = true
		}
	}
	if !fresh {
		w.stats.elided++
		storeRelaxed(w.words.elided, w.stats.elided)
		return
	}
	w.wake()
}

// wake wakes everybody who sleeps at the lane.
func (w *Writer) wake() {
	w.words.wake.Add(1)
	wakeShared(w.words.wake)
	w.stats.wakes++
	storeRelaxed(w.words.wakes, w.stats.wakes)
}

// meet takes up new members. Where the epoch says that there are some who are not known yet, all are woken,
// since these may sleep, and Pull is asked to find out.
func (w *Writer) meet() {
	if m := w.pending.Swap(nil); m != nil {
		w.adopt(m)
	}
	if e := w.epoch.Load(); e > w.seen {
		w.wake()
		if e != w.pulled {
			w.pulled = e
			if w.config.Pull != nil {
				w.config.Pull()
			}
		}
	}
}

// adopt takes up members. Of those known before it keeps what it knows.
func (w *Writer) adopt(m *Members) {
	before := w.peers
	sleepers := w.consumers
	w.peers, w.consumers = nil, nil
	known := func(id uint64) int {
		return slices.IndexFunc(before, func(h holder) bool { return h.id == id })
	}
	for _, c := range m.Consumers {
		if i := known(c.ID); i >= 0 && before[i].memory != nil {
			c.Memory.Release()
			w.take(&before[i], sleepers[i])
			continue
		}
		h := newHolder(&c, w.config.Slot)
		w.take(&h, sleeper{parked: word32(c.Memory.Bytes(), parkedAt(c.Slot))})
	}
	for i := range before {
		switch {
		case before[i].memory == nil: // taken
		case m.Partial:
			w.take(&before[i], sleepers[i])
		default:
			before[i].memory.Release()
		}
	}
	if m.Page != nil {
		w.page.Release()
		w.page = m.Page
		w.epoch = m.Page.epoch
	}
	for i := range m.Lanes { // a producer has no use for them
		m.Lanes[i].Memory.Release()
	}
	w.seen, w.staleSince = m.Epoch, 0
	w.words.seen.Store(m.Epoch)
}

// take keeps a consumer, which is not in the place where it was any more.
func (w *Writer) take(h *holder, s sleeper) {
	w.peers = append(w.peers, *h)
	w.consumers = append(w.consumers, s)
	h.memory = nil
}
