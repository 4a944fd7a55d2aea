package queue

import "encoding/binary"

const (
	slabBytes  = 64 << 10
	slabMin    = 4 << 10        // of a queue that holds little
	slabHeader = 8              // slot and length, before each payload
	slabLarge  = slabBytes / 2  // entries above this get a slab of their own
	slabSpares = 2              // empty buffers kept for reuse
	slabSlack  = 16 * slabBytes // memory beyond twice the live bytes before payloads are moved together
	slabLooks  = 16             // slabs looked at for one to empty, per payload given up
)

// slabs hold payloads in buffers without pointers: small ones for a queue that holds little, then of 64 KiB,
// and one of its own for a large payload. Each payload carries its slot's number, so that a sparse slab
// can be emptied by moving what is left of it.
type slabs struct {
	all     []slab // by number; 0 is unused
	vacant  []uint32
	spares  [][]byte
	current uint32 // the one being filled; 0: none
	hand    uint32 // the one looked at last for emptying
	live    int    // bytes of live entries
	total   int    // bytes of all buffers
}

type slab struct {
	buf  []byte
	used int
	live int
}

func entryBytes(n int) int { return (slabHeader + n + 7) &^ 7 }

// store copies head and then body into a slab on behalf of a slot.
func (s *slabs) store(n uint32, head, body []byte, charge int) ref {
	size := len(head) + len(body)
	need := entryBytes(size)
	if len(s.all) == 0 {
		s.all = append(s.all, slab{})
	}
	id := s.current
	if need > slabLarge {
		id = s.open(make([]byte, need))
	} else if id == 0 || s.all[id].used+need > len(s.all[id].buf) {
		size := max(slabMin, 2*len(s.all[id].buf)) // the one that is full was too small
		s.retire(id)
		id = s.open(s.buffer(max(size, 4*need)))
		s.current = id
	}
	b := &s.all[id]
	off := b.used
	binary.LittleEndian.PutUint32(b.buf[off:], n)
	binary.LittleEndian.PutUint32(b.buf[off+4:], uint32(size))
	copy(b.buf[off+slabHeader:], head)
	copy(b.buf[off+slabHeader+len(head):], body)
	b.used += need
	b.live += need
	s.live += need
	return makeRef(id, off, charge)
}

// load returns the payload, valid until the next store or free.
func (s *slabs) load(r ref) []byte {
	b := &s.all[r.slab()]
	off := r.offset()
	size := int(binary.LittleEndian.Uint32(b.buf[off+4:]))
	return b.buf[off+slabHeader : off+slabHeader+size]
}

// free gives up a payload. moved is called for each other payload that had to move.
func (s *slabs) free(r ref, moved func(n uint32, to ref)) {
	id := r.slab()
	b := &s.all[id]
	off := r.offset()
	binary.LittleEndian.PutUint32(b.buf[off:], 0)
	need := entryBytes(int(binary.LittleEndian.Uint32(b.buf[off+4:])))
	b.live -= need
	s.live -= need
	switch {
	case id == s.current:
		if b.live == 0 { // start over in the same buffer
			b.used = 0
			if s.live == 0 {
				s.spares = nil // ten thousand empty queues should not hold a spare each
			}
		}
	case b.live == 0:
		s.close(id)
	}
	if s.total > 2*s.live+slabSlack {
		s.tidy(moved)
	}
}

// tidy empties the next slab of which less than half is live: while there is too much memory there is
// one. What it moves is less than what it gives back.
func (s *slabs) tidy(moved func(n uint32, to ref)) {
	for range slabLooks {
		s.hand++
		if int(s.hand) >= len(s.all) {
			s.hand = 1
		}
		if b := &s.all[s.hand]; s.hand != s.current && 2*b.live < len(b.buf) {
			s.evacuate(s.hand, moved)
			return
		}
	}
}

// evacuate moves the live payloads of a slab into the current one and closes it.
func (s *slabs) evacuate(id uint32, moved func(n uint32, to ref)) {
	from := s.all[id]
	for off := 0; off < from.used; {
		n := binary.LittleEndian.Uint32(from.buf[off:])
		size := int(binary.LittleEndian.Uint32(from.buf[off+4:]))
		if n != 0 {
			s.live -= entryBytes(size)
			// The charge is the slot's to fill in: it is not known here.
			moved(n, s.store(n, from.buf[off+slabHeader:off+slabHeader+size], nil, 0))
		}
		off += entryBytes(size)
	}
	s.close(id)
}

// retire gives up the current slab where everything in it is dead.
func (s *slabs) retire(id uint32) {
	if id != 0 && s.all[id].live == 0 {
		s.close(id)
	}
}

func (s *slabs) open(buf []byte) uint32 {
	var id uint32
	if n := len(s.vacant); n > 0 {
		id = s.vacant[n-1]
		s.vacant = s.vacant[:n-1]
	} else {
		id = uint32(len(s.all))
		s.all = append(s.all, slab{})
	}
	s.all[id] = slab{buf: buf}
	s.total += len(buf)
	return id
}

func (s *slabs) close(id uint32) {
	buf := s.all[id].buf
	s.total -= len(buf)
	if len(buf) == slabBytes && len(s.spares) < slabSpares {
		s.spares = append(s.spares, buf)
	}
	s.all[id] = slab{}
	s.vacant = append(s.vacant, id)
	if s.current == id {
		s.current = 0
	}
}

// buffer returns one for the next slab, of about that size.
func (s *slabs) buffer(size int) []byte {
	if size >= slabBytes {
		size = slabBytes
		if n := len(s.spares); n > 0 {
			buf := s.spares[n-1]
			s.spares = s.spares[:n-1]
			return buf
		}
	}
	return make([]byte, (size+7)&^7)
}
