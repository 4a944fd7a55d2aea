package queue

import (
	"fmt"

	"github.com/ipcd/ipcd/internal/limits"
)

// Apply carries out a record, unless it was before. What a send stores stays invisible until Publish.
func (q *Queue) Apply(r *Record) {
	if r.Number <= q.number {
		return
	}
	q.number = r.Number
	q.entering = uint32(r.Number)
	switch r.kind {
	case recSend:
		q.applySend(r)
	case recConfigure:
		q.applySettings(r.Settings)
	case recPause:
		q.paused = r.paused
	default:
		for _, seq := range r.Seqs {
			if n := q.slots.find(seq); n != 0 {
				q.applyTo(n, r)
			}
		}
	}
}

// Replay applies an encoded record, as recovery does: what it stores was committed.
func (q *Queue) Replay(b []byte) error {
	r, err := DecodeRecord(b)
	if err != nil {
		return err
	}
	if r.kind == recSend && r.Number > q.number && (r.First < q.nextSeq || r.First+uint64(len(r.Messages)) < r.First) {
		return fmt.Errorf("record %d stores messages from sequence %d on: the next is %d", r.Number, r.First, q.nextSeq)
	}
	q.Apply(r)
	q.Publish(q.nextSeq - 1)
	return nil
}

func (q *Queue) applySettings(s *Settings) {
	drops := s.Overflow == DropOldest && q.settings.Overflow != DropOldest
	q.settings = *s
	if drops { // the tournament of victims was not kept
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
			q.enterLeased(n, r.At, r.Millis)
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
			q.enterLeased(n, r.At, millis)
		}
	case recRemove:
		q.countRemoval(s, r.cause)
		q.remove(n)
	case recReturn:
		if s.state == Leased {
			q.countFailure(s, r.cause)
			q.leave(n)
			if r.Due > r.At.Wall {
				q.enterDelayed(n, r.Due)
			} else {
				q.enterReady(n)
			}
		}
	case recBury:
		if s.state != Buried {
			q.countFailure(s, r.cause)
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

func (q *Queue) countFailure(s *slot, c cause) {
	switch c {
	case byNack:
		q.stats.Nacked++
	case byExpiry:
		q.stats.LeaseExpired++
	}
	if c.fails() && s.attempts < limits.MaxAttemptsMax {
		s.attempts++
	}
}

func (q *Queue) countRemoval(s *slot, c cause) {
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
	case byDeadLetter, byNack, byExpiry:
		q.countFailure(s, c)
		q.stats.DeadLettered++
	}
}
