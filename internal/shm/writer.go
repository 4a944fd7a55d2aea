package shm

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"
)

// WriterConfig is what a Writer needs to know of its lane.
type WriterConfig struct {
	Memory        *Memory // of the lane, writable, LaneSize bytes, zeroed. The Writer takes over the reference.
	RingID        uint64
	LaneID, Epoch uint64 // Epoch: at which it joined
	Slot          uint32
	Geometry
	Lossless bool
	Stall    time.Duration // how long a consumer may hold the Writer up
	Untimed  bool          // frames carry the time 0
	Pull     func()        // called, and must not block, when the epoch is newer than the members that were offered
}

// Writer publishes into a lane. One goroutine at a time may use it; Offer, Close and Stats may be called by any.
type Writer struct {
	offers
	use    use
	memory *Memory
	config WriterConfig

	// What every publish touches.
	data      []byte
	mask      uint64
	position  uint64 // published, once what is being written is committed
	oldest    uint64
	sequence  uint64
	nextMark  uint64 // the position from which on a frame's beginning is remembered in marks
	published *atomic.Uint64
	sequences *atomic.Uint64
	clock     clock

	epoch     *atomic.Uint64 // of the members page
	consumers []sleeper      // whom to wake
	seen      uint64         // the epoch of consumers

	// marks are beginnings of frames, one for each stride of the lane: oldest only moves to one of them.
	marks  [markCount]uint64
	stride uint64

	claimed    uint64 // bytes of the open claim's frame, 0: none
	page       *Page
	peers      []holder // the same consumers, as they may hold the Writer back
	pulled     uint64   // the epoch that Pull was called for
	unmet      uint64   // the epoch whose members were waited for in vain
	staleSince int64    // since when newer members than those adopted have been waited for, 0: they are not
	words      *laneWords
	waiting    []waiter // room for sleeping
	holding    []watched
	stats      writerCounters
}

// laneWords are the words of the lane's cursors.
type laneWords struct {
	oldest, seen, wakes, elided, blocks, blockedNanos, evictions, backstops *atomic.Uint64
	wake, blocked                                                           *atomic.Uint32
}

// writerCounters are the private copies of what stands in the lane's words.
type writerCounters struct {
	blocked                                                   uint32
	wakes, elided, blocks, blockedNanos, evictions, backstops uint64
}

const (
	strides   = 64  // of a lane: oldest moves by about a 64th of the capacity
	markCount = 128 // at least strides and what a frame and its padding may span, a power of two
)

// NewWriter returns a Writer at the beginning of a lane. m are the members known so far.
func NewWriter(c WriterConfig, m Members) *Writer {
	b := c.Memory.Bytes()
	w := &Writer{
		config: c, memory: c.Memory,
		data: b[LaneData : LaneData+c.Capacity : LaneData+c.Capacity], mask: c.Capacity - 1, stride: c.Capacity / strides,
		published: word64(b, publishedAt), sequences: word64(b, sequenceAt),
		words: &laneWords{
			oldest: word64(b, oldestAt), seen: word64(b, seenAt), wake: word32(b, laneWakeAt), blocked: word32(b, blockedAt),
			wakes: word64(b, wakesCounter), elided: word64(b, elidedCounter), blocks: word64(b, blocksCounter),
			blockedNanos: word64(b, blockedNanosCounter), evictions: word64(b, evictionsCounter), backstops: word64(b, writerBackstopsCounter),
		},
	}
	w.adopt(&m)
	return w
}

// Publish appends a message. payload is copied. In lossless lanes it waits for consumers that are behind until
// ctx ends, or they are evicted; a nil ctx does not end.
func (w *Writer) Publish(ctx context.Context, typ int64, payload []byte) error {
	if err := w.enter(); err != nil {
		return err
	}
	at, size, err := w.reserve(ctx, typ, len(payload))
	if err == nil {
		copy(w.data[at+FrameHeader:], payload)
		w.write(at, typ, len(payload), size)
		w.publish()
	}
	w.use.leave()
	return err
}

