package broker

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// JournalOptions says where the journal is and how it behaves.
type JournalOptions struct {
	FS           vfs.FS
	Dir          string
	SegmentBytes int64 // 0: the journal's default
	MaxDisk      int64 // bytes of all its files, 0: no bound
	KeepFree     int64 // bytes of the file system that stay free
	// Quarantine makes queues that are concerned by damage read-only; else damage is an error.
	Quarantine bool
}

// Open returns a Broker with the queues that the journal holds. Their kernel doors are closed until OpenDoors.
// The error is a DamageError if the journal does not hold what it promised.
func Open(o Options) (*Broker, error) {
	b := newBroker(o)
	j := o.Journal
	b.quarantine = j.Quarantine
	if j.SegmentBytes == 0 {
		j.SegmentBytes = limits.SegmentBytes
	}
	b.maxFrame = journal.MaxFrame(j.SegmentBytes)
	b.compactor = newCompactor(b)
	loading := newLoader()
	opened, err := journal.Open(journal.Options{
		FS: j.FS, Dir: j.Dir, SegmentBytes: j.SegmentBytes, MaxDisk: j.MaxDisk, KeepFree: j.KeepFree, Identity: randomIdentity(),
		OnDamage: func(d journal.Damage) error {
			loading.damages.add(d)
			return nil // the rest is read, to tell which queues are concerned
		},
		Accept: func() error {
			if j.Quarantine || len(loading.damages.places) == 0 {
				return nil
			}
			_, err := loading.finish()
			return DamageError{errors.Join(errors.New(loading.damages.String()), err), loading.concerned()}
		},
		Committed: b.committed,
		Failed:    func(err error) { b.fail(err) },
	}, loading.replay)
	if err != nil {
		return nil, err
	}
	b.journal = opened
	if err := b.adopt(loading); err != nil {
		_ = opened.Close()
		return nil, err
	}
	b.running.Go(b.watchClock)
	b.running.Go(b.compactor.run)
	return b, nil
}

// adopt takes over what was replayed.
func (b *Broker) adopt(l *loader) error {
	queues, err := l.finish()
	if err != nil {
		return DamageError{Err: err}
	}
	if len(l.damages.places) > 0 {
		concerned, why := l.concerned(), l.damages.String()
		b.damage = why
		b.log.Error("the journal is damaged", zap.String("damage", why), zap.Strings("queues", concerned))
		for _, q := range queues {
			if l.quarantined[q.ID()] == "" && slices.Contains(concerned, q.Name()) {
				l.quarantined[q.ID()] = why[:min(len(why), 1024)]
			}
		}
	}
	b.lastID.Store(l.lastID)
	now := b.now()
	unbindTemporary(now, queues)
	for _, q := range queues {
		b.quotas.Add(identity.User(q.Settings().OwnerUID), quota.Queues, 1)
		s := newServed(b, q, q.Name(), q.ID())
		s.mu.Lock()
		if why := l.quarantined[s.id]; why != "" {
			s.damageLocked(why)
		}
		if s.durable {
			s.q.Restart(now, l.stopped, l.stoppedAt)
			s.countLocked()
			s.chargeLocked()
		} else {
			s.announced = s.q.Last()
			s.defineLocked(now)
			s.countLocked()
			s.chargeLocked()
		}
		s.flushLocked()
		s.scheduleLocked(now)
		s.mu.Unlock()
		b.byName[s.name], b.byID[s.id] = s, s
		b.noteBinds(s)
	}
	return b.journal.Sync()
}

// OpenDoors opens the kernel doors of all queues. It is called once, after Open and before the first caller comes.
func (b *Broker) OpenDoors(doors Doors) {
	b.doors = doors
	for _, s := range b.all() {
		if s.damaged.Load() != nil {
			continue
		}
		if err := s.openDoor(s.settings.Load()); err != nil {
			b.log.Error("a kernel door could not be opened", zap.String("queue", s.name), zap.Error(err))
			continue
		}
		s.startDoor()
	}
}

