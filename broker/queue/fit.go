package queue

import "github.com/ipcd/ipcd/internal/limits"

// Fit finds the first ready message, in the order of receipt, that the selector chooses and whose body
// has at most maxBody bytes, looking at about limits.PeekScan messages from the cursor on (the zero
// cursor: from the first). big are the others that were met for the first time. If none was found and
// more is false there is none, or a payload is missing: that of the message, or of one whose length is not
// known without it.
func (q *Queue) Fit(sel Selector, maxBody int, from ReadyCursor) (seq uint64, next ReadyCursor, big int, more bool) {
	n := q.first(sel)
	if n == 0 {
		return 0, from, 0, false
	}
	q.setFit(maxBody)
	if fits, missing := q.fits(n, maxBody); missing {
		return 0, from, 0, false
	} else if fits {
		return q.slots.at(n).seq, from, 0, false
	}
	wanted := sel
	if sel.Kind == LowestUpTo { // one type after the other
		if from.typ == 0 {
			from.typ = q.kinds[q.lowest.first()].typ
		}
		wanted = Selector{Kind: TypeIs, Type: from.typ}
	}
	stopped := false
	next, more = q.scanReady(from, 0, q.published, limits.PeekScan, func(n uint32, s *slot) bool {
		if !wanted.Matches(q.kinds[q.classes.at(s.class).kind].typ) {
			return true
		}
		fits, missing := q.fits(n, maxBody)
		if missing {
			stopped = true
			return false
		}
		if fits {
			seq = s.seq
			return false
		}
		if s.flags&flagTooBig == 0 {
			s.flags |= flagTooBig
			big++
		}
		return true
	})
	if stopped {
		return 0, from, big, false
	}
	next.typ = from.typ
	if seq == 0 && !more && sel.Kind == LowestUpTo {
		typ := q.nextReadyType(from.typ, sel.Type)
		return 0, ReadyCursor{typ: typ}, big, typ != 0
	}
	return seq, next, big, more && seq == 0
}

// setFit makes flagTooBig mean that a body is larger than maxBody: no payload is read twice to learn that.
func (q *Queue) setFit(maxBody int) {
	if maxBody > q.fitBody && q.fitBody != 0 { // the doors were made anew
		q.slots.each(func(_ uint32, s *slot) { s.flags &^= flagTooBig })
	}
	q.fitBody = maxBody
}

// fits reports whether a message's body has at most so many bytes and can be handed out; missing, that its
// payload is needed first, which it notes.
func (q *Queue) fits(n uint32, maxBody int) (fits, missing bool) {
	s := q.slots.at(n)
	if s.ref.charge() > maxBody && (s.flags&flagExtras == 0 || s.flags&flagTooBig != 0) {
		return false, false
	}
	payload, ok := q.payload(s)
	if !ok {
		q.wantFrom(n)
		return false, true
	}
	return q.bodySize(s, payload) <= maxBody, false
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
