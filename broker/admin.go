package broker

import (
	"context"
	"path"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// defaults are the settings of a queue for which nothing was declared.
func (b *Broker) defaults(uid, gid uint32) queue.Settings {
	s := queue.Default(uid, gid)
	s.Durability = queue.Journal
	if b.journal == nil {
		s.Durability = queue.Memory
	}
	return s
}

// CreateQueue makes a queue. See transport.Broker.
func (b *Broker) CreateQueue(ctx context.Context, id identity.Identity, name string, edit Edit, exclusive bool) (_ Info, _ bool, err error) {
	defer b.access.Tell(id, &err)
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return Info{}, false, err
	}
	if err := b.admitBytes(ctx, frameOverhead); err != nil {
		return Info{}, false, err
	}
	s, info, created, err := b.createQueue(id, name, edit, exclusive)
	if created {
		b.log.Info("queue created", zap.String("queue", name), zap.Stringer("by", id))
	}
	if err == nil && s != nil {
		err = b.Await(ctx, s.ticket())
	}
	return info, created, err
}

// ticket stands for all that was decided on the queue up to now.
func (s *served) ticket() Ticket {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (b *Broker) createQueue(id identity.Identity, name string, edit Edit, exclusive bool) (*served, Info, bool, error) {
	if err := queue.CheckName(name); err != nil {
		return nil, Info{}, false, err
	}
	b.admin.Lock()
	defer b.admin.Unlock()
	if b.stopping.Load() {
		return nil, Info{}, false, shuttingDown()
	}
	b.mu.RLock()
	existing, count := b.byName[name], len(b.byName)
	b.mu.RUnlock()
	if temporaryName(name) && (existing == nil || existing.temporary) {
		return nil, Info{}, false, reason.Invalid("name", "queue name %s: names that begin with %s are given to temporary queues, by OpenTemporaryQueue; choose another", name, limits.TemporaryPrefix)
	}
	if existing != nil {
		info, err := b.sameQueue(id, existing, edit, exclusive)
		return existing, info, false, err
	}
	if _, ok := id.User(); !ok {
		return nil, Info{}, false, nobody(id, "queues").On(name)
	}
	if count >= limits.Queues {
		return nil, Info{}, false, reason.New(reason.QuotaExceeded, "there are %d queues, all that there may be: remove one", count).On(name)
	}
	settings := b.defaults(id.UID, id.GID)
	if err := edit(&settings); err != nil {
		return nil, Info{}, false, err
	}
	if err := b.checkSettings(id, name, &settings, nil); err != nil {
		return nil, Info{}, false, err
	}
	owner := identity.User(settings.OwnerUID)
	if err := b.quotas.Take(owner, quota.Queues, 1); err != nil {
		return nil, Info{}, false, named(err, name)
	}
	q := queue.New(b.lastID.Load()+1, name, 1, randomWord(), settings)
	q.CreatedAt = b.now().Wall
	s := newServed(b, q, name, b.lastID.Load()+1)
	if err := s.openDoor(&settings); err != nil {
		b.quotas.Give(owner, quota.Queues, 1)
		return nil, Info{}, false, on(s, err)
	}
	b.lastID.Add(1)
	s.mu.Lock() // who finds it waits until its definition is written, which compaction then knows of
	b.mu.Lock()
	b.byName[name], b.byID[s.id] = s, s
	b.mu.Unlock()
	b.noteBinds(s)
	s.defineLocked(b.now())
	s.flushLocked()
	s.mu.Unlock()
	s.startDoor()
	return s, s.info(), true, nil
}

// sequenceBlock is how many sequences of a memory queue are reserved in the journal at a time, so that none
// is given out again after a restart.
var sequenceBlock uint64 = 1 << 24

// defineLocked writes the queue's definition: all of it but its messages.
func (s *served) defineLocked(now queue.Instant) {
	if s.b.journal == nil || s.temporary {
		return
	}
	s.baseAt = uint64(s.b.journal.Generation())
	s.recording = true
	if s.durable {
		s.q.KeepBase(now)
	} else {
		s.q.ReserveSequences(now, s.q.Last()+sequenceBlock)
	}
	s.recording = false
	if why := s.damaged.Load(); why != nil {
		s.frameLocked().addDamaged(s.id, *why)
	}
	s.b.ownLocked(s.frameLocked())
}

// reserveLocked reserves further sequences of a memory queue long before those that are reserved are used up.
func (s *served) reserveLocked(now queue.Instant) {
	if !s.durable && !s.temporary && s.b.journal != nil && s.q.Last()+sequenceBlock/2 > s.q.Reserved() {
		s.defineLocked(now)
	}
}

// ownLocked adds what the broker itself remembers.
func (b *Broker) ownLocked(f *frame) { f.addOwn(itemBroker, b.lastID.Load()) }

// sameQueue answers the creation of a queue that is there.
func (b *Broker) sameQueue(id identity.Identity, s *served, edit Edit, exclusive bool) (Info, error) {
	if exclusive {
		return Info{}, reason.New(reason.QueueExists, "the queue exists already").On(s.name)
	}
	if err := b.forbids(id, s, access.Look); err != nil {
		return Info{}, err
	}
	have := *s.settings.Load()
	want := b.defaults(have.OwnerUID, have.GroupGID)
	want.Binds = have.Binds // they are often added later, by others
	if err := edit(&want); err != nil {
		return Info{}, err
	}
	if err := want.Check(); err != nil {
		return Info{}, err
	}
	if diff := have.Diff(&want); diff != "" {
		return Info{}, reason.New(reason.QueueExists, "the queue exists with other settings: %s; update it, or create it with the same", diff).On(s.name)
	}
	return s.info(), nil
}

// checkSettings holds new settings against what they refer to. old is nil for a new queue.
func (b *Broker) checkSettings(id identity.Identity, name string, s, old *queue.Settings) error {
	if err := s.Check(); err != nil {
		return err
	}
	if s.Durability == queue.Journal && b.journal == nil {
		return reason.New(reason.Unimplemented, "durability journal: this broker has no journal; ask for durability memory").On(name)
	}
	if old != nil && old.Durability != s.Durability {
		return reason.Invalid("settings.durability", "durability can not be changed: create another queue").On(name)
	}
	if size := s.RecordBytes(); b.journal != nil && 2*int64(size)+frameRest > b.maxFrame {
		return reason.Invalid("settings", "settings of %d bytes: with this segment_size they may have %d; name fewer types", size, (b.maxFrame-frameRest)/2).On(name)
	}
	if !b.access.Admin(id) {
		if old == nil && s.OwnerUID != id.UID || old != nil && s.OwnerUID != old.OwnerUID {
			return reason.New(reason.AccessDenied, "owner_uid %d: only an admin may give a queue to somebody else", s.OwnerUID).On(name)
		}
		if (old == nil || s.GroupGID != old.GroupGID) && !id.InGroup(s.GroupGID) {
			return reason.New(reason.AccessDenied, "group_gid %d: %v is not in this group", s.GroupGID, id).On(name)
		}
	}
	if old == nil || old.DeadLetter != s.DeadLetter { // else it was checked when it was declared
		if err := b.checkDeadLetters(id, name, s); err != nil {
			return err
		}
	}
	return b.checkBinds(id, name, s, old)
}

// checkDeadLetters refuses dead-letter queues that the caller may not send to, and circles of them.
func (b *Broker) checkDeadLetters(id identity.Identity, name string, s *queue.Settings) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	path := name
	next := s.DeadLetter
	for depth := 0; next != ""; depth++ {
		path += " -> " + next
		if next == name {
			return reason.New(reason.DeadLetterCycle, "dead letters would go in a circle: %s", path).On(name)
		}
		if depth == limits.DeadLetterDepth {
			return reason.New(reason.DeadLetterCycle, "more than %d dead-letter queues behind each other: %s", limits.DeadLetterDepth, path).On(name)
		}
		dead := b.byName[next]
		if temporaryName(next) && (dead == nil || dead.temporary) && !temporaryName(name) {
			return reason.Invalid("settings.dead_letter_queue", "dead_letter_queue %s: a temporary queue ends with its session; name a queue that stays", next).On(name)
		}
		if dead == nil {
			return nil
		}
		if depth == 0 {
			if err := b.forbids(id, dead, access.Send); err != nil {
				return err
			}
			if s.Durability == queue.Journal && dead.settings.Load().Durability == queue.Memory {
				return reason.New(reason.DurabilityMismatch, "dead letters of a journal queue would go to %s, which is kept in memory: name a journal queue, or make this one a memory queue too", next).On(name)
			}
		}
		next = dead.settings.Load().DeadLetter
	}
	return nil
}

