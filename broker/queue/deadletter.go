package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// giveBack ends a lease without consuming. The error is ErrMissing.
func (t Settlements) giveBack(n uint32, c cause, delay time.Duration, why string) error {
	q := t.q
	s := q.slots.at(n)
	attempts := int(s.attempts)
	if c.fails() {
		attempts++
	}
	if attempts >= q.settings.MaxAttempts && c.fails() {
		text := fmt.Sprintf("failed %d times", attempts)
		if why != "" {
			text += ": " + why
		}
		return t.deadLetter(n, c, "max-attempts", text)
	}
	if expires := q.expiresOf(s); expires != 0 && expires <= t.now.Wall {
		if q.settings.DeadLetterExpired {
			if err := t.readable(s); err != nil {
				return err
			}
		}
		// First the lease ends, and is counted; then the TTL.
		q.settle(q.settling(t.now, recReturn, c, 0, 0, ""), n)
		return t.expire(n)
	}
	due := int64(0)
	if delay < 0 {
		delay = q.settings.backoff(attempts)
	}
	if delay > 0 {
		due = t.now.Wall + delay.Nanoseconds()
	}
	q.settle(q.settling(t.now, recReturn, c, 0, due, ""), n)
	return nil
}

// expire ends a message whose TTL did. The error is ErrMissing.
func (t Settlements) expire(n uint32) error {
	if t.q.settings.DeadLetterExpired {
		return t.deadLetter(n, byDeadLetter, "expired", "its TTL ended")
	}
	t.q.settle(t.q.settling(t.now, recRemove, byTTL, 0, 0, ""), n)
	return nil
}

// hasDead reports whether there is somewhere for dead letters to go.
func (t Settlements) hasDead() bool { return t.dead != nil && t.dead != t.q }

// readable says ErrMissing if the message would become a dead letter and its payload has to be read first.
func (t Settlements) readable(s *slot) error {
	if !t.hasDead() {
		return nil
	}
	if _, ok := t.q.payload(s); ok {
		return nil
	}
	if t.q.expiring {
		t.q.wantAhead(s)
	} else {
		t.q.want(s)
	}
	return ErrMissing
}

// The headers that a dead letter has besides its own.
const (
	HeaderDeadQueue    = "ipcd-dead-queue"  // where it comes from
	HeaderDeadReason   = "ipcd-dead-reason" // "max-attempts" or "expired"
	HeaderDeadDetail   = "ipcd-dead-detail"
	HeaderDeadAttempts = "ipcd-dead-attempts"
	HeaderDeadSequence = "ipcd-dead-sequence"
)

// cutBytes is how many bytes of dead letters an operation's records may carry before they are cut.
const cutBytes = 64 << 10

// What the records of a dead letter, and of a burial, take at most beside its bytes.
const (
	letterBytes = 1 << 10
	burialBytes = 64
)

// deadLetter moves a message to the dead-letter queue; where that is missing or refuses it, and where
// the payload can not be read, it buries it. The error is ErrMissing.
func (t Settlements) deadLetter(n uint32, c cause, why, detail string) error {
	q := t.q
	s := q.slots.at(n)
	if err := t.readable(s); err != nil {
		return err
	}
	switch {
	case !t.hasDead():
		if q.settings.DeadLetter != "" {
			detail += "; the dead-letter queue " + q.settings.DeadLetter + " is not there, or this one's owner may not send to it"
		}
	case s.flags&flagDamaged != 0:
		detail = reasonDamaged
	default:
		m := q.letter(s, c, why, detail)
		if _, err := t.dead.Send(t.now, Batch{Messages: []Message{m}, Internal: true}); err == nil {
			q.settle(q.settling(t.now, recRemove, c, 0, 0, ""), n)
			q.cutAfter(m.Bytes() + letterBytes)
			return nil
		}
		detail += "; the dead-letter queue did not take it"
	}
	t.bury(n, c, detail)
	return nil
}

// bury sets a message aside. Many with reasons of their own must not outgrow what may be recorded at once.
func (t Settlements) bury(n uint32, c cause, why string) {
	t.q.settle(t.q.settling(t.now, recBury, c, 0, 0, why), n)
	t.q.cutAfter(2 * (len(why) + burialBytes)) // records stand in the journal twice: see its indexes
}

// letter is the dead letter that a message becomes.
func (q *Queue) letter(s *slot, c cause, why, detail string) Message {
	var d Delivery
	payload, _ := q.payload(s)
	q.fill(&d, s, payload, &bodyBuffer{}, 1, 0)
	attempts := d.Attempts
	if c.fails() {
		attempts++
	}
	m := d.Message
	m.DedupID, m.TTL = "", 0
	m.Headers = append(withoutDeadHeaders(m.Headers, limits.DeadHeaders),
		Header{HeaderDeadQueue, []byte(q.name)},
		Header{HeaderDeadReason, []byte(why)},
		Header{HeaderDeadDetail, []byte(detail)},
		Header{HeaderDeadAttempts, strconv.AppendInt(nil, int64(attempts), 10)},
		Header{HeaderDeadSequence, strconv.AppendUint(nil, d.Sequence, 10)})
	return m
}

// cutAfter counts a dead letter, whose removal is in the scratch record, and lets the records so far be
// committed if they carry much.
func (q *Queue) cutAfter(bytes int) {
	if q.deadBytes += bytes; q.deadBytes <= cutBytes {
		return
	}
	q.deadBytes = 0
	q.settled()
	if q.Cut != nil {
		q.Cut()
	}
}

// origin is the queue that a dead letter comes from, "" if the message is none.
func (m *Message) origin() string {
	for _, h := range m.Headers {
		if h.Key == HeaderDeadQueue {
			return string(h.Value)
		}
	}
	return ""
}

// withoutDeadHeaders are headers without those that make a message a dead letter.
func withoutDeadHeaders(all []Header, more int) []Header {
	own := make([]Header, 0, len(all)+more)
	for _, h := range all {
		if !isDeadHeader(h.Key) {
			own = append(own, h)
		}
	}
	return own
}

func isDeadHeader(key string) bool {
	switch key {
	case HeaderDeadQueue, HeaderDeadReason, HeaderDeadDetail, HeaderDeadAttempts, HeaderDeadSequence:
		return true
	}
	return false
}
