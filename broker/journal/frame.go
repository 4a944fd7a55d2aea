package journal

import "hash/crc32"

// Number counts frames. It rises by one and is never reused once its frame was durable.
type Number uint64

// Generation counts segments in the order in which they were begun, from 1 on.
type Generation uint64

// Position says where a payload lies, in 38 bits: the segment's slot (16 bits), then the offset in the
// file divided by 8 (22 bits). 0 is nowhere.
type Position uint64

const positionOffsetBits = 22

func makePosition(slot uint16, offset int64) Position {
	return Position(slot)<<positionOffsetBits | Position(offset>>3)
}

func (p Position) slot() uint16 { return uint16(p >> positionOffsetBits) }

// offset is in bytes.
func (p Position) offset() int64 { return int64(p&(1<<positionOffsetBits-1)) << 3 }

// entryHeader is what precedes each payload: its size and its checksum.
const entryHeader = 8

func align8(n int64) int64 { return (n + 7) &^ 7 }

// Place walks over the payloads of a frame, in the order in which they were added.
type Place struct{ next Position }

// Next returns the position of the next payload, of which the caller knows the size in bytes. It is 0 if
// the frame was not stored because the journal had failed.
func (p *Place) Next(size int) Position {
	at := p.next
	if at != 0 {
		p.next += Position(align8(entryHeader+int64(size)) >> 3)
	}
	return at
}

// Frame collects what is appended at once: all of it becomes durable, or nothing. It may be used again
// after Reset, and keeps its memory. The zero Frame is empty.
type Frame struct {
	Meta     []byte // append to it freely
	payloads []byte // entries: size, checksum without the segment's mask, bytes, zeros up to 8
}

// Reset empties the frame.
func (f *Frame) Reset() { f.Meta, f.payloads = f.Meta[:0], f.payloads[:0] }

// AddPayload copies a payload, head and body behind each other, and returns its offset in bytes among the
// frame's payloads.
func (f *Frame) AddPayload(head, body []byte) (offset int) {
	offset = len(f.payloads)
	size := len(head) + len(body)
	sum := crc32.Update(crc32.Update(uint32(size), castagnoli, head), castagnoli, body)
	f.payloads = le.AppendUint32(f.payloads, uint32(size))
	f.payloads = le.AppendUint32(f.payloads, sum)
	f.payloads = append(f.payloads, head...)
	f.payloads = append(f.payloads, body...)
	f.payloads = append(f.payloads, zeros8[:-len(f.payloads)&7]...)
	return offset
}

var zeros8 [8]byte

// Len returns the bytes that the frame takes of a segment, its entry in the index included: what
// MaxFrame bounds and what Admit is asked for.
func (f *Frame) Len() int64 {
	return segmentShare(len(f.Meta), len(f.payloads))
}

func segmentShare(meta, payloads int) int64 {
	return frameBytes(meta, payloads) + indexEntryMax + int64(meta)
}

// MaxFrame returns the largest Len of a frame in segments of so many bytes.
func MaxFrame(segmentBytes int64) int64 { return segmentBytes - headerBytes - footerBytes - 8 }
