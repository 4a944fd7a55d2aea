package queue

import "encoding/binary"

// Instant is a moment as the queue's caller tells it: wall time, ns since 1970, for delays and TTLs,
// and monotonic time, ns, for leases.
type Instant struct{ Wall, Mono int64 }

// recordVersion is the first byte of an encoded record. A change of the format takes a new version,
// and old ones stay readable.
const recordVersion = 1

// recordKind says what a record does. Numbers are never reused.
type recordKind uint8

const (
	recSend      recordKind = 1 // Messages stored from First on; Seqs dropped to make room
	recLease     recordKind = 2 // Seqs leased for Millis (0: without an end)
	recRemove    recordKind = 3 // Seqs gone for Cause
	recReturn    recordKind = 4 // Seqs no longer leased for Cause; ready at Due
	recTouch     recordKind = 5 // Seqs leased anew for Millis (0: as long as it was)
	recBury      recordKind = 6 // Seqs set aside with Reason, for Cause
	recReady     recordKind = 7 // Seqs ready: their delay passed, or they were kicked
	recConfigure recordKind = 8 // Settings in force
	recPause     recordKind = 9 // deliveries stopped, or resumed
)

// cause says why messages went, came back or were set aside; counters follow from it.
type cause uint8

const (
	byAck cause = iota + 1
	byConsume
	byTTL
	byPurge
	byDeadLetter
	byNack
	byExpiry // the lease ran out, or its stream broke
	byRelease
	byBury
	byOverflow
)

// fails reports whether the cause counts as a failed attempt.
func (c cause) fails() bool { return c == byNack || c == byExpiry }

// Record is the outcome of a decision: all that is needed to repeat it. Records of a queue are
// numbered; applying one again changes nothing.
type Record struct {
	Number uint64
	At     Instant
	kind   recordKind
	cause  cause
	paused bool
	Seqs   []uint64
	// How long a lease lasts, in ms.
	Millis uint32
	Due    int64 // wall time, ns; 0: at once
	Reason string
	// A send.
	First      uint64
	Messages   []storedMessage
	Producer   string
	Batch      uint64
	Count      int
	Duplicates []Duplicate
	// Configure.
	Settings *Settings
}

// storedMessage is a message of a send, ready to be stored.
type storedMessage struct {
	typ      int64
	priority uint16
	charge   int
	due      int64 // wall time, ns; 0: at once
	expires  int64 // wall time, ns; 0: never
	hasID    bool
	id       digest
	extras   []byte // headers and ids as encodeExtras writes them; empty: none
	body     []byte
}

// Append encodes the record: a version, and then varints and byte strings in the order of the fields.
func (r *Record) Append(b []byte) []byte {
	b = append(b, recordVersion, byte(r.kind))
	b = binary.AppendUvarint(b, r.Number)
	b = binary.AppendVarint(b, r.At.Wall)
	b = binary.AppendVarint(b, r.At.Mono)
	switch r.kind {
	case recSend:
		b = appendSeqs(b, r.Seqs)
		b = binary.AppendUvarint(b, r.First)
		b = appendString(b, r.Producer)
		b = binary.AppendUvarint(b, r.Batch)
		b = binary.AppendUvarint(b, uint64(r.Count))
		b = binary.AppendUvarint(b, uint64(len(r.Duplicates)))
		for _, d := range r.Duplicates {
			b = binary.AppendUvarint(b, uint64(d.Index))
			b = binary.AppendUvarint(b, d.Sequence)
		}
		b = binary.AppendUvarint(b, uint64(len(r.Messages)))
		for i := range r.Messages {
			b = r.Messages[i].append(b)
		}
	case recLease, recTouch:
		b = binary.AppendUvarint(b, uint64(r.Millis))
		b = appendSeqs(b, r.Seqs)
	case recRemove:
		b = append(b, byte(r.cause))
		b = appendSeqs(b, r.Seqs)
	case recReturn:
		b = append(b, byte(r.cause))
		b = binary.AppendVarint(b, r.Due)
		b = appendSeqs(b, r.Seqs)
	case recBury:
		b = append(b, byte(r.cause))
		b = appendString(b, r.Reason)
		b = appendSeqs(b, r.Seqs)
	case recReady:
		b = appendSeqs(b, r.Seqs)
	case recConfigure:
		b = r.Settings.append(b)
	case recPause:
		b = appendBool(b, r.paused)
	}
	return b
}

func (m *storedMessage) append(b []byte) []byte {
	var flags byte
	if m.due != 0 {
		flags |= 1
	}
	if m.expires != 0 {
		flags |= 2
	}
	if m.hasID {
		flags |= 4
	}
	if len(m.extras) > 0 {
		flags |= 8
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(m.typ))
	b = binary.AppendUvarint(b, uint64(m.priority))
	b = binary.AppendUvarint(b, uint64(m.charge))
	if m.due != 0 {
		b = binary.AppendVarint(b, m.due)
	}
	if m.expires != 0 {
		b = binary.AppendVarint(b, m.expires)
	}
	if m.hasID {
		b = append(b, m.id[:]...)
	}
	if len(m.extras) > 0 {
		b = appendString(b, string(m.extras))
	}
	b = binary.AppendUvarint(b, uint64(len(m.body)))
	return append(b, m.body...)
}

// appendSeqs writes sequences as runs: the distance from the end of the run before, and its length.
func appendSeqs(b []byte, seqs []uint64) []byte {
	b = binary.AppendUvarint(b, uint64(len(seqs)))
	next := uint64(0)
	for i := 0; i < len(seqs); {
		run := 1
		for i+run < len(seqs) && seqs[i+run] == seqs[i]+uint64(run) {
			run++
		}
		b = binary.AppendVarint(b, int64(seqs[i]-next))
		b = binary.AppendUvarint(b, uint64(run))
		next = seqs[i] + uint64(run)
		i += run
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}
