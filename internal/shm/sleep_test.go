package shm

import (
	"errors"
	"flag"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var parkCycles = flag.Uint64("shm.parks", 300_000, "how often consumers go to sleep and are woken")

// crowd is a ring whose consumers come and go.
type crowd struct {
	mu   sync.Mutex // guards ring, whose readers and peers may be nil: a free slot
	ring *ringForTest
}

func (c *crowd) join(slot int, lossless bool) *Reader {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring.epoch++
	m, id := c.ring.memory(ConsumerSize), c.ring.epoch<<8
	rd := NewReader(ReaderConfig{Memory: m, ConsumerID: id, Epoch: c.ring.epoch, Slot: uint32(slot), Lossless: lossless},
		Members{Epoch: c.ring.epoch, Page: c.ring.page.Retain(), Lanes: c.ring.lanesNow()})
	c.ring.peers[slot] = ConsumerPeer{ID: id, Epoch: c.ring.epoch, Slot: uint32(slot), Lossless: lossless, Memory: m.Retain()}
	c.ring.readers[slot] = rd
	c.announce()
	return rd
}

func (c *crowd) leave(slot int) {
	c.mu.Lock()
	rd := c.ring.readers[slot]
	c.ring.readers[slot] = nil
	c.ring.peers[slot].Memory.Release()
	c.ring.peers[slot].Memory = nil
	c.ring.epoch++
	c.announce()
	c.mu.Unlock()
	rd.Close()
}

func (c *crowd) announce() {
	c.ring.page.Raise(c.ring.epoch)
	for _, w := range c.ring.writers {
		var peers []ConsumerPeer
		for _, p := range c.ring.peers {
			if p.Memory != nil {
				p.Memory.Retain()
				peers = append(peers, p)
			}
		}
		w.Offer(Members{Epoch: c.ring.epoch, Consumers: peers})
	}
	for _, rd := range c.ring.readers {
		if rd != nil {
			rd.Offer(Members{Epoch: c.ring.epoch, Lanes: c.ring.lanesNow()})
		}
	}
}

// replace ends a lane, and begins another one in its slot.
func (c *crowd) replace(slot int) (ended WriterStats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.ring.writers[slot]
	c.ring.epoch++
	g := Geometry{Capacity: CapacityMin, MaxFrame: CapacityMin / 4}
	m, id := c.ring.memory(LaneSize(CapacityMin)), c.ring.epoch<<8
	var peers []ConsumerPeer
	for _, p := range c.ring.peers {
		if p.Memory != nil {
			p.Memory.Retain()
			peers = append(peers, p)
		}
	}
	c.ring.lanes[slot].Memory.Release()
	c.ring.lanes[slot] = LanePeer{ID: id, Epoch: c.ring.epoch, Slot: uint32(slot), Geometry: g, Lossless: true, Memory: m.Retain()}
	c.ring.writers[slot] = NewWriter(WriterConfig{Memory: m, LaneID: id, Epoch: c.ring.epoch, Slot: uint32(slot), Geometry: g, Lossless: true, Stall: time.Minute},
		Members{Epoch: c.ring.epoch, Page: c.ring.page.Retain(), Consumers: peers})
	c.announce()
	ended = old.Stats()
	old.Close()
	return ended
}

// caughtUp reports whether all consumers there are have read all that w published.
func (c *crowd) caughtUp(w *Writer) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.ring.peers {
		if p.Memory == nil {
			continue
		}
		if lane, cursor, _, _ := ReadCursor(p.Memory, w.config.Slot); lane != w.config.LaneID || cursor != w.position {
			return false
		}
	}
	return true
}

// Consumers sleep and are woken while others join and leave; nobody may ever need the time limit of a sleep to find what
// was published, or that there is room.
func TestNoWakeUpIsLost(t *testing.T) {
	defer func(was bool) { spinning = was }(spinning)
	spinning = false // sleep at once
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const consumers, lanes = 6, 2
	c := &crowd{ring: newRing(t, false)}
	for range lanes {
		c.ring.writer(laneOptions{capacity: CapacityMin, lossless: true})
	}
	c.ring.readers = make([]*Reader, consumers)
	c.ring.peers = make([]ConsumerPeer, consumers)

	var parks, backstops, read, joins atomic.Uint64
	var stop atomic.Bool
	var reading, publishing sync.WaitGroup
	for slot := range consumers {
		reading.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(slot)))
			lossless := slot%2 == 0
			for !stop.Load() {
				rd := c.join(slot, lossless)
				joins.Add(1)
				for range 500 + rng.IntN(5000) {
					m, err := rd.Next(forever)
					if errors.Is(err, ErrClosed) && stop.Load() {
						return
					}
					if err != nil || lossless && m.Lost != 0 {
						t.Errorf("slot %d: lost %d, %v", slot, m.Lost, err)
						return
					}
					read.Add(1)
				}
				s := rd.Stats()
				parks.Add(s.Parks)
				backstops.Add(s.Backstops)
				c.leave(slot)
			}
		})
	}
	publishing.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 100))
		payload := make([]byte, 2000)
		for parks.Load() < *parkCycles && !t.Failed() {
			i := rng.IntN(lanes)
			if rng.IntN(3000) == 0 {
				backstops.Add(c.replace(i).Backstops)
			}
			w := c.ring.writers[i]
			burst := 1
			if rng.IntN(1000) == 0 {
				burst = 100 // more than fits: it blocks
			}
			for range burst {
				if err := w.Publish(forever, 1, payload[:rng.IntN(2000)]); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
			}
			// Nothing follows before all have read it: whoever is not woken stays asleep. Having read it they go to sleep,
			// which is when the next message comes.
			for !c.caughtUp(w) && !t.Failed() {
				pause()
			}
			for range rng.IntN(1 << rng.IntN(9)) {
				pause()
			}
		}
	})
	publishing.Wait()
	stop.Store(true)
	c.mu.Lock()
	for _, rd := range c.ring.readers {
		if rd != nil {
			rd.Close()
		}
	}
	c.mu.Unlock()
	reading.Wait()
	c.ring.readers = nil
	for _, w := range c.ring.writers {
		backstops.Add(w.Stats().Backstops)
	}
	t.Logf("%d sleeps, %d messages read, %d joins; a producer: %+v", parks.Load(), read.Load(), joins.Load(), c.ring.writers[0].Stats())
	if n := backstops.Load(); n != 0 {
		t.Errorf("%d sleeps ended only because of their time limit", n)
	}
	if parks.Load() < *parkCycles && !t.Failed() {
		t.Errorf("only %d sleeps", parks.Load())
	}
}
