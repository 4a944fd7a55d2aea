package queue

import (
	"time"

	"github.com/ipcd/ipcd/internal/reason"
)

// fullRetry is the hint that comes with QUEUE_FULL.
const fullRetry = 100 * time.Millisecond

// Batch is messages that are stored together or not at all.
type Batch struct {
	Messages []Message
	Producer string // "": none
	Number   uint64 // of the batch, if there is a producer
	// Internal marks messages that the daemon itself makes, which may have headers beyond the limits.
	Internal bool
	// Reserved marks messages for which room was reserved and has just been given back.
	Reserved bool
	// Spill leaves the payloads out of memory. Each message must get its place in the journal by SetPlace
	// before anything else is done with the queue.
	Spill bool
	// Past is what each of the messages went through; nil: they are sent now. Those with a past are not held against the
	// dedup ids that are known, and theirs are not remembered; delays and TTLs are as the past says.
	Past []Past
}

// Repeat returns the answer that a producer's batch was given before.
func (q *Queue) Repeat(producer string, number uint64) (Stored, bool, error) {
	if producer == "" {
		return Stored{}, false, nil
	}
	return q.producers.repeat(producer, number)
}

// Send stores a batch, unless its producer sent it before. What it stores is visible after Publish.
// QUEUE_FULL with a retry hint says that there may be room later, without one that there never is.
func (q *Queue) Send(now Instant, b Batch) (Stored, error) {
	if b.Producer != "" {
		if stored, ok, err := q.Repeat(b.Producer, b.Number); ok || err != nil {
			return stored, err
		}
	}
	if err := q.checkBatch(&b); err != nil {
		return Stored{}, err
	}
	r := q.begin(recSend, now)
	r.First, r.Batch, r.Count, r.spill = q.nextSeq, b.Number, len(b.Messages), b.Spill
	if b.Producer != "" {
		r.Producer = b.Producer
	}
	defer func() { clear(r.Messages) }() // the scratch record must not keep the caller's bodies alive
	bytes, err := q.prepare(r, &b)
	if err == nil && b.Producer != "" {
		err = q.producers.admit(b.Producer, len(r.Duplicates), r.At.Wall)
	}
	if err != nil {
		return Stored{}, err
	}
	if len(r.Messages) > 0 && !b.Reserved {
		if err := q.findRoom(r, int64(len(r.Messages)), bytes, 0, 0); err != nil {
			return Stored{}, err
		}
		if err := q.mayGrow(r, bytes); err != nil {
			return Stored{}, err
		}
		q.dropAhead(r, victimsOfSend)
	}
	q.stats.Duplicates += uint64(len(r.Duplicates))
	if len(r.Messages) > 0 || b.Producer != "" {
		q.commit()
	}
	return storedBy(r), nil
}

func storedBy(r *Record) Stored {
	return Stored{First: r.First, Count: r.Count, SentAt: r.At.Wall, Duplicates: r.Duplicates}
}

// prepare fills the record with the messages to store and the duplicates, and returns what they are charged.
func (q *Queue) prepare(r *Record, b *Batch) (bytes int64, _ error) {
	now := r.At.Wall
	window := q.settings.DedupWindow.Nanoseconds()
	q.ids.forget(now - window)
	var inBatch map[digest]uint64 // sequences of ids that are new in this batch
	for i := range b.Messages {
		m := &b.Messages[i]
		r.Messages = append(r.Messages, storedMessage{})
		out := &r.Messages[len(r.Messages)-1]
		if m.DedupID != "" && window > 0 && b.Past == nil {
			out.hasID, out.id = true, digestOf(m.DedupID)
			seq, known := q.ids.find(out.id)
			if !known {
				seq, known = inBatch[out.id]
			}
			if known {
				r.Duplicates = append(r.Duplicates, Duplicate{Index: i, Sequence: seq})
				r.Messages = r.Messages[:len(r.Messages)-1]
				continue
			}
			if int64(q.ids.len()+len(inBatch)) >= q.settings.MaxDedupIDs {
				return 0, q.tooManyIDs(now).At(i)
			}
			if inBatch == nil {
				inBatch = map[digest]uint64{}
			}
			inBatch[out.id] = r.First + uint64(len(r.Messages)) - 1
		}
		out.typ, out.priority, out.body, out.charge, out.size = m.Type, m.Priority, m.Body, len(m.Body), len(m.Body)
		if m.hasExtras() {
			out.hasExtras, out.extras = true, encodeExtras(nil, m)
			out.charge, out.size = m.Bytes(), len(out.extras)+len(m.Body)
		}
		switch {
		case b.Past != nil:
			out.recall(&b.Past[i], now)
		default:
			if due := m.dueAt(now); due > now {
				out.due = due
			}
			if m.TTL > 0 {
				out.expires = now + m.TTL.Nanoseconds()
			}
		}
		bytes += int64(out.charge)
	}
	return bytes, nil
}

