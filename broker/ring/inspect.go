package ring

import (
	"slices"
	"time"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/shm"
)

// Info is a ring as it is now. What members count they count themselves: it is shown as they say it.
type Info struct {
	Name      string
	ID        uint64
	Settings  Settings
	Created   time.Time
	Lanes     []LaneInfo     // by slot
	Consumers []ConsumerInfo // by slot
	Bytes     int64          // of memory charged for members
	Epoch     uint64         // rises whenever a member comes or goes
}

// LaneInfo is one lane, and its producer.
type LaneInfo struct {
	ID         uint64
	Slot       uint32
	Who        identity.Identity // whose producer it is; of the daemon's own lane: the ring's owner
	PID        uint32
	Daemon     bool
	Joined     time.Time
	Lossless   bool
	Ended      bool // the producer has left
	Unreadable bool // its memory cannot be read: what follows is zero
	Bytes      int64

	Position uint64 // bytes since the lane began that are published
	Oldest   uint64 // of those, where the ones that are still there begin
	Sequence uint64 // messages published
	Rate     float64
	Seen     uint64 // the epoch whose members the producer knows

	Wakes       uint64 // system calls that woke consumers
	WakesElided uint64 // publishes that woke nobody, since every sleeper had been woken already
	Blocks      uint64 // waits for consumers
	BlockedTime time.Duration
	Evictions   uint64 // consumers that held it up for too long
	Backstops   uint64 // waits in which only the time limit found room
	Blocked     bool   // it waits for a consumer

	Stalest    uint64 // the consumer that is furthest behind; 0: none is
	StalestLag uint64 // messages that it is behind
}

// ConsumerInfo is one consumer.
type ConsumerInfo struct {
	ID         uint64
	Slot       uint32
	Who        identity.Identity
	PID        uint32
	Daemon     bool // on behalf of Who
	Joined     time.Time
	Lossless   bool
	Unreadable bool // its memory cannot be read: what follows is zero

	Parked    bool // it sleeps
	Received  uint64
	Lost      uint64
	Rate      float64 // messages received a second
	Parks     uint64  // times it slept
	Backstops uint64  // sleeps in which only the time limit found something
	Corrupt   uint64  // lanes that did not make sense
	Lag       uint64  // messages that it is behind, in all lanes that it has taken up, or will
	Lanes     []CursorInfo
}

// CursorInfo is how far a consumer has read a lane.
type CursorInfo struct {
	LaneID      uint64
	Cursor      uint64 // position in bytes
	Sequence    uint64 // of the last message read
	LagMessages uint64
	LagBytes    uint64
	Lost        uint64
	Evicted     bool // it held the lane's producer up for too long, and does not any more
}

// info looks at the ring. Nobody is disturbed.
func (rg *ring) info() Info {
	i := Info{Name: rg.name, ID: rg.id, Created: rg.created, Bytes: rg.rings.budget.chargedTo(rg)}
	rg.mu.Lock()
	i.Settings, i.Epoch = *rg.settings.Load(), rg.epoch
	all := rg.lookAtLocked(func(*Member) bool { return true })
	rg.mu.Unlock()
	now := time.Now()
	var lanes []*looked // those of i.Lanes
	for k := range all {
		l := &all[k]
		if l.member.role == Producer {
			lanes = append(lanes, l)
			i.Lanes = append(i.Lanes, l.lane(now))
		}
	}
	for k := range all {
		l := &all[k]
		if l.member.role == Consumer {
			c := l.consumer(now)
			if l.err = guarded(func() { l.cursors(&c, i.Lanes, lanes) }); l.err != nil {
				c = ConsumerInfo{ID: c.ID, Slot: c.Slot, Who: c.Who, PID: c.PID, Daemon: c.Daemon, Joined: c.Joined, Lossless: c.Lossless, Unreadable: true}
			}
			i.Consumers = append(i.Consumers, c)
		}
	}
	for k := range all {
		all[k].memory.Release()
	}
	return i
}

