package broker

import (
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
)

// A queue, and all that is in it, is charged to its owner, as a file system charges a file's owner, whoever writes to
// it. Room that is reserved for a kernel door is charged when it is reserved.

// growLocked charges what the queue is about to grow by, or returns QUOTA_EXCEEDED.
func (s *served) growLocked(bytes int64) error {
	if s.paid {
		return nil
	}
	return s.takeBytesLocked(bytes)
}

// takeBytesLocked charges bytes, or returns QUOTA_EXCEEDED. chargeLocked corrects it afterwards by what came of it.
func (s *served) takeBytesLocked(n int64) error {
	if n <= 0 {
		return nil
	}
	if err := s.owner.Take(quota.QueuedBytes, n); err != nil {
		return on(s, err)
	}
	s.charged += n
	return nil
}

// keepRoomLocked keeps room for a kernel door, if the queue has it and its owner's quota allows.
func (s *served) keepRoomLocked(messages, bytes int64) bool {
	if s.takeBytesLocked(bytes) != nil {
		s.tryLaterLocked() // nothing tells a queue that its owner uses less elsewhere
		return false
	}
	defer s.chargeLocked()
	return s.q.Reserve(messages, bytes)
}

// chargeLocked charges the owner for what the queue holds now.
func (s *served) chargeLocked() {
	held := s.q.Bytes() + s.q.ReservedBytes() + s.q.SchemaBytes()
	if held != s.charged && !s.deleted {
		s.owner.Add(quota.QueuedBytes, held-s.charged)
		s.charged = held
	}
}

// dischargeLocked charges nobody any more: the queue is deleted.
func (s *served) dischargeLocked() {
	s.owner.Add(quota.QueuedBytes, -s.charged)
	s.charged = 0
	s.b.quotas.Give(identity.User(s.settings.Load().OwnerUID), quota.Queues, 1)
}

// changeOwnerLocked moves the charges of a queue that is given away. Only an admin can do that, and is not refused by
// the new owner's quota.
func (s *served) changeOwnerLocked(old, settings *queue.Settings) {
	if old.OwnerUID == settings.OwnerUID {
		return
	}
	to := identity.User(settings.OwnerUID)
	s.b.quotas.Add(to, quota.Queues, 1)
	account := s.b.quotas.Account(to)
	account.Add(quota.QueuedBytes, s.charged)
	s.owner.Add(quota.QueuedBytes, -s.charged)
	s.b.quotas.Give(identity.User(old.OwnerUID), quota.Queues, 1)
	s.owner = account
}
