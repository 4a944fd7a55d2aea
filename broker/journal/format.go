package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// formatVersion is that of the files. A change of the format takes a new version, and old ones stay
// readable. The magic, the version behind it and the checksum at the header's end stay where they are in
// every version, so that an older ipcd knows a newer file from a damaged one.
const formatVersion = 1

const (
	headerBytes    = 4096 // of a segment; what is in use of it lies in one sector, which is written whole or not at all
	headerUsed     = 128
	footerBytes    = 64
	frameHeader    = 40
	payloadAlign   = 8
	segmentMagic   = "ipcdseg1"
	footerMagic    = "ipcdend1"
	spareExtension = ".new" // of a segment file that is being made
	extension      = ".seg"
)

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// frameBytes is what a frame takes in a segment, without its entry in the index.
func frameBytes(meta, payloads int) int64 { return frameHeader + align8(int64(meta)) + int64(payloads) }

// keys are what a journal's identity makes of its checksums. Without the identity nobody can write a
// payload that looks like a frame when the end of the log is searched for.
type keys struct {
	magic  uint32
	k0, k1 uint32
}

func makeKeys(identity [16]byte) keys {
	sum := sha256.Sum256(identity[:])
	return keys{magic: le.Uint32(sum[0:]) | 1, k0: le.Uint32(sum[4:]), k1: le.Uint32(sum[8:])}
}

// mask is what all checksums of a generation are xored with. Each step can be undone, so no two of the
// first 2^32 generations share one, and bytes of a former generation never validate.
func (k keys) mask(g Generation) uint32 {
	x := uint32(g) ^ uint32(g>>32)*0x9e3779b1 ^ k.k0
	x *= 0x85ebca6b
	x ^= x >> 13
	x ^= k.k1
	x *= 0xc2b2ae35
	return x ^ x>>16
}

// segmentHeader is the start of a file:
//
//	magic [8], version u32, slot u16, zero u16, segment bytes u64, generation u64, first number u64,
//	oldest generation u64, previous end u64, run u32, zero u32, identity [16], zeros,
//	at 124 crc32c u32 of all before
//
// All numbers are little endian. Generation 0 is a file that was never used.
type segmentHeader struct {
	slot         uint16
	segmentBytes int64
	generation   Generation
	first        Number // of the first frame in it, whether or not there is one
	oldest       Generation
	previousEnd  int64 // where the frames of the previous generation ended
	run          uint32
	identity     [16]byte
}

func (h *segmentHeader) encode(b []byte) {
	clear(b[:headerUsed])
	copy(b, segmentMagic)
	le.PutUint32(b[8:], formatVersion)
	le.PutUint16(b[12:], h.slot)
	le.PutUint64(b[16:], uint64(h.segmentBytes))
	le.PutUint64(b[24:], uint64(h.generation))
	le.PutUint64(b[32:], uint64(h.first))
	le.PutUint64(b[40:], uint64(h.oldest))
	le.PutUint64(b[48:], uint64(h.previousEnd))
	le.PutUint32(b[56:], h.run)
	copy(b[64:80], h.identity[:])
	sealHeader(b)
}

func sealHeader(b []byte) { le.PutUint32(b[124:], crc32.Checksum(b[:124], castagnoli)) }

var errBadHeader = errors.New("its header can not be read")

// decodeSegmentHeader returns errBadHeader or ErrNewer, wrapped.
func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	var h segmentHeader
	if len(b) < headerUsed || string(b[:8]) != segmentMagic || le.Uint32(b[124:]) != crc32.Checksum(b[:124], castagnoli) {
		return h, errBadHeader
	}
	if v := le.Uint32(b[8:]); v > formatVersion {
		return h, fmt.Errorf("format %d, this one reads up to %d: %w", v, formatVersion, ErrNewer)
	}
	h = segmentHeader{
		slot:         le.Uint16(b[12:]),
		segmentBytes: int64(le.Uint64(b[16:])),
		generation:   Generation(le.Uint64(b[24:])),
		first:        Number(le.Uint64(b[32:])),
		oldest:       Generation(le.Uint64(b[40:])),
		previousEnd:  int64(le.Uint64(b[48:])),
		run:          le.Uint32(b[56:]),
		identity:     [16]byte(b[64:80]),
	}
	if !validSegmentBytes(h.segmentBytes) || h.previousEnd < 0 || h.previousEnd > SegmentBytesMax ||
		(h.generation > 0 && (h.first == 0 || h.oldest == 0 || h.oldest > h.generation)) {
		return h, errBadHeader
	}
	return h, nil
}

func validSegmentBytes(n int64) bool {
	return n >= SegmentBytesMin && n <= SegmentBytesMax && n%headerBytes == 0
}

type frameKind uint8

const (
	kindData frameKind = 1 // of the journal's user
	kindMark frameKind = 2 // nothing but the promise in its header
	kindHead frameKind = 3 // meta: the oldest generation that is still needed, u64
)

// frame is what the header of a frame says. On disk, at an offset that is a multiple of 8:
//
//	crc32c u32 (of the meta, then of the header from byte 4 on; xored with the generation's mask),
//	meta bytes u32, payload bytes u32, run u32, number u64, durable u64, kind u8, zeros [3], magic u32
//
// then the meta, zeros up to 8, and the payload section: entries of size u32, crc32c u32 (of the bytes,
// starting with the size as value; xored with the mask), the bytes, zeros up to 8.
type frame struct {
	kind     frameKind
	run      uint32 // of the process that wrote it; never falls within the log
	number   Number
	durable  Number // all frames up to it were durable when this one was appended
	meta     int    // bytes
	payloads int    // bytes of the payload section
}

func (f *frame) bytes() int64 { return frameBytes(f.meta, f.payloads) }

