package attach

import (
	"encoding/binary"
	"fmt"

	"github.com/ipcd/ipcd/internal/limits"
)

const (
	// Version is the protocol's version, in every packet.
	Version = 1
	// MaxPacket is the largest packet, in bytes.
	MaxPacket = 8192
	// MaxEntries is how many members one Members lists: all lanes of a ring, or all its consumers.
	MaxEntries = max(limits.RingLanes, limits.RingConsumers)
	// NameBytes is the room for a ring's name in a packet.
	NameBytes = 208

	headerBytes = 8
	tokenBytes  = 32
)

// Kind says what a packet is.
type Kind uint16

// The kinds: requests, and replies from 0x80 on.
const (
	KindAttach Kind = 1
	KindReady  Kind = 2
	KindPull   Kind = 3
	KindGot    Kind = 4
	KindDetach Kind = 5
	KindAdopt  Kind = 6

	KindError    Kind = 0x80
	KindMemory   Kind = 0x81
	KindAttached Kind = 0x82
	KindMembers  Kind = 0x83
	KindAdopted  Kind = 0x84
	KindDetached Kind = 0x85
)

var kindNames = map[Kind]string{
	KindAttach: "ATTACH", KindReady: "READY", KindPull: "MEMBERS", KindGot: "GOT", KindDetach: "DETACH", KindAdopt: "ADOPT",
	KindError: "ERROR", KindMemory: "MEMORY", KindAttached: "ATTACHED", KindMembers: "MEMBERS reply", KindAdopted: "ADOPTED", KindDetached: "DETACHED",
}

// String returns the kind's name in the protocol.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind %#x", uint16(k))
}

// ProtocolError is a packet that is not as the protocol says, and what is wrong with it. Nothing more
// can be said on a connection on which one came.
type ProtocolError string

func (e ProtocolError) Error() string { return string(e) }

func malformed(format string, args ...any) error { return ProtocolError(fmt.Sprintf(format, args...)) }

// Packet is one message of the protocol. The types that satisfy it are this package's own.
type Packet interface {
	Kind() Kind
	// Files is how many descriptors travel with the packet.
	Files() int
	// check says what in the packet is outside what the protocol allows.
	check() error
	// size is the length of the packet, header included.
	size() int
	// put fills in the body; w is as long as size says, and zero.
	put(w wire)
}

// Request is a packet from client to daemon.
type Request interface {
	Packet
	request()
}

// Reply is a packet from daemon to client.
type Reply interface {
	Packet
	reply()
}

// Encode returns the packet's bytes.
func Encode(p Packet) ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Kind(), err)
	}
	w := make(wire, p.size())
	w.setU16(0, uint16(p.Kind()))
	w.setU16(2, Version)
	w.setU32(4, uint32(len(w)))
	p.put(w)
	return w, nil
}

// DecodeRequest returns the request that b holds. Whatever is wrong with it is a ProtocolError.
func DecodeRequest(b []byte) (Request, error) {
	kind, w, err := open(b)
	if err != nil {
		return nil, err
	}
	var p Request
	switch kind {
	case KindAttach:
		p, err = take(w, 224, getAttach)
	case KindReady:
		p, err = take(w, headerBytes, func(wire) (Ready, error) { return Ready{}, nil })
	case KindPull:
		p, err = take(w, 16, getPull)
	case KindGot:
		p, err = take(w, headerBytes, func(wire) (Got, error) { return Got{}, nil })
	case KindDetach:
		p, err = take(w, headerBytes, func(wire) (Detach, error) { return Detach{}, nil })
	case KindAdopt:
		p, err = take(w, 288, getAdopt)
	default:
		err = malformed("no such request; there are ATTACH, READY, MEMBERS, GOT, DETACH and ADOPT, 1 to 6")
	}
	return checked(kind, p, err)
}