func (l *looked) lane(now time.Time) LaneInfo {
	m := l.member
	i := LaneInfo{ID: m.id, Slot: m.slot, Who: m.who, PID: m.pid, Daemon: m.daemon, Joined: l.at, Lossless: m.lossless, Ended: l.state == ended, Bytes: m.size()}
	var s shm.LaneState
	if err := guarded(func() { s = shm.ReadLane(l.memory) }); err != nil {
		i.Unreadable = true
		return i
	}
	i.Position, i.Oldest, i.Sequence, i.Seen = s.Published, s.Oldest, s.Sequence, s.Seen
	i.Wakes, i.WakesElided, i.Blocks, i.BlockedTime = s.Wakes, s.Elided, s.Blocks, time.Duration(s.BlockedNanos)
	i.Evictions, i.Backstops, i.Blocked = s.Evictions, s.Backstops, s.Blocked
	if !i.Ended {
		i.Rate = l.rates.since(rateSample{now, s.Sequence})
	}
	return i
}

func (l *looked) consumer(now time.Time) ConsumerInfo {
	m := l.member
	i := ConsumerInfo{ID: m.id, Slot: m.slot, Who: m.who, PID: m.pid, Daemon: m.daemon, Joined: l.at, Lossless: m.lossless}
	var s shm.ConsumerState
	if err := guarded(func() { s = shm.ReadConsumer(l.memory, m.slot) }); err != nil {
		i.Unreadable = true
		return i
	}
	i.Parked, i.Received, i.Lost, i.Parks, i.Backstops, i.Corrupt = s.Parked, s.Received, s.Lost, s.Parks, s.Backstops, s.Corrupt
	i.Rate = l.rates.since(rateSample{now, s.Received})
	return i
}

// untaken reports whether a lane that a consumer has not taken up is one that it will read from its beginning: it has
// come after the consumer, which may be stopped, or busy with other lanes.
func untaken(consumer uint64, lane *looked) bool {
	return lane.member.id > consumer && lane.state == live
}

// cursors adds how far the consumer has read the lanes that it has taken up, or will, or was evicted from, and tells the
// lanes.
func (l *looked) cursors(c *ConsumerInfo, infos []LaneInfo, lanes []*looked) {
	for k := range infos {
		lane := &infos[k]
		if lane.Unreadable {
			continue
		}
		id, cursor, sequence, lost := shm.ReadCursor(l.memory, lane.Slot)
		evicted := shm.Evicted(lanes[k].memory, c.Slot) == c.ID
		if id != lane.ID {
			if !evicted && !untaken(c.ID, lanes[k]) {
				continue
			}
			cursor, sequence, lost = 0, 0, 0 // it did not even take the lane up
		}
		i := CursorInfo{LaneID: lane.ID, Cursor: cursor, Sequence: sequence, Lost: lost, Evicted: evicted,
			LagMessages: above(lane.Sequence, sequence), LagBytes: above(lane.Position, cursor)}
		c.Lanes = append(c.Lanes, i)
		c.Lag += i.LagMessages
		if i.LagMessages > lane.StalestLag {
			lane.Stalest, lane.StalestLag = c.ID, i.LagMessages
		}
	}
}

// Behind is how many messages a consumer has not read yet, of the lanes that it has taken up, or will; 0 for a producer, and once
// the member has left.
func (m *Member) Behind() (messages uint64) {
	if m.role == Producer {
		return 0
	}
	all := m.ring.lookAt(func(other *Member) bool { return other == m || other.role == Producer })
	// What cannot be read is not counted.
	_ = guarded(func() {
		mine := slices.IndexFunc(all, func(l looked) bool { return l.member == m })
		for k := range all[:max(mine, 0)] { // lanes come first
			lane := &all[k]
			switch id, _, sequence, _ := shm.ReadCursor(all[mine].memory, lane.member.slot); {
			case id == lane.member.id:
				messages += above(shm.ReadLane(lane.memory).Sequence, sequence)
			case untaken(m.id, lane):
				messages += shm.ReadLane(lane.memory).Sequence
			}
		}
	})
	for k := range all {
		all[k].memory.Release()
	}
	return messages
}

// above is how much a is more than b: the consumer was looked at later than the lane.
func above(a, b uint64) uint64 { return max(a, b) - b }
