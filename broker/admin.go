package broker

import (
	"context"
	"path"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// CreateQueue makes a queue. See transport.Broker.
func (b *Broker) CreateQueue(_ context.Context, id identity.Identity, name string, edit Edit, exclusive bool) (Info, bool, error) {
	if err := queue.CheckName(name); err != nil {
		return Info{}, false, err
	}
	b.admin.Lock()
	defer b.admin.Unlock()
	if b.stopping.Load() {
		return Info{}, false, shuttingDown()
	}
	b.mu.RLock()
	existing, count := b.byName[name], len(b.byName)
	b.mu.RUnlock()
	if existing != nil {
		info, err := b.sameQueue(id, existing, edit, exclusive)
		return info, false, err
	}
	if id.Kind == identity.Anonymous {
		return Info{}, false, reason.New(reason.AccessDenied, "an anonymous caller may not create queues: connect to the unix socket").On(name)
	}
	if count >= limits.Queues {
		return Info{}, false, reason.New(reason.QuotaExceeded, "there are %d queues, all that there may be: remove one", count).On(name)
	}
	settings := queue.Default(id.UID, id.GID)
	if err := edit(&settings); err != nil {
		return Info{}, false, err
	}
	if err := b.checkSettings(id, name, &settings, nil); err != nil {
		return Info{}, false, err
	}
	s := newServed(b, name, b.lastID+1, settings)
	if err := s.openDoor(&settings); err != nil {
		return Info{}, false, on(s, err)
	}
	b.lastID++
	b.mu.Lock()
	b.byName[name], b.byID[s.id] = s, s
	b.mu.Unlock()
	s.startDoor()
	b.log.Info("queue created", zap.String("queue", name), zap.Stringer("by", id))
	return s.info(), true, nil
}

// sameQueue answers the creation of a queue that is there.
func (b *Broker) sameQueue(id identity.Identity, s *served, edit Edit, exclusive bool) (Info, error) {
	if exclusive {
		return Info{}, reason.New(reason.QueueExists, "the queue exists already").On(s.name)
	}
	if err := b.check(id, s, look); err != nil {
		return Info{}, err
	}
	have := *s.access.Load()
	want := queue.Default(have.OwnerUID, have.GroupGID)
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
	if s.Durability == queue.Journal {
		return reason.New(reason.Unimplemented, "durability journal: this version keeps messages in memory only; ask for durability memory").On(name)
	}
	if !b.isAdmin(id) {
		if old == nil && s.OwnerUID != id.UID || old != nil && s.OwnerUID != old.OwnerUID {
			return reason.New(reason.AccessDenied, "owner_uid %d: only root may give a queue to somebody else", s.OwnerUID).On(name)
		}
		if (old == nil || s.GroupGID != old.GroupGID) && !id.InGroup(s.GroupGID) {
			return reason.New(reason.AccessDenied, "group_gid %d: %v is not in this group", s.GroupGID, id).On(name)
		}
	}
	if old != nil && old.DeadLetter == s.DeadLetter {
		return nil // it was checked when it was declared
	}
	return b.checkDeadLetters(id, name, s)
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
		if dead == nil {
			return nil
		}
		if depth == 0 {
			if err := b.check(id, dead, send); err != nil {
				return err
			}
		}
		next = dead.access.Load().DeadLetter
	}
	return nil
}

// GetQueue tells about a queue.
func (b *Broker) GetQueue(_ context.Context, id identity.Identity, name string) (Info, error) {
	s, err := b.find(id, name, look)
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
	for _, s := range b.all() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		matched := glob == ""
		if !matched {
			matched, _ = path.Match(glob, s.name[1:])
		}
		if matched && b.allowed(id, s.access.Load(), look) {
			out = append(out, s.info())
		}
	}
	return out, nil
}

// UpdateQueue changes settings. See transport.Broker.
func (b *Broker) UpdateQueue(_ context.Context, id identity.Identity, name string, edit Edit) (Info, error) {
	b.admin.Lock()
	defer b.admin.Unlock()
	if b.stopping.Load() {
		return Info{}, shuttingDown() // doors are not opened again
	}
	s, err := b.find(id, name, manage)
	if err != nil {
		return Info{}, err
	}
	old := *s.access.Load()
	settings := old
	if err := edit(&settings); err != nil {
		return Info{}, err
	}
	if err := b.checkSettings(id, name, &settings, &old); err != nil {
		return Info{}, err
	}
	if err := s.changeDoor(&old, &settings); err != nil {
		return Info{}, on(s, err)
	}
	s.mu.Lock()
	now := b.now()
	s.q.Configure(now, settings)
	s.access.Store(&settings)
	s.endForbiddenLocked()
	s.afterLocked(now)
	s.mu.Unlock()
	s.startDoor()
	b.log.Info("queue updated", zap.String("queue", name), zap.Stringer("by", id), zap.String("changes", settings.Diff(&old)))
	return s.info(), nil
}

// DeleteQueue removes a queue. See transport.Broker.
func (b *Broker) DeleteQueue(_ context.Context, id identity.Identity, name string) (int64, error) {
	b.admin.Lock()
	defer b.admin.Unlock()
	s, err := b.find(id, name, manage)
	if err != nil {
		return 0, err
	}
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
	s.timer.Stop()
	door := s.door
	s.door = nil
	messages := s.q.Len()
	s.mu.Unlock()
	if door != nil {
		door.Close(true)
	}
	b.leasesEnded() // Stop need not wait for these
	b.log.Info("queue deleted", zap.String("queue", name), zap.Int64("messages", messages), zap.Stringer("by", id))
	return messages, nil
}

// PauseQueue stops deliveries, or resumes them.
func (b *Broker) PauseQueue(ctx context.Context, id identity.Identity, name string, paused bool) (Info, error) {
	s, err := b.find(id, name, manage)
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
	return s.info(), nil
}

// info describes the queue as it is now.
func (s *served) info() Info {
	s.mu.Lock()
	now := s.b.now()
	i := Info{
		Name: s.name, ID: s.id, Settings: *s.q.Settings(), Paused: s.q.Paused(), CreatedAt: s.createdAt,
		Stats: Stats{Stats: s.q.Stats(now), Receivers: len(s.consumers)},
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
	door := s.door
	s.mu.Unlock()
	if door != nil {
		i.Doors = door.Status()
	}
	return i
}