// encode writes the header; metaSum is the checksum of the meta.
func (f *frame) encode(b []byte, k keys, mask, metaSum uint32) {
	le.PutUint32(b[4:], uint32(f.meta))
	le.PutUint32(b[8:], uint32(f.payloads))
	le.PutUint32(b[12:], f.run)
	le.PutUint64(b[16:], uint64(f.number))
	le.PutUint64(b[24:], uint64(f.durable))
	le.PutUint32(b[32:], uint32(f.kind))
	le.PutUint32(b[36:], k.magic)
	le.PutUint32(b, crc32.Update(metaSum, castagnoli, b[4:frameHeader])^mask)
}

// decodeFrame reads the header and the meta of the frame at the start of b, which ends where the frame must
// end. The payloads are not looked at. ok is false if it is no frame of that generation.
func decodeFrame(b []byte, k keys, mask uint32) (f frame, meta []byte, ok bool) {
	if len(b) < frameHeader || le.Uint32(b[36:]) != k.magic {
		return f, nil, false
	}
	metaBytes, payloadBytes := int64(le.Uint32(b[4:])), int64(le.Uint32(b[8:]))
	if payloadBytes%payloadAlign != 0 || frameHeader+align8(metaBytes)+payloadBytes > int64(len(b)) {
		return f, nil, false
	}
	meta = b[frameHeader : frameHeader+metaBytes]
	sum := crc32.Update(crc32.Checksum(meta, castagnoli), castagnoli, b[4:frameHeader])
	if sum^mask != le.Uint32(b) {
		return f, nil, false
	}
	f = frame{
		kind:     frameKind(b[32]),
		run:      le.Uint32(b[12:]),
		number:   Number(le.Uint64(b[16:])),
		durable:  Number(le.Uint64(b[24:])),
		meta:     int(metaBytes),
		payloads: int(payloadBytes),
	}
	if f.kind < kindData || f.kind > kindHead || f.number == 0 || f.durable >= f.number || (f.kind == kindHead && len(meta) != 8) {
		return f, nil, false
	}
	return f, meta, true
}

// payloadSum is the checksum of a payload before the mask. The size is what it starts from.
func payloadSum(payload []byte) uint32 {
	return crc32.Update(uint32(len(payload)), castagnoli, payload)
}

// maskPayloads makes the checksums of a payload section those of a generation.
func maskPayloads(section []byte, mask uint32) {
	for len(section) > 0 {
		le.PutUint32(section[4:], le.Uint32(section[4:])^mask)
		section = section[align8(entryHeader+int64(le.Uint32(section))):]
	}
}

// checkPayloads returns the offset of the first payload of a section that is not what was written, or -1.
func checkPayloads(section []byte, mask uint32) int64 {
	for at := int64(0); at < int64(len(section)); {
		payload, ok := decodePayload(section[at:], mask)
		if !ok {
			return at
		}
		at += align8(entryHeader + int64(len(payload)))
	}
	return -1
}

// decodePayload returns the payload of the entry at the start of b.
func decodePayload(b []byte, mask uint32) ([]byte, bool) {
	if len(b) < entryHeader {
		return nil, false
	}
	size := int64(le.Uint32(b))
	if entryHeader+size > int64(len(b)) {
		return nil, false
	}
	payload := b[entryHeader : entryHeader+size : entryHeader+size]
	return payload, payloadSum(payload)^mask == le.Uint32(b[4:])
}

// footer ends a sealed segment, at the end of the file:
//
//	magic [8], index offset u64, index bytes u32, index crc32c u32, last number u64, end u64, generation u64,
//	run u32, zeros, at 60 crc32c u32 of all before; both checksums xored with the mask
type footer struct {
	indexOffset int64
	indexBytes  int64
	indexSum    uint32 // without the mask
	last        Number // of the last frame, or up to which frames were given up for lost
	end         int64  // of the frames
	generation  Generation
	run         uint32 // of the last frame
}

func (f *footer) encode(b []byte, mask uint32) {
	clear(b[:footerBytes])
	copy(b, footerMagic)
	le.PutUint64(b[8:], uint64(f.indexOffset))
	le.PutUint32(b[16:], uint32(f.indexBytes))
	le.PutUint32(b[20:], f.indexSum^mask)
	le.PutUint64(b[24:], uint64(f.last))
	le.PutUint64(b[32:], uint64(f.end))
	le.PutUint64(b[40:], uint64(f.generation))
	le.PutUint32(b[48:], f.run)
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli)^mask)
}

// decodeFooter reads the footer of a segment of so many bytes and checks that what it says is possible.
func decodeFooter(b []byte, segmentBytes int64, g Generation, mask uint32) (f footer, ok bool) {
	if len(b) != footerBytes || !bytes.HasPrefix(b, []byte(footerMagic)) || crc32.Checksum(b[:60], castagnoli)^mask != le.Uint32(b[60:]) {
		return f, false
	}
	f = footer{
		indexOffset: int64(le.Uint64(b[8:])),
		indexBytes:  int64(le.Uint32(b[16:])),
		indexSum:    le.Uint32(b[20:]) ^ mask,
		last:        Number(le.Uint64(b[24:])),
		end:         int64(le.Uint64(b[32:])),
		generation:  Generation(le.Uint64(b[40:])),
		run:         le.Uint32(b[48:]),
	}
	return f, f.generation == g && f.end >= headerBytes && f.end <= f.indexOffset &&
		f.indexOffset == indexOffset(segmentBytes, f.indexBytes)
}

// indexOffset is where an index of so many bytes lies: right before the footer.
func indexOffset(segmentBytes, indexBytes int64) int64 {
	return segmentBytes - footerBytes - align8(indexBytes)
}
