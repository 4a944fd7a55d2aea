package queue

import (
	"cmp"
	"slices"
)

// restart is what becomes of leases when the daemon is started anew.
type restart struct {
	clean bool
	epoch uint32
	shift int64 // ns from the old monotonic clock to the new
}

// Restart is the first operation after Finish. After a clean stop, at stoppedAt by the old clocks, leases
// end at the same wall time as before; those without an end are over, since nobody holds them any more.
// Otherwise all leases are over, uncounted, and receipts of them stale.
func (q *Queue) Restart(now Instant, clean bool, stoppedAt Instant) {
	start := restart{clean: clean, epoch: q.epoch}
	if clean {
		start.shift = (now.Mono - now.Wall) - (stoppedAt.Mono - stoppedAt.Wall)
	} else {
		start.epoch++
	}
	q.issue(&Record{kind: recStart, At: now, start: start})
}

func (q *Queue) applyStart(r *Record) {
	q.epoch = r.start.epoch
	type held struct {
		n      uint32
		seq    uint64
		millis uint32
		due    int64
	}
	var leases []held
	q.slots.each(func(n uint32, s *slot) {
		if s.state == Leased {
			leases = append(leases, held{n, s.seq, s.left, q.dueOf(s)})
		}
	})
	slices.SortFunc(leases, func(a, b held) int { return cmp.Compare(a.seq, b.seq) })
	for _, h := range leases {
		q.leave(h.n)
	}
	q.leases = wheel{now: startTick(r.At.Mono)}
	q.rewind(&q.delays, r.At.Wall, 0, q.delayDeadline)
	q.rewind(&q.ttls, r.At.Wall, 0, q.ttlDeadline)
	for _, h := range leases {
		if r.start.clean && h.millis != 0 {
			q.enterLeased(h.n, h.millis, max(h.due+r.start.shift, 1))
		} else {
			q.enterReady(h.n)
		}
	}
}
