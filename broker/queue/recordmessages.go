package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/ipcd/ipcd/internal/limits"
)

// storedMessage is a message of a send, ready to be stored. Its payload is not part of the encoded record.
type storedMessage struct {
	typ       int64
	charge    int
	size      int    // of the payload
	due       int64  // wall time, ns; 0: at once
	expires   int64  // wall time, ns; 0: never
	extras    []byte // headers and ids as encodeExtras writes them
	body      []byte
	past      *Past // nil: it is sent now. Of a moved or imported one; due and expires are above.
	id        digest
	priority  uint16
	run       uint16 // decoded: how many messages alike follow each other
	hasID     bool
	hasExtras bool
}

// copies is how many messages alike this stands for.
func (m *storedMessage) copies() int { return int(max(m.run, 1)) }

// EachPayload visits the payloads of a record that is being emitted, in order: head and body together are one.
func (r *Record) EachPayload(visit func(head, body []byte)) {
	for i := range r.Messages {
		visit(r.Messages[i].extras, r.Messages[i].body)
	}
	for i := range r.kept {
		visit(r.kept[i].extras, r.kept[i].body)
	}
}

// EachMessage visits the messages that a record stores or keeps, in the order of their payloads, with
// their sequences and the lengths of their payloads in bytes.
func (r *Record) EachMessage(visit func(seq uint64, size int)) {
	seq := r.First
	for i := range r.Messages {
		for range r.Messages[i].copies() {
			visit(seq, r.Messages[i].size)
			seq++
		}
	}
	for i := range r.kept {
		visit(r.kept[i].seq, r.kept[i].size)
	}
}

// RecordPayloads visits the lengths of a record's payloads, in bytes, in order.
func RecordPayloads(r *Record, visit func(size int)) {
	r.EachMessage(func(_ uint64, size int) { visit(size) })
}

// What a message says besides its type, priority and charge.
const (
	hasDue = 1 << iota
	hasExpires
	hasDedupID
	hasExtrasSize // of the whole payload; without extras it is the charge
	hasRun
	hasPast // since version 2
)

// alike reports whether two messages are encoded as one: they differ in their bytes alone.
func (m *storedMessage) alike(o *storedMessage) bool {
	return m.typ == o.typ && m.priority == o.priority && m.charge == o.charge && m.size == o.size && m.hasExtras == o.hasExtras &&
		m.due == o.due && m.expires == o.expires && !m.hasID && !o.hasID && m.past.alike(o.past)
}

// appendMessages writes messages, those alike that follow each other once.
func appendMessages(b []byte, all []storedMessage) []byte {
	runs := 0
	for i := range all {
		if i == 0 || !all[i].alike(&all[i-1]) {
			runs++
		}
	}
	b = binary.AppendUvarint(b, uint64(runs))
	for i := 0; i < len(all); {
		run := all[i].copies()
		j := i + 1
		for ; j < len(all) && all[j].alike(&all[i]); j++ {
			run += all[j].copies()
		}
		b = all[i].append(b, run)
		i = j
	}
	return b
}

func (m *storedMessage) append(b []byte, run int) []byte {
	var flags byte
	if m.due != 0 {
		flags |= hasDue
	}
	if m.expires != 0 {
		flags |= hasExpires
	}
	if m.hasID {
		flags |= hasDedupID
	}
	if m.hasExtras {
		flags |= hasExtrasSize
	}
	if run > 1 {
		flags |= hasRun
	}
	if m.past != nil {
		flags |= hasPast
	}
	b = append(b, flags)
	if run > 1 {
		b = binary.AppendUvarint(b, uint64(run))
	}
	b = binary.AppendUvarint(b, uint64(m.typ))
	b = binary.AppendUvarint(b, uint64(m.priority))
	b = binary.AppendUvarint(b, uint64(m.charge))
	if m.hasExtras {
		b = binary.AppendUvarint(b, uint64(m.size))
	}
	if m.due != 0 {
		b = binary.AppendVarint(b, m.due)
	}
	if m.expires != 0 {
		b = binary.AppendVarint(b, m.expires)
	}
	if m.hasID {
		b = append(b, m.id[:]...)
	}
	if m.past != nil {
		b = m.past.append(b)
	}
	return b
}

// messages reads what appendMessages wrote, each run as one.
func (d *decoder) messages() (all []storedMessage) {
	const shortest = 4
	left := limits.BatchMessages
	for n := d.countOf(limits.BatchMessages, shortest); n > 0 && d.err == nil; n-- {
		m := d.message()
		if left -= m.copies(); left < 0 {
			d.fail(fmt.Errorf("more than %d messages in a record", limits.BatchMessages))
			return nil
		}
		all = append(all, m)
	}
	return all
}

func (d *decoder) message() storedMessage {
	flags := d.byte()
	m := storedMessage{hasID: flags&hasDedupID != 0, hasExtras: flags&hasExtrasSize != 0}
	if flags >= 2*hasPast || flags&hasPast != 0 && d.version < 2 {
		d.fail(fmt.Errorf("a message with flags %#x", flags))
	}
	if flags&hasRun != 0 {
		m.run = uint16(d.count(limits.BatchMessages))
		if (m.run < 2 || m.hasID) && d.err == nil {
			d.fail(fmt.Errorf("a run of %d messages", m.run))
		}
	}
	m.typ, m.priority, m.charge = int64(d.uvarint()), uint16(d.uvarint()), d.size()
	m.size = m.charge
	if m.hasExtras {
		m.size = d.size()
	}
	if flags&hasDue != 0 {
		m.due = d.varint()
	}
	if flags&hasExpires != 0 {
		m.expires = d.varint()
	}
	if m.hasID {
		m.id = d.digest()
	}
	if flags&hasPast != 0 {
		m.past = d.past()
	}
	d.checkSize(&m)
	return m
}

// size reads a number of bytes of one message.
func (d *decoder) size() int {
	v := d.uvarint()
	if v >= 1<<chargeBits {
		d.fail(fmt.Errorf("a message of %d bytes: less than %d are possible", v, 1<<chargeBits))
		return 0
	}
	return int(v)
}

func (d *decoder) checkSize(m *storedMessage) {
	if m.hasExtras && m.size <= m.charge && d.err == nil {
		d.fail(fmt.Errorf("a payload of %d bytes with headers, charged %d", m.size, m.charge))
	}
}

func (d *decoder) digest() (g digest) {
	if len(d.b) < len(g) {
		d.fail(errTruncated)
		return g
	}
	d.b = d.b[copy(g[:], d.b):]
	return g
}
