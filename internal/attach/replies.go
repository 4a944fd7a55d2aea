package attach

import (
	"math"
	"time"
)

// Memory answers Attach. Its descriptor is writable and the only one that ever will be: map it shared
// and writable, populate it, close it, and send Got and Ready.
type Memory struct {
	RingID   uint64
	MemberID uint64 // of the lane or the consumer
	Slot     uint32
	Lossless bool          // producer: the ring is lossless; consumer: it holds producers back
	Capacity uint64        // bytes of data of the ring's lanes
	MaxFrame uint32        // bytes, header included
	Stall    time.Duration // how long a consumer may hold a producer up
	Epoch    uint64        // at which the member joined
	Size     uint64        // bytes of the memory
}

// Attached answers Ready. Its descriptors are read-only: the member's own memory, to be kept for Adopt,
// and the members page.
type Attached struct {
	Token [32]byte // for Adopt
	Epoch uint64   // the ring's current one
}

// Members answers Pull: all consumers to a producer, all lanes to a consumer. Its descriptors are
// read-only and belong to the entries that have File set, in their order.
type Members struct {
	Epoch   uint64
	Partial bool // members that are missing have not left: keep them
	Entries []Entry
}

// EntryKind says what an entry of Members is.
type EntryKind uint32

// The kinds of entries.
const (
	EntryLane     EntryKind = 1
	EntryConsumer EntryKind = 2
)

// Entry is one lane or consumer.
type Entry struct {
	ID       uint64
	Epoch    uint64 // at which it joined
	Kind     EntryKind
	Slot     uint32
	Lossless bool
	Ended    bool   // a lane whose producer has left: read it up to its end
	File     bool   // a descriptor for it is in this packet
	Daemon   bool   // it is the daemon's own
	PID      uint32 // of its process, for people
	Size     uint64 // bytes of its memory
	Capacity uint64 // bytes of a lane's data
	MaxFrame uint32 // bytes, header included
	UID      uint32
}

// Adopted answers Adopt. Its descriptor is the members page, read-only.
type Adopted struct {
	Token [32]byte // for the next Adopt
	Epoch uint64   // the ring's current one
}

// Detached answers Detach.
type Detached struct{}

const (
	flagPartial = 1

	entryBytes    = 64
	membersBytes  = 24
	entryLossless = 1
	entryEnded    = 2
	entryFile     = 4
	entryDaemon   = 8
)

func (Memory) Kind() Kind   { return KindMemory }
func (Attached) Kind() Kind { return KindAttached }
func (Members) Kind() Kind  { return KindMembers }
func (Adopted) Kind() Kind  { return KindAdopted }
func (Detached) Kind() Kind { return KindDetached }

func (Memory) Files() int   { return 1 }
func (Attached) Files() int { return 2 }
func (Adopted) Files() int  { return 1 }
func (Detached) Files() int { return 0 }

// Files counts the entries that have a descriptor.
func (p Members) Files() int {
	n := 0
	for _, e := range p.Entries {
		if e.File {
			n++
		}
	}
	return n
}

func (Memory) size() int    { return 72 }
func (Attached) size() int  { return 48 }
func (p Members) size() int { return membersBytes + entryBytes*len(p.Entries) }
func (Adopted) size() int   { return 48 }
func (Detached) size() int  { return headerBytes }

func (Memory) reply()   {}
func (Attached) reply() {}
func (Members) reply()  {}
func (Adopted) reply()  {}
func (Detached) reply() {}

func (p Memory) check() error {
	if p.Stall < 0 {
		return malformed("a stall of more than %v", time.Duration(math.MaxInt64))
	}
	return checkSlot(p.Slot)
}

func (Attached) check() error { return nil }
func (Adopted) check() error  { return nil }
func (Detached) check() error { return nil }

func (p Members) check() error {
	if len(p.Entries) > MaxEntries {
		return malformed("%d entries; there may be %d", len(p.Entries), MaxEntries)
	}
	for i, e := range p.Entries {
		if e.Kind != EntryLane && e.Kind != EntryConsumer {
			return malformed("entry %d has kind %d; it is 1 (lane) or 2 (consumer)", i, uint32(e.Kind))
		}
		if err := checkSlot(e.Slot); err != nil {
			return malformed("entry %d: %v", i, err)
		}
	}
	return nil
}

