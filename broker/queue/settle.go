package queue

import (
	"fmt"
	"strconv"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// holder returns the message that a receipt names, if its delivery is not over.
func (q *Queue) holder(r Receipt) (uint32, error) {
	check := r.Check
	if r.Queue != q.id || check != receiptCheck(q.secret, r) {
		return 0, reason.New(reason.StaleReceipt, "receipt %v is of no delivery of this queue: it is mistyped, or older than the queue", r)
	}
	if r.Epoch == q.epoch {
		if n := q.slots.find(r.Sequence); n != 0 {
			if s := q.slots.at(n); s.state == Leased && s.delivery == r.Delivery {
				return n, nil
			}
		}
	}
	return 0, reason.New(reason.StaleReceipt, "receipt %v: its delivery is over (settled, or the lease ended); receive the message again", r)
}

// Holds reports whether the delivery that a receipt of this queue names is not over.
func (q *Queue) Holds(r Receipt) bool {
	n := q.slots.find(r.Sequence)
	if n == 0 || r.Queue != q.id || r.Epoch != q.epoch {
		return false
	}
	s := q.slots.at(n)
	return s.state == Leased && s.delivery == r.Delivery
}

// settling starts or continues the scratch record of one kind of outcome; a different one is sent on first.
func (q *Queue) settling(now Instant, kind recordKind, c cause, millis uint32, due int64, why string) *Record {
	r := &q.rec
	if len(r.Seqs) > 0 && (r.kind != kind || r.cause != c || r.Millis != millis || r.Due != due || r.Reason != why || len(r.Seqs) == maxRecordSeqs) {
		q.settled()
	}
	if len(r.Seqs) == 0 {
		q.begin(kind, now)
		r.cause, r.Millis, r.Due, r.Reason = c, millis, due, why
	}
	return r
}

// settle carries out the started record on one message.
func (q *Queue) settle(r *Record, n uint32) {
	r.Seqs = append(r.Seqs, q.slots.at(n).seq)
	q.applyTo(n, r)
}

// settled ends the scratch record.
func (q *Queue) settled() {
	if len(q.rec.Seqs) > 0 {
		q.number++
		q.rec.Number = q.number
		q.emit()
		q.rec.Seqs = q.rec.Seqs[:0]
	}
}

// Settlements is a run of settlements under one hold of the queue: Begin, any number of Ack and the
// others, End. Each changes nothing and says STALE_RECEIPT if its receipt's delivery is over.
type Settlements struct {
	q    *Queue
	now  Instant
	dead *Queue
}

// Begin starts a run. dead is the dead-letter queue, held too, or nil where it is missing or not
// declared; what goes there is uncommitted until its Publish.
func (q *Queue) Begin(now Instant, dead *Queue) Settlements {
	q.begin(recRemove, now)
	return Settlements{q, now, dead}
}

// End completes the run.
func (t Settlements) End() { t.q.settled() }

// Ack removes a message: it was consumed.
func (t Settlements) Ack(receipt Receipt) error {
	n, err := t.q.holder(receipt)
	if err != nil {
		return err
	}
	t.q.settle(t.q.settling(t.now, recRemove, byAck, 0, 0, ""), n)
	return nil
}

// Nack returns a message after a failed attempt: after the delay, or the queue's back-off if it is
// negative. With too many attempts it goes to the dead-letter queue, or is buried.
func (t Settlements) Nack(receipt Receipt, delay time.Duration, why string) error {
	n, err := t.q.holder(receipt)
	if err == nil && delay > limits.DelayMax {
		err = reason.Invalid("delay", "delay %v: it may be %v", delay, limits.DelayMax)
	}
	if err == nil {
		err = checkReason(why)
	}
	if err != nil {
		return err
	}
	t.giveBack(n, byNack, delay, why)
	return nil
}

// Release returns a message without counting an attempt.
func (t Settlements) Release(receipt Receipt) error {
	n, err := t.q.holder(receipt)
	if err != nil {
		return err
	}
	t.giveBack(n, byRelease, 0, "")
	return nil
}

// Break returns a message whose stream broke: a failed attempt.
func (t Settlements) Break(receipt Receipt) error {
	n, err := t.q.holder(receipt)
	if err != nil {
		return err
	}
	t.giveBack(n, byExpiry, -1, "")
	return nil
}

// Bury sets a message aside.
func (t Settlements) Bury(receipt Receipt, why string) error {
	n, err := t.q.holder(receipt)
	if err == nil {
		err = checkReason(why)
	}
	if err != nil {
		return err
	}
	t.q.settle(t.q.settling(t.now, recBury, byBury, 0, 0, why), n)
	return nil
}

// Touch restarts a lease from now, as long as it was if lease is 0, and returns its new end as wall
// time (0: none).
func (t Settlements) Touch(receipt Receipt, lease time.Duration) (int64, error) {
	n, err := t.q.holder(receipt)
	if err == nil && lease != 0 {
		err = CheckLease(lease)
	}
	if err != nil {
		return 0, err
	}
	millis := uint32((lease + time.Millisecond - 1) / time.Millisecond)
	if millis == 0 {
		millis = t.q.slots.at(n).left
	}
	if millis == 0 {
		return 0, nil // a lease without an end
	}
	t.q.settle(t.q.settling(t.now, recTouch, 0, millis, 0, ""), n)
	return t.now.Wall + int64(millis)*int64(time.Millisecond), nil
}

// CheckLease says whether a lease may be that long.
func CheckLease(lease time.Duration) error {
	if lease < limits.LeaseMin || lease > limits.LeaseMax {
		return reason.Invalid("lease", "lease %v: it must be %v to %v", lease, limits.LeaseMin, limits.LeaseMax)
	}
	return nil
}

func checkReason(why string) error {
	if len(why) > limits.ReasonLength {
		return reason.Invalid("reason", "a reason of %d bytes: it may have %d", len(why), limits.ReasonLength)
	}
	return nil
}

// giveBack ends a lease without consuming.
func (t Settlements) giveBack(n uint32, c cause, delay time.Duration, why string) {
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
		t.deadLetter(n, c, "max-attempts", text)
		return
	}
	if s.timer != 0 {
		if expires := q.timers.at(s.timer).expires; expires != 0 && expires <= t.now.Wall {
			// First the lease ends, and is counted; then the TTL.
			q.settle(q.settling(t.now, recReturn, c, 0, 0, ""), n)
			t.expire(n)
			return
		}
	}
	due := int64(0)
	if delay < 0 {
		delay = q.settings.backoff(attempts)
	}
	if delay > 0 {
		due = t.now.Wall + delay.Nanoseconds()
	}
	q.settle(q.settling(t.now, recReturn, c, 0, due, ""), n)
}

