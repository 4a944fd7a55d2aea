package queue

import (
	"time"

	"github.com/ipcd/ipcd/internal/reason"
)

// LeaseRequest says what to hand out and how.
type LeaseRequest struct {
	Selector Selector      // in its normal form
	Max      int           // messages
	MaxBytes int           // of bodies, headers and ids; a single message may be larger
	Strict   bool          // not even a single message may
	Duration time.Duration // of the lease; 0: the queue's
	Consume  bool          // consumed at once: no lease
	MaxBody  int           // bytes of a body; 0: any size
	Truncate bool          // cut what is larger than MaxBody instead of stopping there
}

// Lease hands out ready messages in the order of receipt and appends them to out. If the first is larger
// than MaxBody the error is BUFFER_TOO_SMALL and nothing changes; a later one that is ends the batch, as
// does one whose payload is missing. A paused queue hands out nothing. Bodies are copies.
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
		payload, ok := q.payload(s)
		if !ok {
			q.wantFrom(n)
			break
		}
		if s.flags&flagDamaged != 0 {
			q.buryDamaged(now, n)
			continue
		}
		size := q.bodySize(s, payload)
		if l.MaxBody > 0 && size > l.MaxBody && !l.Truncate {
			if len(r.Seqs) == 0 {
				return out, reason.New(reason.BufferTooSmall, "message %d has a body of %d bytes and the receiver takes %d: receive with a larger buffer, or ask for truncation", s.seq, size, l.MaxBody)
			}
			break
		}
		if bytes += s.ref.charge(); (len(r.Seqs) > 0 || l.Strict) && bytes > l.MaxBytes {
			break
		}
		r.Seqs = append(r.Seqs, s.seq)
		out = append(out, Delivery{})
		d := &out[len(out)-1]
		q.fill(d, s, payload, &bodies, min(l.Max-len(r.Seqs)+1, int(q.stats.Ready)), l.MaxBody)
		if s.ref.onDisk() {
			q.fetch.drop(s.ref.place()) // it may not be needed again for long
		}
		q.applyTo(n, r)
		if !l.Consume {
			q.stamp(d, s, r)
		}
	}
	if len(r.Seqs) > 0 {
		q.number++
		r.Number = q.number
		q.emit()
	}
	return out, nil
}

// wantFrom notes the payload of a ready message that was to be handed out, and those that follow.
func (q *Queue) wantFrom(n uint32) {
	s := q.slots.at(n)
	q.want(s)
	next := s.right
	if s.flags&flagInTree != 0 {
		next = q.classes.at(s.class).head
	}
	for range fetchMessages {
		if next == 0 || !q.wantAhead(q.slots.at(next)) {
			return
		}
		next = q.slots.at(next).right
	}
}

// buryDamaged sets aside a message whose payload can not be read. The scratch record may be in use.
func (q *Queue) buryDamaged(now Instant, n uint32) {
	q.issue(&Record{kind: recBury, cause: byBury, At: now, Reason: reasonDamaged, Seqs: []uint64{q.slots.at(n).seq}})
}

// LeaseOne leases the message with that sequence, if it is ready and its payload is not missing, without
// an end.
func (q *Queue) LeaseOne(now Instant, seq uint64) (Delivery, bool) {
	n := q.slots.find(seq)
	if n == 0 || q.paused || q.slots.at(n).state != Ready {
		return Delivery{}, false
	}
	s := q.slots.at(n)
	payload, ok := q.payload(s)
	if !ok {
		q.wantFrom(n)
		return Delivery{}, false
	}
	if s.flags&flagDamaged != 0 {
		q.buryDamaged(now, n)
		return Delivery{}, false
	}
	var d Delivery
	q.fill(&d, s, payload, &bodyBuffer{}, 1, 0)
	if s.ref.onDisk() {
		q.fetch.drop(s.ref.place())
	}
	r := q.begin(recLease, now)
	r.Seqs = append(r.Seqs, seq)
	q.commit()
	q.stamp(&d, s, r)
	return d, true
}

// bodySize is the length of the body in a message's payload.
func (q *Queue) bodySize(s *slot, payload []byte) int {
	if s.flags&flagExtras == 0 {
		return len(payload)
	}
	return extrasBodySize(payload)
}

// fill describes a message with its payload for the outside. Body and headers go to bodies; more is how
// many messages of this kind are expected, maxBody where to cut (0: not).
func (q *Queue) fill(d *Delivery, s *slot, payload []byte, bodies *bodyBuffer, more, maxBody int) {
	c := q.classes.at(s.class)
	d.Type, d.Priority = q.kinds[c.kind].typ, c.priority
	d.Sequence, d.SentAt, d.Attempts = s.seq, s.sentAt, int(s.attempts)
	if expires := q.expiresOf(s); expires != 0 {
		d.TTL = time.Duration(expires - s.sentAt)
	}
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
