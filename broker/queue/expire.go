package queue

import "time"

// expireStep is how many messages one round of Expire takes from a wheel.
const expireStep = 256

// rewindSlack is how far the wall clock may go back before the wheels follow it, in ticks.
const rewindSlack = 1000

// Expire does what time has made due: ended leases return as failed attempts, delayed messages become
// ready, messages whose TTL ended go. It handles about limit messages; more says that others are due.
// dead is as in Begin.
func (q *Queue) Expire(now Instant, dead *Queue, limit int) (more bool) {
	q.followClock(now)
	t := q.Begin(now, dead)
	defer t.End()
	for limit > 0 {
		before := limit
		limit -= q.expireWheel(&q.leases, now.Mono, q.leaseDeadline, func(n uint32) {
			t.giveBack(n, byExpiry, -1, "the lease ended")
		})
		limit -= q.expireWheel(&q.ttls, now.Wall, q.ttlDeadline, t.expire)
		limit -= q.expireWheel(&q.delays, now.Wall, q.delayDeadline, func(n uint32) {
			if expires := q.timerOf(n).expires; expires != 0 && expires <= now.Wall {
				t.expire(n)
				return
			}
			q.settle(q.settling(now, recReady, 0, 0, 0, ""), n)
		})
		if limit == before {
			return false
		}
	}
	return true
}

// followClock sets the wheels back after the wall clock was.
func (q *Queue) followClock(now Instant) {
	wall := uint64(max(now.Wall, 0)) >> tickBits
	if q.delays.now > wall+rewindSlack {
		q.wheelRewind(&q.delays, now.Wall, q.delayDeadline)
	}
	if q.ttls.now > wall+rewindSlack {
		q.wheelRewind(&q.ttls, now.Wall, q.ttlDeadline)
	}
}

// expireWheel makes some due members of a wheel leave it, and says how many.
func (q *Queue) expireWheel(w *wheel, now int64, deadline func(uint32) int64, each func(n uint32)) int {
	if w.count == 0 {
		w.now = max(w.now, uint64(max(now, 0))>>tickBits)
		return 0
	}
	q.due = q.wheelDue(w, now, expireStep, deadline, q.due[:0])
	for _, n := range q.due {
		each(n)
	}
	return len(q.due)
}

// Rescheduled reports whether NextDue may have come nearer since it was last called.
func (q *Queue) Rescheduled() bool { return q.rescheduled }

// NextDue is how long until Expire has something to do, never too long; ok is false if nothing is pending.
func (q *Queue) NextDue(now Instant) (_ time.Duration, ok bool) {
	q.followClock(now)
	q.rescheduled = false
	best := int64(1<<63 - 1)
	for _, w := range [...]struct {
		wheel *wheel
		now   int64
	}{{&q.leases, now.Mono}, {&q.delays, now.Wall}, {&q.ttls, now.Wall}} {
		if w.wheel.count == 0 {
			continue
		}
		tick, _, found := w.wheel.earliest()
		if !found {
			continue
		}
		ok = true
		best = min(best, max(int64(tick<<tickBits)-w.now, 0))
	}
	return time.Duration(best), ok
}
