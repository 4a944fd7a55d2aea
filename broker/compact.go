package broker

import (
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/limits"
)

// compactor keeps the journal short. Only its oldest segment is ever given up: what is still needed of it is
// written again at the end first, queue by queue and in small steps, and so checkpoints the queues in passing.
// Since segments go in order, an ack never goes before the send it belongs to.
type compactor struct {
	b    *Broker
	wake chan struct{} // something was committed

	// The journal's dead bytes when the oldest segment was looked at last, and which one that was.
	lookedAt   journal.Generation
	lookedDead int64

	// A round is once through all segments that there are when it begins. One that gains nothing ends
	// compaction until there is more to gain: what is live is only known about.
	roundEnd  journal.Generation // the last one of the round, 0: there is none
	roundDead int64              // dead bytes when it began, or from which on there is a next one

	waited int          // looks for which a spare segment was waited for
	freed  atomic.Int64 // segments given up
}

const (
	// The oldest segment goes when so little of it is live that copying that is cheap.
	liveCheap = 0.15
	// It goes whatever is live in it when the journal is so much larger than what is live in all.
	usedOverLive = 1.8
	spareUsed    = 3 // segments beyond that
	// Bounds of one step.
	keepMessages = 256
	keepBytes    = 1 << 20
	keptMessage  = 2 * (limits.ImportReasonLength + 128) // what a record says of a message at most, in a frame and in its segment's index
	compactPause = 20 * time.Millisecond                 // between looks
	// Spare segments without which nothing is copied: copying may take one before it gives one back.
	compactSpares = 2
	compactWaits  = 50 // looks after which one must do
)

func newCompactor(b *Broker) *compactor {
	return &compactor{b: b, wake: make(chan struct{}, 1)}
}

// poke lets the compactor look whether there is something to do.
func (c *compactor) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *compactor) run() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-c.b.quit:
			return
		case <-c.wake:
		}
		for c.step() {
			if c.ended() {
				return
			}
		}
		pause.Reset(compactPause)
		select {
		case <-c.b.quit:
			return
		case <-pause.C:
		}
	}
}

func (c *compactor) ended() bool {
	select {
	case <-c.b.quit:
		return true
	default:
		return c.b.Failure() != nil
	}
}

// step gives up the oldest segment, if it should go, and reports whether it did.
func (c *compactor) step() bool {
	segments := c.b.journal.Segments()
	if len(segments) < 2 || !segments[0].Sealed {
		return false
	}
	oldest := segments[0]
	used := int64(0)
	for _, s := range segments {
		used += s.Bytes
	}
	live := c.b.totals.live.Load()
	dead := used - live
	crowded := float64(used) > usedOverLive*float64(live)+spareUsed*float64(oldest.Bytes) ||
		dead > oldest.Bytes && c.b.journal.Stats().Full
	if !crowded {
		c.roundEnd, c.roundDead = 0, 0
	}
	if !crowded || !c.worthwhile(segments, dead) {
		if c.lookedAt == oldest.Generation && dead < c.lookedDead+oldest.Bytes/2 {
			return false
		}
		c.lookedAt, c.lookedDead = oldest.Generation, dead
		share, err := c.liveShare(oldest)
		if err != nil {
			c.giveUp(oldest, err)
			return false
		}
		if share > liveCheap {
			return false
		}
	}
	if c.b.journal.Stats().Spares < compactSpares && c.waited < compactWaits {
		c.waited++
		c.poke() // the segment given up last is about to come back: wait for it
		return false
	}
	c.waited = 0
	if err := c.compact(oldest); err != nil {
		c.giveUp(oldest, err)
		return false
	}
	return true
}

// worthwhile reports whether a round is on its way, or a new one promises to gain something.
func (c *compactor) worthwhile(segments []journal.SegmentInfo, dead int64) bool {
	oldest, newest := segments[0], segments[len(segments)-1]
	if c.roundEnd != 0 && oldest.Generation <= c.roundEnd {
		return true
	}
	if c.roundDead != 0 && dead > c.roundDead-oldest.Bytes/2 { // the last round gained nothing
		if dead < c.roundDead+oldest.Bytes {
			return false
		}
	}
	c.roundEnd, c.roundDead = newest.Generation-1, dead
	return true
}

