package shm

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Start is where a Reader begins in the lanes that were there before it. Lanes that join later are read from their beginning.
type Start struct {
	oldest   bool
	sequence uint64
}

// Where to start. The zero Start is Newest.
var (
	Newest = Start{}             // with what is published from now on
	Oldest = Start{oldest: true} // with what is still there
)

// FromSequence starts at the first message of each lane whose sequence is at least n.
func FromSequence(n uint64) Start { return Start{sequence: max(n, 1)} }

// ReaderConfig is what a Reader needs to know.
type ReaderConfig struct {
	Memory            *Memory // the consumer's own pages, writable, ConsumerSize bytes, zeroed. The Reader takes over the reference.
	RingID            uint64
	ConsumerID, Epoch uint64 // Epoch: at which it joined
	Slot              uint32
	Lossless          bool // producers of lossless lanes wait for it
	Start             Start
	Types             func(typ int64) bool // whether messages of a type are wanted; nil: all are
	Pull              func()               // called, and must not block, when the epoch is newer than the members that were offered
}

const (
	unwantedPasses = 64 // of copies in which nothing was wanted, before the caller's context is asked
	lappedPasses   = 16 // of copies that were overwritten meanwhile, before the next lane has its turn
)

// Message is a message as it is published and read. For publishing only Type and Payload count.
type Message struct {
	Type     int64
	Time     int64  // of publishing, nanoseconds since 1970; 0 if the producer does not tell
	Lane     uint64 // the id of the lane
	Sequence uint64 // in the lane, from 1 on
	Lost     uint64 // messages of the lane lost since the last one that was handed out
	Payload  []byte // until the next call of the Reader
}

// Reader reads all lanes of a ring. One goroutine at a time may use it; Offer, Close and Stats may be called by any.
type Reader struct {
	offers
	use    use
	memory *Memory
	config ReaderConfig

	// What was copied of lane, from its cursor on, and not yet handed out.
	lane      *laneReader
	rest      []byte
	buffer    []byte
	borrowing bool          // only the header is copied: View
	late      error         // to be returned by the next call
	fence     atomic.Uint64 // private; see fenceBeforeRecheck

	turn   int                 // whose turn it is
	done   map[uint64]struct{} // lanes that ended and were read
	page   *Page
	seen   uint64 // the epoch of the members known
	pulled uint64 // the epoch that Pull was called for

	parked, wakeWord *atomic.Uint32
	generation       uint32 // of parked
	waiting          []waiter
	pollUntil        int64 // until then it looks each millisecond: somebody's wake-ups do not come
	hooked           context.Context
	unhook           func() bool
	stats            readerCounters
	counters         struct{ received, lost, parks, backstops, corrupt *atomic.Uint64 }

	mu    sync.Mutex // guards lanes against Stats; only the reading goroutine changes them
	lanes []*laneReader
}

type readerCounters struct {
	wake                                      uint32
	received, lost, parks, backstops, corrupt uint64
}

// NewReader returns a Reader of the lanes among the members.
func NewReader(c ReaderConfig, m Members) *Reader {
	b := c.Memory.Bytes()
	r := &Reader{config: c, memory: c.Memory, done: map[uint64]struct{}{}, buffer: make([]byte, chunkBytes),
		parked: word32(b, parkedAt(c.Slot)), wakeWord: word32(b, consumerWakeAt)}
	r.counters.received, r.counters.lost = word64(b, receivedCounter), word64(b, lostCounter)
	r.counters.parks, r.counters.backstops, r.counters.corrupt = word64(b, parksCounter), word64(b, backstopsCounter), word64(b, corruptCounter)
	r.adopt(&m)
	return r
}

// Next returns the next message, and waits for one until ctx ends; a nil ctx does not end. ErrCorrupt and ErrEvicted concern one
// lane and are returned once: the next call goes on with what there is.
func (r *Reader) Next(ctx context.Context) (Message, error) {
	if ctx != nil && ctx.Err() != nil { // also while there are messages
		return Message{}, ctx.Err()
	}
	for passes := 1; ; passes++ {
		if passes%unwantedPasses == 0 && ctx != nil && ctx.Err() != nil {
			return Message{}, ctx.Err()
		}
		if len(r.rest) >= FrameHeader {
			var m Message
			if ok, err := r.take(&m); ok || err != nil {
				return m, err
			}
		}
		if err := r.more(ctx); err != nil {
			return Message{}, err
		}
	}
}

