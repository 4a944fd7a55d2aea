// Package queue is one queue as a pure state machine: it has no I/O, no goroutine and no clock of its
// own, and its caller serialises all calls.
//
// Every change goes the same way. A method decides on it, against all that was decided before, and puts
// the outcome into a Record; Apply carries it out; Emit hands the record to whoever keeps it. Replaying
// a queue's records yields the same queue. What a send stores is invisible until Publish.
//
//	              Publish                   Lease
//	uncommitted ----------> ready -----------------------> leased --> gone (ack)
//	     |                  ^  ^ |  TTL ends                | | |
//	     | with a delay     |  | +----------> gone          | | | nack, expiry, release
//	     v        Expire    |  +----------------------------|-|-+
//	  delayed --------------+         nack with a delay     | |
//	     ^--------------------------------------------------+ |
//	                        ^      kick                       | bury, too many attempts
//	                        +-------------- buried <----------+
package queue

import (
	"fmt"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

// maxRecordSeqs bounds the sequences of one record.
const maxRecordSeqs = limits.SettlementsPerFrame

// Queue is the state of one queue. Its methods must not be called concurrently.
type Queue struct {
	// Emit, if set, is handed each record right after it was applied. It must not keep the record.
	Emit func(*Record)

	id     uint64
	name   string
	epoch  uint32
	secret uint64 // of the receipts' check

	settings Settings
	paused   bool

	number    uint64 // of the last record
	nextSeq   uint64
	published uint64 // sequences up to this one are visible

	slots    index
	timers   arena[timer]
	payloads slabs

	// Ready messages by type and priority.
	classes     arena[class]
	lastClass   uint32 // that was asked for
	kinds       []kind // by number; 0 is unused
	vacantKinds []uint32
	idleKinds   int
	kindOf      map[int64]uint32
	ranks       tournament // types by their first message: highest priority, then lowest sequence
	lowest      tournament // types by number
	victims     tournament // types by the message to drop first; only if the overflow policy drops
	levels      []level    // classes with ready messages by priority, highest first

	leases wheel // leased messages, by monotonic time
	delays wheel // delayed ones, by the wall time at which they become ready or their TTL ends
	ttls   wheel // ready ones with a TTL, by the wall time at which it ends
	// Something was put into a wheel since NextDue was asked.
	rescheduled bool

	buried  uint32 // root of the tree of buried messages
	reasons reasons

	ids       dedup
	producers producers

	stats Stats
	// Room kept for messages that are not there yet; not part of what is recorded.
	reservedMessages, reservedBytes int64

	rec Record // scratch
	// Low bits of the number of the record that is being applied: messages that become delayed, leased
	// or buried keep it, so that peek can tell what moved since it began.
	entering uint32
	due      []uint32
}

// New returns an empty queue. epoch and secret make its receipts differ from those of an earlier life.
func New(id uint64, name string, epoch uint32, secret uint64, s Settings) *Queue {
	q := &Queue{id: id, name: name, epoch: epoch, secret: secret, settings: s, nextSeq: 1, kindOf: map[int64]uint32{}}
	q.startTournaments()
	return q
}

// Settings returns the settings in force. They must not be changed in place.
func (q *Queue) Settings() *Settings { return &q.settings }

// ID returns the queue's number.
func (q *Queue) ID() uint64 { return q.id }

// Paused reports whether deliveries are stopped.
func (q *Queue) Paused() bool { return q.paused }

// Published is the highest sequence that is visible.
func (q *Queue) Published() uint64 { return q.published }

// Len is the number of messages in any state.
func (q *Queue) Len() int64 {
	s := &q.stats
	return s.Ready + s.Delayed + s.Leased + s.Buried + s.Uncommitted
}

// ReadyLen is the number of ready messages.
func (q *Queue) ReadyLen() int64 { return q.stats.Ready }

// LeasedLen is the number of leased messages.
func (q *Queue) LeasedLen() int64 { return q.stats.Leased }

// Bytes is what all messages are charged together.
func (q *Queue) Bytes() int64 { return q.stats.Bytes }

// Stats returns what the queue holds and has done.
func (q *Queue) Stats(now Instant) Stats {
	s := q.stats
	oldest := uint64(0)
	for i := range q.kinds {
		for _, n := range q.kinds[i].open {
			if head := q.classHead(q.classes.at(n)); oldest == 0 || head.seq < oldest {
				oldest, s.OldestReady = head.seq, q.slots.at(head.slot).sentAt
			}
		}
	}
	q.ids.forget(now.Wall - q.settings.DedupWindow.Nanoseconds())
	s.DedupIDs = int64(q.ids.len())
	return s
}

// CountPeeked adds to the one counter that looking changes.
func (q *Queue) CountPeeked(n int) { q.stats.Peeked += uint64(n) }

// Configure puts checked settings into force. Messages beyond lowered limits stay.
func (q *Queue) Configure(now Instant, s Settings) {
	q.begin(recConfigure, now).Settings = &s
	q.commit()
}

// Pause stops deliveries, or resumes them.
func (q *Queue) Pause(now Instant, paused bool) {
	if paused != q.paused {
		q.begin(recPause, now).paused = paused
		q.commit()
	}
}

// Reserve keeps room for messages that are to come. It reports false, and keeps nothing, if there is
// not enough.
func (q *Queue) Reserve(messages, bytes int64) bool {
	if !q.hasRoom(messages, bytes) {
		return false
	}
	q.reservedMessages += messages
	q.reservedBytes += bytes
	return true
}

// Unreserve gives reserved room back.
func (q *Queue) Unreserve(messages, bytes int64) {
	q.reservedMessages -= messages
	q.reservedBytes -= bytes
}

func (q *Queue) hasRoom(messages, bytes int64) bool {
	return q.Len()+q.reservedMessages+messages <= q.settings.MaxMessages &&
		q.stats.Bytes+q.reservedBytes+bytes <= q.settings.MaxBytes
}

// What is kept of the scratch record's memory after a large batch.
const (
	scratchMessages = 1024
	scratchSeqs     = 8192
)

// begin starts the scratch record. Fields are cleared one by one: assigning a whole Record would cost
// more, in write barriers, than most decisions.
func (q *Queue) begin(kind recordKind, now Instant) *Record {
	q.entering = uint32(q.number + 1)
	r := &q.rec
	if cap(r.Messages) > scratchMessages {
		r.Messages = nil
	}
	if cap(r.Seqs) > scratchSeqs {
		r.Seqs = nil
	}
	r.kind, r.At, r.cause, r.paused = kind, now, 0, false
	r.Seqs, r.Messages = r.Seqs[:0], r.Messages[:0]
	r.Millis, r.Due, r.First, r.Batch, r.Count = 0, 0, 0, 0, 0
	if r.Reason != "" {
		r.Reason = ""
	}
	if r.Producer != "" {
		r.Producer = ""
	}
	if r.Duplicates != nil {
		r.Duplicates = nil
	}
	if r.Settings != nil {
		r.Settings = nil
	}
	return r
}

// commit applies the scratch record and hands it on.
func (q *Queue) commit() {
	q.rec.Number = q.number + 1
	q.Apply(&q.rec)
	q.emit()
}

// emit hands on the scratch record, which was applied.
func (q *Queue) emit() {
	if q.Emit != nil {
		q.Emit(&q.rec)
	}
}

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

// leave takes a message out of all that its state made it a member of.
func (q *Queue) leave(n uint32) {
	s := q.slots.at(n)
	switch s.state {
	case uncommitted:
		q.stats.Uncommitted--
	case Ready:
		q.pullReady(n)
		if s.timer != 0 {
			q.wheelRemove(&q.ttls, n, q.ttlDeadline(n))
		}
	case Delayed:
		q.stats.Delayed--
		q.wheelRemove(&q.delays, n, q.delayDeadline(n))
	case Leased:
		q.stats.Leased--
		q.wheelRemove(&q.leases, n, q.leaseDeadline(n))
		s.left = 0
	case Buried:
		q.stats.Buried--
		q.buried = q.slots.treeRemove(q.buried, n)
		t := q.timerOf(n)
		t.next = 0
		q.reasons.release(uint32(t.due))
	}
	if s.timer != 0 {
		q.timerOf(n).due = 0
	}
}

func (q *Queue) ttlDeadline(n uint32) int64   { return q.timerOf(n).expires }
func (q *Queue) leaseDeadline(n uint32) int64 { return q.timerOf(n).due }
func (q *Queue) delayDeadline(n uint32) int64 {
	t := q.timerOf(n)
	if t.expires != 0 {
		return min(t.due, t.expires)
	}
	return t.due
}

// needTimer returns the message's timer, made if it has none.
func (q *Queue) needTimer(s *slot) *timer {
	if s.timer == 0 {
		number, t := q.timers.alloc()
		s.timer = number
		return t
	}
	return q.timers.at(s.timer)
}

// dropTimer gives up a timer that says nothing.
func (q *Queue) dropTimer(s *slot) {
	if s.timer != 0 {
		if t := q.timers.at(s.timer); t.expires == 0 && t.due == 0 {
			q.timers.release(s.timer)
			s.timer = 0
		}
	}
}

// The enter functions make a message, which left its former state, a member of all that the new one asks for.

func (q *Queue) enterReady(n uint32) {
	s := q.slots.at(n)
	s.state = Ready
	q.dropTimer(s)
	q.pushReady(n)
	if s.timer != 0 {
		q.wheelInsert(&q.ttls, n, q.ttlDeadline(n))
	}
}

func (q *Queue) enterDelayed(n uint32, due int64) {
	s := q.slots.at(n)
	s.state = Delayed
	s.right = q.entering
	q.needTimer(s).due = due
	q.stats.Delayed++
	q.wheelInsert(&q.delays, n, q.delayDeadline(n))
}

func (q *Queue) enterLeased(n uint32, at Instant, millis uint32) {
	s := q.slots.at(n)
	s.state = Leased
	s.left, s.right = millis, q.entering
	q.stats.Leased++
	due := int64(never)
	if millis != 0 {
		due = at.Mono + int64(millis)*int64(time.Millisecond)
	}
	q.needTimer(s).due = due
	q.wheelInsert(&q.leases, n, due)
}

// never is the end of a lease without an end.
const never = 1 << 62

func (q *Queue) enterBuried(n uint32, why string) {
	s := q.slots.at(n)
	s.state = Buried
	t := q.needTimer(s)
	t.next = q.entering
	if why != "" {
		t.due = int64(q.reasons.hold(why))
	}
	q.stats.Buried++
	q.buried = q.slots.treeInsert(q.buried, n)
}

// remove takes a message out of the queue for good.
func (q *Queue) remove(n uint32) {
	q.leave(n)
	s := q.slots.at(n)
	q.stats.Bytes -= int64(s.ref.charge())
	q.payloads.free(s.ref, q.payloadMoved)
	if s.timer != 0 {
		q.timers.release(s.timer)
	}
	q.unhold(s.class)
	q.slots.remove(n)
}

func (q *Queue) payloadMoved(n uint32, to ref) {
	s := q.slots.at(n)
	s.ref = to | ref(s.ref.charge())
}

// reasons are the texts of buried messages, each kept once.
type reasons struct {
	byText map[string]uint32
	all    []reasonText // by number; 0 is unused
	vacant []uint32
}

type reasonText struct {
	text string
	refs int
}

func (r *reasons) hold(text string) uint32 {
	if r.byText == nil {
		r.byText = map[string]uint32{}
		r.all = make([]reasonText, 1)
	}
	number, ok := r.byText[text]
	if !ok {
		if last := len(r.vacant) - 1; last >= 0 {
			number = r.vacant[last]
			r.vacant = r.vacant[:last]
		} else {
			number = uint32(len(r.all))
			r.all = append(r.all, reasonText{})
		}
		r.all[number].text = text
		r.byText[text] = number
	}
	r.all[number].refs++
	return number
}

func (r *reasons) release(number uint32) {
	if number == 0 {
		return
	}
	t := &r.all[number]
	t.refs--
	if t.refs == 0 {
		delete(r.byText, t.text)
		*t = reasonText{}
		r.vacant = append(r.vacant, number)
	}
}

// Counters returns what the queue holds and has done, without what takes time to find out: OldestReady
// and DedupIDs.
func (q *Queue) Counters() Stats { return q.stats }
