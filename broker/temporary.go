package broker

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/quota"
	"github.com/ipcd/ipcd/internal/reason"
)

// A temporary queue lives as long as the session that opened it. Nothing about it is journaled: neither that it is there, nor
// how far its sequences have come. So that none of them is ever taken for one that was there before, its name is random, and
// its id too, from a half of all ids that other queues do not come to.

// temporaryID is set in the ids of temporary queues.
const temporaryID = 1 << 63

// temporaryName reports whether a name is one of those that only temporary queues get.
func temporaryName(name string) bool { return strings.HasPrefix(name, limits.TemporaryPrefix) }

// OpenTemporary makes a queue that ends when close is called. See transport.Broker.
func (b *Broker) OpenTemporary(ctx context.Context, id identity.Identity, edit Edit) (_ Info, close func(), err error) {
	defer b.access.Tell(id, &err)
	if err := b.adminTurn(ctx, id, adminWork); err != nil {
		return Info{}, nil, err
	}
	s, err := b.openTemporary(id, edit)
	if err != nil {
		return Info{}, nil, err
	}
	b.log.Debug("temporary queue opened", zap.String("queue", s.name), zap.Stringer("by", id))
	return s.info(), func() { b.closeTemporary(s) }, nil
}

func (b *Broker) openTemporary(id identity.Identity, edit Edit) (*served, error) {
	b.admin.Lock()
	defer b.admin.Unlock()
	if b.stopping.Load() {
		return nil, shuttingDown()
	}
	if _, ok := id.User(); !ok {
		return nil, nobody(id, "queues")
	}
	b.mu.RLock()
	count := len(b.byName)
	b.mu.RUnlock()
	if count >= limits.Queues {
		return nil, reason.New(reason.QuotaExceeded, "there are %d queues, all that there may be: remove one", count)
	}
	name, number := limits.TemporaryPrefix+rand.Text(), randomWord()|temporaryID
	settings := queue.Default(id.UID, id.GID)
	settings.Mode, settings.Kernel.Mode = limits.TemporaryMode, queue.KernelNone
	if err := edit(&settings); err != nil {
		return nil, err
	}
	if err := checkTemporary(&settings); err != nil {
		return nil, err
	}
	if err := b.checkSettings(id, name, &settings, nil); err != nil {
		return nil, err
	}
	owner := identity.User(settings.OwnerUID)
	if err := b.quotas.Take(owner, quota.Queues, 1); err != nil {
		return nil, err
	}
	q := queue.New(number, name, 1, randomWord(), settings)
	q.CreatedAt = b.now().Wall
	s := newServed(b, q, name, number)
	s.temporary = true
	b.mu.Lock()
	b.byName[name], b.byID[number] = s, s
	b.mu.Unlock()
	b.noteBinds(s)
	return s, nil
}

// checkTemporary refuses settings that would have to outlive the queue.
func checkTemporary(s *queue.Settings) error {
	if s.Durability != queue.Memory {
		return reason.Invalid("settings.durability", "durability journal: a temporary queue is gone when its session ends, and kept in memory; leave durability out")
	}
	if s.Kernel.Mode != queue.KernelNone {
		return reason.Invalid("settings.mqueue.mode", "a temporary queue has no kernel queue: leave mqueue out, or ask for none")
	}
	return nil
}

// closeTemporary removes a temporary queue, unless its owner has.
func (b *Broker) closeTemporary(s *served) {
	daemon := identity.Identity{Kind: identity.Unix} // whom no mode keeps from it
	if _, messages, err := b.deleteQueue(daemon, s.name); err == nil {
		b.log.Debug("temporary queue ended", zap.String("queue", s.name), zap.Int64("messages", messages))
	}
}

// unbindTemporary ends the binds of queues that come back to temporary queues, which do not.
func unbindTemporary(now queue.Instant, queues []*queue.Queue) {
	for _, q := range queues {
		s := *q.Settings()
		s.Binds = slices.DeleteFunc(slices.Clone(s.Binds), func(bind queue.Bind) bool {
			// An older daemon knew no temporary queues, and gave their names to any.
			return temporaryName(bind.To) && !slices.ContainsFunc(queues, func(to *queue.Queue) bool { return to.Name() == bind.To })
		})
		if len(s.Binds) < len(q.Settings().Binds) {
			q.Configure(now, s)
		}
	}
}

// late turns the error of a send to a temporary queue that is there no more into one that says so, and counts it: the send was
// most likely a reply.
func (b *Broker) late(err error, name string) error {
	if r := reason.Of(err); !temporaryName(name) || r != reason.QueueNotFound && r != reason.QueueDeleted {
		return err
	}
	b.lateReplies.Add(1)
	return reason.New(reason.QueueNotFound, "the temporary queue has ended with its session: nobody waits for this reply any more").On(name)
}