// TryPublish is Publish that returns ErrFull instead of waiting.
func (w *Writer) TryPublish(typ int64, payload []byte) error { return w.Publish(never, typ, payload) }

// PublishV is Publish of a payload in several parts.
func (w *Writer) PublishV(ctx context.Context, typ int64, parts [][]byte) error {
	if err := w.enter(); err != nil {
		return err
	}
	defer w.use.leave()
	length := 0
	for _, p := range parts {
		length += len(p)
	}
	at, size, err := w.reserve(ctx, typ, length)
	if err != nil {
		return err
	}
	to := w.data[at+FrameHeader:]
	for _, p := range parts {
		to = to[copy(to, p):]
	}
	w.write(at, typ, length, size)
	w.publish()
	return nil
}

// PublishBatch appends messages, of which it takes types and payloads, and wakes sleeping consumers once. n of
// them were published when it returns an error.
func (w *Writer) PublishBatch(ctx context.Context, batch []Message) (n int, err error) {
	if err := w.enter(); err != nil {
		return 0, err
	}
	defer w.use.leave()
	unpublished := uint64(0)
	for i := range batch {
		m := &batch[i]
		// Who waits for room, waits for what it has not shown yet: what is written must be published before.
		if unpublished > w.stride || unpublished > 0 && !w.fits(len(m.Payload)) {
			w.publish()
			n, unpublished = i, 0
		}
		at, size, err := w.reserve(ctx, m.Type, len(m.Payload))
		if err != nil {
			if unpublished > 0 {
				w.publish()
			}
			return i, err
		}
		copy(w.data[at+FrameHeader:], m.Payload)
		w.write(at, m.Type, len(m.Payload), size)
		unpublished += size
	}
	if unpublished > 0 {
		w.publish()
	}
	return len(batch), nil
}

// Claim reserves room for a payload of size bytes, to be written in place and then committed or aborted. The
// slice must not be used after that, nor after Close.
func (w *Writer) Claim(ctx context.Context, size int) ([]byte, error) {
	if err := w.enter(); err != nil {
		return nil, err
	}
	defer w.use.leave()
	at, frame, err := w.reserve(ctx, 1, size)
	if err != nil {
		return nil, err
	}
	w.claimed = frame
	return w.data[at+FrameHeader : at+FrameHeader+uint64(size) : at+FrameHeader+uint64(size)], nil
}

// Commit publishes the first size bytes of what was claimed.
func (w *Writer) Commit(typ int64, size int) error {
	if w.claimed == 0 || size < 0 || FrameSize(size) > w.claimed {
		return ErrNoClaim
	}
	if typ <= 0 {
		return ErrType
	}
	w.claimed = 0
	if err := w.enter(); err != nil {
		return err
	}
	w.write(w.position&w.mask, typ, size, FrameSize(size))
	w.publish()
	w.use.leave()
	return nil
}

// Abort gives a claim up. Nothing of it was ever visible.
func (w *Writer) Abort() { w.claimed = 0 }

// reserve finds room for a frame and returns where it begins in data. Nothing is visible before publish.
func (w *Writer) reserve(ctx context.Context, typ int64, length int) (at, size uint64, err error) {
	size = FrameSize(length)
	if length < 0 || size > uint64(w.config.MaxFrame) || typ <= 0 || w.claimed != 0 {
		return 0, 0, w.refuse(typ, length)
	}
	at = w.position & w.mask
	need := size
	if tail := w.config.Capacity - at; size > tail {
		need += tail
	}
	if end := w.position + need; end > w.oldest+w.config.Capacity {
		if err := w.makeRoom(ctx, end-w.config.Capacity); err != nil {
			return 0, 0, err
		}
	}
	if need != size {
		w.pad(at)
		at = 0
	}
	return at, size, nil
}

// fits reports whether a payload has room without oldest being moved.
func (w *Writer) fits(length int) bool {
	need := FrameSize(length)
	if tail := w.config.Capacity - w.position&w.mask; need > tail {
		need += tail
	}
	return w.position+need <= w.oldest+w.config.Capacity
}