func (p Memory) put(w wire) {
	w.setU64(8, p.RingID)
	w.setU64(16, p.MemberID)
	w.setU32(24, p.Slot)
	w.setU32(28, bit(p.Lossless, flagLossless))
	w.setU64(32, p.Capacity)
	w.setU32(40, p.MaxFrame)
	w.setU64(48, uint64(p.Stall))
	w.setU64(56, p.Epoch)
	w.setU64(64, p.Size)
}

func (p Attached) put(w wire) {
	copy(w[8:], p.Token[:])
	w.setU64(40, p.Epoch)
}

func (p Members) put(w wire) {
	w.setU64(8, p.Epoch)
	w.setU32(16, uint32(len(p.Entries)))
	w.setU32(20, bit(p.Partial, flagPartial))
	for i, e := range p.Entries {
		at := w[membersBytes+i*entryBytes:]
		at.setU64(0, e.ID)
		at.setU64(8, e.Epoch)
		at.setU32(16, uint32(e.Kind))
		at.setU32(20, e.Slot)
		at.setU32(24, bit(e.Lossless, entryLossless)|bit(e.Ended, entryEnded)|bit(e.File, entryFile)|bit(e.Daemon, entryDaemon))
		at.setU32(28, e.PID)
		at.setU64(32, e.Size)
		at.setU64(40, e.Capacity)
		at.setU32(48, e.MaxFrame)
		at.setU32(52, e.UID)
	}
}

func (p Adopted) put(w wire) {
	copy(w[8:], p.Token[:])
	w.setU64(40, p.Epoch)
}

func (Detached) put(wire) {}

func getMemory(w wire) (p Memory, err error) {
	flags, err := w.flags(28, flagLossless)
	if err != nil {
		return p, err
	}
	return Memory{
		RingID: w.u64(8), MemberID: w.u64(16), Slot: w.u32(24), Lossless: flags&flagLossless != 0,
		Capacity: w.u64(32), MaxFrame: w.u32(40), Stall: time.Duration(w.u64(48)), Epoch: w.u64(56), Size: w.u64(64),
	}, w.reserved(44, 4)
}

func getAttached(w wire) (Attached, error) { return Attached{Token: w.token(8), Epoch: w.u64(40)}, nil }

func getAdopted(w wire) (Adopted, error) { return Adopted{Token: w.token(8), Epoch: w.u64(40)}, nil }

func getMembers(w wire) (p Members, err error) {
	if len(w) < membersBytes {
		return p, malformed("%d bytes; it has at least %d", len(w), membersBytes)
	}
	count := w.u32(16)
	if count > MaxEntries || len(w) != membersBytes+entryBytes*int(count) {
		return p, malformed("%d bytes for %d entries; they are of %d bytes each after the first %d, and there may be %d",
			len(w), count, entryBytes, membersBytes, MaxEntries)
	}
	flags, err := w.flags(20, flagPartial)
	if err != nil {
		return p, err
	}
	p = Members{Epoch: w.u64(8), Partial: flags&flagPartial != 0, Entries: make([]Entry, count)}
	for i := range p.Entries {
		if p.Entries[i], err = getEntry(w[membersBytes+i*entryBytes:]); err != nil {
			return Members{}, malformed("entry %d: %v", i, err)
		}
	}
	return p, nil
}

func getEntry(w wire) (e Entry, err error) {
	flags, err := w.flags(24, entryLossless|entryEnded|entryFile|entryDaemon)
	if err != nil {
		return e, err
	}
	return Entry{
		ID: w.u64(0), Epoch: w.u64(8), Kind: EntryKind(w.u32(16)), Slot: w.u32(20),
		Lossless: flags&entryLossless != 0, Ended: flags&entryEnded != 0, File: flags&entryFile != 0, Daemon: flags&entryDaemon != 0,
		PID: w.u32(28), Size: w.u64(32), Capacity: w.u64(40), MaxFrame: w.u32(48), UID: w.u32(52),
	}, w.reserved(56, 8)
}
