package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
)

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

var errTruncated = errors.New("the record ends too early")

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

// DecodeRecord reads what Append wrote. Message bodies share memory with b. No length is believed
// before it was compared with what is there.
func DecodeRecord(b []byte) (*Record, error) {
	d := decoder{b: b}
	if v := d.byte(); v != recordVersion && d.err == nil {
		return nil, fmt.Errorf("record version %d: this ipcd reads version %d", v, recordVersion)
	}
	r := &Record{kind: recordKind(d.byte()), Number: d.uvarint()}
	r.At = Instant{Wall: d.varint(), Mono: d.varint()}
	switch r.kind {
	case recSend:
		r.Seqs = d.seqs()
		r.First = d.uvarint()
		r.Producer = d.string()
		r.Batch = d.uvarint()
		r.Count = d.count(limits.BatchMessages)
		for n := d.count(limits.BatchMessages); n > 0 && d.err == nil; n-- {
			r.Duplicates = append(r.Duplicates, Duplicate{Index: int(d.uvarint()), Sequence: d.uvarint()})
		}
		for n := d.count(limits.BatchMessages); n > 0 && d.err == nil; n-- {
			r.Messages = append(r.Messages, d.message())
		}
	case recLease, recTouch:
		r.Millis = uint32(d.uvarint())
		r.Seqs = d.seqs()
	case recRemove:
		r.cause = cause(d.byte())
		r.Seqs = d.seqs()
	case recReturn:
		r.cause = cause(d.byte())
		r.Due = d.varint()
		r.Seqs = d.seqs()
	case recBury:
		r.cause = cause(d.byte())
		r.Reason = d.string()
		r.Seqs = d.seqs()
	case recReady:
		r.Seqs = d.seqs()
	case recConfigure:
		r.Settings = d.settings()
	case recPause:
		r.paused = d.byte() != 0
	default:
		d.fail(fmt.Errorf("unknown kind of record %d", r.kind))
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail(fmt.Errorf("%d bytes follow the record", len(d.b)))
	}
	return r, d.err
}

// decoder reads fields from b until something is wrong; then err says what, and every read yields zero.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errTruncated)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errTruncated)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errTruncated)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads the number of elements that follow: each takes at least a byte.
func (d *decoder) count(limit int) int {
	v := d.uvarint()
	if v > uint64(limit) {
		d.fail(fmt.Errorf("a count of %d: at most %d are possible", v, limit))
		return 0
	}
	return int(v)
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail(errTruncated)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

func (d *decoder) seqs() []uint64 {
	n := d.count(maxRecordSeqs)
	var seqs []uint64
	next := uint64(0)
	for len(seqs) < n && d.err == nil {
		next += uint64(d.varint())
		run := d.uvarint()
		if run == 0 || run > uint64(n-len(seqs)) {
			d.fail(errors.New("a run of sequences longer than their number"))
			break
		}
		for range run {
			seqs = append(seqs, next)
			next++
		}
	}
	return seqs
}

func (d *decoder) message() storedMessage {
	flags := d.byte()
	m := storedMessage{typ: int64(d.uvarint()), priority: uint16(d.uvarint()), charge: int(d.uvarint())}
	if flags&1 != 0 {
		m.due = d.varint()
	}
	if flags&2 != 0 {
		m.expires = d.varint()
	}
	if flags&4 != 0 {
		if len(d.b) < len(m.id) {
			d.fail(errTruncated)
		}
		m.hasID = true
		d.b = d.b[copy(m.id[:], d.b):]
	}
	if flags&8 != 0 {
		m.extras = d.bytes()
	}
	m.body = d.bytes()
	if m.charge < len(m.body) || m.charge >= 1<<chargeBits {
		d.fail(fmt.Errorf("a message of %d bytes charged %d", len(m.body), m.charge))
	}
	return m
}

// append encodes settings. New fields go to the end, under a new recordVersion.
func (s *Settings) append(b []byte) []byte {
	for _, v := range [...]int64{
		s.MaxMessages, s.MaxBytes, int64(s.MaxMessageSize), int64(s.Lease), int64(s.MaxAttempts),
		int64(s.Overflow), int64(s.Durability), int64(s.BackoffInitial), int64(s.BackoffMax), int64(s.DedupWindow), s.MaxDedupIDs,
		int64(s.Mode), int64(s.OwnerUID), int64(s.GroupGID),
		int64(s.Kernel.Mode), int64(s.Kernel.MaxMessages), int64(s.Kernel.MessageSize), s.Kernel.Type,
		int64(s.Kernel.OutSelector.Kind), s.Kernel.OutSelector.Type,
	} {
		b = binary.AppendVarint(b, v)
	}
	b = appendBool(b, s.DeadLetterExpired)
	b = appendBool(b, s.Kernel.TypePrefix)
	b = appendString(b, s.DeadLetter)
	b = binary.AppendUvarint(b, uint64(len(s.Kernel.OutSelector.Types)))
	for _, t := range s.Kernel.OutSelector.Types {
		b = binary.AppendVarint(b, t)
	}
	names := make([]string, 0, len(s.TypeNames))
	for name := range s.TypeNames {
		names = append(names, name)
	}
	slices.Sort(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, name := range names {
		b = appendString(b, name)
		b = binary.AppendVarint(b, s.TypeNames[name])
	}
	return b
}

func (d *decoder) settings() *Settings {
	s := &Settings{
		MaxMessages: d.varint(), MaxBytes: d.varint(), MaxMessageSize: int(d.varint()), Lease: time.Duration(d.varint()), MaxAttempts: int(d.varint()),
		Overflow: Overflow(d.varint()), Durability: Durability(d.varint()),
		BackoffInitial: time.Duration(d.varint()), BackoffMax: time.Duration(d.varint()), DedupWindow: time.Duration(d.varint()), MaxDedupIDs: d.varint(),
		Mode: uint32(d.varint()), OwnerUID: uint32(d.varint()), GroupGID: uint32(d.varint()),
	}
	k := &s.Kernel
	k.Mode, k.MaxMessages, k.MessageSize, k.Type = KernelMode(d.varint()), int(d.varint()), int(d.varint()), d.varint()
	k.OutSelector.Kind, k.OutSelector.Type = SelectorKind(d.varint()), d.varint()
	s.DeadLetterExpired = d.byte() != 0
	k.TypePrefix = d.byte() != 0
	s.DeadLetter = d.string()
	for n := d.count(limits.SelectorTypes); n > 0 && d.err == nil; n-- {
		k.OutSelector.Types = append(k.OutSelector.Types, d.varint())
	}
	for n := d.count(limits.TypeNames); n > 0 && d.err == nil; n-- {
		if s.TypeNames == nil {
			s.TypeNames = map[string]int64{}
		}
		name := d.string()
		s.TypeNames[name] = d.varint()
	}
	if d.err == nil {
		if err := s.Check(); err != nil {
			d.fail(err)
		}
	}
	return s
}
