package journal

import (
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipcd/ipcd/internal/vfs"
)

// segment is a file of the log, in use or ready for use. Guarded by Journal.mu but for what says otherwise.
type segment struct {
	slot       uint16
	size       int64
	generation Generation // 0: a spare
	mask       uint32
	first      Number
	last       Number // of the last frame, or first-1
	run        uint32 // of the last frame, or of the header
	end        int64  // of the frames
	written    int64  // up to here what was appended is in the file and durable
	sealed     bool   // it gets no more frames
	indexed    bool   // its index is in the file and durable

	file vfs.File // for writing; nil once indexed. Only the commit that runs uses it, or the preparation of a spare

	zeroed  int64 // bytes, from the start, that were written once
	zeroing bool  // the next chunk is being written
	syncing bool  // and synced, which must not see an error that is a commit's
}

func (s *segment) name() string { return fileName(s.slot) }

// chunk is a piece of a segment that is not yet durable.
type chunk struct {
	segment *segment
	offset  int64
	buf     []byte
	index   bool // it holds an index, in the buffer that indexes are collected in
	shared  bool // somebody reads from it: it is not used again
}

func (c *chunk) end() int64 { return c.offset + int64(len(c.buf)) }

const (
	chunkBytes   = 256 << 10
	chunkPadding = headerBytes // room behind what is appended, to write whole pages
	chunkSpares  = 16
)

// Journal is a write-ahead log in segments. It is safe for concurrent use.
type Journal struct {
	o    Options
	keys keys
	run  uint32

	damaged bool // damage was accepted by Open

	appended  atomic.Uint64 // changed under mu
	durable   atomic.Uint64 // changed under mu
	published atomic.Uint64 // Committed has returned

	mu      sync.Mutex // guards all below; never held across I/O
	changed *sync.Cond // a segment's zeroing or syncing ended

	// The log.
	live   []*segment // in use, oldest first; the last one is being written
	active *segment
	index  []byte // of the active segment
	oldest Generation
	slots  map[uint16]*segment // where positions lead
	used   map[uint16]bool     // every slot that has a file

	// What is appended and not yet durable.
	pending      []*chunk
	writing      []*chunk // of the commit that runs
	pendingSince time.Time
	unwritten    int64 // bytes of both
	freeChunks   []*chunk
	freeIndex    []byte

	// Commits; see commit.go.
	committing bool
	cohort     *cohort   // who waits for what is pending
	flights    []*cohort // commits running, or done and not yet published
	lastCommit time.Time
	cut        durableEnd
	// Marks: of what is appended, then of what is durable. worth is the last frame that deserves a mark, promise
	// up to where the last frame says that all are durable.
	lastWorth, lastPromise Number
	worth, promise         Number

	// Room; see room.go.
	spares    []*segment
	diskBytes int64 // of all files
	full      error // why the last attempt to make a spare failed; nil: it did not
	fullAt    time.Time
	prepared  chan struct{} // closed after the next attempt

	// Freed segments; see free.go.
	limbo []freed
	epoch uint64
	holds map[uint64]int // by the epoch in which they began

	stats Stats

	err      error         // final: of a failure, or ErrClosed
	failed   chan struct{} // closed when err is set
	armed    bool          // the flusher looks again within MarkDelay by itself
	flush    chan struct{} // wakes the flusher
	prepare  chan struct{} // wakes the preparer
	stop     chan struct{}
	routines sync.WaitGroup
	freeing  sync.Mutex // one Free at a time
	closing  sync.Once
}

// durableEnd is where the durable part of the log ends.
type durableEnd struct {
	segment *segment
	offset  int64
}

// Append adds a frame to the log, in memory: Wait says when it is durable. It never waits for anything. The
// frame may be used again at once. Where payloads lie is said by the Place.
//
// After a failure it still returns a number, for which Wait returns the error. Append fails the journal with
// ErrFull if it needs a new segment and there is none, not even of the reserve: see Admit. It panics if
// the frame is larger than MaxFrame of Options.SegmentBytes.
func (j *Journal) Append(f *Frame) (Number, Place) {
	if f.Len() > MaxFrame(j.o.SegmentBytes) {
		panic(fmt.Sprintf("journal: a frame of %d bytes, allowed are %d: check against MaxFrame first", f.Len(), MaxFrame(j.o.SegmentBytes)))
	}
	sum := crc32.Checksum(f.Meta, castagnoli)
	j.mu.Lock()
	n, p := j.appendLocked(kindData, f.Meta, sum, f.payloads)
	j.mu.Unlock()
	return n, p
}

func (j *Journal) appendLocked(kind frameKind, meta []byte, metaSum uint32, payloads []byte) (Number, Place) {
	n := Number(j.appended.Add(1))
	if j.err != nil {
		return n, Place{}
	}
	if !j.fitsLocked(segmentShare(len(meta), len(payloads))) {
		if len(j.spares) == 0 {
			j.failLocked(fmt.Errorf("%w: the reserve is used up: %w", ErrFull, j.whyFullLocked()))
			return n, Place{}
		}
		j.rollLocked(n)
	}
	s := j.active
	f := frame{kind: kind, run: j.run, number: n, durable: Number(j.durable.Load()), meta: len(meta), payloads: len(payloads)}
	size := f.bytes()
	offset := s.end
	b := j.extendLocked(s, offset, int(size))
	f.encode(b, j.keys, s.mask, metaSum)
	copy(b[frameHeader:], meta)
	section := frameHeader + align8(int64(len(meta)))
	clear(b[frameHeader+len(meta) : section])
	copy(b[section:], payloads)
	maskPayloads(b[section:], s.mask)
	j.index = appendIndex(j.index, &f, n-s.last-1, 0, meta)
	s.end, s.last, s.run = offset+size, n, f.run
	j.lastPromise = f.durable
	if kind != kindMark {
		j.lastWorth = n
	}
	j.stats.Frames++
	if j.unwritten > flushBytes && !j.committing {
		signal(j.flush)
	}
	return n, Place{makePosition(s.slot, offset+section)}
}