// HasQueue reports whether there is a queue of that name.
func (b *Broker) HasQueue(name string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.byName[name] != nil
}

// closeJournal writes down that this was a clean stop, and ends the journal.
func (b *Broker) closeJournal() {
	if b.journal == nil {
		return
	}
	if b.Failure() == nil {
		now := b.now()
		f := frames.Get().(*frame)
		f.addOwn(itemStopped, uint64(now.Wall), uint64(now.Mono))
		b.appendFrame(f)
	}
	if err := b.journal.Close(); err != nil && b.Failure() == nil {
		b.log.Error("the journal could not be closed", zap.Error(err))
	}
}

// loader replays a journal into queues.
type loader struct {
	queues  map[uint64]*queue.Queue
	deleted map[uint64]bool
	lastID  uint64
	// The last thing in the journal is a clean stop, and when that was.
	stopped   bool
	stoppedAt queue.Instant

	quarantined map[uint64]string // why queues are read-only

	damages *damages
	touched map[uint64]bool // queues with records in the last frame
}

func newLoader() *loader {
	return &loader{
		queues: map[uint64]*queue.Queue{}, deleted: map[uint64]bool{}, quarantined: map[uint64]string{},
		damages: newDamages(), touched: map[uint64]bool{},
	}
}

// replay applies a frame.
func (l *loader) replay(e journal.Entry) error {
	l.stopped = false
	clear(l.touched)
	err := l.replayItems(e)
	l.damages.frame(e, l.touched)
	return err
}

func (l *loader) replayItems(e journal.Entry) error {
	payloads := e.Payloads
	next := func(size int) queue.Place { return placeOf(payloads.Next(size)) }
	return eachItem(e.Meta, func(id uint64, item []byte) error {
		if id == 0 {
			return l.own(item)
		}
		r, err := queue.DecodeRecord(item)
		if err != nil {
			return fmt.Errorf("frame %d, queue %d: %w", e.Number, id, err)
		}
		if l.deleted[id] {
			queue.RecordPayloads(r, func(size int) { next(size) })
			return nil
		}
		q := l.queues[id]
		if q == nil {
			q = queue.NewLoading(id)
			l.queues[id] = q
			l.lastID = max(l.lastID, id)
		}
		l.touched[id] = true
		if err := q.Replay(r, next); err != nil {
			return fmt.Errorf("frame %d, queue %d: %w", e.Number, id, err)
		}
		q.Stamp(uint64(e.Generation))
		return nil
	})
}

func (l *loader) own(item []byte) error {
	kind, values, text, err := ownItem(item)
	if err != nil {
		return err
	}
	switch kind {
	case itemDeleted:
		delete(l.queues, values[0])
		l.deleted[values[0]] = true
		delete(l.quarantined, values[0])
	case itemDamaged:
		l.quarantined[values[0]] = string(text)
	case itemBroker:
		l.lastID = max(l.lastID, values[0])
	case itemStopped:
		l.stopped = true
		l.stoppedAt = queue.Instant{Wall: int64(values[0]), Mono: int64(values[1])}
	}
	return nil
}

// finish makes the queues ready for use, by id.
func (l *loader) finish() ([]*queue.Queue, error) {
	names := map[string]uint64{}
	var out []*queue.Queue
	for _, id := range slices.Sorted(maps.Keys(l.queues)) {
		q := l.queues[id]
		if err := q.Finish(); err != nil {
			return nil, fmt.Errorf("queue %d: %w", id, err)
		}
		if other, taken := names[q.Name()]; taken {
			return nil, reason.New(reason.Internal, "queues %d and %d are both called %s", other, id, q.Name())
		}
		names[q.Name()] = id
		out = append(out, q)
	}
	return out, nil
}

// concerned are the names of the queues that may have lost something by damage.
func (l *loader) concerned() []string {
	_, names := l.damages.finish(l.queues)
	return names
}
