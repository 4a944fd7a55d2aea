package queue

import "encoding/binary"

// Instant is a moment as the queue's caller tells it: wall time, ns since 1970, for delays and TTLs,
// and monotonic time, ns, for leases.
type Instant struct{ Wall, Mono int64 }

// recordVersion is the first byte of an encoded record. A change of the format takes a new version,
// and old ones stay readable. Version 2 added binds to settings, a counter of moved messages, the past of messages
// that were moved or imported, and schemas.
const recordVersion = 2

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

	// What copies the state forward. It changes nothing where the records before it are known.
	recKeep      recordKind = 10 // messages, with all that is known of them
	recBase      recordKind = 11 // the queue itself
	recIDs       recordKind = 12 // dedup ids
	recProducers recordKind = 13 // answers to producers

	recStart recordKind = 14 // the daemon was started anew

	recSchema recordKind = 15 // a version of the schema, or that there is none; also to keep it
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
	byMove
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
	spill      bool // not recorded: the payloads are not kept in memory
	// Configure.
	Settings *Settings
	// Others.
	kept      []keptMessage
	base      *base
	ids       []dedupEntry
	producers []keptProducer
	start     restart
	schema    *schemaRecord
}

// Append encodes the record but for its payloads: a version, and then varints and byte strings in the
// order of the fields.
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
		b = appendDuplicates(b, r.Duplicates)
		b = appendMessages(b, r.Messages)
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
	case recKeep:
		b = appendKept(b, r.kept)
	case recBase:
		b = r.base.append(b)
	case recIDs:
		b = appendIDs(b, r.ids)
	case recProducers:
		b = appendProducers(b, r.producers)
	case recStart:
		b = appendBool(b, r.start.clean)
		b = binary.AppendUvarint(b, uint64(r.start.epoch))
		b = binary.AppendVarint(b, r.start.shift)
	case recSchema:
		b = r.schema.append(b)
	}
	return b
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

func appendDuplicates(b []byte, all []Duplicate) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for _, d := range all {
		b = binary.AppendUvarint(b, uint64(d.Index))
		b = binary.AppendUvarint(b, d.Sequence)
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
