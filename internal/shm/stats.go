package shm

// ReaderStats is how a Reader fares. Numbers are as of a moment ago.
type ReaderStats struct {
	Received  uint64 // messages handed out
	Lost      uint64 // messages overwritten before they were read
	Parks     uint64 // times it slept
	Backstops uint64 // sleeps in which only the time limit found something: 0 unless somebody misbehaves
	Corrupt   uint64 // lanes given up
	Lanes     []LaneStats
}

// LaneStats is how a Reader fares in one lane.
type LaneStats struct {
	Lane     uint64
	Sequence uint64 // of the last message read
	Lag      uint64 // messages published and not read, lost ones included
	LagBytes uint64
	Lost     uint64
	Ended    bool // its producer has left
}

// Stats tells how the Reader fares.
func (r *Reader) Stats() ReaderStats {
	if !r.use.share() {
		return ReaderStats{}
	}
	defer r.use.unshare()
	own := ReadConsumer(r.memory, r.config.Slot)
	s := ReaderStats{Received: own.Received, Lost: own.Lost, Parks: own.Parks, Backstops: own.Backstops, Corrupt: own.Corrupt}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lanes {
		lane := ReadLane(l.peer.Memory)
		_, cursor, sequence, lost := ReadCursor(r.memory, l.peer.Slot)
		s.Lanes = append(s.Lanes, LaneStats{
			Lane: l.peer.ID, Sequence: sequence, Lag: lane.Sequence - min(lane.Sequence, sequence),
			LagBytes: lane.Published - min(lane.Published, cursor), Lost: lost, Ended: l.peer.Ended,
		})
	}
	return s
}
