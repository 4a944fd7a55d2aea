package shm

import "sync/atomic"

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
		if old != nil && next.Page == nil { // the older offer's page has not been taken up
			next.Page = old.Page
		}
		if !o.pending.CompareAndSwap(old, &next) {
			continue
		}
		if old != nil {
			if m.Page == nil {
				old.Page = nil // it went into the new offer
			}
			old.release()
		}
		o.interrupt()
		return
	}
}

// interrupt wakes who sleeps on private.
func (o *offers) interrupt() {
	o.private.Add(1)
	wakePrivate(&o.private)
}
