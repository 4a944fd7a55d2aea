package queue

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/ipcd/ipcd/internal/limits"
)

// loading is what a queue has while its records are replayed. Until Finish messages have a state, and
// stand in no list, wheel or tree.
type loading struct {
	next  func(size int) Place // of the record that is being replayed
	seen  bool                 // a record was
	based bool                 // the queue's settings are known
	at    Instant              // of the last record
	ids   []loadedID
	prune int // how many ids there are before it is looked which of them to forget
}

type loadedID struct {
	dedupEntry
	gen uint64
}

const pruneLeast = 1 << 16

// endSeq is above all sequences that there can be.
const endSeq = 1 << 62

// NewLoading returns a queue that is to be replayed. It is of no use before Finish.
func NewLoading(id uint64) *Queue {
	q := New(id, "", 0, 0, Settings{})
	q.loading = &loading{prune: pruneLeast}
	return q
}

// Replay carries out a decoded record of a queue that is being loaded, unless it was before. next is
// called once for each of the record's payloads, in order, whether its message is kept or not, and says
// where it lies.
func (q *Queue) Replay(r *Record, next func(size int) Place) error {
	l := q.loading
	if l == nil {
		return errors.New("the queue is not being loaded: records are replayed before Finish")
	}
	if r.Number <= q.number {
		RecordPayloads(r, func(size int) { next(size) })
		return nil
	}
	if r.kind == recSend && (r.First < q.nextSeq || r.First >= endSeq) {
		return fmt.Errorf("record %d stores messages from sequence %d on: the next is %d", r.Number, r.First, q.nextSeq)
	}
	q.gaps = q.gaps || l.seen && r.Number != q.number+1
	l.seen, l.next = true, next
	if r.kind != recProducers { // whose time may be ahead
		l.at = r.At
	}
	q.apply(r)
	q.published, l.next = q.nextSeq-1, nil
	return nil
}

// Gaps reports whether records were missing between those that were replayed.
func (q *Queue) Gaps() bool { return q.gaps }

// learn takes over what a record says that copies the state forward: that is news to a queue being loaded
// alone.
func (q *Queue) learn(r *Record) {
	if q.loading == nil {
		return
	}
	for i := range r.kept {
		q.recall(&r.kept[i])
	}
	if r.base != nil {
		q.loading.based = true
		q.become(r.base)
	}
	for _, e := range r.ids {
		q.rememberID(e)
	}
	for i := range r.producers {
		q.producers.learn(&r.producers[i])
	}
}

// rememberID adds a dedup id.
func (q *Queue) rememberID(e dedupEntry) {
	if l := q.loading; l != nil {
		l.ids = append(l.ids, loadedID{e, unstamped})
		return
	}
	q.ids.add(e.digest, e.seq, e.at)
}

// pruneIDs forgets ids as the decision on a send at that wall time did, if there are many.
func (q *Queue) pruneIDs(wall int64) {
	l := q.loading
	if len(l.ids) < l.prune {
		return
	}
	window := limits.DedupWindowMax
	if l.based {
		window = q.settings.DedupWindow
	}
	l.sortIDs(wall - window.Nanoseconds())
	l.prune = max(pruneLeast, 2*len(l.ids))
}

// sortIDs puts ids in the order in which they were first remembered, each once, and forgets the oldest.
func (l *loading) sortIDs(before int64) {
	slices.SortStableFunc(l.ids, func(a, b loadedID) int { return cmp.Compare(a.seq, b.seq) })
	ids := l.ids[:0]
	for _, id := range l.ids {
		if last := len(ids) - 1; last >= 0 && ids[last].dedupEntry == id.dedupEntry {
			ids[last] = id // the later copy
		} else {
			ids = append(ids, id)
		}
	}
	old := 0
	for old < len(ids) && ids[old].at < before {
		old++
	}
	l.ids = slices.Delete(ids, 0, old)
}

// Finish ends loading: the queue is what it was when its last record was emitted, and can be used. It is
// an error if no record says what the queue is. A queue whose messages are not recorded comes back empty.
func (q *Queue) Finish() error {
	l := q.loading
	if l == nil {
		return nil
	}
	if !l.based {
		return fmt.Errorf("queue %d: none of its records says its name and settings", q.id)
	}
	q.loading = nil
	q.schemas.stamp(0) // wherever it lies, it will be emitted again
	q.slots.settleLate()
	if q.settings.Durability == Memory {
		q.empty()
	} else {
		q.finishIDs(l)
		q.producers.settle()
	}
	q.nextSeq = max(q.nextSeq, q.reserved+1)
	q.published = q.nextSeq - 1
	q.leases.now, q.delays.now, q.ttls.now = startTick(l.at.Mono), startTick(l.at.Wall), startTick(l.at.Wall)
	q.stats.Ready = 0 // they are counted again
	q.slots.scan(0, 2*endSeq, math.MaxInt, func(n uint32, s *slot) bool {
		switch s.state {
		case Ready:
			q.pushReady(n)
			if s.flags&flagExpires != 0 {
				q.wheelInsert(&q.ttls, n, q.ttlDeadline(n))
			}
		case Delayed:
			q.wheelInsert(&q.delays, n, q.delayDeadline(n))
		case Leased:
			q.wheelInsert(&q.leases, n, q.leaseDeadline(n))
		case Buried:
			q.pushBuried(n)
		}
		return true
	})
	return nil
}

// startTick is the tick at which a wheel begins.
func startTick(ns int64) uint64 { return min(uint64(max(ns, 0))>>tickBits, wheelEnd) }

func (q *Queue) finishIDs(l *loading) {
	l.sortIDs(l.at.Wall - q.settings.DedupWindow.Nanoseconds())
	d := &q.ids
	for _, id := range l.ids {
		if id.gen == unstamped {
			id.gen = 0 // wherever it lies, it will be emitted again
		}
		d.add(id.digest, id.seq, id.at)
		d.extents = appendExtent(d.extents, idExtent{d.end, id.gen})
	}
}

// empty drops all messages, ids and producers of a queue that stands in no list yet.
func (q *Queue) empty() {
	fresh := New(q.id, q.name, q.epoch, q.secret, q.settings)
	q.slots, q.classes, q.reasons = fresh.slots, fresh.classes, fresh.reasons
	q.timers, q.longTimers = fresh.timers, fresh.longTimers
	q.lastClass, q.vacantKinds, q.idleKinds, q.kindOf = 0, nil, 0, fresh.kindOf
	q.ranks, q.lowest, q.victims = tournament{}, tournament{}, tournament{}
	q.startTournaments()
	q.producers, q.liveBytes = producers{}, 0
	kept := q.stats
	q.stats = Stats{}
	mine, theirs := q.stats.counters(), kept.counters()
	for i := range mine {
		*mine[i] = *theirs[i]
	}
}
