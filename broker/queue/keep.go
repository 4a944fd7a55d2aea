package queue

import (
	"encoding/binary"
	"fmt"

	"github.com/ipcd/ipcd/internal/limits"
)

// keptMessage is a message with all that is known of it.
type keptMessage struct {
	storedMessage // due: Delayed: wall time. Leased: monotonic time, ns, at which the lease ends.
	seq           uint64
	sentAt        int64
	why           string // Buried
	delivery      uint32
	millis        uint32 // Leased: the length of the lease
	attempts      uint16
	state         State
	damaged       bool // the payload is lost: it is empty
}

// Keep emits live messages again with their whole state and their payloads, so that all records of them
// before are no longer needed. payload returns the stored bytes of the i-th, in one piece or two, as
// Payload or the journal has them; those that are known to be damaged are not asked for, and those of the
// wrong length are. Messages that are gone are left out. The queue stays as it is: the places of those not in memory are set by SetPlace, after.
func (q *Queue) Keep(now Instant, seqs []uint64, payload func(i int) (head, body []byte)) {
	for first := 0; first < len(seqs); first += limits.BatchMessages {
		r := &Record{kind: recKeep, At: now}
		for i := first; i < min(len(seqs), first+limits.BatchMessages); i++ {
			if n := q.slots.find(seqs[i]); n != 0 {
				r.kept = append(r.kept, q.keep(n, i, payload))
			}
		}
		if len(r.kept) > 0 {
			q.issue(r)
		}
	}
}

// keep is a message as Keep emits it.
func (q *Queue) keep(n uint32, i int, payload func(i int) (head, body []byte)) keptMessage {
	s := q.slots.at(n)
	k := q.describe(n)
	if k.damaged {
		return k
	}
	k.extras, k.body = payload(i)
	if k.size = len(k.extras) + len(k.body); !s.holds(k.size) {
		s.flags |= flagDamaged
		k.damaged, k.size, k.extras, k.body = true, 0, nil, nil
	}
	return k
}

// describe says all of a message but its payload.
func (q *Queue) describe(n uint32) keptMessage {
	s := q.slots.at(n)
	c := q.classes.at(s.class)
	k := keptMessage{
		storedMessage: storedMessage{typ: q.kinds[c.kind].typ, priority: c.priority, charge: s.ref.charge(), hasExtras: s.flags&flagExtras != 0},
		seq:           s.seq, sentAt: s.sentAt, delivery: s.delivery, attempts: s.attempts, state: s.state, damaged: s.flags&flagDamaged != 0,
	}
	k.expires, k.due = q.expiresOf(s), q.dueOf(s)
	switch s.state {
	case uncommitted: // what is replayed was committed
		switch k.state = Ready; {
		case s.flags&flagBury != 0:
			if k.state = Buried; s.left != 0 {
				k.why = q.reasons.all[s.left].text
			}
		case k.due != 0:
			k.state = Delayed
		}
	case Leased:
		k.millis = s.left
	case Buried:
		if k.due != 0 {
			k.why, k.due = q.reasons.all[k.due].text, 0
		}
	}
	return k
}

// recall makes a message what a record says of it, whatever was known before.
func (q *Queue) recall(k *keptMessage) {
	if n := q.slots.find(k.seq); n != 0 {
		q.remove(n)
	}
	n, s := q.create(k.seq, &k.storedMessage, false)
	s.sentAt, s.delivery, s.attempts = k.sentAt, k.delivery, k.attempts
	if k.damaged {
		s.flags |= flagDamaged
	}
	if k.expires != 0 {
		q.setExpires(s, k.expires)
	}
	switch k.state {
	case Ready:
		q.enterReady(n)
	case Delayed:
		q.enterDelayed(n, k.due)
	case Leased:
		q.enterLeased(n, k.millis, k.due)
	case Buried:
		q.enterBuried(n, k.why)
	}
	q.nextSeq = max(q.nextSeq, k.seq+1)
}

const (
	keptAlike   = 1 << iota // but for its sequence and the time of its send it is as the one before
	keptExtras              // it has headers or ids
	keptDamaged             // its payload is lost
	keptExpires             // it has a TTL
	keptTried               // it was leased before
)

