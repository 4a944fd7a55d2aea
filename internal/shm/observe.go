package shm

// Looking on: what members wrote into their memory, unverified. It never disturbs them.

// LaneState is what stands in a lane's cursors.
type LaneState struct {
	Published, Oldest uint64 // positions in bytes
	Sequence          uint64 // messages published
	Seen              uint64 // the epoch whose members the producer knows
	Blocked           bool   // it sleeps until consumers have read
	Wakes, Elided     uint64
	Blocks            uint64
	BlockedNanos      uint64
	Evictions         uint64
	Backstops         uint64
}

// ReadLane looks at a lane, which has LaneSize bytes.
func ReadLane(m *Memory) LaneState {
	b := m.Bytes()
	at := func(offset int) uint64 { return word64(b, offset).Load() }
	return LaneState{
		Oldest: at(oldestAt), Sequence: at(sequenceAt), Published: at(publishedAt), Seen: at(seenAt), Blocked: word32(b, blockedAt).Load()&1 == 1,
		Wakes: at(wakesCounter), Elided: at(elidedCounter), Blocks: at(blocksCounter), BlockedNanos: at(blockedNanosCounter),
		Evictions: at(evictionsCounter), Backstops: at(writerBackstopsCounter),
	}
}

// Evicted is the id of the consumer that the lane's producer evicted from a slot, 0: none.
func Evicted(m *Memory, slot uint32) uint64 {
	return word64(m.Bytes(), evictedAt+8*int(slot%MaxConsumers)).Load()
}

// ConsumerState is what stands in a consumer's pages.
type ConsumerState struct {
	Parked         bool // it sleeps
	Received, Lost uint64
	Parks          uint64 // times it slept
	Backstops      uint64 // sleeps in which only the time limit found something: 0 unless somebody misbehaves
	Corrupt        uint64 // lanes that did not make sense
}

// ReadConsumer looks at the pages of the consumer of that slot.
func ReadConsumer(m *Memory, slot uint32) ConsumerState {
	b := m.Bytes()
	at := func(offset int) uint64 { return word64(b, offset).Load() }
	return ConsumerState{
		Parked: word32(b, parkedAt(slot)).Load()&1 == 1, Received: at(receivedCounter), Lost: at(lostCounter),
		Parks: at(parksCounter), Backstops: at(backstopsCounter), Corrupt: at(corruptCounter),
	}
}

// ReadCursor looks at how far a consumer has read the lane of a slot. It may be another lane, which had that
// slot before.
func ReadCursor(m *Memory, laneSlot uint32) (laneID, cursor, sequence, lost uint64) {
	b := m.Bytes()
	line := cursorsAt + cursorStride*int(laneSlot%MaxLanes)
	at := func(offset int) uint64 { return word64(b, line+offset).Load() }
	return at(lineLane), at(lineCursor), at(lineSequence), at(lineLost)
}
