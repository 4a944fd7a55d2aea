package queue

import (
	"encoding/binary"
	"fmt"
)

// base is what a queue is beside its messages, ids and producers.
type base struct {
	name      string
	createdAt int64
	settings  Settings
	paused    bool
	epoch     uint32
	secret    uint64
	nextSeq   uint64
	reserved  uint64
	stats     Stats // the counters
}

// KeepBase emits the queue itself again: its name, settings and counters.
func (q *Queue) KeepBase(now Instant) {
	q.issue(&Record{kind: recBase, At: now, base: &base{
		name: q.name, createdAt: q.CreatedAt, settings: q.settings, paused: q.paused,
		epoch: q.epoch, secret: q.secret, nextSeq: q.nextSeq, reserved: q.reserved, stats: q.stats,
	}})
}

// ReserveSequences lets sequences up to bound be given out without a record of it: after a restart the
// next comes behind it. It is for queues whose messages are not recorded.
func (q *Queue) ReserveSequences(now Instant, bound uint64) {
	q.reserved = max(q.reserved, bound)
	q.KeepBase(now)
}

// Reserved is the bound that was reserved last.
func (q *Queue) Reserved() uint64 { return q.reserved }

// become makes the queue what a record says of it.
func (q *Queue) become(b *base) {
	q.name, q.CreatedAt, q.settings, q.paused = b.name, b.createdAt, b.settings, b.paused
	q.epoch, q.secret, q.reserved = b.epoch, b.secret, b.reserved
	q.nextSeq = max(q.nextSeq, b.nextSeq)
	mine, theirs := q.stats.counters(), b.stats.counters()
	for i := range mine {
		*mine[i] = *theirs[i]
	}
}

// counters are the fields that say what the queue has done. New ones go to the end.
func (s *Stats) counters() [12]*uint64 {
	return [...]*uint64{
		&s.Sent, &s.Delivered, &s.Consumed, &s.Nacked, &s.LeaseExpired, &s.TTLDropped,
		&s.OverflowDropped, &s.DeadLettered, &s.Purged, &s.Duplicates, &s.Peeked,
		&s.Moved, // since version 2
	}
}

func (x *base) append(b []byte) []byte {
	b = appendString(b, x.name)
	b = binary.AppendVarint(b, x.createdAt)
	b = x.settings.append(b)
	b = appendBool(b, x.paused)
	b = binary.AppendUvarint(b, uint64(x.epoch))
	b = binary.AppendUvarint(b, x.secret)
	b = binary.AppendUvarint(b, x.nextSeq)
	b = binary.AppendUvarint(b, x.reserved)
	for _, c := range x.stats.counters() {
		b = binary.AppendUvarint(b, *c)
	}
	return b
}

func (d *decoder) base() *base {
	x := &base{name: d.string(), createdAt: d.varint(), settings: *d.settings(), paused: d.byte() != 0}
	x.epoch, x.secret, x.nextSeq, x.reserved = uint32(d.uvarint()), d.uvarint(), d.uvarint(), d.uvarint()
	counters := x.stats.counters()
	known := len(counters)
	if d.version < 2 {
		known = 11
	}
	for _, c := range counters[:known] {
		*c = d.uvarint()
	}
	if d.err == nil {
		if err := CheckName(x.name); err != nil {
			d.fail(err)
		} else if x.nextSeq == 0 || x.nextSeq >= endSeq || x.reserved >= endSeq {
			d.fail(fmt.Errorf("a queue with the next sequence %d and %d reserved", x.nextSeq, x.reserved))
		}
	}
	return x
}

func appendIDs(b []byte, all []dedupEntry) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	var before dedupEntry
	for _, e := range all {
		b = append(b, e.digest[:]...)
		b = binary.AppendVarint(b, int64(e.seq-before.seq))
		b = binary.AppendVarint(b, e.at-before.at)
		before = e
	}
	return b
}

func (d *decoder) ids() (all []dedupEntry) {
	const shortest = len(digest{}) + 2
	var e dedupEntry
	for n := d.countOf(idsPerEach, shortest); n > 0 && d.err == nil; n-- {
		e = dedupEntry{d.digest(), e.seq + uint64(d.varint()), e.at + d.varint()}
		all = append(all, e)
	}
	return all
}