// GetQueue tells about a queue.
func (b *Broker) GetQueue(ctx context.Context, id identity.Identity, name string) (Info, error) {
	if err := b.adminTurn(ctx, id, callWork); err != nil {
		return Info{}, err
	}
	s, err := b.find(id, name, access.Look)
	if err != nil {
		return Info{}, err
	}
	return s.info(), nil
}

// ListQueues tells about the queues that the caller may look at. See transport.Broker.
func (b *Broker) ListQueues(ctx context.Context, id identity.Identity, glob string) ([]Info, error) {
	if _, err := path.Match(glob, ""); err != nil {
		return nil, reason.Invalid("glob", "pattern %.220q is malformed: use * ? and [a-z]", glob)
	}
	var out []Info
	all := b.all()
	if err := b.adminTurn(ctx, id, workOf(len(all), 0)); err != nil {
		return nil, err
	}
	for _, s := range all {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		matched := glob == ""
		if !matched {
			matched, _ = path.Match(glob, s.name[1:])
		}
		if matched && b.access.Allows(id, object(s.name, s.settings.Load()), access.Look) {
			out = append(out, s.info())
		}
	}
	return out, nil
}

// UpdateQueue changes settings. See transport.Broker.
func (b *Broker) UpdateQueue(ctx context.Context, id identity.Identity, name string, edit Edit) (_ Info, err error) {
	defer b.access.Tell(id, &err)
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return Info{}, err
	}
	if err := b.admitBytes(ctx, frameOverhead); err != nil {
		return Info{}, err
	}
	s, info, changes, err := b.updateQueue(id, name, edit)
	if err == nil {
		b.log.Info("queue updated", zap.String("queue", name), zap.Stringer("by", id), zap.String("changes", changes))
		err = b.Await(ctx, s.ticket())
	}
	return info, err
}

