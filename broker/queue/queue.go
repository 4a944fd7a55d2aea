// Package queue is one queue as a pure state machine: it has no I/O, no goroutine and no clock of its
// own, and its caller serialises all calls.
//
// Every change goes the same way. A method decides on it, against all that was decided before, and puts
// the outcome into a Record; apply carries it out; Emit hands the record to whoever keeps it. Replaying
// a queue's records yields the same queue. What a send stores is invisible until Publish.
//
// Records hold no payloads: those travel beside them, into memory, into the journal, or both. An operation
// that needs one which is in the journal alone stops there, and Missing says what to read. So that old
// records can be given up, Keep and its like emit what is still needed of them anew. NewLoading, Replay and
// Finish bring a queue back from the records that are left.
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
//
// A message that was moved here from another queue, or imported, has a past, and may be buried when it is published.
package queue

import "github.com/ipcd/ipcd/internal/limits"

// maxRecordSeqs bounds the sequences of one record.
const maxRecordSeqs = limits.SettlementsPerFrame

// Queue is the state of one queue. Its methods must not be called concurrently.
type Queue struct {
	// Emit, if set, is handed each record right after it was applied. It must not keep the record.
	Emit func(*Record)
	// Cut, if set, is called where the records emitted so far may be committed apart from what follows:
	// between dead letters, which would else make one operation's records too large.
	Cut func()
	// Grow, if set, is asked before a send by how many bytes the queue may grow. Its error refuses the send, and changes
	// nothing. Room that was reserved is not asked for.
	Grow func(bytes int64) error
	// CreatedAt is when the queue was made, wall time, ns since 1970.
	CreatedAt int64

	id     uint64
	name   string
	epoch  uint32
	secret uint64 // of the receipts' check

	settings Settings
	schemas  schemas
	paused   bool

	number    uint64 // of the last record
	nextSeq   uint64
	published uint64 // sequences up to this one are visible

	slots      index
	timers     arena[timer]
	longTimers arena[longTimer]
	payloads   slabs
	fetch      fetcher
	liveBytes  int64 // see LiveBytes

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
	expiring    bool // Expire runs, which has all the time it needs to read payloads
	deadBytes   int  // of the dead letters since Cut was called last
	fitBody     int  // bytes of a body above which flagTooBig is set

	buried  uint32 // root of the tree of buried messages
	reasons reasons

	ids       dedup
	producers producers

	stats Stats
	// Room kept for messages that are not there yet; not part of what is recorded.
	reservedMessages, reservedBytes int64

	reserved uint64 // sequences up to this one may have been given out, see ReserveSequences
	loading  *loading
	gaps     bool

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

// Paused reports whether deliveries are stopped.
func (q *Queue) Paused() bool { return q.paused }

// Name is the queue's name.
func (q *Queue) Name() string { return q.name }

// ID is the number that names the queue for ever.
func (q *Queue) ID() uint64 { return q.id }

// Number is the number of the last record.
func (q *Queue) Number() uint64 { return q.number }

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

// Counters returns what the queue holds and has done, without what takes time to find out: OldestReady
// and DedupIDs.
func (q *Queue) Counters() Stats { return q.stats }

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

// ReservedBytes is the room that is kept.
func (q *Queue) ReservedBytes() int64 { return q.reservedBytes }

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
	r.kind, r.At, r.cause, r.paused, r.spill = kind, now, 0, false, false
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
	q.apply(&q.rec)
	q.emit()
}

// issue numbers a record that is not the scratch record, applies it and hands it on.
func (q *Queue) issue(r *Record) {
	r.Number = q.number + 1
	q.apply(r)
	if q.Emit != nil {
		q.Emit(r)
	}
	q.entering = uint32(q.number + 1) // for the scratch record, if one was begun
}

// emit hands on the scratch record, which was applied.
func (q *Queue) emit() {
	if q.Emit != nil {
		q.Emit(&q.rec)
	}
}
