package queue

// Copier makes copies of messages for somebody who looks at what arrives.
type Copier struct{ peeker Peeker }

// NewCopier returns a Copier of what the filter's selector and headers mean. Bodies are cut to so many bytes; 0: not.
func NewCopier(f Filter, maxBody int) *Copier {
	return &Copier{Peeker{Filter: Filter{Selector: f.Selector, Headers: f.Headers}, MaxBody: maxBody}}
}

// Copy returns a copy of the message with that sequence, as it stands, and reports whether it is meant at all. It makes none,
// and copied is false, if the copy would take more than room bytes, or the message's payload is not in memory: then its headers
// are taken to be meant. more is how many messages are expected to be copied together, this one included.
func (c *Copier) Copy(q *Queue, seq uint64, now Instant, room, more int) (m Peeked, meant, copied bool) {
	n := q.slots.find(seq)
	if n == 0 {
		return m, false, false
	}
	s := q.slots.at(n)
	if q.matches(s, &c.peeker.Filter) == unmeant {
		return m, false, false
	}
	payload, ok := q.payload(s)
	if !ok {
		return m, true, false
	}
	whole := q.bodySize(s, payload)
	cut := 0
	if c.peeker.MaxBody > 0 {
		cut = max(0, whole-c.peeker.MaxBody)
	}
	if s.ref.charge()-cut > room {
		return m, true, false
	}
	m.State = s.state
	// It is cut before it is copied: the copy must not keep in memory what was cut off.
	q.fill(&m.Delivery, s, payload[:len(payload)-cut], &c.peeker.bodies, more, 0)
	if cut > 0 {
		m.TruncatedFrom = whole
	}
	c.peeker.describe(q, s, &m, now)
	return m, true, true
}
