package shm

import (
	"slices"
	"sync/atomic"
)

// Page is the members page of a ring: the epoch, which the daemon raises whenever somebody has joined or left.
type Page struct {
	memory *Memory
	epoch  *atomic.Uint64
	futex  *atomic.Uint32 // the low half of the epoch
}

// NewPage takes over the reference to the memory, of MembersSize bytes.
func NewPage(m *Memory) *Page {
	return &Page{memory: m, epoch: word64(m.Bytes(), 0), futex: word32(m.Bytes(), 0)}
}

// Epoch is the present epoch.
func (p *Page) Epoch() uint64 { return p.epoch.Load() }

// Raise sets the epoch and wakes everybody. The daemon calls it, after what the epoch stands for can be asked for.
func (p *Page) Raise(epoch uint64) {
	p.epoch.Store(epoch)
	wakeShared(p.futex)
}

// Retain adds a user to the page's memory.
func (p *Page) Retain() *Page {
	p.memory.Retain()
	return p
}

// Release takes a user away. nil is no page.
func (p *Page) Release() {
	if p != nil {
		p.memory.Release()
	}
}

// LanePeer is a lane as consumers learn of it.
type LanePeer struct {
	ID, Epoch uint64 // Epoch: at which it joined
	Slot      uint32
	Geometry
	Lossless bool
	Ended    bool // its producer has left: nothing will follow
	PID      uint32
	Memory   *Memory // read-only
}

// ConsumerPeer is a consumer as producers learn of it.
type ConsumerPeer struct {
	ID, Epoch uint64
	Slot      uint32
	Lossless  bool // it holds producers of lossless lanes back
	PID       uint32
	Memory    *Memory // read-only
}

// Members is what a member knows of the others at an epoch. Who receives it takes over the references to its page and memories.
type Members struct {
	Epoch     uint64
	Partial   bool  // who is missing may only not have come back yet, after a restart of the daemon
	Page      *Page // nil: as before
	Lanes     []LanePeer
	Consumers []ConsumerPeer
}

// release gives back what nobody will use.
func (m *Members) release() {
	m.Page.Release()
	for i := range m.Lanes {
		m.Lanes[i].Memory.Release()
	}
	for i := range m.Consumers {
		m.Consumers[i].Memory.Release()
	}
}

// offers hands members from the goroutine that learns of them to the one that uses them.
type offers struct {
	pending atomic.Pointer[Members]
	private atomic.Uint32 // changes with each offer, and wakes who sleeps
}

func (o *offers) offer(m Members) {
	for {
		old := o.pending.Load()
		next := m
		var carried []uint64
		if old != nil {
			if next.Page == nil { // the older offer's page has not been taken up
				next.Page = old.Page
			}
			next.Lanes, carried = withLanes(m, old.Lanes)
		}
		if !o.pending.CompareAndSwap(old, &next) {
			continue
		}
		if old != nil { // what went into the new offer is not to be released
			if m.Page == nil {
				old.Page = nil
			}
			for i := range old.Lanes {
				if slices.Contains(carried, old.Lanes[i].ID) {
					old.Lanes[i].Memory = nil
				}
			}
			old.release()
		}
		o.interrupt()
		return
	}
}

// withLanes adds to the lanes of m those of an older offer that are not among them: they came and went while nobody looked, and
// what is in them is to be read. It also returns which those are.
func withLanes(m Members, older []LanePeer) (lanes []LanePeer, carried []uint64) {
	lanes = m.Lanes
	for _, l := range older {
		if slices.ContainsFunc(m.Lanes, func(other LanePeer) bool { return other.ID == l.ID }) {
			continue
		}
		l.Ended = l.Ended || !m.Partial
		lanes = append(lanes[:len(lanes):len(lanes)], l)
		carried = append(carried, l.ID)
	}
	return lanes, carried
}

// interrupt wakes who sleeps on private.
func (o *offers) interrupt() {
	o.private.Add(1)
	wakePrivate(&o.private)
}
