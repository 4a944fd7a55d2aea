package ring

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// slots is how many lanes, and how many consumers, a ring may have.
const slots = shm.MaxLanes

// The arrays below stand for both limits.
var _ [0]struct{} = [slots - limits.RingLanes]struct{}{}
var _ [0]struct{} = [slots - limits.RingConsumers]struct{}{}

// ring is one ring and its members.
type ring struct {
	rings    *Rings
	name     string
	id       uint64
	created  time.Time
	settings atomic.Pointer[Settings] // changed under Rings.admin
	charged  int64                    // bytes; guarded by budget.mu

	// turn is held by who publishes for the daemon; own is guarded by it.
	turn chan struct{}
	own  *publisher

	mu        sync.Mutex // guards all below, and its members' states
	deleted   bool
	lanes     [slots]*Member // by slot; those that join and have ended included
	consumers [slots]*Member
	ended     []*Member // lanes whose producers have left, the oldest first
	adopted   map[uint64]bool
	epoch     uint64 // run of the daemon << 32 | changes
	page      *shm.Page
	pageFile  *os.File // read-only
}

func newRing(r *Rings, name string, id uint64, created time.Time, s Settings) *ring {
	rg := &ring{rings: r, name: name, id: id, created: created, turn: make(chan struct{}, 1), adopted: map[uint64]bool{}, epoch: r.run << 32}
	rg.settings.Store(&s)
	return rg
}

// table returns the members of a role by slot.
func (rg *ring) table(role Role) *[slots]*Member {
	if role == Producer {
		return &rg.lanes
	}
	return &rg.consumers
}

// openPageLocked makes the members page when the first member comes. It stays until the ring goes.
func (rg *ring) openPageLocked() error {
	if rg.page != nil {
		return nil
	}
	f, err := shm.CreateMemory("ipcd-members", shm.MembersSize)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := shm.Map(f, shm.MembersSize, true)
	if err != nil {
		return err
	}
	if err = m.Populate(); err == nil {
		err = shm.CloseToWriters(f, shm.MembersSize)
	}
	var readOnly *os.File
	if err == nil {
		readOnly, err = shm.Reopen(f, os.O_RDONLY)
	}
	if err != nil {
		m.Release()
		return err
	}
	rg.page, rg.pageFile = shm.NewPage(m), readOnly
	rg.page.Raise(rg.epoch)
	return nil
}

// closePageLocked lets go of the members page. Members and the daemon's own handles hold their references to it.
func (rg *ring) closePageLocked() {
	if rg.page != nil {
		rg.page.Release()
		rg.pageFile.Close()
		rg.page, rg.pageFile = nil, nil
	}
}

// raiseLocked tells everybody that the table has changed. It is called after the change, so that who asks because of
// the new epoch learns of it.
func (rg *ring) raiseLocked() {
	rg.epoch++
	if rg.page == nil {
		return
	}
	rg.page.Raise(rg.epoch)
	for _, role := range []Role{Producer, Consumer} {
		for _, m := range rg.table(role) {
			if m != nil && m.state == live && m.handle != nil {
				m.handle.Offer(rg.membersLocked(role))
			}
		}
	}
}

// membersLocked is what a member of the daemon's own knows of the others. Its references are the receiver's.
func (rg *ring) membersLocked(role Role) shm.Members {
	all := shm.Members{Epoch: rg.epoch, Page: rg.page.Retain()}
	for _, m := range rg.table(role.other()) {
		if m == nil || m.state == joining {
			continue
		}
		if role == Consumer {
			all.Lanes = append(all.Lanes, shm.LanePeer{ID: m.id, Epoch: m.joined, Slot: m.slot, Geometry: m.geometry,
				Lossless: m.lossless, Ended: m.state == ended, PID: m.pid, Memory: m.memory.looking.Retain()})
		} else {
			all.Consumers = append(all.Consumers, shm.ConsumerPeer{ID: m.id, Epoch: m.joined, Slot: m.slot,
				Lossless: m.lossless, PID: m.pid, Memory: m.memory.looking.Retain()})
		}
	}
	return all
}

// retainLocked evicts ended lanes, the oldest first, until the others fit into retain. What it returns is to be
// disposed of without the lock.
func (rg *ring) retainLocked() []*memory {
	kept := int64(0)
	for _, m := range rg.ended {
		kept += int64(m.geometry.Capacity)
	}
	var gone []*memory
	for retain := rg.settings.Load().Retain; kept > retain; {
		oldest := rg.ended[0]
		kept -= int64(oldest.geometry.Capacity)
		gone = append(gone, rg.dropLocked(oldest))
	}
	return gone
}

