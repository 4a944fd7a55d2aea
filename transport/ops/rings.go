package ops

import (
	"maps"
	"time"

	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/limits"
)

var (
	ringCount         = gauge("ipcd_rings", "Rings.")
	ringsBeyond       = gauge("ipcd_rings_without_series", `Rings that are counted under ring="other".`)
	ringMemory        = gauge("ipcd_rings_memory_bytes", "Memory of the members of all rings.")
	ringMemoryLimit   = gauge("ipcd_rings_memory_limit_bytes", "Memory that the members of all rings may take.")
	ringMembersOfAll  = gauge("ipcd_rings_members", "Members of all rings.", "role")
	memberCounterHelp = " As the members count."
)

// What the members of a ring count, by place.
const (
	published = iota
	blockedSeconds
	evicted
	producerBackstops
	received
	lost
	consumerBackstops
	corrupt
)

// seenRing is a ring as a scrape sees it.
type seenRing struct {
	*ring.Info
	counts counts // of all members that are, or were, seen
}

func newRingTable() *table[seenRing] {
	return newTable(limits.MetricsRings, func(r *seenRing) string { return r.Name }, func(r *seenRing) uint64 { return r.ID }, ringFigures())
}

func ringFigures() (all []figure[seenRing]) {
	add := func(f *family, value func(*seenRing) float64) {
		all = append(all, figure[seenRing]{each: f, value: func(r *seenRing) (float64, bool) { return value(r), true }})
	}
	add(gauge("ipcd_ring_lanes", "Lanes, those whose producers have left included.", "ring"), func(r *seenRing) float64 { return float64(len(r.Lanes)) })
	add(gauge("ipcd_ring_consumers", "Consumers.", "ring"), func(r *seenRing) float64 { return float64(len(r.Consumers)) })
	add(gauge("ipcd_ring_memory_bytes", "Memory of its members.", "ring"), func(r *seenRing) float64 { return float64(r.Bytes) })
	add(gauge("ipcd_ring_blocked_producers", "Producers that wait for a consumer.", "ring"), func(r *seenRing) float64 {
		n := 0
		for i := range r.Lanes {
			if r.Lanes[i].Blocked {
				n++
			}
		}
		return float64(n)
	})
	add(gauge("ipcd_ring_lag_messages", "Messages that the consumer furthest behind is behind.", "ring"), func(r *seenRing) float64 {
		lag := uint64(0)
		for i := range r.Consumers {
			lag = max(lag, r.Consumers[i].Lag)
		}
		return float64(lag)
	})
	all[len(all)-1].largest = true
	count := func(place int, name, help string) {
		add(counter(name, help+memberCounterHelp, "ring"), func(r *seenRing) float64 { return r.counts[place] })
	}
	count(published, "ipcd_ring_published_total", "Messages published.")
	count(received, "ipcd_ring_received_total", "Messages received, by each consumer.")
	count(lost, "ipcd_ring_lost_total", "Messages that consumers lost.")
	count(evicted, "ipcd_ring_evicted_total", "Times that a producer went on without a consumer that held it up.")
	count(blockedSeconds, "ipcd_ring_blocked_seconds_total", "Time that producers waited for consumers.")
	count(producerBackstops, "ipcd_ring_producer_backstops_total", "Waits for room that only their time limit ended.")
	count(consumerBackstops, "ipcd_ring_consumer_backstops_total", "Sleeps that only their time limit ended although there were messages.")
	count(corrupt, "ipcd_ring_corrupt_total", "Lanes that consumers gave up because they made no sense.")
	return all
}

// memberKey names a member of a ring: lanes and consumers may have the same ids.
type memberKey struct {
	ring, id uint64
	consumer bool
}

// ringCounts keeps what the members of each ring have counted since the daemon began, also of those that have left
// since. Members of an earlier run that come back have counted before: what they have when they are first seen is where
// they begin.
type ringCounts struct {
	back    time.Time // who joined before may be such a member
	members growth[memberKey]
	rings   map[uint64]*counts // by id
}

// see brings the counts up to date and returns the rings with them.
func (c *ringCounts) see(infos []ring.Info) []seenRing {
	if c.rings == nil {
		c.rings = map[uint64]*counts{}
	}
	here := make(map[uint64]bool, len(infos))
	rings := make([]seenRing, len(infos))
	for i := range infos {
		info := &infos[i]
		here[info.ID] = true
		of := c.rings[info.ID]
		if of == nil {
			of = &counts{}
			c.rings[info.ID] = of
		}
		member := func(key memberKey, joined time.Time, now counts) {
			if joined.Before(c.back) {
				c.members.begin(key, &now)
			}
			grown := c.members.since(key, &now)
			of.add(&grown)
		}
		for k := range info.Lanes {
			if l := &info.Lanes[k]; !l.Unreadable {
				member(memberKey{info.ID, l.ID, false}, l.Joined, counts{published: float64(l.Sequence), blockedSeconds: l.BlockedTime.Seconds(),
					evicted: float64(l.Evictions), producerBackstops: float64(l.Backstops)})
			}
		}
		for k := range info.Consumers {
			if m := &info.Consumers[k]; !m.Unreadable {
				member(memberKey{info.ID, m.ID, true}, m.Joined, counts{received: float64(m.Received), lost: float64(m.Lost),
					consumerBackstops: float64(m.Backstops), corrupt: float64(m.Corrupt)})
			}
		}
		rings[i] = seenRing{info, *of}
	}
	c.members.next()
	maps.DeleteFunc(c.rings, func(id uint64, _ *counts) bool { return !here[id] })
	return rings
}
