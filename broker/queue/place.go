package queue

// Place says where a payload lies in the journal, in 38 bits that mean nothing to the queue. 0 is nowhere.
type Place uint64

// ref says where a payload lies and what it is charged: a bit that tells memory from the journal, 38 bits
// of position, 25 bits of charge. The position in memory is a slab's number and an offset in units of 8
// bytes, in the journal it is the Place.
type ref uint64

const (
	chargeBits = 25 // a body of 16 MiB and headers of 64 KiB fit
	placeBits  = 38
	offsetBits = 13 // 64 KiB in units of 8 bytes
	slabBits   = placeBits - offsetBits

	refOnDisk ref = 1 << (placeBits + chargeBits)
)

func makeRef(slab uint32, offset, charge int) ref {
	return ref(uint64(slab)<<(offsetBits+chargeBits) | uint64(offset/8)<<chargeBits | uint64(charge))
}

func makeDiskRef(p Place, charge int) ref {
	return refOnDisk | ref(p&(1<<placeBits-1))<<chargeBits | ref(charge)
}

func (r ref) onDisk() bool { return r&refOnDisk != 0 }
func (r ref) charge() int  { return int(r & (1<<chargeBits - 1)) }
func (r ref) place() Place { return Place(r >> chargeBits & (1<<placeBits - 1)) }
func (r ref) slab() uint32 { return uint32(r >> (offsetBits + chargeBits) & (1<<slabBits - 1)) }
func (r ref) offset() int  { return int(r>>chargeBits&(1<<offsetBits-1)) * 8 }

// liveBytes is what a message takes in the journal, roughly: its payload's entry and its share of records.
func (r ref) liveBytes() int64 { return int64((8+r.charge()+7)&^7) + 48 }

// ResidentBytes is the memory that payloads take.
func (q *Queue) ResidentBytes() int64 { return int64(q.payloads.total) }

// LiveBytes is roughly what the queue's messages take in the journal.
func (q *Queue) LiveBytes() int64 { return q.liveBytes }

// Live reports whether there is a message of that sequence, in any state.
func (q *Queue) Live(seq uint64) bool { return q.slots.find(seq) != 0 }

// LowestLive is the lowest sequence of a message, 0 if there is none.
func (q *Queue) LowestLive() uint64 { return q.slots.lowest() }

// InMemory reports whether there is such a message and its payload is in memory, the read cache aside.
func (q *Queue) InMemory(seq uint64) bool {
	n := q.slots.find(seq)
	return n != 0 && !q.slots.at(n).ref.onDisk()
}

// Payload returns the stored bytes of a message whose payload is in memory, as EachPayload told them. They
// are valid until the queue changes.
func (q *Queue) Payload(seq uint64) ([]byte, bool) {
	if !q.InMemory(seq) {
		return nil, false
	}
	return q.payloads.load(q.slots.at(q.slots.find(seq)).ref), true
}

// SetPlace says where the payload of a message lies in the journal. From then on it is read from there: a
// copy in memory is given up. A message that is gone and the place 0 are ignored.
func (q *Queue) SetPlace(seq uint64, p Place) {
	n := q.slots.find(seq)
	if n == 0 || p == 0 {
		return
	}
	s := q.slots.at(n)
	if s.ref.onDisk() {
		q.fetch.drop(s.ref.place())
	} else {
		q.payloads.free(s.ref, q.payloadMoved)
	}
	s.ref = makeDiskRef(p, s.ref.charge())
}