// dropLocked takes a member out of the table.
func (rg *ring) dropLocked(m *Member) *memory {
	if i := slices.Index(rg.ended, m); i >= 0 {
		rg.ended = slices.Delete(rg.ended, i, i+1)
	}
	rg.table(m.role)[m.slot] = nil
	m.state = dropped
	memory := m.memory
	m.memory = nil
	return memory
}

// evictEnded gives up the oldest ended lane for which which is true, if there is one.
func (rg *ring) evictEnded(which func(*Member) bool) bool {
	rg.mu.Lock()
	i := slices.IndexFunc(rg.ended, which)
	if i < 0 {
		rg.mu.Unlock()
		return false
	}
	gone := rg.dropLocked(rg.ended[i])
	rg.raiseLocked()
	rg.mu.Unlock()
	rg.rings.dispose(gone)
	return true
}

// anySlot asks reserve for the first that is free.
const anySlot = -1

// reserve takes a slot and charges the budget. Where either is short, ended lanes make room, the oldest first.
func (rg *ring) reserve(m *Member, slot int, p identity.Principal, bytes int64) (*charge, error) {
	for {
		c, short := rg.tryReserve(m, slot, p, bytes)
		if short == nil {
			return c, nil
		}
		if short.evict == nil || !rg.evictEnded(short.evict) {
			return nil, short.err
		}
	}
}

func (rg *ring) tryReserve(m *Member, slot int, p identity.Principal, bytes int64) (*charge, *shortage) {
	rg.mu.Lock()
	defer rg.mu.Unlock()
	if rg.deleted {
		return nil, &shortage{err: rg.goneError()}
	}
	if err := rg.openPageLocked(); err != nil {
		return nil, &shortage{err: internalError(err, "make the members page").On(rg.name)}
	}
	table := rg.table(m.role)
	if slot == anySlot {
		if err := rg.shareLocked(m, p); err != nil {
			return nil, &shortage{err: err}
		}
		m.granted = rg.epoch + 1
		slot = slices.Index(table[:], nil)
		if slot < 0 {
			return nil, rg.noSlot(m.role)
		}
	} else if table[slot] != nil {
		return nil, &shortage{
			err:   reason.New(reason.QuotaExceeded, "slot %d has been given to another %v meanwhile: attach anew", slot, m.role).On(rg.name),
			evict: func(other *Member) bool { return other.role == m.role && other.slot == uint32(slot) },
		}
	}
	c, short := rg.rings.budget.charge(rg, p, bytes)
	if short != nil {
		return nil, short
	}
	m.slot, m.state = uint32(slot), joining
	table[slot] = m
	return c, nil
}

// shareLocked refuses a payer that has its share of the ring's slots: whoever may only read must not keep the owner out.
func (rg *ring) shareLocked(m *Member, p identity.Principal) error {
	if p == identity.User(rg.settings.Load().OwnerUID) || rg.rings.access.Admin(m.who) {
		return nil
	}
	n := 0
	for _, other := range rg.table(m.role) {
		if other != nil && other.state != ended && other.who.Principal() == p {
			n++
		}
	}
	if n < limits.RingShare {
		return nil
	}
	return reason.New(reason.QuotaExceeded, "%s %d of the ring's %d %vs, all that one user other than the owner may have: detach one", p.Does("has", "have"), n, slots, m.role).On(rg.name)
}

func (rg *ring) noSlot(role Role) *shortage {
	short := &shortage{err: reason.New(reason.QuotaExceeded, "the ring has %d %vs, all that it may have: detach one", slots, role).On(rg.name)}
	if role == Producer {
		short.evict = anyLane
	}
	return short
}

// unreserve gives a slot back that was reserved.
func (rg *ring) unreserve(m *Member) {
	rg.mu.Lock()
	defer rg.mu.Unlock()
	if rg.table(m.role)[m.slot] == m {
		rg.table(m.role)[m.slot] = nil
	}
	m.state = dropped
}

// announceLocked makes a member known to the others.
//
// Who joined before whom decides which consumers a lossless producer waits for from its first frame on. A lane counts
// as joined when it asked to: who was there then is in the first list that its producer gets. A consumer counts as
// joined only now: lists that were handed out before do not have it.
func (rg *ring) announceLocked(m *Member) {
	m.state, m.at, m.joined = live, time.Now(), m.granted
	if m.role == Consumer {
		m.joined = rg.epoch + 1
	}
	rg.raiseLocked()
	m.announced = rg.epoch
}

func (rg *ring) goneError() error {
	return reason.New(reason.RingDeleted, "the ring was deleted").On(rg.name)
}
