package ring

import (
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// Role is what a member does. The numbers are those of the attach protocol.
type Role uint32

const (
	Producer Role = 1 // has a lane, which it writes
	Consumer Role = 2 // reads all lanes
)

// String returns the role's name.
func (r Role) String() string {
	switch r {
	case Producer:
		return "producer"
	case Consumer:
		return "consumer"
	}
	return "unknown role"
}

// other is the role that a member is told of.
func (r Role) other() Role { return Producer + Consumer - r }

// state is where a member stands. Only live ones are told of changes.
//
//	joining -> live -> ended (lanes only) -> dropped
//	   \________\___________________________/
type state uint8

const (
	joining state = iota // it has memory, and has not said that it is ready
	live
	ended   // its producer has left; its lane can still be read
	dropped // it is in no table any more
)

// Member is a producer or consumer that has attached. Its methods may be called concurrently.
type Member struct {
	ring     *ring
	id       uint64 // never used again: run of the daemon << 32 | number
	role     Role
	lossless bool // a lane of a lossless ring; a consumer that holds producers back
	daemon   bool // the daemon's own
	who      identity.Identity
	pid      uint32
	geometry shm.Geometry // of a lane
	token    [32]byte
	own      *os.File // copies to hand out, this member's to close
	page     *os.File
	gone     chan struct{}

	// Guarded by ring.mu.
	state     state
	slot      uint32 // fixed once it is reserved
	granted   uint64 // the epoch that it was told it would join at
	joined    uint64 // the epoch that others are told it joined at
	announced uint64 // the epoch that it appeared with
	at        time.Time
	memory    *memory
	handle    handle // of a member of the daemon's own, once it has been made; it is closed without the lock
	rates     rates
	err       error // why gone is closed, or that it has left
}

// ID is the lane's or consumer's id.
func (m *Member) ID() uint64 { return m.id }

// Token proves, with the memory, to a later run of the daemon that this was a member. See Rings.Adopt.
func (m *Member) Token() [32]byte { return m.token }

// Own is a read-only descriptor of the member's memory, for the member to keep. The caller may close it once it is
// sent; Leave does.
func (m *Member) Own() *os.File { return m.own }

// Page is a read-only descriptor of the members page. The caller may close it once it is sent; Leave does.
func (m *Member) Page() *os.File { return m.page }

// Epoch is the epoch with which the member appeared: it may be told as the current one. For a consumer that attached
// it is also the one that it joined at.
func (m *Member) Epoch() uint64 { return m.announced }

// Gone is closed when the ring was deleted or access was withdrawn. The member is not in the ring any more then.
func (m *Member) Gone() <-chan struct{} { return m.gone }

// Err says why the member is no member any more: RING_DELETED, ACCESS_DENIED or, after Leave, CANCELLED; nil while it is one.
func (m *Member) Err() error {
	m.ring.mu.Lock()
	defer m.ring.mu.Unlock()
	return m.err
}

// Entry is what a member is told of another one.
type Entry struct {
	ID       uint64
	Epoch    uint64 // at which it joined
	Kind     Role   // Producer: it is a lane
	Slot     uint32
	Lossless bool
	Ended    bool // a lane whose producer has left
	Daemon   bool
	PID      uint32
	UID      uint32
	Size     int64        // bytes of its memory
	Geometry shm.Geometry // of a lane
	File     *os.File     // its memory, read-only; nil if the receiver has it. The caller closes it.
}

// Listing is what a member is told of the others.
type Listing struct {
	Epoch   uint64
	Partial bool // shortly after a restart: who is missing may come back
	Entries []Entry
}

// Close closes all files of the listing.
func (l *Listing) Close() {
	for _, e := range l.Entries {
		closeAll(e.File)
	}
}

// Members lists all consumers for a producer, and for a consumer all lanes. Files are those of members for which
// sent is false; they are the caller's to close (see Listing.Close). sent is called under a lock: it must be quick.
func (m *Member) Members(sent func(id uint64) bool) (Listing, error) {
	rg := m.ring
	rg.mu.Lock()
	defer rg.mu.Unlock()
	if m.err != nil {
		return Listing{}, m.err
	}
	l := Listing{Epoch: rg.epoch, Partial: rg.rings.inWindow()}
	for _, other := range rg.table(m.role.other()) {
		if other == nil || other.state == joining {
			continue
		}
		e := Entry{ID: other.id, Epoch: other.joined, Kind: other.role, Slot: other.slot, Lossless: other.lossless, Ended: other.state == ended,
			Daemon: other.daemon, PID: other.pid, UID: other.uid(), Size: other.memory.size, Geometry: other.geometry}
		if !sent(other.id) {
			f, err := duplicate(other.memory.readOnly)
			if err != nil {
				l.Close()
				return Listing{}, internalError(err, "list the members").On(rg.name)
			}
			e.File = f
		}
		l.Entries = append(l.Entries, e)
	}
	return l, nil
}

// uid is that of the member's process.
func (m *Member) uid() uint32 {
	if m.daemon {
		return uint32(os.Geteuid())
	}
	return m.who.UID
}

// Leave ends the membership; why is for the log. A producer's lane stays readable within the ring's retain; a
// consumer's pages go. After Rings.Stop it only closes the member's files. Calling it again changes nothing.
func (m *Member) Leave(why string) {
	rg := m.ring
	rg.mu.Lock()
	leaves := m.state == live && (m.daemon || !rg.rings.stopping.Load())
	var dead []*memory
	var kept *memory
	if leaves {
		m.err = reason.New(reason.Cancelled, "the member has left the ring").On(rg.name)
		if m.role == Producer {
			m.state = ended
			m.memory.charge.left()
			rg.ended = append(rg.ended, m)
			dead = rg.retainLocked()
			kept = m.memory // nil if it is not retained
		} else {
			dead = []*memory{rg.dropLocked(m)}
		}
		rg.raiseLocked()
	}
	used := m.handle
	rg.mu.Unlock()
	closeAll(m.own, m.page)
	if leaves {
		if used != nil {
			used.Close()
		}
		rg.rings.dispose(dead...)
		m.keep(kept)
		m.logged("left its ring", zap.String("why", why))
	}
}

// failLocked throws a member out. What it returns is to be called without the lock, after the epoch was raised. Its lane is not
// kept: who may not write any more could go on doing so for as long as it is read.
func (m *Member) failLocked(err error) func() {
	m.err = err
	dead := m.ring.dropLocked(m)
	close(m.gone)
	used := m.handle
	return func() {
		if used != nil {
			used.Close()
		}
		m.ring.rings.dispose(dead)
		m.logged("was thrown out of its ring", zap.Error(err))
	}
}

func (m *Member) logged(what string, fields ...zap.Field) {
	m.ring.rings.log.Debug("a "+m.role.String()+" "+what, append(fields, zap.String("ring", m.ring.name), zap.Uint64("id", m.id),
		zap.Uint32("slot", m.slot), zap.Uint32("uid", m.who.UID), zap.Uint32("pid", m.pid), zap.Bool("daemon", m.daemon))...)
}
