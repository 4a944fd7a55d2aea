package shm

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ipcd/ipcd/internal/limits"
)

// Version is the version of the layout. It rises when a reader of the old one would go wrong.
const Version = 1

// Sizes in bytes, and numbers.
const (
	PageSize     = 4096
	LaneData     = 2 * PageSize // where a lane's data begins
	FrameHeader  = 32
	FrameAlign   = 32
	ConsumerSize = 3 * PageSize
	MembersSize  = PageSize
	MaxLanes     = limits.RingLanes
	MaxConsumers = limits.RingConsumers
	CapacityMin  = limits.RingCapacityMin
	CapacityMax  = limits.RingCapacityMax
)

// Magics, as little-endian words.
const (
	laneMagic     = 0x454e414c44435049 // "IPCDLANE"
	consumerMagic = 0x534e4f4344435049 // "IPCDCONS"
)

// Offsets in a lane: its cursors. Each word that others poll has 128 bytes of its own: processors fetch cache lines
// of 64 bytes in pairs.
const (
	publishedAt = PageSize
	sequenceAt  = PageSize + 8 // in one line with published: both change together
	oldestAt    = PageSize + 128
	laneWakeAt  = PageSize + 256
	seenAt      = PageSize + 384
	blockedAt   = PageSize + 512
	countersAt  = PageSize + 640
	evictedAt   = PageSize + 1024
)

// Counters of a lane.
const (
	wakesCounter = countersAt + 8*iota
	elidedCounter
	blocksCounter
	blockedNanosCounter
	evictionsCounter
	writerBackstopsCounter
)

// Offsets in a consumer's pages.
const (
	consumerWakeAt     = 2176
	consumerCountersAt = 2304
	cursorsAt          = PageSize
	cursorStride       = 128
)

// Counters of a consumer.
const (
	receivedCounter = consumerCountersAt + 8*iota
	lostCounter
	parksCounter
	backstopsCounter
	corruptCounter
)

// Words of a consumer's line for a lane.
const (
	lineLane     = 0
	lineCursor   = 8
	lineSequence = 16
	lineLost     = 24
)

// Flags of headers and frames.
const (
	flagLossless = 1
	framePad     = 1
)

// parkedAt is where the consumer at a slot says whether it sleeps. The words of many consumers must not fall into
// one set of a cache: pages are alike in the low 12 bits of their addresses.
func parkedAt(slot uint32) int { return 128 * (1 + int(slot%16)) }

// LaneSize is the size in bytes of the memory of a lane.
func LaneSize(capacity uint64) int64 { return LaneData + int64(capacity) }

// FrameSize is what a payload of n bytes takes in a lane, header and padding included.
func FrameSize(n int) uint64 { return (FrameHeader + uint64(n) + FrameAlign - 1) &^ (FrameAlign - 1) }

// Geometry is the shape of a lane.
type Geometry struct {
	Capacity uint64 // bytes of data: a power of two, CapacityMin to CapacityMax
	MaxFrame uint32 // bytes of the largest frame, its header included: a multiple of 32, at most a quarter of the capacity
}

// Check says what is wrong with the geometry, if anything.
func (g Geometry) Check() error {
	switch {
	case bits.OnesCount64(g.Capacity) != 1 || g.Capacity < CapacityMin || g.Capacity > CapacityMax:
		return fmt.Errorf("capacity %d: it must be a power of two, %d to %d", g.Capacity, CapacityMin, CapacityMax)
	case g.MaxFrame%FrameAlign != 0 || g.MaxFrame < 2*FrameAlign || uint64(g.MaxFrame) > g.Capacity/4:
		return fmt.Errorf("largest frame %d: it must be a multiple of %d, %d to a quarter of the capacity (%d)", g.MaxFrame, FrameAlign, 2*FrameAlign, g.Capacity/4)
	}
	return nil
}

// MaxPayload is the size in bytes of the largest payload.
func (g Geometry) MaxPayload() int { return int(g.MaxFrame) - FrameHeader }

// LaneHeader is page 0 of a lane. It is for people and debuggers: members are told the same by the daemon, and do
// not believe the page.
type LaneHeader struct {
	Lossless              bool
	RingID, LaneID, Epoch uint64
	Geometry
	Slot  uint32
	Stall time.Duration
}

// Bytes returns the header as it stands at the beginning of the memory.
func (h LaneHeader) Bytes() []byte {
	b := binary.LittleEndian.AppendUint64(nil, laneMagic)
	b = binary.LittleEndian.AppendUint16(b, Version)
	b = binary.LittleEndian.AppendUint16(b, 72)
	b = binary.LittleEndian.AppendUint32(b, losslessFlag(h.Lossless))
	b = binary.LittleEndian.AppendUint64(b, h.RingID)
	b = binary.LittleEndian.AppendUint64(b, h.LaneID)
	b = binary.LittleEndian.AppendUint64(b, h.Epoch)
	b = binary.LittleEndian.AppendUint64(b, LaneData)
	b = binary.LittleEndian.AppendUint64(b, h.Capacity)
	b = binary.LittleEndian.AppendUint32(b, h.MaxFrame)
	b = binary.LittleEndian.AppendUint32(b, h.Slot)
	return binary.LittleEndian.AppendUint64(b, uint64(h.Stall))
}

// ConsumerHeader is the beginning of a consumer's pages, for people and debuggers.
type ConsumerHeader struct {
	Lossless                  bool
	RingID, ConsumerID, Epoch uint64
	Slot                      uint32
}

// Bytes returns the header as it stands at the beginning of the memory.
func (h ConsumerHeader) Bytes() []byte {
	b := binary.LittleEndian.AppendUint64(nil, consumerMagic)
	b = binary.LittleEndian.AppendUint16(b, Version)
	b = binary.LittleEndian.AppendUint16(b, 48)
	b = binary.LittleEndian.AppendUint32(b, losslessFlag(h.Lossless))
	b = binary.LittleEndian.AppendUint64(b, h.RingID)
	b = binary.LittleEndian.AppendUint64(b, h.ConsumerID)
	b = binary.LittleEndian.AppendUint64(b, h.Epoch)
	b = binary.LittleEndian.AppendUint32(b, h.Slot)
	return binary.LittleEndian.AppendUint32(b, 0)
}

func losslessFlag(on bool) uint32 {
	if on {
		return flagLossless
	}
	return 0
}

// word64 and word32 are words of shared memory. Mappings begin at pages, and all offsets are aligned.
func word64(b []byte, at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&b[at : at+8][0]))
}
func word32(b []byte, at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&b[at : at+4][0]))
}
