package shm

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

const (
	chunkBytes   = 32 << 10 // copied at once where messages are small: it stays in the first-level cache
	largeFrame   = 4 << 10  // frames from this size on are copied one by one
	streamBytes  = 8 << 10  // a stream is let build up to this before it is copied
	gatherPauses = 64       // 0.6 to 2 us
	storeShare   = 64       // the cursor is stored each 64th of the capacity, and when there is nothing to read
)

// laneReader reads one lane.
type laneReader struct {
	peer LanePeer
	data []byte
	mask uint64

	published, oldest, seen, evicted *atomic.Uint64
	wake, blocked                    *atomic.Uint32

	cursor   uint64 // the next frame to copy, or to hand out of what was copied
	limit    uint64 // published, as last seen
	end      uint64 // published, when it was learnt that the producer has left
	expected uint64 // the next sequence; 0: whatever comes
	last     uint64 // the sequence of the last one read, for others to see
	stored   uint64 // the cursor that others can see
	isStored bool
	replaced bool   // its slot, and so its line in the consumer's pages, has another lane
	woken    uint32 // the generation of blocked that was last woken
	lost     uint64 // in all
	untold   uint64 // of those not yet told with a message
	atLeast  uint64 // what the first sequence is if nothing was lost before it, 0: not known
	from     uint64 // frames before this sequence are passed over

	// protection says whether the producer is known to wait for this consumer; see docs/ring-layout.md.
	protected  bool
	known      bool // the producer knows of this consumer
	changes    int
	lastOldest uint64

	corrupt    bool // it is not read on
	wasEvicted bool // the producer does not wait for this consumer any more
	owner      uint64

	line struct{ lane, cursor, sequence, lost *atomic.Uint64 } // in this consumer's own pages
}

// newLaneReader takes a lane up. own are the consumer's pages.
func newLaneReader(p LanePeer, own []byte, owner uint64, slot uint32) *laneReader {
	b := p.Memory.Bytes()
	l := &laneReader{
		peer: p, owner: owner, data: b[LaneData : LaneData+p.Capacity : LaneData+p.Capacity], mask: p.Capacity - 1,
		published: word64(b, publishedAt), oldest: word64(b, oldestAt), seen: word64(b, seenAt),
		evicted: word64(b, evictedAt+8*int(slot%MaxConsumers)), wake: word32(b, laneWakeAt), blocked: word32(b, blockedAt),
	}
	l.line.lane, l.line.cursor = lineWords(own, p.Slot, lineLane), lineWords(own, p.Slot, lineCursor)
	l.line.sequence, l.line.lost = lineWords(own, p.Slot, lineSequence), lineWords(own, p.Slot, lineLost)
	return l
}

func lineWords(own []byte, laneSlot uint32, word int) *atomic.Uint64 {
	return word64(own, cursorsAt+cursorStride*int(laneSlot%MaxLanes)+word)
}

// hasNew reports whether there may be something that was not read.
func (l *laneReader) hasNew() bool {
	return !l.corrupt && l.visible() != l.cursor
}

// visible is the position up to which the lane may be read.
func (l *laneReader) visible() uint64 {
	p := l.published.Load()
	if l.peer.Ended {
		return min(p, l.end)
	}
	return p
}

// noteEnd notes that the producer has left. What it publishes nevertheless, since it was thrown out and does not care, is
// not read.
func (l *laneReader) noteEnd(ended bool) {
	if ended && !l.peer.Ended {
		l.end = l.published.Load()
	}
	l.peer.Ended = ended
}

// load looks how far the lane goes, and moves the cursor past what is gone. It reports whether there is something to read.
func (l *laneReader) load(r *Reader) (bool, error) {
	if l.cursor < l.limit && l.oldest.Load() <= l.cursor {
		return true, nil
	}
	before := l.oldest.Load()
	published := l.visible()
	after := l.oldest.Load()
	switch {
	case published%FrameAlign != 0 || before%FrameAlign != 0 || after%FrameAlign != 0:
		return false, l.fail("positions %d, %d and %d are not all multiples of %d", before, after, published, FrameAlign)
	case published < l.limit || before < l.lastOldest || after < before:
		return false, l.fail("a position went back: oldest %d, %d and %d, published %d and %d", l.lastOldest, before, after, l.limit, published)
	case published < before || published > after && published-after > l.peer.Capacity:
		return false, l.fail("oldest %d and published %d are further apart than %d, or the wrong way round", after, published, l.peer.Capacity)
	}
	l.limit = published
	l.watchOldest(r, after)
	if err := l.evictedNow(r); err != nil {
		return false, err
	}
	if after > l.cursor {
		l.jump(after)
	}
	return l.cursor < l.limit, nil
}

// watchOldest notes that oldest has moved. Once it moved twice after the producer could see this consumer's cursor,
// the producer has looked at the cursor before it moved it.
func (l *laneReader) watchOldest(r *Reader, oldest uint64) {
	moved := oldest != l.lastOldest
	l.lastOldest = oldest
	switch {
	case l.protected || !r.config.Lossless || !l.isStored:
	case !l.known:
		l.known = l.seen.Load() >= r.config.Epoch // changes count from here on
	case moved:
		l.changes++
		l.protected = l.changes >= 2
	}
}

// evictedNow reports, once, that the producer does not wait for this consumer any more.
func (l *laneReader) evictedNow(r *Reader) error {
	if !r.config.Lossless || l.wasEvicted || l.evicted.Load() != l.owner {
		return nil
	}
	l.wasEvicted = true
	return &EvictedError{Lane: l.peer.ID}
}

