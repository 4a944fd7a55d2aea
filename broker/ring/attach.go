package ring

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// AttachRequest asks for membership.
type AttachRequest struct {
	Name     string
	Role     Role
	Lossless bool   // of a consumer: it holds producers back, which the ring's policy must allow
	PID      uint32 // 0: the identity's; for people only
}

// Header is what a member must know to use its memory.
type Header struct {
	RingID   uint64
	MemberID uint64
	Slot     uint32
	Lossless bool          // of a producer: the ring is lossless; of a consumer: it holds producers back
	Geometry shm.Geometry  // of the ring's lanes
	Stall    time.Duration // of a producer: how long a consumer may hold it up
	Epoch    uint64        // at which it joins; for a consumer, Member.Epoch is exact if somebody else comes or goes meanwhile
	Size     int64         // bytes of the memory
}

// Joining is a member that has been given memory, and has not said that it uses it. It ends with Ready or Abandon.
type Joining struct {
	member *Member
	header Header
	file   *os.File // the caller's copy
	once   sync.Once
}

// Attach makes memory for a new member. Budgets are checked before. While members of the daemon's earlier run may come
// back it waits, at most until ctx ends. Errors are *reason.Error, or the context's.
func (r *Rings) Attach(ctx context.Context, id identity.Identity, q AttachRequest) (_ *Joining, err error) {
	defer r.access.Tell(id, &err)
	rg, m, err := r.admit(id, q)
	if err != nil {
		return nil, err
	}
	if err := r.awaitWindow(ctx); err != nil {
		return nil, err
	}
	if err := r.markAttached(); err != nil {
		return nil, err
	}
	header, err := rg.join(m, id.Principal())
	if err != nil {
		return nil, err
	}
	file, err := duplicate(m.memory.writable)
	if err != nil {
		rg.abandon(m)
		return nil, internalError(err, "attach").On(rg.name)
	}
	return &Joining{member: m, header: header, file: file}, nil
}

// admit checks a request, and access.
func (r *Rings) admit(id identity.Identity, q AttachRequest) (*ring, *Member, error) {
	if r.stopping.Load() {
		return nil, nil, shuttingDown()
	}
	if q.Role != Producer && q.Role != Consumer {
		return nil, nil, reason.Invalid("role", "role %d: it must be %d (producer) or %d (consumer)", q.Role, Producer, Consumer)
	}
	rg, err := r.find(id, q.Name, rightOf(q.Role, q.Lossless))
	if err != nil {
		return nil, nil, err
	}
	if err := localUser(id, "attach", q.Name); err != nil {
		return nil, nil, err
	}
	m, err := rg.newMember(id, q.Role, q.Lossless)
	if err != nil {
		return nil, nil, err
	}
	if q.PID != 0 {
		m.pid = q.PID
	}
	return rg, m, nil
}

// newMember returns one that is in no table yet.
func (rg *ring) newMember(id identity.Identity, role Role, lossless bool) (*Member, error) {
	s := rg.settings.Load()
	m := &Member{ring: rg, role: role, who: id, pid: uint32(max(id.PID, 0)), gone: make(chan struct{})}
	if role == Producer {
		m.lossless = s.Policy == Lossless
		m.geometry = s.geometry()
		return m, nil
	}
	if lossless && s.Policy != Lossless {
		return nil, reason.Invalid("lossless", "the ring's policy is %s, so that nothing waits for consumers: attach without lossless, or use a ring with policy %s", s.Policy, Lossless).On(rg.name)
	}
	m.lossless = lossless
	return m, nil
}

// size is the bytes of the member's memory.
func (m *Member) size() int64 {
	if m.role == Producer {
		return shm.LaneSize(m.geometry.Capacity)
	}
	return shm.ConsumerSize
}