// giveUp deals with a segment that can not be read, or given up. It stays.
func (c *compactor) giveUp(s journal.SegmentInfo, err error) {
	if errors.Is(err, errEnded) || errors.Is(err, journal.ErrFailed) || errors.Is(err, journal.ErrFull) {
		return
	}
	if journal.Passing(err) {
		c.b.log.Warn("a segment of the journal can not be looked at now; trying again", zap.String("file", s.File), zap.Error(err))
		time.AfterFunc(diskRetry, c.poke)
		return
	}
	if c.b.quarantine {
		c.b.log.Error("a segment of the journal can not be given up", zap.String("file", s.File), zap.Error(err))
		return
	}
	var damage DamageError
	if !errors.As(err, &damage) {
		damage = DamageError{Err: err}
	}
	c.b.fail(damage)
}

// liveShare is how much of a segment is live messages.
func (c *compactor) liveShare(s journal.SegmentInfo) (float64, error) {
	live := int64(0)
	err := c.eachStored(s, func(q *served, seqs []uint64, sizes []int, _ []journal.Position) error {
		q.mu.Lock()
		for i, seq := range seqs {
			if !q.deleted && q.q.Live(seq) {
				live += int64(sizes[i]) + frameOverhead
			}
		}
		q.mu.Unlock()
		return nil
	}, nil)
	for _, q := range c.b.all() {
		q.mu.Lock()
		live += q.q.SchemaBytesIn(uint64(s.Generation))
		q.mu.Unlock()
	}
	return float64(live) / float64(max(s.Bytes, 1)), err
}

var errEnded = errors.New("the broker ends")

// eachStored visits the messages that were stored in a segment, some of a queue at a time. at, if not nil,
// is told the time of each record.
func (c *compactor) eachStored(s journal.SegmentInfo, visit func(q *served, seqs []uint64, sizes []int, places []journal.Position) error, at func(wall int64)) error {
	var seqs []uint64
	var sizes []int
	var places []journal.Position
	return c.b.journal.ReadSegment(s.Generation, func(e journal.Entry) error {
		if c.ended() {
			return errEnded
		}
		payloads := e.Payloads
		return eachItem(e.Meta, func(id uint64, item []byte) error {
			if id == 0 {
				return nil
			}
			r, err := queue.DecodeRecord(item)
			if err != nil {
				return err
			}
			if at != nil {
				at(r.At.Wall)
			}
			seqs, sizes, places = seqs[:0], sizes[:0], places[:0]
			r.EachMessage(func(seq uint64, size int) {
				seqs, sizes, places = append(seqs, seq), append(sizes, size), append(places, payloads.Next(size))
			})
			if len(seqs) == 0 {
				return nil
			}
			c.b.mu.RLock()
			q := c.b.byID[id]
			c.b.mu.RUnlock()
			if q == nil {
				return nil
			}
			q.mu.Lock()
			low := q.q.LowestLive()
			q.mu.Unlock()
			if low == 0 || seqs[len(seqs)-1] < low {
				return nil // as when messages are consumed in order
			}
			return visit(q, seqs, sizes, places)
		})
	})
}

// compact writes again what is needed of a segment and gives it up.
func (c *compactor) compact(s journal.SegmentInfo) error {
	newest := int64(0)
	err := c.eachStored(s, c.keep, func(wall int64) { newest = max(newest, wall) })
	if err != nil {
		return err
	}
	for _, q := range c.b.all() {
		if c.ended() {
			return errEnded
		}
		c.keepRest(q, uint64(s.Generation), newest)
	}
	f := frames.Get().(*frame)
	c.b.ownLocked(f)
	c.b.appendFrame(f)
	if err := c.b.journal.Free(s.Generation); err != nil {
		return err
	}
	c.freed.Add(1)
	return nil
}