func (w *Writer) refuse(typ int64, length int) error {
	switch {
	case w.claimed != 0:
		return ErrClaim
	case typ <= 0:
		return fmt.Errorf("type %d: %w", typ, ErrType)
	}
	return fmt.Errorf("%d bytes: %w: at most %d bytes fit this ring", length, ErrTooLarge, w.config.MaxPayload())
}

// pad fills the end of the data, where the next frame does not fit.
func (w *Writer) pad(at uint64) {
	w.mark()
	header := (*[4]uint64)(unsafe.Pointer(&w.data[at]))
	header[0], header[1], header[2], header[3] = 0, framePad<<32, 0, 0
	w.position += w.config.Capacity - at
}

// write writes the header of the frame whose payload stands at at, and counts it.
func (w *Writer) write(at uint64, typ int64, length int, size uint64) {
	if w.position >= w.nextMark {
		w.mark()
	}
	nanos := int64(0)
	if !w.config.Untimed {
		nanos = w.clock.now()
	}
	w.sequence++
	header := (*[4]uint64)(unsafe.Pointer(&w.data[at]))
	header[0], header[1], header[2], header[3] = w.sequence, uint64(length), uint64(typ), uint64(nanos)
	w.position += size
}

// mark remembers that a frame begins at the present position.
func (w *Writer) mark() {
	for w.position >= w.nextMark {
		w.marks[w.nextMark/w.stride%markCount] = w.position
		w.nextMark += w.stride
	}
}

// publish makes visible what was written, and wakes who sleeps. The order matters: see docs/ring-layout.md, "Memory order".
func (w *Writer) publish() {
	storeRelaxed(w.sequences, w.sequence)
	w.published.Store(w.position)
	if w.epoch.Load() > w.seen || w.pending.Load() != nil {
		w.meet()
	}
	for i := range w.consumers {
		if w.consumers[i].parked.Load()&1 == 1 {
			w.wakeSleepers()
			return
		}
	}
}

// Sequence is that of the last message published, 0: none. It is for the goroutine that publishes.
func (w *Writer) Sequence() uint64 { return w.sequence }

// WriterStats is how a Writer fares.
type WriterStats struct {
	Sequence     uint64 // messages published
	Wakes        uint64 // system calls that woke consumers
	Elided       uint64 // publishes that found a sleeping consumer already woken
	Blocks       uint64 // waits for consumers
	BlockedNanos uint64
	Evictions    uint64 // consumers that held it up for too long
	Backstops    uint64 // waits in which only the time limit found room: 0 unless somebody misbehaves
}

// Stats tells how the Writer fares.
func (w *Writer) Stats() WriterStats {
	if !w.use.share() {
		return WriterStats{}
	}
	defer w.use.unshare()
	s := ReadLane(w.memory)
	return WriterStats{Sequence: s.Sequence, Wakes: s.Wakes, Elided: s.Elided, Blocks: s.Blocks, BlockedNanos: s.BlockedNanos, Evictions: s.Evictions, Backstops: s.Backstops}
}

// Offer hands over new members. They are adopted at the next publish, or at once by one that waits.
func (w *Writer) Offer(m Members) {
	another := m.Page != nil
	w.offer(m)
	if !another || !w.use.share() {
		return
	}
	// The epoch that the Writer watched until now does not rise any more. Consumers that it could not know of may have gone
	// to sleep while it published: nobody else will wake them.
	w.words.wake.Add(1)
	wakeShared(w.words.wake)
	w.use.unshare()
}

// Stop ends publishing: a call that waits, and all later ones, return ErrClosed. What was claimed can still be written,
// until Close.
func (w *Writer) Stop() { w.use.stop(w.interrupt) }

// Close is Stop, and gives the memory back. The lane stays as it is for its consumers.
func (w *Writer) Close() {
	w.use.close(w.interrupt, func() {
		if m := w.pending.Swap(nil); m != nil {
			m.release()
		}
		w.page.Release()
		for i := range w.peers {
			w.peers[i].memory.Release()
		}
		w.memory.Release()
	})
}

func (w *Writer) enter() error {
	if !w.use.enter() {
		return w.use.refusal()
	}
	return nil
}
