package shm

import (
	"context"
	"encoding/binary"
	"testing"
	"time"
	"unsafe"
)

// ringForTest is a ring without a daemon: what it would hand out is handed out here.
type ringForTest struct {
	t     testing.TB
	epoch uint64
	page  *Page
	heap  bool // memory that the race detector watches
	lanes []LanePeer
	peers []ConsumerPeer

	writers []*Writer
	readers []*Reader
}

func newRing(t testing.TB, heap bool) *ringForTest {
	r := &ringForTest{t: t, epoch: 1, heap: heap}
	r.page = NewPage(r.memory(MembersSize))
	r.page.epoch.Store(1)
	t.Cleanup(func() {
		for _, w := range r.writers {
			w.Close()
		}
		for _, rd := range r.readers {
			rd.Close()
		}
	})
	return r
}

func (r *ringForTest) memory(size int64) *Memory {
	r.t.Helper()
	if r.heap {
		return newHeap(size)
	}
	f, err := CreateMemory("test", size)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	m, err := Map(f, size, true)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

func (r *ringForTest) consumersNow() []ConsumerPeer {
	list := append([]ConsumerPeer(nil), r.peers...)
	for i := range list {
		list[i].Memory.Retain()
	}
	return list
}

func (r *ringForTest) lanesNow() []LanePeer {
	list := append([]LanePeer(nil), r.lanes...)
	for i := range list {
		list[i].Memory.Retain()
	}
	return list
}

// announce raises the epoch and tells everybody, as the daemon and the members' control goroutines do.
func (r *ringForTest) announce() {
	r.page.Raise(r.epoch)
	for _, w := range r.writers {
		w.Offer(Members{Epoch: r.epoch, Consumers: r.consumersNow()})
	}
	for _, rd := range r.readers {
		rd.Offer(Members{Epoch: r.epoch, Lanes: r.lanesNow()})
	}
}

type laneOptions struct {
	capacity uint64
	maxFrame uint32
	lossless bool
	stall    time.Duration
	untimed  bool
	id       uint64 // 0: 100 and the slot
}

func (r *ringForTest) writer(o laneOptions) *Writer {
	if o.maxFrame == 0 {
		o.maxFrame = uint32(o.capacity / 4)
	}
	if o.stall == 0 {
		o.stall = time.Minute
	}
	r.epoch++
	m := r.memory(LaneSize(o.capacity))
	g := Geometry{Capacity: o.capacity, MaxFrame: o.maxFrame}
	if err := g.Check(); err != nil {
		r.t.Fatal(err)
	}
	slot := uint32(len(r.lanes))
	if o.id == 0 {
		o.id = 100 + uint64(slot)
	}
	r.lanes = append(r.lanes, LanePeer{ID: o.id, Epoch: r.epoch, Slot: slot, Geometry: g, Lossless: o.lossless, Memory: m.Retain()})
	w := NewWriter(WriterConfig{Memory: m, RingID: 1, LaneID: o.id, Epoch: r.epoch, Slot: slot, Geometry: g,
		Lossless: o.lossless, Stall: o.stall, Untimed: o.untimed},
		Members{Epoch: r.epoch, Page: r.page.Retain(), Consumers: r.consumersNow()})
	r.announce()
	r.writers = append(r.writers, w)
	return w
}

func (r *ringForTest) reader(c ReaderConfig) *Reader {
	r.epoch++
	m := r.memory(ConsumerSize)
	slot := uint32(len(r.peers))
	c.Memory, c.RingID, c.ConsumerID, c.Epoch, c.Slot = m, 1, 200+uint64(slot), r.epoch, slot
	r.peers = append(r.peers, ConsumerPeer{ID: c.ConsumerID, Epoch: r.epoch, Slot: slot, Lossless: c.Lossless, Memory: m.Retain()})
	rd := NewReader(c, Members{Epoch: r.epoch, Page: r.page.Retain(), Lanes: r.lanesNow()})
	r.announce()
	r.readers = append(r.readers, rd)
	return rd
}

// newHeap returns memory of the Go heap, zeroed, which no other process sees: the race detector sees what is done with it.
func newHeap(size int64) *Memory {
	words := make([]uint64, size/8) // aligned
	m := &Memory{bytes: unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), size)}
	m.users.Store(1)
	return m
}

// forever is a context that does not end.
var forever context.Context

// payloadOf is a payload of n bytes that tells whose it is and what is wrong with it, if anything.
func payloadOf(seq uint64, n int) []byte {
	b := make([]byte, n)
	fillPayload(b, seq)
	return b
}

func fillPayload(b []byte, seq uint64) {
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], seq*0x9e3779b97f4a7c15)
	for i := range b {
		b[i] = word[i%8] + byte(i/8)
	}
}

func checkPayload(b []byte, seq uint64) bool {
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], seq*0x9e3779b97f4a7c15)
	for i := range b {
		if b[i] != word[i%8]+byte(i/8) {
			return false
		}
	}
	return true
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
