package ring

import (
	"sync"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// budget bounds what members take. Memory is charged before it is made: beyond a cgroup's limit a process
// is killed, not refused.
type budget struct {
	limit  int64 // bytes of all
	perUID int64 // bytes of a payer

	mu       sync.Mutex
	used     int64
	accounts map[identity.Principal]*account
}

type account struct {
	bytes   int64
	members int
}

// charge is what one member takes.
type charge struct {
	budget *budget
	ring   *ring
	payer  identity.Principal
	bytes  int64 // guarded by budget.mu; 0: released
	member bool  // guarded by budget.mu; it counts as one
}

// shortage is a charge that was refused.
type shortage struct {
	err   error
	evict func(*Member) bool // giving up ended lanes for which this is true may help; nil: nothing does
}

// anyLane is a shortage's evict where it does not matter whose lane goes.
func anyLane(*Member) bool { return true }

// charge takes from the budget, or tells what is short.
func (b *budget) charge(rg *ring, p identity.Principal, bytes int64) (*charge, *shortage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[p]
	if a == nil {
		a = &account{}
	}
	refuse := func(format string, args ...any) error {
		return reason.New(reason.QuotaExceeded, format, args...).On(rg.name)
	}
	switch {
	case a.members >= limits.RingMembersPerUID:
		return nil, &shortage{err: refuse("%s %d producers and consumers attached in all rings, all that there may be: detach one", p.Does("has", "have"), a.members)}
	case a.bytes+bytes > b.perUID:
		return nil, &shortage{evict: func(m *Member) bool { return m.memory.charge.payer == p }, err: refuse("%s %d bytes of ring memory, and %d more would pass ring_memory_per_uid (%d): detach members, delete rings, lower retain, or raise that key",
			p.Does("uses", "use"), a.bytes, bytes, b.perUID)}
	case b.used+bytes > b.limit:
		return nil, &shortage{evict: anyLane, err: refuse("all rings use %d bytes of memory, and %d more would pass ring_memory (%d, never above a quarter of the daemon's memory cgroup): detach members, delete rings, lower retain, or raise that key",
			b.used, bytes, b.limit)}
	}
	a.bytes += bytes
	a.members++
	b.accounts[p] = a
	b.used += bytes
	rg.charged += bytes
	return &charge{budget: b, ring: rg, payer: p, bytes: bytes, member: true}, nil
}

// left ends its being a member; its memory stays charged.
func (c *charge) left() {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	c.leftLocked()
}

func (c *charge) leftLocked() {
	if c.member {
		c.member = false
		c.budget.accounts[c.payer].members--
		c.forgetLocked()
	}
}

// release gives everything back. Doing so again changes nothing.
func (c *charge) release() {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	c.leftLocked()
	if c.bytes == 0 {
		return
	}
	b.accounts[c.payer].bytes -= c.bytes
	b.used -= c.bytes
	c.ring.charged -= c.bytes
	c.bytes = 0
	c.forgetLocked()
}

// forgetLocked drops an account that has nothing.
func (c *charge) forgetLocked() {
	if a := c.budget.accounts[c.payer]; a != nil && *a == (account{}) {
		delete(c.budget.accounts, c.payer)
	}
}

// chargedTo returns the bytes that the ring's members take.
func (b *budget) chargedTo(rg *ring) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return rg.charged
}

// total returns the bytes that are in use.
func (b *budget) total() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
