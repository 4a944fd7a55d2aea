package queue

import (
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// LeaseRequest says what to hand out and how.
type LeaseRequest struct {
	Selector Selector      // in its normal form
	Max      int           // messages
	MaxBytes int           // of bodies, headers and ids; a single message may be larger
	Duration time.Duration // of the lease; 0: the queue's
	Consume  bool          // consumed at once: no lease
	MaxBody  int           // bytes of a body; 0: any size
	Truncate bool          // cut what is larger than MaxBody instead of stopping there
}

// Lease hands out ready messages in the order of receipt and appends them to out. If the first is larger
// than MaxBody the error is BUFFER_TOO_SMALL and nothing changes; a later one that is ends the batch.
// A paused queue hands out nothing. Bodies are copies.
func (q *Queue) Lease(now Instant, l LeaseRequest, out []Delivery) ([]Delivery, error) {
	if q.paused || q.stats.Ready == 0 {
		return out, nil
	}
	n := q.first(l.Selector)
	if n == 0 {
		return out, nil
	}
	if l.Duration == 0 {
		l.Duration = q.settings.Lease
	}
	r := q.begin(recLease, now)
	if l.Consume {
		r.kind, r.cause = recRemove, byConsume
	} else {
		r.Millis = uint32((l.Duration + time.Millisecond - 1) / time.Millisecond)
	}
	var bodies bodyBuffer
	bytes := 0
	for ; n != 0 && len(r.Seqs) < l.Max; n = q.first(l.Selector) {
		s := q.slots.at(n)
		size := q.bodySize(s)
		if l.MaxBody > 0 && size > l.MaxBody && !l.Truncate {
			if len(r.Seqs) == 0 {
				return out, reason.New(reason.BufferTooSmall, "message %d has a body of %d bytes and the receiver takes %d: receive with a larger buffer, or ask for truncation", s.seq, size, l.MaxBody)
			}
			break
		}
		if bytes += s.ref.charge(); len(r.Seqs) > 0 && bytes > l.MaxBytes {
			break
		}
		r.Seqs = append(r.Seqs, s.seq)
		out = append(out, Delivery{})
		d := &out[len(out)-1]
		q.fill(d, s, &bodies, min(l.Max-len(r.Seqs)+1, int(q.stats.Ready)), l.MaxBody)
		q.applyTo(n, r)
		if !l.Consume {
			q.stamp(d, s, r)
		}
	}
	q.number++
	r.Number = q.number
	q.emit()
	return out, nil
}

// LeaseOne leases the message with that sequence, if it is ready, without an end.
func (q *Queue) LeaseOne(now Instant, seq uint64) (Delivery, bool) {
	n := q.slots.find(seq)
	if n == 0 || q.paused || q.slots.at(n).state != Ready {
		return Delivery{}, false
	}
	r := q.begin(recLease, now)
	r.Seqs = append(r.Seqs, seq)
	q.commit()
	s := q.slots.at(n)
	var d Delivery
	q.fill(&d, s, &bodyBuffer{}, 1, 0)
	q.stamp(&d, s, r)
	return d, true
}

// Fit finds the first ready message, in the order of receipt, that the selector chooses and whose body
// has at most maxBody bytes, looking at about limits.PeekScan messages from the cursor on (the zero
// cursor: from the first). big are the others that were met for the first time. If none was found and
// more is false there is none.
func (q *Queue) Fit(sel Selector, maxBody int, from ReadyCursor) (seq uint64, next ReadyCursor, big int, more bool) {
	n := q.first(sel)
	if n == 0 {
		return 0, from, 0, false
	}
	if s := q.slots.at(n); q.bodySize(s) <= maxBody {
		return s.seq, from, 0, false
	}
	wanted := sel
	if sel.Kind == LowestUpTo { // one type after the other
		if from.typ == 0 {
			from.typ = q.kinds[q.lowest.first()].typ
		}
		wanted = Selector{Kind: TypeIs, Type: from.typ}
	}
	next, more = q.scanReady(from, 0, q.published, limits.PeekScan, func(n uint32, s *slot) bool {
		if !wanted.Matches(q.kinds[q.classes.at(s.class).kind].typ) {
			return true
		}
		if q.bodySize(s) <= maxBody {
			seq = s.seq
			return false
		}
		if s.flags&flagTooBig == 0 {
			s.flags |= flagTooBig
			big++
		}
		return true
	})
	next.typ = from.typ
	if seq == 0 && !more && sel.Kind == LowestUpTo {
		typ := q.nextReadyType(from.typ, sel.Type)
		return 0, ReadyCursor{typ: typ}, big, typ != 0
	}
	return seq, next, big, more && seq == 0
}

// nextReadyType is the lowest type with ready messages above after and up to last, 0 if there is none.
func (q *Queue) nextReadyType(after, last int64) int64 {
	best := int64(0)
	for i := range q.kinds {
		if k := &q.kinds[i]; k.ready > 0 && k.typ > after && k.typ <= last && (best == 0 || k.typ < best) {
			best = k.typ
		}
	}
	return best
}

// bodySize is the length of a message's body.
func (q *Queue) bodySize(s *slot) int {
	if s.flags&flagExtras == 0 {
		return s.ref.charge()
	}
	return extrasBodySize(q.payloads.load(s.ref))
}

// fill describes a message for the outside. Body and headers go to bodies; more is how many messages
// of this kind are expected, maxBody where to cut (0: not).
func (q *Queue) fill(d *Delivery, s *slot, bodies *bodyBuffer, more, maxBody int) {
	c := q.classes.at(s.class)
	d.Type, d.Priority = q.kinds[c.kind].typ, c.priority
	d.Sequence, d.SentAt, d.Attempts = s.seq, s.sentAt, int(s.attempts)
	if s.timer != 0 {
		if expires := q.timers.at(s.timer).expires; expires != 0 {
			d.TTL = time.Duration(expires - s.sentAt)
		}
	}
	payload := q.payloads.load(s.ref)
	if s.flags&flagExtras != 0 {
		payload = decodeExtras(bodies.copy(payload, more), &d.Message)
		d.Body = payload
		if maxBody > 0 && len(payload) > maxBody {
			d.Body, d.TruncatedFrom = payload[:maxBody:maxBody], len(payload)
		}
		return
	}
	if maxBody > 0 && len(payload) > maxBody {
		d.TruncatedFrom = len(payload)
		payload = payload[:maxBody]
	}
	d.Body = bodies.copy(payload, more)
}

// stamp adds what a lease adds.
func (q *Queue) stamp(d *Delivery, s *slot, r *Record) {
	if r.Millis != 0 {
		d.LeaseEnds = r.At.Wall + int64(r.Millis)*int64(time.Millisecond)
	}
	d.Receipt = Receipt{Queue: q.id, Epoch: q.epoch, Sequence: s.seq, Delivery: s.delivery}
	d.Receipt.Check = receiptCheck(q.secret, d.Receipt)
}

// bodyBuffer is where the bodies of one call are copied: few allocations for many small ones.
type bodyBuffer struct{ free []byte }

const bodyBlock = 64 << 10

// copy returns a copy of b. more is how many of the kind are expected, b included.
func (f *bodyBuffer) copy(b []byte, more int) []byte {
	if len(b) == 0 {
		return nil
	}
	if len(f.free) < len(b) {
		f.free = make([]byte, max(len(b), min(len(b)*max(more, 1), bodyBlock)))
	}
	to := f.free[:len(b):len(b)]
	f.free = f.free[copy(to, b):]
	return to
}
