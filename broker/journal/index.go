package journal

import "encoding/binary"

// indexEntryMax bounds what the index holds of a frame besides its meta, in bytes.
const indexEntryMax = 4*binary.MaxVarintLen32 + binary.MaxVarintLen64

// appendIndex adds a frame to the index of its segment. An entry is
//
//	kind u8, numbers left out before it uvarint, bytes/8 left out before it uvarint,
//	payload bytes/8 uvarint, meta bytes uvarint, meta
//
// Numbers and bytes are left out only where damage was accepted.
func appendIndex(index []byte, f *frame, skippedNumbers Number, skippedBytes int64, meta []byte) []byte {
	index = append(index, byte(f.kind))
	index = binary.AppendUvarint(index, uint64(skippedNumbers))
	index = binary.AppendUvarint(index, uint64(skippedBytes>>3))
	index = binary.AppendUvarint(index, uint64(f.payloads>>3))
	index = binary.AppendUvarint(index, uint64(len(meta)))
	return append(index, meta...)
}

// indexReader walks over the index of a segment. It trusts nothing in it.
type indexReader struct {
	rest   []byte
	number Number // of the last frame
	end    int64  // of the last frame, in the file
	limit  int64  // where frames must end
}

func newIndexReader(index []byte, first Number, limit int64) indexReader {
	return indexReader{rest: index, number: first - 1, end: headerBytes, limit: limit}
}

// indexed is a frame as the index knows it.
type indexed struct {
	kind   frameKind
	number Number
	offset int64 // of the frame
	meta   []byte
	bytes  int64 // of the frame
}

// payloads is the offset of the payload section.
func (e *indexed) payloads() int64 { return e.offset + frameHeader + align8(int64(len(e.meta))) }

// next returns the next frame. ok is false at the end, and where the rest makes no sense: then rest is not
// empty.
func (r *indexReader) next() (e indexed, ok bool) {
	b := r.rest
	if len(b) == 0 {
		return e, false
	}
	kind := frameKind(b[0])
	b = b[1:]
	var fields [4]uint64
	for i := range fields {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return e, false
		}
		fields[i], b = v, b[n:]
	}
	numbers, skipped, payloads, meta := fields[0], fields[1], fields[2], fields[3]
	if kind < kindData || kind > kindHead || numbers > 1<<62 || skipped > SegmentBytesMax || payloads > SegmentBytesMax ||
		meta > uint64(len(b)) || (kind == kindHead && meta != 8) {
		return e, false
	}
	e = indexed{kind: kind, number: r.number + Number(numbers) + 1, offset: r.end + int64(skipped)<<3, meta: b[:meta:meta]}
	e.bytes = frameBytes(int(meta), int(payloads)<<3)
	if e.offset+e.bytes > r.limit || e.number <= r.number {
		return indexed{}, false
	}
	r.rest, r.number, r.end = b[meta:], e.number, e.offset+e.bytes
	return e, true
}