// recall gives a message its past.
func (m *storedMessage) recall(p *Past, now int64) {
	m.past, m.expires = p, p.Expires
	if p.Due > now && !p.Buried {
		m.due = p.Due
	}
}

func (m *Message) dueAt(now int64) int64 {
	if m.Delay > 0 {
		return now + m.Delay.Nanoseconds()
	}
	return m.NotBefore
}

func (q *Queue) tooManyIDs(now int64) *reason.Error {
	if q.settings.MaxDedupIDs == 0 || q.ids.len() == 0 {
		return reason.New(reason.QuotaExceeded, "the queue remembers at most %d dedup ids: raise max_dedup_ids or send fewer in a batch", q.settings.MaxDedupIDs)
	}
	wait := time.Duration(q.ids.oldest() + q.settings.DedupWindow.Nanoseconds() - now)
	return reason.New(reason.QuotaExceeded, "the queue remembers %d dedup ids, all that it may: raise max_dedup_ids, shorten dedup_window, or wait %v",
		q.ids.len(), wait.Round(time.Millisecond)).Retry(max(wait, time.Millisecond))
}

// findRoom sees to it that so many messages of so many bytes fit, where so many went that are still
// counted. What is to be dropped for them is put into the record.
func (q *Queue) findRoom(r *Record, messages, bytes, freedMessages, freedBytes int64) error {
	s := &q.settings
	if err := q.CheckEverFits(messages, bytes); err != nil {
		return err
	}
	messages -= freedMessages
	bytes -= freedBytes
	if q.hasRoom(messages, bytes) || s.Overflow == DropOldest && q.chooseVictims(r, messages, bytes) {
		return nil
	}
	return q.full()
}

// full is the error of a queue that may have room later.
func (q *Queue) full() *reason.Error {
	return reason.New(reason.QueueFull, "the queue holds %d of %d messages and %d of %d bytes: receive from it, raise its limits, or try again later",
		q.Len()+q.reservedMessages, q.settings.MaxMessages, q.stats.Bytes+q.reservedBytes, q.settings.MaxBytes).Retry(fullRetry)
}

// mayGrow asks whether the queue may hold so many bytes more, less what is to be dropped.
func (q *Queue) mayGrow(r *Record, bytes int64) error {
	if q.Grow == nil {
		return nil
	}
	for _, seq := range r.Seqs {
		if n := q.slots.find(seq); n != 0 {
			bytes -= int64(q.slots.at(n).ref.charge())
		}
	}
	return q.Grow(bytes)
}

// chooseVictims names the ready messages to drop: the oldest of the lowest priority, as long as none
// of the newcomers ranks below. It reports false, and names none, if they are too few.
func (q *Queue) chooseVictims(r *Record, messages, bytes int64) bool {
	newest := r.Messages[0].priority
	for i := range r.Messages {
		newest = min(newest, r.Messages[i].priority)
	}
	var taken []uint32
	for !q.hasRoom(messages-int64(len(taken)), bytes) {
		k := q.victims.first()
		if k == 0 || q.kinds[k].worst.priority > newest {
			break
		}
		n := q.kinds[k].worst.slot
		q.pullReady(n)
		q.stats.Ready++ // it still counts; len(taken) makes up for it
		bytes -= int64(q.slots.at(n).ref.charge())
		taken = append(taken, n)
	}
	enough := q.hasRoom(messages-int64(len(taken)), bytes)
	for _, n := range taken {
		q.stats.Ready--
		q.pushReady(n)
		if enough {
			r.Seqs = append(r.Seqs, q.slots.at(n).seq)
		}
	}
	return enough
}

// How many victims a send's record names beside its messages, and another one.
const (
	victimsOfSend   = 512
	victimsOfRecord = 4096
)