// keep writes again those messages that are live. Their payloads lie at places, in the segment at hand.
func (c *compactor) keep(s *served, seqs []uint64, sizes []int, places []journal.Position) error {
	// With small segments, what is known of a message besides must not be more than fits beside its payload.
	most := max(1, min(keepMessages, int(c.b.maxFrame/8)/keptMessage))
	for from := 0; from < len(seqs); {
		var live []uint64
		var onDisk []journal.Position
		var wanted []uint64 // the messages whose payloads are there
		bytes := 0
		s.mu.Lock()
		for ; from < len(seqs) && len(live) < most && (bytes == 0 || bytes+sizes[from] <= keepBytes); from++ {
			if !s.deleted && s.q.Live(seqs[from]) {
				live = append(live, seqs[from])
				bytes += sizes[from]
				if !s.q.InMemory(seqs[from]) {
					onDisk, wanted = append(onDisk, places[from]), append(wanted, seqs[from])
				}
			}
		}
		s.mu.Unlock()
		if len(live) == 0 {
			continue
		}
		payloads, err := c.read(s, onDisk, wanted)
		if err != nil {
			return err
		}
		s.mu.Lock()
		still := live[:0]
		for _, seq := range live {
			if !s.deleted && s.q.Live(seq) { // it may have been consumed meanwhile
				still = append(still, seq)
			}
		}
		if len(still) > 0 {
			s.keeping = true
			s.q.Keep(s.b.now(), still, func(i int) (head, body []byte) {
				if payload, ok := s.q.Payload(still[i]); ok {
					return nil, payload
				}
				return nil, payloads[still[i]]
			})
			s.keeping = false
			s.flushLocked()
		}
		s.mu.Unlock()
	}
	return nil
}

// read reads the payloads of messages. One that can not be read makes its queue read-only, or is an error.
func (c *compactor) read(s *served, places []journal.Position, seqs []uint64) (map[uint64][]byte, error) {
	payloads := make(map[uint64][]byte, len(seqs))
	for len(places) > 0 {
		err := c.b.journal.ReadPayloads(places, func(i int, payload []byte) { payloads[seqs[i]] = payload })
		if err == nil {
			break
		}
		var bad *journal.PayloadError
		if !errors.As(err, &bad) {
			return nil, err
		}
		if !c.b.quarantine && s.damaged.Load() == nil {
			return nil, DamageError{err, []string{s.name}}
		}
		s.mu.Lock()
		s.damageLocked(err.Error())
		var rest []journal.Position
		var restOf []uint64
		for i, p := range places {
			if p == bad.Position {
				s.q.MarkDamaged(seqs[i]) // it is kept without its payload
			} else if payloads[seqs[i]] == nil {
				rest, restOf = append(rest, p), append(restOf, seqs[i])
			}
		}
		s.flushLocked()
		s.mu.Unlock()
		places, seqs = rest, restOf
	}
	return payloads, nil
}

// keepRest writes again what else was last written in a segment: the queue's definition, and the dedup ids
// and answers to producers that it remembers.
func (c *compactor) keepRest(s *served, generation uint64, newest int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deleted {
		return
	}
	now := s.b.now()
	if s.baseAt <= generation {
		s.defineLocked(now)
		s.flushLocked()
	}
	s.keepSchemasLocked(now, generation)
	if !s.durable {
		return
	}
	for more := true; more && !s.deleted; {
		more = s.q.KeepIDs(now, generation, keepMessages)
		s.flushLocked()
		s.breathe()
	}
	for from, more := 0, true; more && !s.deleted; {
		from, more = s.q.KeepProducers(now, newest, from, keepMessages)
		s.flushLocked()
		s.breathe()
	}
}

// breathe gives others their turn with the queue.
func (s *served) breathe() {
	s.mu.Unlock()
	s.mu.Lock()
}
