package broker

import (
	"context"
	"errors"
	"sync"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// Ticket names what a decision waits for before its outcome may be told: 0 is nothing.
type Ticket uint64

// publication is messages that become visible when a frame is durable.
type publication struct {
	ticket Ticket
	last   uint64 // sequence
}

var frames = sync.Pool{New: func() any { return new(frame) }}

// frameLocked is where the queue's records go: its own frame, or that of the queue it is held together with.
func (s *served) frameLocked() *frame {
	if s.joined != nil {
		return s.joined.frameLocked()
	}
	if s.frame == nil {
		s.frame = frames.Get().(*frame)
	}
	return s.frame
}

// flushLocked appends what was decided to the journal. The locks of all queues with records in the frame
// are held, so that records stand there in the order of the decisions.
func (s *served) flushLocked() {
	if s.joined != nil {
		s.joined.flushLocked()
		return
	}
	f := s.frame
	if f == nil {
		return
	}
	s.frame = nil
	s.b.appendFrame(f)
}

// appendFrame appends a frame and gives it back.
func (b *Broker) appendFrame(f *frame) Ticket {
	if f.Len() > b.maxFrame {
		b.fail(reason.New(reason.Internal, "records of %d bytes that belong together: the journal takes %d", f.Len(), b.maxFrame))
		f.reset()
		return 0
	}
	// Asked for before, so that it is not above the one the frame comes to lie in.
	generation := b.journal.Generation()
	number, place := b.journal.Append(&f.Frame)
	ticket := Ticket(number)
	if len(f.spilled) > 0 {
		if first := place.Next(0); first != 0 { // 0: the journal has failed
			for i := range f.spilled {
				p := &f.spilled[i]
				p.s.q.SetPlace(p.seq, placeOf(first+journal.Position(p.offset/8)))
			}
		}
	}
	for _, s := range f.queues {
		s.q.Stamp(uint64(generation))
		s.last = ticket
		if last := s.q.Last(); s.durable && last > s.announced {
			s.announced = last
			s.unpublished = append(s.unpublished, publication{ticket, last})
			b.markDirty(s)
		}
	}
	f.reset()
	frames.Put(f)
	return ticket
}

// markDirty notes that the queue has something to publish.
func (b *Broker) markDirty(s *served) {
	b.dirtyMu.Lock()
	if !s.dirty {
		s.dirty = true
		b.dirty = append(b.dirty, s)
	}
	b.dirtyMu.Unlock()
}

// committed is told by the journal how far it is durable.
func (b *Broker) committed(journal.Number) {
	b.dirtyMu.Lock()
	dirty := b.dirty
	b.dirty = b.dirtySpare[:0]
	b.dirtySpare = nil
	for _, s := range dirty {
		s.dirty = false
	}
	b.dirtyMu.Unlock()
	for _, s := range dirty {
		s.mu.Lock()
		if s.publishCommittedLocked() {
			s.afterLocked(b.now())
		}
		s.mu.Unlock()
	}
	clear(dirty)
	b.dirtyMu.Lock()
	b.dirtySpare = dirty
	b.dirtyMu.Unlock()
	b.compactor.poke()
}

// publishCommittedLocked makes visible what is durable, and reports whether that was anything.
func (s *served) publishCommittedLocked() bool {
	if len(s.unpublished) == 0 {
		return false
	}
	durable := Ticket(s.b.journal.Durable())
	n := 0
	for n < len(s.unpublished) && s.unpublished[n].ticket <= durable {
		n++
	}
	if n == 0 {
		s.b.markDirty(s)
		return false
	}
	last := s.unpublished[n-1].last
	s.unpublished = s.unpublished[:copy(s.unpublished, s.unpublished[n:])]
	if len(s.unpublished) > 0 {
		s.b.markDirty(s)
	}
	if s.deleted || last <= s.q.Published() {
		return false
	}
	s.showLocked(last)
	return true
}

// Await waits until what the ticket stands for is on disk. The context ends only the waiting. An error other than
// the context's is UNHEALTHY: the daemon stops, and what was asked for may or may not have happened.
func (b *Broker) Await(ctx context.Context, t Ticket) error {
	if b.journal == nil {
		return nil
	}
	if t == 0 {
		if failure := b.Failure(); failure != nil {
			return unhealthy(failure)
		}
		return nil
	}
	err := b.journal.Wait(ctx, journal.Number(t))
	if err != nil && ctx.Err() == nil {
		return unhealthy(err)
	}
	if failure := b.Failure(); err == nil && failure != nil { // what was decided may never have come to the journal
		return unhealthy(failure)
	}
	return err
}

// admit sees to it that there is room for a send, on disk and in memory, before it is decided on.
func (b *Broker) admit(ctx context.Context, s *served, messages int, bytes int64) error {
	if err := b.admitMemory(bytes); err != nil || !s.durable {
		return err
	}
	if most := b.maxFrame; !b.fitsFrame(messages, bytes) {
		return reason.New(reason.MessageTooLarge, "%d messages of %d bytes together: they must fit a segment of the journal, which takes %d; send them in several batches, or raise segment_size",
			messages, bytes, most)
	}
	return b.admitBytes(ctx, bytes+int64(messages)*frameOverhead+frameOverhead)
}

// admitMemory sees to it that so many bytes more fit into what messages may take in memory.
func (b *Broker) admitMemory(bytes int64) error {
	if limit := b.maxMemory; limit > 0 && b.totals.memory.Load()+bytes > limit {
		return reason.New(reason.QuotaExceeded, "the messages of all queues take %d bytes of memory, all that they may (max_memory): receive some, or raise it",
			b.totals.memory.Load()).Retry(fullRetry)
	}
	return nil
}

// recordBytes is what a message takes at most in a frame, beside frameMessage.
func recordBytes(m *queue.Message) int64 { return int64(m.Bytes() + len(m.Headers)*frameHeader) }

// fitsFrame reports whether so many messages of so many bytes together surely fit a frame of the journal.
func (b *Broker) fitsFrame(messages int, bytes int64) bool {
	return bytes+int64(messages)*frameMessage+frameRest <= b.maxFrame
}

// frameOverhead is about what a frame or a message takes in the journal beside its bytes.
const frameOverhead = 64

// What a frame takes at most beside the bytes of its messages: for each message, and for the rest.
const (
	frameMessage = 192
	frameHeader  = 5 // lengths of its name and value
	frameRest    = 16 << 10
)

func (b *Broker) admitBytes(ctx context.Context, bytes int64) error {
	if b.journal == nil {
		return nil
	}
	err := b.journal.Admit(ctx, bytes)
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(err, journal.ErrFull):
		return reason.New(reason.DiskFull, "there is no room on disk to make it durable: %v; receive messages, make room, or raise the limit", err).Retry(diskRetry)
	}
	return unhealthy(err)
}

func unhealthy(err error) error {
	return reason.New(reason.Unhealthy, "the journal failed and the daemon stops: %v", err)
}

// fail ends the broker's health. Nothing is acknowledged from here on.
func (b *Broker) fail(err error) {
	if b.failure.CompareAndSwap(nil, &err) {
		b.log.Error("ipcd can not go on", zap.Error(err))
		close(b.failed)
	}
}

// Failed is closed when the broker can not go on; Failure says why.
func (b *Broker) Failed() <-chan struct{} { return b.failed }

// Failure is why the broker can not go on, nil if it can.
func (b *Broker) Failure() error {
	if err := b.failure.Load(); err != nil {
		return *err
	}
	return nil
}