// NextBatch is Next for as many messages as are at hand and fit into the slice, at least one.
func (r *Reader) NextBatch(ctx context.Context, into []Message) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	if ctx != nil && ctx.Err() != nil {
		return 0, ctx.Err()
	}
	for passes := 1; ; passes++ {
		if passes%unwantedPasses == 0 && ctx != nil && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		n := 0
		for n < len(into) && len(r.rest) >= FrameHeader {
			ok, err := r.take(&into[n])
			if err != nil {
				if n > 0 { // it is told with the next call
					r.late = err
					return n, nil
				}
				return 0, err
			}
			if !ok {
				break
			}
			n++
		}
		if n > 0 {
			return n, nil
		}
		if err := r.more(ctx); err != nil {
			return 0, err
		}
	}
}

// TryNext is Next that reports false instead of waiting. It also does so if much was there, but nothing of the types
// wanted.
func (r *Reader) TryNext() (Message, bool, error) {
	for range unwantedPasses {
		if len(r.rest) >= FrameHeader {
			var m Message
			if ok, err := r.take(&m); ok || err != nil {
				return m, ok, err
			}
		}
		if err := r.more(never); err != nil {
			if err == errNothing {
				return Message{}, false, nil
			}
			return Message{}, false, err
		}
	}
	return Message{}, false, nil
}

// take hands out the next message of what was copied, if there is one.
func (r *Reader) take(m *Message) (ok bool, err error) {
	l := r.lane
	for len(r.rest) >= FrameHeader {
		// What is in order for sure goes this way; the rest is looked at closely. The copy ends where the data ends or what was
		// published does, so that a frame within it is within both.
		header := (*[4]uint64)(unsafe.Pointer(unsafe.SliceData(r.rest)))
		sequence, length, typ := header[0], header[1], int64(header[2])
		size := (FrameHeader + length + FrameAlign - 1) &^ (FrameAlign - 1)
		if length > uint64(l.peer.MaxFrame) || size > uint64(l.peer.MaxFrame) || size > uint64(len(r.rest)) || sequence < l.expected || sequence == 0 || typ <= 0 {
			pad, err := r.examine(l)
			l.cursor += pad
			return false, err
		}
		payload := r.rest[FrameHeader : FrameHeader+length : FrameHeader+length]
		l.cursor += size
		r.rest = r.rest[size:]
		if sequence != l.expected || l.from > 0 {
			if !l.accept(r, sequence) {
				continue
			}
		} else {
			l.expected++
		}
		if r.config.Types != nil && !r.config.Types(typ) {
			continue
		}
		m.Type, m.Time, m.Lane, m.Sequence, m.Lost, m.Payload = typ, int64(header[3]), l.peer.ID, sequence, l.untold, payload
		l.untold = 0
		r.stats.received++
		return true, nil
	}
	r.rest = nil
	return false, nil
}

// poll copies what the next lane has that has something. It reports false if none has. first says that the caller has not
// waited: there is a stream of messages if there is something nevertheless.
func (r *Reader) poll(first bool) (bool, error) {
	if r.pending.Load() != nil {
		if m := r.pending.Swap(nil); m != nil {
			r.adopt(m)
		}
	}
	if e := r.page.epoch.Load(); e > r.seen && e != r.pulled {
		r.pulled = e
		if r.config.Pull != nil {
			r.config.Pull()
		}
	}
	for range len(r.lanes) {
		if r.turn >= len(r.lanes) {
			r.turn = 0
		}
		l := r.lanes[r.turn]
		if l.corrupt {
			if l.peer.Ended {
				r.finish(l)
			} else {
				r.turn++
			}
			continue
		}
		if l.cursor-l.stored >= l.peer.Capacity/storeShare {
			l.store(r)
		}
		for range lappedPasses {
			ready, err := l.load(r)
			if err != nil {
				return false, r.laneError(l, err)
			}
			if !ready {
				break
			}
			if first && l.limit-l.cursor < streamBytes {
				l.gather()
			}
			ok, err := l.fill(r)
			if err != nil {
				return false, r.laneError(l, err)
			}
			if ok {
				r.turn++
				return true, nil
			}
		}
		if l.peer.Ended && l.visible() == l.cursor {
			r.finish(l)
			continue
		}
		r.turn++
	}
	return false, nil
}

// laneError counts an error of a lane.
func (r *Reader) laneError(l *laneReader, err error) error {
	if l.corrupt {
		r.failed()
	}
	return err
}

