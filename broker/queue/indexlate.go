package queue

import (
	"maps"
	"slices"
)

// While a queue is loaded old sequences come after newer ones, where their messages were copied forward.
// Their pages wait in a map until all are there.

// addLate makes a slot for a sequence whose page's key is below the last one.
func (x *index) addLate(key, seq uint64) (uint32, *slot) {
	if i, ok := x.search(key); ok && x.ids[i] != 0 {
		return x.take(x.ids[i], seq)
	}
	id, ok := x.late[key]
	if !ok {
		id = x.open()
		if x.late == nil {
			x.late = map[uint64]uint32{}
		}
		x.late[key] = id
	}
	return x.take(id, seq)
}

func (x *index) dropLate(key uint64) {
	x.shut(x.late[key])
	delete(x.late, key)
}

// settleLate merges the late pages into the directory.
func (x *index) settleLate() {
	if len(x.late) == 0 {
		x.late = nil
		return
	}
	late := slices.Sorted(maps.Keys(x.late))
	size := len(x.keys) - x.first - x.dropped + len(late)
	keys, ids := make([]uint64, 0, size), make([]uint32, 0, size)
	takeBelow := func(key uint64) {
		for len(late) > 0 && late[0] < key {
			keys, ids = append(keys, late[0]), append(ids, x.late[late[0]])
			late = late[1:]
		}
	}
	for i := x.first; i < len(x.keys); i++ {
		if x.ids[i] != 0 {
			takeBelow(x.keys[i])
			keys, ids = append(keys, x.keys[i]), append(ids, x.ids[i])
		}
	}
	x.keys, x.ids, x.first, x.dropped, x.late = keys, ids, 0, 0, nil
}

// each visits all slots, in no order.
func (x *index) each(visit func(n uint32, s *slot)) {
	for id, p := range x.pages {
		if p == nil {
			continue
		}
		for i := range p.slots {
			if s := &p.slots[i]; s.seq != 0 {
				visit(uint32(id)*pageSlots+uint32(i), s)
			}
		}
	}
}
