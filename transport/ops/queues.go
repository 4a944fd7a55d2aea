package ops

import (
	"time"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/limits"
)

// seenQueue is a queue as a scrape sees it.
type seenQueue struct {
	*broker.Info
	now     time.Time
	damaged bool
}

// see returns the queues as a scrape sees them.
func see(infos []broker.Info, storage *broker.Storage, now time.Time) []seenQueue {
	damaged := make(map[string]bool, len(storage.Damaged))
	for _, name := range storage.Damaged {
		damaged[name] = true
	}
	queues := make([]seenQueue, 0, len(infos))
	for i := range infos {
		if !infos[i].Temporary { // their names never come again
			queues = append(queues, seenQueue{&infos[i], now, damaged[infos[i].Name]})
		}
	}
	return queues
}

var (
	queueCount    = gauge("ipcd_queues", "Queues.")
	queuesForNow  = gauge("ipcd_temporary_queues", "Queues that end with the call that opened them. They have no series.")
	lateReplies   = counter("ipcd_late_replies_total", "Sends to temporary queues that had ended.")
	queuesBeyond  = gauge("ipcd_queues_without_series", `Queues that are counted under queue="other".`)
	queueMessages = both(gauge, "messages", "Messages by state.", "state")
	doorOpen      = both(gauge, "door_open", "Whether a kernel door is open.", "direction")
	doorMessages  = both(gauge, "door_messages", "Messages in the kernel queue.", "direction")
	doorPassed    = both(counter, "door_passed_total", "Messages that passed a kernel door.", "direction")
	doorSkipped   = both(counter, "door_skipped_total", "Messages that could not pass a kernel door: too large, or not understood.", "direction")
)

// families is a metric of each queue, and the one of all of them.
type families struct{ each, all *family }

// both makes ipcd_queue_…, of each queue, and ipcd_queues_…, of all.
func both(kind func(name, help string, labels ...string) *family, name, help string, labels ...string) families {
	return families{
		kind("ipcd_queue_"+name, help, append([]string{"queue"}, labels...)...),
		kind("ipcd_queues_"+name, help+" Of all queues.", labels...),
	}
}

func newQueueTable() *table[seenQueue] {
	return newTable(limits.MetricsQueues, func(q *seenQueue) string { return q.Name }, func(q *seenQueue) uint64 { return q.ID }, queueFigures())
}

func queueFigures() []figure[seenQueue] {
	var all []figure[seenQueue]
	add := func(f families, label string, value func(*seenQueue) float64) {
		all = append(all, figure[seenQueue]{each: f.each, all: f.all, label: label,
			value: func(q *seenQueue) (float64, bool) { return value(q), true }})
	}
	add(queueMessages, "ready", func(q *seenQueue) float64 { return float64(q.Stats.Ready) })
	add(queueMessages, "delayed", func(q *seenQueue) float64 { return float64(q.Stats.Delayed) })
	add(queueMessages, "leased", func(q *seenQueue) float64 { return float64(q.Stats.Leased) })
	add(queueMessages, "buried", func(q *seenQueue) float64 { return float64(q.Stats.Buried) })
	add(both(gauge, "bytes", "Bytes of bodies, headers and ids."), "", func(q *seenQueue) float64 { return float64(q.Stats.Bytes) })
	add(both(gauge, "oldest_ready_age_seconds", "Time since the oldest ready message was sent; 0: none is ready."), "", (*seenQueue).age)
	all[len(all)-1].largest = true
	add(both(gauge, "receivers", "Receives that wait, and streams of deliveries."), "", func(q *seenQueue) float64 { return float64(q.Stats.Receivers) })
	add(both(gauge, "blocked_senders", "Senders that wait for room."), "", func(q *seenQueue) float64 { return float64(q.Stats.BlockedSenders) })
	add(both(gauge, "taps", "Who copy what arrives."), "", func(q *seenQueue) float64 { return float64(q.Stats.Taps) })
	add(both(gauge, "dedup_ids", "Dedup ids that are remembered."), "", func(q *seenQueue) float64 { return float64(q.Stats.DedupIDs) })
	add(both(gauge, "paused", "Whether deliveries are paused."), "", func(q *seenQueue) float64 { return truth(q.Paused) })
	add(both(gauge, "damaged", "Whether it is read-only because the journal is damaged."), "", func(q *seenQueue) float64 { return truth(q.damaged) })

	count := func(name, help string, value func(*broker.Stats) uint64) {
		add(both(counter, name+"_total", help), "", func(q *seenQueue) float64 { return float64(value(&q.Stats)) })
	}
	count("sent", "Messages stored.", func(s *broker.Stats) uint64 { return s.Sent })
	count("delivered", "Deliveries.", func(s *broker.Stats) uint64 { return s.Delivered })
	count("consumed", "Messages acked, or consumed at once.", func(s *broker.Stats) uint64 { return s.Consumed })
	count("nacked", "Deliveries nacked.", func(s *broker.Stats) uint64 { return s.Nacked })
	count("lease_expired", "Leases that ran out, or whose stream broke.", func(s *broker.Stats) uint64 { return s.LeaseExpired })
	count("ttl_dropped", "Messages whose TTL ended.", func(s *broker.Stats) uint64 { return s.TTLDropped })
	count("overflow_dropped", "Messages dropped to make room.", func(s *broker.Stats) uint64 { return s.OverflowDropped })
	count("dead_lettered", "Messages moved to the dead-letter queue.", func(s *broker.Stats) uint64 { return s.DeadLettered })
	count("moved", "Messages moved to another queue.", func(s *broker.Stats) uint64 { return s.Moved })
	count("copied", "Copies that binds stored in other queues, since the daemon began.", func(s *broker.Stats) uint64 { return s.Copied })
	count("copies_skipped", "Copies that other queues went without, since the daemon began.", func(s *broker.Stats) uint64 { return s.CopiesSkipped })
	count("purged", "Messages purged.", func(s *broker.Stats) uint64 { return s.Purged })
	count("duplicates", "Messages not stored, as their dedup id was known.", func(s *broker.Stats) uint64 { return s.Duplicates })
	count("peeked", "Messages shown by peek.", func(s *broker.Stats) uint64 { return s.Peeked })
	for _, direction := range []string{"in", "out"} {
		door := func(f families, value func(*broker.DoorStatus) float64) {
			all = append(all, figure[seenQueue]{each: f.each, all: f.all, label: direction,
				value: func(q *seenQueue) (float64, bool) { return q.door(direction, value) }})
		}
		door(doorOpen, func(d *broker.DoorStatus) float64 { return truth(d.Open) })
		door(doorMessages, func(d *broker.DoorStatus) float64 { return float64(d.Current) })
		door(doorPassed, func(d *broker.DoorStatus) float64 { return float64(d.Passed) })
		door(doorSkipped, func(d *broker.DoorStatus) float64 { return float64(d.Skipped) })
	}
	return all
}

// age is that of the oldest ready message. The clock may have been set back.
func (q *seenQueue) age() float64 {
	if q.Stats.OldestReady == 0 {
		return 0
	}
	return max(0, q.now.Sub(time.Unix(0, q.Stats.OldestReady)).Seconds())
}

// door is a figure of the doors in one direction; ok false: there are none.
func (q *seenQueue) door(direction string, value func(*broker.DoorStatus) float64) (v float64, ok bool) {
	for i := range q.Doors {
		if d := &q.Doors[i]; d.Direction == direction {
			v, ok = v+value(d), true
		}
	}
	return v, ok
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
