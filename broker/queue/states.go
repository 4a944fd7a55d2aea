package queue

import "time"

// leave takes a message out of all that its state made it a member of.
func (q *Queue) leave(n uint32) {
	s := q.slots.at(n)
	switch s.state {
	case uncommitted:
		q.stats.Uncommitted--
	case Ready:
		q.pullReady(n)
		if s.flags&flagExpires != 0 {
			q.wheelRemove(&q.ttls, n, q.ttlDeadline(n))
		}
	case Delayed:
		q.stats.Delayed--
		q.wheelRemove(&q.delays, n, q.delayDeadline(n))
	case Leased:
		q.stats.Leased--
		q.wheelRemove(&q.leases, n, q.leaseDeadline(n))
		s.left = 0
	case Buried:
		q.stats.Buried--
		q.pullBuried(n)
		q.timerOf(n).next = 0
		q.reasons.release(uint32(q.dueOf(s)))
	}
	q.clearDue(s)
}

func (q *Queue) ttlDeadline(n uint32) int64   { return q.expiresOf(q.slots.at(n)) }
func (q *Queue) leaseDeadline(n uint32) int64 { return q.dueOf(q.slots.at(n)) }
func (q *Queue) delayDeadline(n uint32) int64 {
	s := q.slots.at(n)
	if s.flags&flagExpires != 0 {
		return min(q.dueOf(s), q.expiresOf(s))
	}
	return q.dueOf(s)
}

// The enter functions make a message, which left its former state, a member of all that the new one asks for.

func (q *Queue) enterReady(n uint32) {
	s := q.slots.at(n)
	s.state = Ready
	q.pushReady(n)
	if s.flags&flagExpires != 0 {
		q.wheelInsert(&q.ttls, n, q.ttlDeadline(n))
	}
}

func (q *Queue) enterDelayed(n uint32, due int64) {
	s := q.slots.at(n)
	s.state = Delayed
	s.right = q.entering
	q.setDue(s, due)
	q.stats.Delayed++
	q.wheelInsert(&q.delays, n, q.delayDeadline(n))
}

// enterLeased makes a message leased until due, monotonic time in ns.
func (q *Queue) enterLeased(n uint32, millis uint32, due int64) {
	s := q.slots.at(n)
	s.state = Leased
	s.left, s.right = millis, q.entering
	q.stats.Leased++
	q.setDue(s, due)
	q.wheelInsert(&q.leases, n, due)
}

// leaseEnd is when a lease of so many ms ends, monotonic time in ns.
func leaseEnd(at Instant, millis uint32) int64 {
	if millis == 0 {
		return never
	}
	return at.Mono + int64(millis)*int64(time.Millisecond)
}

// never is the end of a lease without an end.
const never = 1 << 62

func (q *Queue) enterBuried(n uint32, why string) {
	s := q.slots.at(n)
	s.state = Buried
	var number uint32
	if why != "" {
		number = q.reasons.hold(why)
	}
	q.setDue(s, int64(number))
	q.timerOf(n).next = q.entering
	q.stats.Buried++
	q.pushBuried(n)
}

func (q *Queue) pushBuried(n uint32) {
	if q.loading == nil {
		q.buried = q.slots.treeInsert(q.buried, n)
	}
}

func (q *Queue) pullBuried(n uint32) {
	if q.loading == nil {
		q.buried = q.slots.treeRemove(q.buried, n)
	}
}

// remove takes a message out of the queue for good.
func (q *Queue) remove(n uint32) {
	q.leave(n)
	s := q.slots.at(n)
	q.stats.Bytes -= int64(s.ref.charge())
	q.liveBytes -= s.ref.liveBytes()
	if s.ref.onDisk() {
		q.fetch.drop(s.ref.place())
	} else {
		q.payloads.free(s.ref, q.payloadMoved)
	}
	q.dropTimer(s)
	q.unhold(s.class)
	q.slots.remove(n)
}

func (q *Queue) payloadMoved(n uint32, to ref) {
	s := q.slots.at(n)
	s.ref = to | ref(s.ref.charge())
}
