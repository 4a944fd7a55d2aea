//go:build linux

package ring

import "time"

// ProducerStats is how a Producer fares.
type ProducerStats struct {
	Published uint64        // messages
	Wakes     uint64        // system calls that woke consumers
	Elided    uint64        // publishes that woke nobody, since every sleeper had been woken already
	Blocks    uint64        // waits for lossless consumers
	Blocked   time.Duration // how long they took
	Evictions uint64        // consumers that held it up for too long
	Backstops uint64        // waits in which only the time limit found room: 0 unless a member misbehaves
}

// Stats returns how the producer fares. It may be called by any goroutine. After Close all is 0.
func (p *Producer) Stats() ProducerStats {
	s := p.writer.Stats()
	return ProducerStats{
		Published: s.Sequence, Wakes: s.Wakes, Elided: s.Elided, Blocks: s.Blocks, Blocked: time.Duration(s.BlockedNanos),
		Evictions: s.Evictions, Backstops: s.Backstops,
	}
}

// ConsumerStats is how a Consumer fares. The numbers are as of a moment ago.
type ConsumerStats struct {
	Received  uint64 // messages handed out
	Lost      uint64 // messages overwritten before they were read
	Lag       uint64 // messages published and not read, lost ones included, of all lanes
	Parks     uint64 // times it slept
	Backstops uint64 // sleeps in which only the time limit found something: 0 unless a member misbehaves
	Corrupt   uint64 // lanes given up with ErrCorrupt
	Lanes     []LaneStats
}

// LaneStats is how a Consumer fares in one lane.
type LaneStats struct {
	Lane     uint64 // its id
	Sequence uint64 // of the last message read
	Lag      uint64 // messages published and not read, lost ones included
	LagBytes uint64 // the same in bytes of the lane
	Lost     uint64 // messages overwritten before they were read
	Ended    bool   // its producer has left
}

// Stats returns how the consumer fares. It may be called by any goroutine. After Close all is 0.
func (c *Consumer) Stats() ConsumerStats {
	s := c.reader.Stats()
	all := ConsumerStats{Received: s.Received, Lost: s.Lost, Parks: s.Parks, Backstops: s.Backstops, Corrupt: s.Corrupt}
	for _, lane := range s.Lanes {
		all.Lag += lane.Lag
		all.Lanes = append(all.Lanes, LaneStats(lane))
	}
	return all
}
