package queue

import "sort"

const (
	pageSlots  = 32 // consecutive sequences that share a page
	sparePages = 8
)

// page holds the slots of sequences key*32 to key*32+31. It is 1,536 bytes, a size that Go allocates
// without waste, and has no pointers.
type page struct{ slots [pageSlots]slot }

// index finds a message's slot by its sequence. Pages stand in the order of their keys; since
// sequences only rise, new ones are appended. One message keeps its page alive, 1.5 KiB at the worst.
type index struct {
	// Pages by number; 0 is unused, nil was given back. live is how many slots of each are in use.
	pages  []*page
	live   []uint8
	vacant []uint32
	spares []*page // a few are kept, so that a queue that moves on does not allocate
	// The directory: keys[first:] rises strictly. ids holds the page's number, 0 where it was dropped.
	keys    []uint64
	ids     []uint32
	first   int
	dropped int // zeros in ids[first:]
	// Pages with keys below the last that came after it, by key: only while a queue is loaded.
	late map[uint64]uint32
}

// at returns the slot of that number, which must be in use.
func (x *index) at(n uint32) *slot {
	return &x.pages[n/pageSlots].slots[n%pageSlots]
}

// add makes a slot for a sequence that has none: above all that were added before, or the directory is
// not complete until settleLate.
func (x *index) add(seq uint64) (uint32, *slot) {
	key := seq / pageSlots
	last := len(x.keys) - 1
	if last < x.first || x.keys[last] != key {
		if last >= x.first && key < x.keys[last] {
			return x.addLate(key, seq)
		}
		if last >= x.first && x.live[x.ids[last]] == 0 {
			x.drop(last)
		}
		x.compact()
		x.keys = append(x.keys, key)
		x.ids = append(x.ids, x.open())
		last = len(x.keys) - 1
	}
	return x.take(x.ids[last], seq)
}

// take makes a slot in a page.
func (x *index) take(id uint32, seq uint64) (uint32, *slot) {
	x.live[id]++
	s := &x.pages[id].slots[seq%pageSlots]
	*s = slot{seq: seq}
	return id*pageSlots + uint32(seq%pageSlots), s
}

// remove frees a slot. The last page stays, even if it is empty: the next messages come there.
func (x *index) remove(n uint32) {
	id := n / pageSlots
	s := x.at(n)
	key := s.seq / pageSlots
	s.seq = 0
	x.live[id]--
	if x.live[id] == 0 && key != x.keys[len(x.keys)-1] {
		if _, late := x.late[key]; late {
			x.dropLate(key)
			return
		}
		i, _ := x.search(key)
		x.drop(i)
	}
}

// open returns the number of an empty page.
func (x *index) open() uint32 {
	var p *page
	if n := len(x.spares); n > 0 {
		p = x.spares[n-1]
		x.spares = x.spares[:n-1]
	} else {
		p = new(page)
	}
	if n := len(x.vacant); n > 0 {
		id := x.vacant[n-1]
		x.vacant = x.vacant[:n-1]
		x.pages[id] = p
		return id
	}
	if len(x.pages) == 0 {
		x.pages, x.live = append(x.pages, nil), append(x.live, 0)
	}
	x.pages, x.live = append(x.pages, p), append(x.live, 0)
	return uint32(len(x.pages) - 1)
}

// drop gives up the page at a place of the directory.
func (x *index) drop(i int) {
	x.shut(x.ids[i])
	x.ids[i] = 0
	x.dropped++
	for x.first < len(x.ids) && x.ids[x.first] == 0 {
		x.first++
		x.dropped--
	}
}

// shut gives up a page whose slots are all free.
func (x *index) shut(id uint32) {
	if len(x.spares) < sparePages {
		x.spares = append(x.spares, x.pages[id])
	}
	x.pages[id] = nil
	x.vacant = append(x.vacant, id)
}

// find returns the slot of a sequence, 0 if there is none.
func (x *index) find(seq uint64) uint32 {
	var id uint32
	if i, ok := x.search(seq / pageSlots); ok {
		id = x.ids[i]
	}
	if id == 0 {
		if id = x.late[seq/pageSlots]; id == 0 {
			return 0
		}
	}
	if x.pages[id].slots[seq%pageSlots].seq != seq || seq == 0 { // 0 is nobody's, and marks free slots
		return 0
	}
	return id*pageSlots + uint32(seq%pageSlots)
}

// lowest is the lowest sequence that has a slot, 0 if there is none.
func (x *index) lowest() uint64 {
	for _, id := range x.ids[x.first:] {
		if x.live[id] == 0 {
			continue
		}
		for i := range x.pages[id].slots {
			if seq := x.pages[id].slots[i].seq; seq != 0 {
				return seq
			}
		}
	}
	return 0
}

// search returns the place of a key in the directory, or of the first key above it. Where no keys are
// missing the place is known at once: position i holds at least key keys[first]+i and at most the last
// key minus what follows.
func (x *index) search(key uint64) (int, bool) {
	keys := x.keys[x.first:]
	n := len(keys)
	if n == 0 || key > keys[n-1] {
		return len(x.keys), false
	}
	if key <= keys[0] {
		return x.first, key == keys[0]
	}
	low, high := 0, n-1
	if d := keys[n-1] - key; d < uint64(n-1) {
		low = n - 1 - int(d)
	}
	if d := key - keys[0]; d < uint64(high) {
		high = int(d)
	}
	i := low + sort.Search(high-low, func(i int) bool { return keys[low+i] >= key })
	return x.first + i, keys[i] == key
}

// compact makes room in the directory where that is better than growing it.
func (x *index) compact() {
	if len(x.keys) < cap(x.keys) || x.first+x.dropped < len(x.keys)/4 {
		return
	}
	n := 0
	for i := x.first; i < len(x.keys); i++ {
		if x.ids[i] != 0 {
			x.keys[n], x.ids[n] = x.keys[i], x.ids[i]
			n++
		}
	}
	x.keys, x.ids, x.first, x.dropped = x.keys[:n], x.ids[:n], 0, 0
	if cap(x.keys) > 1024 && n < cap(x.keys)/8 {
		x.keys = append(make([]uint64, 0, 2*n), x.keys...)
		x.ids = append(make([]uint32, 0, 2*n), x.ids...)
	}
}

// scan calls visit for the slots with sequences from first to last, in order, until visit returns
// false or budget places were looked at. It returns the sequence to go on from, 0 at the end.
func (x *index) scan(first, last uint64, budget int, visit func(n uint32, s *slot) bool) uint64 {
	i, _ := x.search(first / pageSlots)
	for ; i < len(x.keys); i++ {
		if x.keys[i]*pageSlots > last {
			return 0
		}
		if x.ids[i] == 0 {
			if budget--; budget < 0 {
				return x.keys[i] * pageSlots
			}
			continue
		}
		p := x.pages[x.ids[i]]
		for j := range p.slots {
			s := &p.slots[j]
			if s.seq == 0 || s.seq < first {
				continue
			}
			if s.seq > last {
				return 0
			}
			if budget <= 0 {
				return s.seq
			}
			budget--
			seq := s.seq
			if !visit(x.ids[i]*pageSlots+uint32(j), s) {
				return seq + 1
			}
			if x.ids[i] == 0 { // visit removed the page's last message
				break
			}
		}
	}
	return 0
}