// DecodeReply returns the reply that b holds. Whatever is wrong with it is a ProtocolError.
func DecodeReply(b []byte) (Reply, error) {
	kind, w, err := open(b)
	if err != nil {
		return nil, err
	}
	var p Reply
	switch kind {
	case KindError:
		p, err = take(w, -1, getError)
	case KindMemory:
		p, err = take(w, 72, getMemory)
	case KindAttached:
		p, err = take(w, 48, getAttached)
	case KindMembers:
		p, err = take(w, -1, getMembers)
	case KindAdopted:
		p, err = take(w, 48, getAdopted)
	case KindDetached:
		p, err = take(w, headerBytes, func(wire) (Detached, error) { return Detached{}, nil })
	default:
		err = malformed("no such reply")
	}
	return checked(kind, p, err)
}

// open checks the header.
func open(b []byte) (Kind, wire, error) {
	if len(b) < headerBytes {
		return 0, nil, malformed("a packet of %d bytes, shorter than its header of %d", len(b), headerBytes)
	}
	w := wire(b)
	kind := Kind(w.u16(0))
	switch {
	case w.u16(2) != Version:
		return 0, nil, malformed("%s: version %d of the protocol; this side speaks version %d", kind, w.u16(2), Version)
	case len(b) > MaxPacket:
		return 0, nil, malformed("%s: %d bytes; a packet may have %d", kind, len(b), MaxPacket)
	case w.u32(4) != uint32(len(b)):
		return 0, nil, malformed("%s: its size says %d, but %d bytes came", kind, w.u32(4), len(b))
	}
	return kind, w, nil
}

// take reads a body whose packet has size bytes; -1: the body says how many.
func take[P Packet](w wire, size int, get func(wire) (P, error)) (P, error) {
	if size >= 0 && len(w) != size {
		var none P
		return none, malformed("%d bytes; it has %d", len(w), size)
	}
	return get(w)
}

func checked[P Packet](kind Kind, p P, err error) (P, error) {
	if err == nil {
		err = p.check()
	}
	if err != nil {
		var none P
		return none, malformed("%s: %v", kind, err)
	}
	return p, nil
}

// wire is a packet's bytes.
type wire []byte

func (w wire) u16(at int) uint16         { return binary.LittleEndian.Uint16(w[at:]) }
func (w wire) u32(at int) uint32         { return binary.LittleEndian.Uint32(w[at:]) }
func (w wire) u64(at int) uint64         { return binary.LittleEndian.Uint64(w[at:]) }
func (w wire) setU16(at int, v uint16)   { binary.LittleEndian.PutUint16(w[at:], v) }
func (w wire) setU32(at int, v uint32)   { binary.LittleEndian.PutUint32(w[at:], v) }
func (w wire) setU64(at int, v uint64)   { binary.LittleEndian.PutUint64(w[at:], v) }
func (w wire) token(at int) (t [32]byte) { copy(t[:], w[at:at+tokenBytes]); return t }

// text returns a string of at most size bytes at that place. The rest must be NUL.
func (w wire) text(at, size int) (string, error) {
	field := w[at : at+size]
	end := 0
	for end < len(field) && field[end] != 0 {
		end++
	}
	for _, c := range field[end:] {
		if c != 0 {
			return "", malformed("bytes after the NUL that ends a string")
		}
	}
	return string(field[:end]), nil
}

// flags returns the flags at that place, of which only those in known may be set.
func (w wire) flags(at int, known uint32) (uint32, error) {
	flags := w.u32(at)
	if unknown := flags &^ known; unknown != 0 {
		return 0, malformed("unknown flags %#x", unknown)
	}
	return flags, nil
}

// reserved checks that the bytes are zero, so that a later version can give them a meaning.
func (w wire) reserved(at, size int) error {
	for _, c := range w[at : at+size] {
		if c != 0 {
			return malformed("the reserved bytes at offset %d are not zero", at)
		}
	}
	return nil
}

func bit(set bool, flag uint32) uint32 {
	if set {
		return flag
	}
	return 0
}
