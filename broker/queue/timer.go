package queue

// timer is what a message with a deadline has besides its slot: 16 bytes. It is a member of at most one wheel: leased
// messages of leases, delayed ones of delays, ready ones with a TTL of ttls. Buried ones have one too.
type timer struct {
	at int64 // due, if the message has flagDue, else when its TTL ends
	// Slots, in the wheel's bucket. Buried: next is the record that made it so.
	next, prev uint32
}

// longTimer is the timer of a message that has both times.
type longTimer struct {
	timer         // with due
	expires int64 // as in expiresOf
}

// flagsBoth mark a message whose timer is a long one.
const flagsBoth = flagDue | flagExpires

// timerOf returns the timer that a message must have.
func (q *Queue) timerOf(n uint32) *timer { return q.timerOfSlot(q.slots.at(n)) }

func (q *Queue) timerOfSlot(s *slot) *timer {
	if s.flags&flagsBoth == flagsBoth {
		return &q.longTimers.at(s.timer).timer
	}
	return q.timers.at(s.timer)
}

// dueOf is, of a delayed message, the wall time, ns, of becoming ready; of a leased one the monotonic time, ns, at
// which the lease ends; of a buried one the number of the reason. 0: none.
func (q *Queue) dueOf(s *slot) int64 {
	if s.flags&flagDue == 0 {
		return 0
	}
	return q.timerOfSlot(s).at
}

// expiresOf is the wall time, ns, at which the TTL ends. 0: never.
func (q *Queue) expiresOf(s *slot) int64 {
	switch s.flags & flagsBoth {
	case flagsBoth:
		return q.longTimers.at(s.timer).expires
	case flagExpires:
		return q.timers.at(s.timer).at
	}
	return 0
}

// setDue gives a message, which is in no wheel, a due time.
func (q *Queue) setDue(s *slot, due int64) {
	if s.flags&flagDue == 0 {
		q.setTimes(s, s.flags|flagDue)
	}
	q.timerOfSlot(s).at = due
}

// clearDue takes it away again.
func (q *Queue) clearDue(s *slot) {
	if s.flags&flagDue != 0 {
		q.setTimes(s, s.flags&^flagDue)
	}
}

// setExpires gives a message, which is in no wheel, an end of its TTL.
func (q *Queue) setExpires(s *slot, expires int64) {
	if s.flags&flagExpires == 0 {
		q.setTimes(s, s.flags|flagExpires)
	}
	if s.flags&flagDue != 0 {
		q.longTimers.at(s.timer).expires = expires
	} else {
		q.timers.at(s.timer).at = expires
	}
}

// setTimes changes which times a message has, and its timer with that. The times that it has before and after stay.
func (q *Queue) setTimes(s *slot, flags uint8) {
	due, expires := q.dueOf(s), q.expiresOf(s)
	q.dropTimer(s)
	s.flags |= flags & flagsBoth
	switch flags & flagsBoth {
	case flagsBoth:
		var t *longTimer
		s.timer, t = q.longTimers.alloc()
		t.at, t.expires = due, expires
	case flagDue, flagExpires:
		var t *timer
		s.timer, t = q.timers.alloc()
		if t.at = due; flags&flagExpires != 0 {
			t.at = expires
		}
	}
}

// dropTimer takes a message's times away.
func (q *Queue) dropTimer(s *slot) {
	switch s.flags & flagsBoth {
	case flagsBoth:
		q.longTimers.release(s.timer)
	case flagDue, flagExpires:
		q.timers.release(s.timer)
	}
	s.flags &^= flagsBoth
	s.timer = 0
}
