package queue

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ipcd/ipcd/internal/limits"
)

var errTruncated = errors.New("the record ends too early")

// DecodeRecord reads what Append wrote: messages come without their payloads. No length is believed before
// it was compared with what is there.
func DecodeRecord(b []byte) (*Record, error) {
	d := decoder{b: b}
	if d.version = d.byte(); (d.version == 0 || d.version > recordVersion) && d.err == nil {
		return nil, fmt.Errorf("record version %d: this ipcd reads versions 1 to %d", d.version, recordVersion)
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
		r.Duplicates = d.duplicates()
		r.Messages = d.messages()
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
	case recKeep:
		r.kept = d.kept()
	case recBase:
		r.base = d.base()
	case recIDs:
		r.ids = d.ids()
	case recProducers:
		r.producers = d.producers()
	case recStart:
		r.start = restart{clean: d.byte() != 0, epoch: uint32(d.uvarint()), shift: d.varint()}
	case recSchema:
		r.schema = d.schemaRecord()
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
	b       []byte
	version byte // of the record
	err     error
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

func (d *decoder) duplicates() (all []Duplicate) {
	for n := d.countOf(limits.BatchMessages, 2); n > 0 && d.err == nil; n-- {
		all = append(all, Duplicate{Index: int(d.uvarint()), Sequence: d.uvarint()})
	}
	return all
}

// countOf reads the number of elements that follow and take at least so many bytes each.
func (d *decoder) countOf(limit, shortest int) int {
	n := d.count(limit)
	if n > len(d.b)/shortest {
		d.fail(errTruncated)
		return 0
	}
	return n
}

// count reads the number of elements that follow: at most limit.
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
