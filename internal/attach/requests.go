package attach

import (
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
)

// Role is what a member does in a ring.
type Role uint32

// The roles.
const (
	Producer Role = 1 // writes a lane of its own
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

const flagLossless = 1

// Attach asks to become a member of the ring Name. The reply is Memory.
type Attach struct {
	Role     Role
	Lossless bool   // a consumer that holds producers back
	Name     string // with its leading slash
}

// Ready says that the memory is mapped and populated and that its writable descriptor is closed. The
// reply is Attached.
type Ready struct{}

// Pull asks for the ring's members: MEMBERS of the protocol. The reply is Members.
type Pull struct {
	Epoch uint64 // of the last Members; 0: none yet
}

// Got says that the descriptors of the last reply were taken. It has no reply.
type Got struct{}

// Detach leaves the ring. The reply is Detached, and the daemon hangs up.
type Detach struct{}

// Adopt hands the member's own memory back after the daemon was restarted, with a read-only
// descriptor of it. The reply is Adopted.
type Adopt struct {
	Role     Role
	Lossless bool // as Memory said it
	RingID   uint64
	MemberID uint64
	Epoch    uint64 // at which it joined
	Slot     uint32
	Token    [32]byte // of Attached or the last Adopted
	Name     string   // with its leading slash
}

func (Attach) Kind() Kind { return KindAttach }
func (Ready) Kind() Kind  { return KindReady }
func (Pull) Kind() Kind   { return KindPull }
func (Got) Kind() Kind    { return KindGot }
func (Detach) Kind() Kind { return KindDetach }
func (Adopt) Kind() Kind  { return KindAdopt }

func (Attach) Files() int { return 0 }
func (Ready) Files() int  { return 0 }
func (Pull) Files() int   { return 0 }
func (Got) Files() int    { return 0 }
func (Detach) Files() int { return 0 }
func (Adopt) Files() int  { return 1 }

func (Attach) size() int { return 224 }
func (Ready) size() int  { return headerBytes }
func (Pull) size() int   { return 16 }
func (Got) size() int    { return headerBytes }
func (Detach) size() int { return headerBytes }
func (Adopt) size() int  { return 288 }

func (Attach) request() {}
func (Ready) request()  {}
func (Pull) request()   {}
func (Got) request()    {}
func (Detach) request() {}
func (Adopt) request()  {}

func (p Attach) check() error {
	if err := p.Role.check(); err != nil {
		return err
	}
	if p.Role == Producer && p.Lossless {
		return malformed("LOSSLESS is for consumers; for producers the ring decides")
	}
	return checkName(p.Name)
}

func (Ready) check() error  { return nil }
func (Pull) check() error   { return nil }
func (Got) check() error    { return nil }
func (Detach) check() error { return nil }

func (p Adopt) check() error {
	if err := p.Role.check(); err != nil {
		return err
	}
	if err := checkSlot(p.Slot); err != nil {
		return err
	}
	return checkName(p.Name)
}

func (r Role) check() error {
	if r != Producer && r != Consumer {
		return malformed("role %d; it is 1 (producer) or 2 (consumer)", uint32(r))
	}
	return nil
}

// checkName checks the form alone: which names rings may have is the broker's.
func checkName(name string) error {
	switch {
	case len(name) > limits.NameLength+1:
		return malformed("a name of %d bytes; it may have %d", len(name), limits.NameLength+1)
	case !strings.HasPrefix(name, "/") || name == "/":
		return malformed("name %q; it begins with a slash, and something follows", name)
	case strings.ContainsRune(name, 0):
		return malformed("name %q has a NUL in it", name)
	}
	return nil
}

// checkSlot protects whoever indexes by it.
func checkSlot(slot uint32) error {
	if slot >= MaxEntries {
		return malformed("slot %d; they are 0 to %d", slot, MaxEntries-1)
	}
	return nil
}

func (p Attach) put(w wire) {
	w.setU32(8, uint32(p.Role))
	w.setU32(12, bit(p.Lossless, flagLossless))
	copy(w[16:], p.Name)
}

func (Ready) put(wire)    {}
func (p Pull) put(w wire) { w.setU64(8, p.Epoch) }
func (Got) put(wire)      {}
func (Detach) put(wire)   {}

func (p Adopt) put(w wire) {
	w.setU32(8, uint32(p.Role))
	w.setU32(12, bit(p.Lossless, flagLossless))
	w.setU64(16, p.RingID)
	w.setU64(24, p.MemberID)
	w.setU64(32, p.Epoch)
	w.setU32(40, p.Slot)
	copy(w[48:], p.Token[:])
	copy(w[80:], p.Name)
}

func getAttach(w wire) (p Attach, err error) {
	flags, err := w.flags(12, flagLossless)
	if err != nil {
		return p, err
	}
	name, err := w.text(16, NameBytes)
	return Attach{Role: Role(w.u32(8)), Lossless: flags&flagLossless != 0, Name: name}, err
}

func getPull(w wire) (Pull, error) { return Pull{Epoch: w.u64(8)}, nil }

func getAdopt(w wire) (p Adopt, err error) {
	flags, err := w.flags(12, flagLossless)
	if err != nil {
		return p, err
	}
	if err := w.reserved(44, 4); err != nil {
		return p, err
	}
	name, err := w.text(80, NameBytes)
	return Adopt{
		Role: Role(w.u32(8)), Lossless: flags&flagLossless != 0,
		RingID: w.u64(16), MemberID: w.u64(24), Epoch: w.u64(32), Slot: w.u32(40), Token: w.token(48), Name: name,
	}, err
}
