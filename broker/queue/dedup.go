package queue

import (
	"crypto/sha256"
	"encoding/binary"
)

// digest stands for a dedup id: the first 16 bytes of its SHA-256, so that what is remembered of an id
// has one size.
type digest [16]byte

func digestOf(id string) digest {
	sum := sha256.Sum256([]byte(id))
	return digest(sum[:16])
}

const (
	dedupShards = 64
	dedupBlock  = 256
)

// dedup remembers the dedup ids of a window, oldest first. Entries stand in the order of arrival in
// blocks; hash tables, many small ones so that none takes long to grow, hold their places.
type dedup struct {
	blocks []*[dedupBlock]dedupEntry // entries base to end-1, from blocks[0]
	base   uint64                    // place of the first entry of blocks[0]
	start  uint64                    // place of the oldest entry that is remembered
	end    uint64                    // place of the next
	tables [dedupShards]dedupTable
	// Which generation of the journal holds what, in the order of places; those behind the last were not
	// stamped yet.
	extents []idExtent
	kept    bool // some extents were emitted again and not stamped yet
}

type dedupEntry struct {
	digest digest
	seq    uint64
	at     int64 // wall time of the decision, ns
}

// dedupTable is a hash table with linear probing and deletion by shifting back. A place of 0 is
// empty; others are the entry's place modulo placeSpan, + 1.
type dedupTable struct {
	places []uint32
	used   int
}

func (d *dedup) len() int { return int(d.end - d.start) }

func (d *dedup) entry(place uint64) *dedupEntry {
	i := place - d.base
	return &d.blocks[i/dedupBlock][i%dedupBlock]
}

// placeSpan bounds how many places are in use at a time: limits.DedupIDsMax is far below.
const placeSpan = 1<<32 - 1

func lowPlace(place uint64) uint32 { return uint32(place%placeSpan) + 1 }

// full expands what a table holds of a place.
func (d *dedup) full(low uint32) uint64 {
	return d.start + (uint64(low)+placeSpan-uint64(lowPlace(d.start)))%placeSpan
}

func (t *dedupTable) home(g digest) int {
	return int(binary.LittleEndian.Uint64(g[8:]) & uint64(len(t.places)-1))
}

// find returns the sequence under which an id was first stored.
func (d *dedup) find(g digest) (seq uint64, ok bool) {
	place, ok := d.lookup(g)
	if !ok {
		return 0, false
	}
	return d.entry(place).seq, true
}

func (d *dedup) lookup(g digest) (place uint64, ok bool) {
	t := &d.tables[g[0]%dedupShards]
	if t.used == 0 {
		return 0, false
	}
	for i := t.home(g); t.places[i] != 0; i = (i + 1) & (len(t.places) - 1) {
		if place = d.full(t.places[i]); d.entry(place).digest == g {
			return place, true
		}
	}
	return 0, false
}

// add remembers an id. One that is known already, in a replay, had been forgotten when its second
// message was decided on, and so had all before it.
func (d *dedup) add(g digest, seq uint64, at int64) {
	if place, known := d.lookup(g); known {
		for d.start <= place {
			d.dropOldest()
		}
	}
	if (d.end-d.base)/dedupBlock == uint64(len(d.blocks)) {
		d.blocks = append(d.blocks, new([dedupBlock]dedupEntry))
	}
	d.end++
	*d.entry(d.end - 1) = dedupEntry{g, seq, at}
	t := &d.tables[g[0]%dedupShards]
	if 2*(t.used+1) > len(t.places) {
		d.resize(t, max(8, 2*len(t.places)))
	}
	t.put(g, lowPlace(d.end-1))
}

func (t *dedupTable) put(g digest, place uint32) {
	i := t.home(g)
	for t.places[i] != 0 {
		i = (i + 1) & (len(t.places) - 1)
	}
	t.places[i] = place
	t.used++
}

func (d *dedup) resize(t *dedupTable, size int) {
	old := t.places
	*t = dedupTable{places: make([]uint32, size)}
	for _, p := range old {
		if p != 0 {
			t.put(d.entry(d.full(p)).digest, p)
		}
	}
}

// forget drops the ids that were stored before a time.
func (d *dedup) forget(before int64) {
	for d.start < d.end && d.entry(d.start).at < before {
		d.dropOldest()
	}
}

func (d *dedup) dropOldest() {
	d.drop(d.entry(d.start).digest, lowPlace(d.start))
	d.start++
	if d.start-d.base == dedupBlock {
		d.blocks[0] = nil
		d.blocks = d.blocks[1:]
		d.base = d.start
	}
}

// oldest is the time of the oldest id; there must be one.
func (d *dedup) oldest() int64 { return d.entry(d.start).at }

func (d *dedup) drop(g digest, place uint32) {
	t := &d.tables[g[0]%dedupShards]
	mask := len(t.places) - 1
	i := t.home(g)
	for t.places[i] != place {
		i = (i + 1) & mask
	}
	// Shift back what would no longer be found across the gap.
	for j := (i + 1) & mask; t.places[j] != 0; j = (j + 1) & mask {
		home := t.home(d.entry(d.full(t.places[j])).digest)
		if (j-home)&mask >= (j-i)&mask {
			t.places[i] = t.places[j]
			i = j
		}
	}
	t.places[i] = 0
	t.used--
	if len(t.places) > 64 && 8*t.used < len(t.places) {
		d.resize(t, len(t.places)/2)
	}
}
