package queue

import (
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
// others, End. Each changes nothing and says STALE_RECEIPT if its receipt's delivery is over, or ErrMissing
// if the message is to become a dead letter and its payload is not in memory.
type Settlements struct {
	q    *Queue
	now  Instant
	dead *Queue
}

// Begin starts a run. dead is the dead-letter queue, held too, or nil where it is missing or not
// declared; what goes there is uncommitted until its Publish.
func (q *Queue) Begin(now Instant, dead *Queue) Settlements {
	q.begin(recRemove, now)
	q.deadBytes = 0
	return Settlements{q: q, now: now, dead: dead}
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

// CheckAck says whether Ack would succeed with a receipt, and what the message is charged.
func (q *Queue) CheckAck(receipt Receipt) (charge int64, err error) {
	n, err := q.holder(receipt)
	if err != nil {
		return 0, err
	}
	return int64(q.slots.at(n).ref.charge()), nil
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
	return t.giveBack(n, byNack, delay, why)
}

// Release returns a message without counting an attempt.
func (t Settlements) Release(receipt Receipt) error {
	n, err := t.q.holder(receipt)
	if err != nil {
		return err
	}
	return t.giveBack(n, byRelease, 0, "")
}

// Break returns a message whose stream broke: a failed attempt.
func (t Settlements) Break(receipt Receipt) error {
	n, err := t.q.holder(receipt)
	if err != nil {
		return err
	}
	return t.giveBack(n, byExpiry, -1, "")
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
	t.bury(n, byBury, why)
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
