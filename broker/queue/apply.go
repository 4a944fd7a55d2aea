package queue

import "github.com/ipcd/ipcd/internal/limits"

// apply carries out a record. What a send stores stays invisible until Publish, unless it was replayed.
func (q *Queue) apply(r *Record) {
	q.number = r.Number
	q.entering = uint32(r.Number)
	switch r.kind {
	case recSend:
		q.applySend(r)
	case recConfigure:
		q.applySettings(r.Settings)
	case recPause:
		q.paused = r.paused
	case recStart:
		q.applyStart(r)
	case recSchema:
		q.schemas.apply(r.schema)
	case recKeep, recBase, recIDs, recProducers:
		q.learn(r)
	default:
		q.applyToAll(r)
	}
}

// applyToAll carries out a record on each of its messages.
func (q *Queue) applyToAll(r *Record) {
	for _, seq := range r.Seqs {
		if n := q.slots.find(seq); n != 0 {
			q.applyTo(n, r)
		} else if q.loading != nil {
			q.countUnknown(r)
		}
	}
}

func (q *Queue) applySettings(s *Settings) {
	drops := s.Overflow == DropOldest && q.settings.Overflow != DropOldest
	q.settings = *s
	if drops && q.loading == nil { // the tournament of victims was not kept
		for k := 1; k < len(q.kinds); k++ {
			q.rerank(uint32(k))
		}
	}
}

// applyTo carries out a record on one of its messages.
func (q *Queue) applyTo(n uint32, r *Record) {
	s := q.slots.at(n)
	switch r.kind {
	case recLease:
		if s.state == Ready {
			q.leave(n)
			q.enterLeased(n, r.Millis, leaseEnd(r.At, r.Millis))
			s.delivery++
			q.stats.Delivered++
		}
	case recTouch:
		if s.state == Leased {
			millis := r.Millis
			if millis == 0 {
				millis = s.left
			}
			q.leave(n)
			q.enterLeased(n, millis, leaseEnd(r.At, millis))
		}
	case recRemove:
		q.countRemoval(r.cause)
		q.remove(n)
	case recReturn:
		if s.state == Leased {
			q.countFailure(r.cause)
			s.fail(r.cause)
			q.leave(n)
			if r.Due > r.At.Wall {
				q.enterDelayed(n, r.Due)
			} else {
				q.enterReady(n)
			}
		}
	case recBury:
		if s.state != Buried {
			q.countFailure(r.cause)
			s.fail(r.cause)
			q.leave(n)
			q.enterBuried(n, r.Reason)
		}
	case recReady:
		if s.state == Delayed || s.state == Buried {
			q.leave(n)
			q.enterReady(n)
		}
	}
}

// countUnknown counts what a record did to a message that a queue being loaded does not know: it went
// before the oldest record, or is yet to come.
func (q *Queue) countUnknown(r *Record) {
	switch r.kind {
	case recLease:
		q.stats.Delivered++
	case recRemove:
		q.countRemoval(r.cause)
	case recReturn, recBury:
		q.countFailure(r.cause)
	}
}

// fail counts a failed attempt, if the cause is one.
func (s *slot) fail(c cause) {
	if c.fails() && s.attempts < limits.MaxAttemptsMax {
		s.attempts++
	}
}

func (q *Queue) countFailure(c cause) {
	switch c {
	case byNack:
		q.stats.Nacked++
	case byExpiry:
		q.stats.LeaseExpired++
	}
}

func (q *Queue) countRemoval(c cause) {
	switch c {
	case byAck:
		q.stats.Consumed++
	case byConsume:
		q.stats.Consumed++
		q.stats.Delivered++
	case byTTL:
		q.stats.TTLDropped++
	case byPurge:
		q.stats.Purged++
	case byOverflow:
		q.stats.OverflowDropped++
	case byMove:
		q.stats.Moved++
	case byDeadLetter, byNack, byExpiry:
		q.countFailure(c)
		q.stats.DeadLettered++
	}
}