// fitsLocked tells whether a frame with such a share of a segment fits behind the last one.
func (j *Journal) fitsLocked(share int64) bool {
	s := j.active
	return !s.sealed && s.end+share+align8(int64(len(j.index)))+payloadAlign+footerBytes <= s.size
}

// extendLocked returns the next n bytes of what will be written to a segment at an offset. Whoever asks
// fills all of them.
func (j *Journal) extendLocked(s *segment, offset int64, n int) []byte {
	j.unwritten += int64(n)
	if len(j.pending) == 0 {
		j.pendingSince = time.Now()
		j.armLocked()
	} else if c := j.pending[len(j.pending)-1]; c.segment == s && c.end() == offset && !c.index && len(c.buf)+n+chunkPadding <= cap(c.buf) {
		c.buf = c.buf[:len(c.buf)+n]
		return c.buf[len(c.buf)-n:]
	}
	c := j.newChunkLocked(n)
	c.segment, c.offset = s, offset
	c.buf = c.buf[:n]
	j.pending = append(j.pending, c)
	return c.buf
}

func (j *Journal) newChunkLocked(n int) *chunk {
	if n <= chunkBytes {
		if last := len(j.freeChunks) - 1; last >= 0 {
			c := j.freeChunks[last]
			j.freeChunks[last] = nil
			j.freeChunks = j.freeChunks[:last]
			return c
		}
	}
	return &chunk{buf: make([]byte, 0, max(n, chunkBytes)+chunkPadding)}
}

// recycleLocked takes back the memory of what was written.
func (j *Journal) recycleLocked(chunks []*chunk) {
	for _, c := range chunks {
		switch {
		case c.shared:
		case c.index:
			j.freeIndex = c.buf[:0]
		case cap(c.buf) == chunkBytes+chunkPadding && len(j.freeChunks) < chunkSpares:
			*c = chunk{buf: c.buf[:0]}
			j.freeChunks = append(j.freeChunks, c)
		}
	}
}

// rollLocked seals the active segment and begins the next, whose first frame will be n. There must be a spare.
func (j *Journal) rollLocked(n Number) {
	old := j.active
	generation, previousEnd := Generation(1), int64(0)
	if old != nil {
		j.sealLocked(n - 1)
		generation, previousEnd = old.generation+1, old.end
	}
	s := j.spares[0]
	j.spares = append(j.spares[:0], j.spares[1:]...)
	s.generation, s.mask = generation, j.keys.mask(generation)
	s.first, s.last, s.end, s.run = n, n-1, headerBytes, j.run
	h := segmentHeader{slot: s.slot, segmentBytes: s.size, generation: generation, first: n, oldest: max(j.oldest, 1),
		previousEnd: previousEnd, run: j.run, identity: j.o.Identity}
	b := j.extendLocked(s, 0, headerBytes)
	clear(b)
	h.encode(b)
	j.live = append(j.live, s)
	j.active = s
	j.slots[s.slot] = s
	signal(j.prepare)
}

// sealLocked ends the active segment with its index. After damage there may be no room for that: then the
// index can be made of the frames.
func (j *Journal) sealLocked(last Number) {
	s := j.active
	if s.sealed {
		return
	}
	s.sealed = true
	size := int64(len(j.index))
	offset := indexOffset(s.size, size)
	if offset < s.end {
		j.index = j.index[:0]
		return
	}
	f := footer{indexOffset: offset, indexBytes: size, indexSum: crc32.Checksum(j.index, castagnoli), last: last, end: s.end, generation: s.generation, run: s.run}
	buf := append(j.index, zeros8[:-size&7]...)
	at := len(buf)
	buf = append(buf, make([]byte, footerBytes)...)
	f.encode(buf[at:], s.mask)
	if len(j.pending) == 0 {
		j.pendingSince = time.Now()
	}
	j.pending = append(j.pending, &chunk{segment: s, offset: offset, buf: buf, index: true})
	j.unwritten += int64(len(buf))
	j.index, j.freeIndex = j.freeIndex, nil
}

// Appended returns the number of the last frame appended.
func (j *Journal) Appended() Number { return Number(j.appended.Load()) }

// Durable returns up to which number all frames are durable.
func (j *Journal) Durable() Number { return Number(j.durable.Load()) }

// Generation returns that of the segment to which the last frame went.
func (j *Journal) Generation() Generation {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.active.generation
}

// Segments describes the segments in use, oldest first.
func (j *Journal) Segments() []SegmentInfo {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := make([]SegmentInfo, len(j.live))
	for i, s := range j.live {
		all[i] = SegmentInfo{Generation: s.generation, Bytes: s.end, Sealed: s.sealed, File: s.name(), LastNumber: s.last}
	}
	return all
}

// Err returns why the journal takes nothing any more; nil: it does.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// failLocked makes an error final. The caller tells Options.Failed, without the lock.
func (j *Journal) failLocked(cause error) {
	if j.err != nil {
		return
	}
	j.err = fmt.Errorf("%w: %w", ErrFailed, cause)
	close(j.failed)
	if tell, err := j.o.Failed, j.err; tell != nil {
		// Whoever appends holds locks of its own.
		j.routines.Go(func() { tell(err) })
	}
}

// signal wakes a goroutine that listens, or makes it look once more.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