// join gives a new member a slot, an id and memory that p pays for.
func (rg *ring) join(m *Member, p identity.Principal) (Header, error) {
	bytes := m.size()
	if m.daemon && m.role == Consumer { // it copies messages into the daemon's own memory
		bytes += int64(rg.settings.Load().geometry().MaxFrame)
	}
	c, err := rg.reserve(m, anySlot, p, bytes)
	if err != nil {
		return Header{}, err
	}
	s := rg.settings.Load()
	m.id = rg.rings.nextMember()
	h := Header{RingID: rg.id, MemberID: m.id, Slot: m.slot, Lossless: m.lossless, Geometry: s.geometry(), Stall: s.Stall, Epoch: m.granted, Size: m.size()}
	memory, err := newMemory("ipcd-"+m.role.String(), h.Size, m.header(h), c)
	if err != nil {
		rg.unreserve(m)
		c.release()
		return Header{}, internalError(err, "attach").On(rg.name)
	}
	rg.mu.Lock()
	m.memory = memory
	rg.mu.Unlock()
	return h, nil
}

// header is the beginning of the member's memory.
func (m *Member) header(h Header) []byte {
	if m.role == Producer {
		return shm.LaneHeader{Lossless: m.lossless, RingID: h.RingID, LaneID: m.id, Epoch: h.Epoch, Geometry: m.geometry, Slot: m.slot, Stall: h.Stall}.Bytes()
	}
	return shm.ConsumerHeader{Lossless: m.lossless, RingID: h.RingID, ConsumerID: m.id, Epoch: h.Epoch, Slot: m.slot}.Bytes()
}

// abandon takes back what join gave.
func (rg *ring) abandon(m *Member) {
	rg.unreserve(m)
	rg.mu.Lock()
	memory := m.memory
	m.memory = nil
	rg.mu.Unlock()
	closeAll(m.own, m.page)
	rg.rings.dispose(memory)
}

// Memory is a writable descriptor of the member's memory. The caller may close it once it is sent; Ready and Abandon do.
func (j *Joining) Memory() *os.File { return j.file }

// Header is what the member must know.
func (j *Joining) Header() Header { return j.header }

// Ready is called when the member has mapped its memory, populated it and closed its descriptor. Afterwards nobody
// can map it writable. It makes the member known to the others. Whatever it returns, the Joining is over.
func (j *Joining) Ready() (*Member, error) {
	m, err := j.member, error(reason.New(reason.InvalidArgument, "this attachment is over: attach anew"))
	j.once.Do(func() {
		closeAll(j.file)
		if err = m.ready(); err != nil {
			m.ring.abandon(m)
		}
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Abandon gives up.
func (j *Joining) Abandon() {
	j.once.Do(func() {
		closeAll(j.file)
		j.member.ring.abandon(j.member)
	})
}

// ready seals the memory and announces the member.
func (m *Member) ready() error {
	rg := m.ring
	if err := m.memory.seal(); err != nil {
		return reason.New(reason.InvalidArgument, "the memory is not as it was handed out: %v; map it, populate all of it, close the descriptor, and add no seals", err).On(rg.name)
	}
	if err := m.prepare(); err != nil {
		return err
	}
	return m.enter()
}

// prepare makes what a member outside the daemon is handed.
func (m *Member) prepare() error {
	rg := m.ring
	inode, err := shm.Inode(m.memory.readOnly)
	if err == nil {
		m.token = rg.rings.token(rg.id, m, inode)
		m.own, err = duplicate(m.memory.readOnly)
	}
	if err == nil {
		rg.mu.Lock()
		if rg.page == nil {
			rg.mu.Unlock()
			if rg.rings.stopping.Load() {
				return shuttingDown()
			}
			return rg.goneError()
		}
		m.page, err = duplicate(rg.pageFile)
		rg.mu.Unlock()
	}
	if err != nil {
		return internalError(err, "attach").On(rg.name)
	}
	return nil
}

// enter puts the member into the ring, unless it went away or access was withdrawn meanwhile.
func (m *Member) enter() error {
	rg := m.ring
	rg.mu.Lock()
	if err := m.refusedLocked(); err != nil {
		rg.mu.Unlock()
		return err
	}
	rg.announceLocked(m)
	rg.mu.Unlock()
	m.logged("joined its ring")
	return nil
}

func (m *Member) refusedLocked() error {
	rg := m.ring
	switch {
	case rg.deleted:
		return rg.goneError()
	case rg.rings.stopping.Load():
		return shuttingDown()
	}
	return m.withdrawnLocked()
}