// gather lets a stream build up for a moment. A reader that takes each message as it comes takes the cache lines from under
// the producer's hands each time, and both become several times slower.
func (l *laneReader) gather() {
	for range gatherPauses {
		pause()
	}
	if p := l.visible(); p%FrameAlign == 0 && p > l.limit && p-l.lastOldest <= l.peer.Capacity {
		l.limit = p
	}
}

// jump goes on at a later position: what is between was overwritten.
func (l *laneReader) jump(to uint64) {
	l.cursor = to
	if l.limit < to {
		l.limit = to
	}
}

// fill copies what is there at the cursor, at least one frame, to be handed out. Nothing of it was looked at yet but for
// the size of the first frame. It reports false if all of it was overwritten meanwhile.
func (l *laneReader) fill(r *Reader) (bool, error) {
	at := l.cursor & l.mask
	n := min(l.limit-l.cursor, l.peer.Capacity-at)
	switch {
	case r.borrowing:
		n = FrameHeader
	case n > chunkBytes:
		// The length is only a hint for how much to copy. What counts is the copy of it.
		hint := binary.LittleEndian.Uint32(l.data[at+8:])
		if size := FrameSize(int(hint)); hint < largeFrame || size > uint64(l.peer.MaxFrame) {
			n = chunkBytes
		} else {
			n = min(n, size)
		}
	}
	if uint64(cap(r.buffer)) < n {
		r.buffer = make([]byte, n)
	}
	rest := r.buffer[:n]
	copy(rest, l.data[at:at+n])
	fenceBeforeRecheck(&r.fence)
	oldest := l.oldest.Load()
	l.watchOldest(r, oldest)
	if oldest > l.cursor {
		if err := l.evictedNow(r); err != nil {
			return false, err
		}
		if oldest%FrameAlign != 0 {
			return false, l.fail("oldest %d is no multiple of %d", oldest, FrameAlign)
		}
		skip := oldest - l.cursor
		l.jump(oldest)
		if skip >= n {
			return false, nil
		}
		rest = rest[skip:]
	}
	r.lane, r.rest = l, rest
	return true, nil
}

// examine looks at the frame at the cursor, whose copy b begins with, and which is not simply one to be handed out: padding,
// whose size it returns, a frame that goes on behind the copy and will be copied anew, or one that makes no sense.
func (l *laneReader) examine(b []byte) (pad uint64, err error) {
	sequence := binary.LittleEndian.Uint64(b)
	length := binary.LittleEndian.Uint32(b[8:])
	flags := binary.LittleEndian.Uint32(b[12:])
	typ := int64(binary.LittleEndian.Uint64(b[16:]))
	size := FrameSize(int(length))
	toEnd := l.peer.Capacity - l.cursor&l.mask
	switch {
	case flags == framePad && toEnd > l.limit-l.cursor:
		return 0, l.fail("padding at %d goes beyond what was published, %d", l.cursor, l.limit)
	case flags == framePad:
		return toEnd, nil
	case flags != 0:
		return 0, l.fail("the frame at %d has flags %#x, which this version does not know", l.cursor, flags)
	case size > uint64(l.peer.MaxFrame):
		return 0, l.fail("the frame at %d has %d bytes of payload; at most %d fit", l.cursor, length, l.peer.MaxPayload())
	case size > l.limit-l.cursor || size > toEnd:
		return 0, l.fail("the frame at %d with %d bytes goes beyond what was published, %d, or the end of the data", l.cursor, size, l.limit)
	case sequence < l.expected || sequence == 0:
		return 0, l.fail("the frame at %d has sequence %d, after %d", l.cursor, sequence, l.expected-1)
	case typ <= 0:
		return 0, l.fail("the frame at %d has type %d", l.cursor, typ)
	}
	return 0, nil
}

// accept counts what was lost before a frame, and reports whether the frame is wanted.
func (l *laneReader) accept(r *Reader, sequence uint64) bool {
	if sequence < l.from {
		return false
	}
	if l.from > 0 {
		l.expected, l.from = l.from, 0
	}
	if l.expected == 0 && l.atLeast > 0 {
		l.expected = min(sequence, l.atLeast)
	}
	// A consumer that nothing may be lost for, and that the producer does not know yet, just begins later.
	counts := !r.config.Lossless || !l.peer.Lossless || l.protected || l.wasEvicted
	if l.expected != 0 && sequence > l.expected && counts {
		n := sequence - l.expected
		l.lost += n
		l.untold += n
		r.stats.lost += n
	}
	l.expected = sequence + 1
	return true
}

// store shows others how far this consumer has read, and wakes a producer that waits for that.
func (l *laneReader) store(r *Reader) {
	if l.isStored && l.stored == l.cursor || l.replaced {
		return
	}
	l.stored = l.cursor
	r.count()
	storeRelaxed(l.line.lost, l.lost)
	if l.expected > 0 {
		l.last = l.expected - 1
	}
	storeRelaxed(l.line.sequence, l.last)
	l.line.cursor.Store(l.cursor)
	if !l.isStored {
		l.isStored = true
		l.line.lane.Store(l.peer.ID)
	}
	if g := l.blocked.Load(); g&1 == 1 && g != l.woken {
		l.woken = g
		r.wakeProducers()
	}
}

// fail gives the lane up.
func (l *laneReader) fail(format string, args ...any) error {
	l.corrupt = true
	if !l.replaced {
		l.line.cursor.Store(^uint64(FrameAlign - 1)) // its producer need not wait for this consumer
	}
	return &CorruptError{Lane: l.peer.ID, What: fmt.Sprintf(format, args...)}
}
