package ring

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"time"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// AdoptRequest is what a member of an earlier run of the daemon says of itself.
type AdoptRequest struct {
	Name     string
	Role     Role
	Lossless bool // as in the Header that it was given
	RingID   uint64
	MemberID uint64
	Slot     uint32
	Epoch    uint64 // as in the Header that it was given
	Token    [32]byte
	PID      uint32 // 0: the identity's; for people only
}

// token binds a member to its memory, and to the uid that it was given to: nobody else can hand it in.
func (r *Rings) token(ringID uint64, m *Member, inode uint64) [32]byte {
	flags := uint32(0)
	if m.lossless {
		flags = 1
	}
	var b []byte
	b = binary.LittleEndian.AppendUint64(b, ringID)
	b = binary.LittleEndian.AppendUint64(b, m.id)
	b = binary.LittleEndian.AppendUint32(b, uint32(m.role))
	b = binary.LittleEndian.AppendUint32(b, flags)
	b = binary.LittleEndian.AppendUint32(b, m.slot)
	b = binary.LittleEndian.AppendUint64(b, m.granted)
	b = binary.LittleEndian.AppendUint32(b, m.who.UID)
	b = binary.LittleEndian.AppendUint64(b, inode)
	mac := hmac.New(sha256.New, r.key)
	mac.Write(b)
	return [32]byte(mac.Sum(nil))
}

// Adopt makes a member of an earlier run a member again, with its memory as it is. memory is whatever a stranger
// passed; it stays the caller's. Errors are *reason.Error.
func (r *Rings) Adopt(_ context.Context, id identity.Identity, q AdoptRequest, memory *os.File) (_ *Member, err error) {
	defer r.access.Tell(id, &err)
	rg, m, err := r.admit(id, AttachRequest{Name: q.Name, Role: q.Role, Lossless: q.Role == Consumer && q.Lossless, PID: q.PID})
	if err != nil {
		return nil, err
	}
	if q.RingID != rg.id {
		return nil, rg.goneError() // and another of that name was made
	}
	if q.Slot >= slots {
		return nil, reason.Invalid("slot", "slot %d: it must be below %d", q.Slot, slots).On(rg.name)
	}
	m.id, m.slot, m.granted = q.MemberID, q.Slot, q.Epoch
	if q.Lossless != m.lossless {
		return nil, m.notGiven()
	}
	if err := r.verify(m, memory, q.Token); err != nil {
		return nil, err
	}
	if err := r.markAttached(); err != nil {
		return nil, err
	}
	if err := rg.adopt(m, id.Principal(), memory); err != nil {
		return nil, err
	}
	return m, nil
}

// verify makes sure that memory which was handed in is that of the member, as the daemon gave it out. It sets the
// member's token.
func (r *Rings) verify(m *Member, memory *os.File, token [32]byte) error {
	rg := m.ring
	if err := shm.Verify(memory, m.size()); err != nil {
		return reason.Invalid("memory", "the descriptor is not of a %v's memory of this ring: %v", m.role, err).On(rg.name)
	}
	inode, err := shm.Inode(memory)
	if err != nil {
		return internalError(err, "adopt").On(rg.name)
	}
	m.token = r.token(rg.id, m, inode)
	if !hmac.Equal(m.token[:], token[:]) {
		return m.notGiven()
	}
	return nil
}

func (m *Member) notGiven() error {
	return reason.New(reason.AccessDenied, "the token is not one that was given to %v for this memory: attach anew", m.who).On(m.ring.name)
}

// adopt puts verified memory back into its slot.
func (rg *ring) adopt(m *Member, p identity.Principal, file *os.File) error {
	if err := rg.adoptOnce(m.id); err != nil {
		return err
	}
	c, err := rg.reserve(m, int(m.slot), p, m.size())
	if err != nil {
		rg.forgetAdopted(m.id)
		return err
	}
	memory, err := reopen(file, m.size(), c)
	if err != nil {
		rg.unreserve(m)
		rg.forgetAdopted(m.id)
		return internalError(err, "adopt").On(rg.name)
	}
	rg.mu.Lock()
	m.memory = memory
	rg.mu.Unlock()
	if err = m.prepare(); err == nil {
		err = m.enterAdopted()
	}
	if err != nil {
		rg.unreserve(m)
		rg.mu.Lock()
		m.memory = nil
		rg.mu.Unlock()
		closeAll(m.own, m.page)
		memory.close() // without sealing it: the member may try again
		rg.forgetAdopted(m.id)
	}
	return err
}

// enterAdopted is enter for a member that keeps the epoch it has.
func (m *Member) enterAdopted() error {
	rg := m.ring
	rg.mu.Lock()
	if err := m.refusedLocked(); err != nil {
		rg.mu.Unlock()
		return err
	}
	m.state, m.at, m.joined = live, time.Now(), m.granted
	rg.raiseLocked()
	m.announced = rg.epoch
	rg.mu.Unlock()
	m.logged("came back to its ring")
	return nil
}

// adoptOnce refuses members of this run, and those that have come back already.
func (rg *ring) adoptOnce(id uint64) error {
	rg.mu.Lock()
	defer rg.mu.Unlock()
	if id>>32 >= rg.rings.run || rg.adopted[id] {
		return reason.New(reason.AccessDenied, "this is, or was, a member in this run of the daemon: attach anew").On(rg.name)
	}
	rg.adopted[id] = true
	return nil
}

func (rg *ring) forgetAdopted(id uint64) {
	rg.mu.Lock()
	defer rg.mu.Unlock()
	delete(rg.adopted, id)
}

// inWindow reports whether members of the earlier run may still come back, so that lists are not complete.
func (r *Rings) inWindow() bool {
	select {
	case <-r.window:
		return false
	default:
		return true
	}
}

// awaitWindow waits until those who come back have had the time to.
func (r *Rings) awaitWindow(ctx context.Context) error {
	select {
	case <-r.window: // also if ctx has ended
		return nil
	default:
	}
	select {
	case <-r.window:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.stopped:
		return shuttingDown()
	}
}

// endWindow ends the adoption window: from then on lists are complete.
func (r *Rings) endWindow(after time.Duration) {
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.quit:
		return
	}
	close(r.window)
	for _, rg := range r.all() {
		rg.mu.Lock()
		rg.raiseLocked()
		rg.mu.Unlock()
	}
}