func (b *Broker) updateQueue(id identity.Identity, name string, edit Edit) (_ *served, _ Info, changes string, _ error) {
	b.admin.Lock()
	defer b.admin.Unlock()
	if b.stopping.Load() {
		return nil, Info{}, "", shuttingDown() // doors are not opened again
	}
	s, err := b.lookup(name)
	if err == nil {
		err = b.forbids(id, s, access.Manage)
	}
	if err == nil && s.damaged.Load() != nil {
		err = damagedError(s)
	}
	if err != nil {
		return nil, Info{}, "", err
	}
	old := *s.settings.Load()
	settings := old
	if err := edit(&settings); err != nil {
		return nil, Info{}, "", err
	}
	if err := b.checkSettings(id, name, &settings, &old); err != nil {
		return nil, Info{}, "", err
	}
	if s.temporary {
		if err := checkTemporary(&settings); err != nil {
			return nil, Info{}, "", on(s, err)
		}
	}
	if err := s.changeDoor(&old, &settings); err != nil {
		return nil, Info{}, "", on(s, err)
	}
	s.mu.Lock()
	now := b.now()
	s.configureLocked(now, &settings)
	b.noteBinds(s)
	s.changeOwnerLocked(&old, &settings)
	s.endForbiddenLocked()
	s.afterLocked(now)
	s.mu.Unlock()
	s.startDoor()
	return s, s.info(), settings.Diff(&old), nil
}