// dropAhead drops victims beyond what the send's record is to name in records of their own, before it. They may be committed
// apart: that they are gone is what the queue's owner has asked for, also where the send then does not survive a crash.
func (q *Queue) dropAhead(r *Record, left int) {
	for len(r.Seqs) > left {
		n := min(len(r.Seqs), victimsOfRecord)
		q.issue(&Record{kind: recRemove, cause: byOverflow, At: r.At, Seqs: r.Seqs[:n]})
		r.Seqs = r.Seqs[n:]
		if q.Cut != nil {
			q.Cut()
		}
	}
}

// MakeRoom drops all that a send of the batch would drop if so many messages of so many bytes were gone, which CheckSend has
// found possible, so that the send's own records name no victims. What the queue has recorded before may be committed apart.
func (q *Queue) MakeRoom(now Instant, b Batch, freedMessages, freedBytes int64) {
	if q.settings.Overflow != DropOldest {
		return
	}
	r := q.begin(recSend, now)
	r.First = q.nextSeq
	defer func() { clear(r.Messages) }()
	if bytes, err := q.prepare(r, &b); err == nil && len(r.Messages) > 0 && q.findRoom(r, int64(len(r.Messages)), bytes, freedMessages, freedBytes) == nil {
		q.dropAhead(r, 0)
	}
}

func (q *Queue) applySend(r *Record) {
	for _, seq := range r.Seqs {
		q.countRemoval(byOverflow)
		if n := q.slots.find(seq); n != 0 {
			q.remove(n)
		}
	}
	if q.loading != nil {
		q.pruneIDs(r.At.Wall)
	} else if q.published+1 == q.nextSeq {
		q.published = r.First - 1 // there is nothing in between to publish
	}
	seq := r.First
	for i := range r.Messages {
		m := &r.Messages[i]
		for range m.copies() {
			n, s := q.create(seq, m, r.spill)
			s.sentAt = r.At.Wall
			if m.due != 0 {
				q.setDue(s, m.due)
			}
			if m.expires != 0 {
				q.setExpires(s, m.expires)
			}
			if m.past != nil {
				q.remember(s, m.past)
			}
			if m.hasID {
				q.rememberID(dedupEntry{m.id, seq, r.At.Wall})
			}
			if q.loading != nil { // it was committed
				switch {
				case m.past != nil && m.past.Buried:
					q.enterBuried(n, m.past.Why)
				case m.due != 0:
					q.enterDelayed(n, m.due)
				default:
					q.enterReady(n)
				}
			}
			seq++
		}
	}
	if q.loading == nil {
		q.stats.Uncommitted += int64(seq - r.First)
	}
	q.stats.Sent += seq - r.First
	q.nextSeq = seq
	if r.Producer != "" {
		q.producers.remember(r.Producer, r.Batch, storedBy(r), r.Number)
	}
}

// create stores a message of a record. It belongs to no state yet.
func (q *Queue) create(seq uint64, m *storedMessage, spill bool) (uint32, *slot) {
	n, s := q.slots.add(seq)
	if m.hasExtras {
		s.flags |= flagExtras
	}
	if spill {
		s.ref = makeDiskRef(0, m.charge)
	} else if q.loading != nil {
		s.ref = makeDiskRef(q.loading.next(m.size), m.charge)
	} else {
		s.ref = q.payloads.store(n, m.extras, m.body, m.charge)
	}
	s.class = q.classOf(m.typ, m.priority)
	q.hold(s.class)
	q.stats.Bytes += int64(m.charge)
	q.liveBytes += s.ref.liveBytes()
	return n, s
}

// Publish makes all that was stored visible, up to a sequence: it is committed.
func (q *Queue) Publish(last uint64) {
	q.entering = uint32(q.number)
	for q.published < last && q.published+1 < q.nextSeq {
		q.published++
		n := q.slots.find(q.published)
		if n == 0 {
			continue
		}
		s := q.slots.at(n)
		if s.state != uncommitted {
			continue
		}
		due := q.dueOf(s)
		buried, why := s.flags&flagBury != 0, ""
		if buried {
			why = q.forgetBury(s)
		}
		q.leave(n)
		switch {
		case buried:
			q.enterBuried(n, why)
		case due != 0:
			q.enterDelayed(n, due)
		default:
			q.enterReady(n)
		}
	}
}

// Last is the highest sequence that was given out.
func (q *Queue) Last() uint64 { return q.nextSeq - 1 }
