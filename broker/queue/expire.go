package queue

import "time"

// expireStep is how many messages one round of Expire takes from a wheel.
const expireStep = 256

// stallRetry is when Expire should be called again if payloads that it asked for do not arrive.
const stallRetry = 100 * time.Millisecond

// rewindSlack is how far the wall clock may go back before the wheels follow it, in ticks.
const rewindSlack = 1000

// Expire does what time has made due: ended leases return as failed attempts, delayed messages become
// ready, messages whose TTL ended go. It handles about limit messages; more says that others are due.
// dead is as in Begin. Dead letters whose payloads are missing stay due: Expire is to be called again when
// they were handed in.
func (q *Queue) Expire(now Instant, dead *Queue, limit int) (more bool) {
	q.followClock(now)
	t := q.Begin(now, dead)
	q.expiring = true
	defer func() {
		t.End()
		q.expiring = false
	}()
	q.leases.stalled, q.delays.stalled, q.ttls.stalled = false, false, false
	for limit > 0 {
		before := limit
		limit -= q.expireWheel(&q.leases, now.Mono, q.leaseDeadline, func(n uint32) error {
			return t.giveBack(n, byExpiry, -1, "the lease ended")
		})
		limit -= q.expireWheel(&q.ttls, now.Wall, q.ttlDeadline, t.expire)
		limit -= q.expireWheel(&q.delays, now.Wall, q.delayDeadline, func(n uint32) error {
			if expires := q.expiresOf(q.slots.at(n)); expires != 0 && expires <= now.Wall {
				return t.expire(n)
			}
			q.settle(q.settling(now, recReady, 0, 0, 0, ""), n)
			return nil
		})
		if limit == before {
			return false
		}
	}
	return true
}

// followClock sets the wheels back after the wall clock was.
func (q *Queue) followClock(now Instant) {
	q.rewind(&q.delays, now.Wall, rewindSlack, q.delayDeadline)
	q.rewind(&q.ttls, now.Wall, rewindSlack, q.ttlDeadline)
}

// rewind sets a wheel back to a wall time if it is ahead of it by more than so many ticks.
func (q *Queue) rewind(w *wheel, wall int64, slack uint64, deadline func(n uint32) int64) {
	if w.now > uint64(max(wall, 0))>>tickBits+slack {
		q.wheelRewind(w, wall, deadline)
	}
}

// expireWheel makes some due members of a wheel leave it, and says how many. It stalls where some can not.
func (q *Queue) expireWheel(w *wheel, now int64, deadline func(uint32) int64, each func(n uint32) error) (done int) {
	if w.stalled {
		return 0
	}
	if w.count == 0 {
		w.now = max(w.now, uint64(max(now, 0))>>tickBits)
		return 0
	}
	q.due = q.wheelDue(w, now, expireStep, deadline, q.due[:0])
	for _, n := range q.due {
		if each(n) == nil {
			done++
		} else {
			w.stalled = true
		}
	}
	return done
}

// resume makes Expire try again what waited for payloads.
func (q *Queue) resume() {
	for _, w := range [...]*wheel{&q.leases, &q.delays, &q.ttls} {
		if w.stalled {
			w.stalled, q.rescheduled = false, true
		}
	}
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
		if w.wheel.stalled {
			best = min(best, stallRetry.Nanoseconds())
			continue
		}
		best = min(best, max(int64(tick<<tickBits)-w.now, 0))
	}
	return time.Duration(best), ok
}