// DeleteQueue removes a queue. See transport.Broker.
func (b *Broker) DeleteQueue(ctx context.Context, id identity.Identity, name string) (_ int64, err error) {
	defer b.access.Tell(id, &err)
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return 0, err
	}
	s, messages, err := b.deleteQueue(id, name)
	if err == nil {
		b.log.Info("queue deleted", zap.String("queue", name), zap.Int64("messages", messages), zap.Stringer("by", id))
		err = b.Await(ctx, s.ticket())
	}
	return messages, err
}

func (b *Broker) deleteQueue(id identity.Identity, name string) (*served, int64, error) {
	b.admin.Lock()
	defer b.admin.Unlock()
	s, err := b.lookup(name)
	if err == nil {
		err = b.forbids(id, s, access.Manage)
	}
	if err != nil {
		return nil, 0, err
	}
	b.unbindAll(name)
	delete(b.binders, name)
	b.mu.Lock()
	delete(b.byName, name)
	delete(b.byID, s.id)
	b.mu.Unlock()
	s.mu.Lock()
	s.deleted = true
	gone := s.goneLocked()
	s.endWaitersLocked(gone)
	for c := range s.consumers {
		c.failLocked(gone)
	}
	s.endTapsLocked(gone)
	s.timer.Stop()
	door := s.door
	s.door = nil
	messages := s.q.Len()
	s.uncountLocked()
	s.dischargeLocked()
	if b.journal != nil && !s.temporary {
		s.frameLocked().addOwn(itemDeleted, s.id)
		s.frame.join(s)
		s.flushLocked()
	}
	s.mu.Unlock()
	if door != nil {
		door.Close(true)
	}
	b.leasesEnded() // Stop need not wait for these
	return s, messages, nil
}

// PauseQueue stops deliveries, or resumes them.
func (b *Broker) PauseQueue(ctx context.Context, id identity.Identity, name string, paused bool) (Info, error) {
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return Info{}, err
	}
	s, err := b.find(id, name, access.Manage)
	if err != nil {
		return Info{}, err
	}
	pause := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.goneLocked(); err != nil {
			return err
		}
		now := b.now()
		s.q.Pause(now, paused)
		if !s.durable {
			s.defineLocked(now)
		}
		s.afterLocked(now)
		return nil
	}
	if paused {
		// In the kernel queue messages would still be delivered.
		defer s.recall(ctx)()
	}
	if err := pause(); err != nil {
		return Info{}, err
	}
	return s.info(), b.Await(ctx, s.ticket())
}

// info describes the queue as it is now.
func (s *served) info() Info {
	s.mu.Lock()
	now := s.b.now()
	i := Info{
		Name: s.name, ID: s.id, Settings: *s.q.Settings(), Paused: s.q.Paused(), CreatedAt: s.q.CreatedAt,
		Stats: Stats{Stats: s.q.Stats(now), Receivers: len(s.consumers), Taps: len(s.taps)}, Temporary: s.temporary, Schema: s.q.SchemaVersion(),
	}
	s.receivers.each(func(n *waiting[*receiver]) {
		if n.value.consumer == nil {
			i.Stats.Receivers++
		}
	})
	for w := s.blocked.first(); w != nil; w = w.next {
		if !w.value.reserve {
			i.Stats.BlockedSenders++
		}
	}
	i.Stats.SendRate, i.Stats.DeliveryRate, i.Stats.AckRate = s.rates.since(sampleOf(now, &i.Stats.Stats))
	i.Binds = s.bindStatusLocked()
	i.Stats.Copied, i.Stats.CopiesSkipped = s.copied, s.copiesSkipped
	door := s.door
	s.mu.Unlock()
	if door != nil {
		i.Doors = door.Status()
	}
	return i
}