// examine looks closely at what was copied of a lane, and drops the copy.
func (r *Reader) examine(l *laneReader) (pad uint64, err error) {
	rest := r.rest
	r.rest = nil
	if !r.use.enter() { // it may write to this consumer's pages
		return 0, r.use.refusal()
	}
	defer r.use.leave()
	pad, err = l.examine(rest)
	if err == nil && pad == 0 && r.borrowing { // a frame is never too large for what was not copied
		err = l.fail("the frame at %d makes no sense", l.cursor)
	}
	if err != nil {
		r.failed()
	}
	return pad, err
}

func (r *Reader) failed() {
	r.stats.corrupt++
	storeRelaxed(r.counters.corrupt, r.stats.corrupt)
}

// settle shows how far everything was read. It is called when there is nothing to read.
func (r *Reader) settle() {
	for _, l := range r.lanes {
		if !l.corrupt {
			l.store(r)
		}
	}
	r.count()
}

// count shows how much was read.
func (r *Reader) count() {
	storeRelaxed(r.counters.received, r.stats.received)
	storeRelaxed(r.counters.lost, r.stats.lost)
}

// wakeProducers wakes producers that wait for this consumer.
func (r *Reader) wakeProducers() {
	r.stats.wake++
	r.wakeWord.Store(r.stats.wake)
	wakeShared(r.wakeWord)
}

// adopt takes up members. Of lanes known before it keeps how far they were read.
func (r *Reader) adopt(m *Members) {
	r.mu.Lock()
	defer r.mu.Unlock()
	listed := make(map[uint64]struct{}, len(m.Lanes))
	for _, p := range m.Lanes {
		listed[p.ID] = struct{}{}
		if i := slices.IndexFunc(r.lanes, func(l *laneReader) bool { return l.peer.ID == p.ID }); i >= 0 {
			r.lanes[i].noteEnd(p.Ended)
			p.Memory.Release()
			continue
		}
		if _, ok := r.done[p.ID]; ok {
			p.Memory.Release()
			continue
		}
		for _, l := range r.lanes {
			l.replaced = l.replaced || l.peer.Slot == p.Slot
		}
		r.lanes = append(r.lanes, r.begin(p))
	}
	if !m.Partial {
		for _, l := range r.lanes {
			if _, ok := listed[l.peer.ID]; !ok {
				l.noteEnd(true)
			}
		}
		for id := range r.done {
			if _, ok := listed[id]; !ok {
				delete(r.done, id)
			}
		}
	}
	for i := range m.Consumers { // a consumer has no use for them
		m.Consumers[i].Memory.Release()
	}
	if m.Page != nil {
		r.page.Release()
		r.page = m.Page
	}
	r.seen = m.Epoch
}

// begin takes a lane up.
func (r *Reader) begin(p LanePeer) *laneReader {
	l := newLaneReader(p, r.memory.Bytes(), r.config.ConsumerID, r.config.Slot)
	l.lastOldest = l.oldest.Load()
	switch {
	case p.Epoch > r.config.Epoch: // it joined later, and waits for those who were there
		l.expected, l.protected = 1, true
	case r.config.Start.oldest:
		l.cursor = l.oldest.Load()
	case r.config.Start.sequence > 0:
		l.cursor, l.from = l.oldest.Load(), r.config.Start.sequence
	default:
		l.cursor = l.published.Load()
		l.last = word64(p.Memory.Bytes(), sequenceAt).Load()
		l.atLeast = l.last + 1
	}
	l.cursor &^= FrameAlign - 1 // of a stranger's words; load finds out about the rest
	l.stored, l.limit = l.cursor, l.cursor
	l.peer.Ended = false
	l.noteEnd(p.Ended)
	l.store(r)
	return l
}

// finish drops a lane that ended and was read.
func (r *Reader) finish(l *laneReader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !l.corrupt {
		l.store(r)
	}
	r.done[l.peer.ID] = struct{}{}
	r.lanes = slices.DeleteFunc(r.lanes, func(other *laneReader) bool { return other == l })
	if r.lane == l {
		r.lane = nil
	}
	l.peer.Memory.Release()
}

// Offer hands over new members.
func (r *Reader) Offer(m Members) { r.offer(m) }

// Stop ends reading: a call that waits, and all later ones once what was copied is handed out, return ErrClosed. A
// borrowed view can still be looked at, until Close.
func (r *Reader) Stop() { r.use.stop(r.interrupt) }

// Close is Stop, and gives the memory back.
func (r *Reader) Close() {
	r.use.close(r.interrupt, func() {
		if r.unhook != nil {
			r.unhook()
		}
		if m := r.pending.Swap(nil); m != nil {
			m.release()
		}
		r.page.Release()
		for _, l := range r.lanes {
			l.peer.Memory.Release()
		}
		r.memory.Release()
	})
}