// expire ends a message whose TTL did.
func (t Settlements) expire(n uint32) {
	if t.q.settings.DeadLetterExpired {
		t.deadLetter(n, byDeadLetter, "expired", "its TTL ended")
		return
	}
	t.q.settle(t.q.settling(t.now, recRemove, byTTL, 0, 0, ""), n)
}

// The headers that a dead letter has besides its own.
const (
	HeaderDeadQueue    = "ipcd-dead-queue"  // where it comes from
	HeaderDeadReason   = "ipcd-dead-reason" // "max-attempts" or "expired"
	HeaderDeadDetail   = "ipcd-dead-detail"
	HeaderDeadAttempts = "ipcd-dead-attempts"
	HeaderDeadSequence = "ipcd-dead-sequence"
)

// deadLetter moves a message to the dead-letter queue; where that is missing or refuses it, it buries it.
func (t Settlements) deadLetter(n uint32, c cause, why, detail string) {
	q := t.q
	if t.dead != nil && t.dead != q {
		s := q.slots.at(n)
		var d Delivery
		q.fill(&d, s, &bodyBuffer{}, 1, 0)
		attempts := d.Attempts
		if c.fails() {
			attempts++
		}
		m := d.Message
		m.DedupID, m.TTL = "", 0
		headers := make([]Header, 0, len(m.Headers)+5)
		for _, h := range m.Headers {
			if !isDeadHeader(h.Key) {
				headers = append(headers, h)
			}
		}
		m.Headers = append(headers,
			Header{HeaderDeadQueue, []byte(q.name)},
			Header{HeaderDeadReason, []byte(why)},
			Header{HeaderDeadDetail, []byte(detail)},
			Header{HeaderDeadAttempts, strconv.AppendInt(nil, int64(attempts), 10)},
			Header{HeaderDeadSequence, strconv.AppendUint(nil, d.Sequence, 10)})
		if _, err := t.dead.Send(t.now, Batch{Messages: []Message{m}, Internal: true}); err == nil {
			q.settle(q.settling(t.now, recRemove, c, 0, 0, ""), n)
			return
		}
		detail += "; the dead-letter queue did not take it"
	} else if q.settings.DeadLetter != "" {
		detail += "; the dead-letter queue " + q.settings.DeadLetter + " is not there, or this one's owner may not send to it"
	}
	q.settle(q.settling(t.now, recBury, c, 0, 0, detail), n)
}

func isDeadHeader(key string) bool {
	switch key {
	case HeaderDeadQueue, HeaderDeadReason, HeaderDeadDetail, HeaderDeadAttempts, HeaderDeadSequence:
		return true
	}
	return false
}