// appendKept writes messages. Sequences and times are distances from the message before.
func appendKept(b []byte, all []keptMessage) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	before := &keptMessage{}
	for i := range all {
		k := &all[i]
		var flags byte
		if i > 0 && k.alike(before) {
			flags = keptAlike
		} else {
			flags = k.flags()
		}
		b = append(b, flags)
		b = binary.AppendVarint(b, int64(k.seq-before.seq))
		b = binary.AppendVarint(b, k.sentAt-before.sentAt)
		if flags&keptAlike == 0 {
			b = k.append(b, flags)
		}
		before = k
	}
	return b
}

func (k *keptMessage) alike(o *keptMessage) bool {
	return k.storedMessage.alike(&o.storedMessage) && k.why == o.why && k.delivery == o.delivery && k.millis == o.millis &&
		k.attempts == o.attempts && k.state == o.state && k.damaged == o.damaged
}

func (k *keptMessage) flags() (flags byte) {
	if k.hasExtras {
		flags |= keptExtras
	}
	if k.damaged {
		flags |= keptDamaged
	}
	if k.expires != 0 {
		flags |= keptExpires
	}
	if k.delivery != 0 || k.attempts != 0 {
		flags |= keptTried
	}
	return flags
}

func (k *keptMessage) append(b []byte, flags byte) []byte {
	b = append(b, byte(k.state))
	b = binary.AppendUvarint(b, uint64(k.typ))
	b = binary.AppendUvarint(b, uint64(k.priority))
	b = binary.AppendUvarint(b, uint64(k.charge))
	if flags&keptExtras != 0 {
		b = binary.AppendUvarint(b, uint64(k.size))
	}
	if flags&keptExpires != 0 {
		b = binary.AppendVarint(b, k.expires)
	}
	if flags&keptTried != 0 {
		b = binary.AppendUvarint(b, uint64(k.delivery))
		b = binary.AppendUvarint(b, uint64(k.attempts))
	}
	switch k.state {
	case Delayed:
		b = binary.AppendVarint(b, k.due)
	case Leased:
		b = binary.AppendVarint(b, k.due)
		b = binary.AppendUvarint(b, uint64(k.millis))
	case Buried:
		b = appendString(b, k.why)
	}
	return b
}

// kept reads what appendKept wrote.
func (d *decoder) kept() (all []keptMessage) {
	const shortest = 3
	var k keptMessage
	for n := d.countOf(limits.BatchMessages, shortest); n > 0 && d.err == nil; n-- {
		flags := d.byte()
		seq, sentAt := k.seq+uint64(d.varint()), k.sentAt+d.varint()
		if flags&keptAlike == 0 {
			k = d.keptMessage(flags)
		} else if (len(all) == 0 || flags != keptAlike) && d.err == nil {
			d.fail(fmt.Errorf("a kept message with flags %#x is as none before it", flags))
		}
		k.seq, k.sentAt = seq, sentAt
		if (seq == 0 || seq >= endSeq) && d.err == nil {
			d.fail(fmt.Errorf("a kept message of sequence %d", seq))
		}
		all = append(all, k)
	}
	return all
}

func (d *decoder) keptMessage(flags byte) keptMessage {
	var k keptMessage
	k.hasExtras, k.damaged = flags&keptExtras != 0, flags&keptDamaged != 0
	k.state = State(d.byte())
	if (k.state < Ready || k.state > Buried || flags >= 2*keptTried) && d.err == nil {
		d.fail(fmt.Errorf("a kept message with state %d and flags %#x", k.state, flags))
	}
	k.typ, k.priority, k.charge = int64(d.uvarint()), uint16(d.uvarint()), d.size()
	k.size = k.charge
	if k.hasExtras {
		k.size = d.size()
	}
	if k.damaged {
		k.size = 0
	} else {
		d.checkSize(&k.storedMessage)
	}
	if flags&keptExpires != 0 {
		k.expires = d.varint()
	}
	if flags&keptTried != 0 {
		k.delivery, k.attempts = uint32(d.uvarint()), uint16(d.uvarint())
	}
	switch k.state {
	case Delayed:
		k.due = d.varint()
	case Leased:
		k.due, k.millis = d.varint(), uint32(d.uvarint())
	case Buried:
		k.why = d.string()
	}
	return k
}
