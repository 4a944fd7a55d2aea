package broker

import (
	"slices"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// object is the queue as access control sees it.
func object(name string, s *queue.Settings) access.Object {
	return access.Object{Kind: access.Queue, Name: name, OwnerUID: s.OwnerUID, GroupGID: s.GroupGID, Mode: s.Mode}
}

// check returns an error unless the caller may use the queue so. A damaged one can only be looked at.
func (b *Broker) check(id identity.Identity, s *served, want access.Right) error {
	if err := b.access.Check(id, object(s.name, s.settings.Load()), want); err != nil {
		return err
	}
	if s.damaged.Load() != nil && want != access.Look {
		return damagedError(s)
	}
	return nil
}

// ownerMaySend reports whether a queue's owner may send to another one, to which dead letters or copies of it go. Of the owner no more is known than
// the uid: that he is in the queue's group, which may be anybody's, counts only where it is no group of admins.
func (b *Broker) ownerMaySend(from *queue.Settings, to *served) bool {
	owner := identity.Identity{Kind: identity.Unix, UID: from.OwnerUID, GID: from.GroupGID}
	if slices.Contains(b.access.Policy().AdminGroups, from.GroupGID) {
		owner.GID = limits.NoID
	}
	return b.access.Allows(owner, object(to.name, to.q.Settings()), access.Send)
}

// AccessChanged ends what waits, and streams of deliveries, of callers who may not any more. It is called after
// another policy was put in force; changes of a queue's own settings do so by themselves.
func (b *Broker) AccessChanged() {
	for _, s := range b.all() {
		s.mu.Lock()
		s.endForbiddenLocked()
		s.afterLocked(b.now())
		s.mu.Unlock()
	}
}

// forbids is check that logs nothing, for those who hold a lock.
func (b *Broker) forbids(id identity.Identity, s *served, want access.Right) error {
	if err := b.access.Denial(id, object(s.name, s.settings.Load()), want); err != nil {
		return err
	}
	return nil // not a nil *reason.Error in the interface
}

// mayLocked returns an error if the queue is gone, or access to it was withdrawn between find and the lock: what is open
// or waits then would never be ended.
func (s *served) mayLocked(id identity.Identity, want access.Right) error {
	if err := s.goneLocked(); err != nil {
		return err
	}
	return s.b.forbids(id, s, want)
}

// endForbiddenLocked ends what waits, streams of deliveries, and taps, on behalf of callers whose access was
// withdrawn.
func (s *served) endForbiddenLocked() {
	s.receivers.each(func(n *waiting[*receiver]) {
		if err := s.b.forbids(n.value.caller, s, access.Receive); err != nil {
			s.receivers.remove(n)
			n.value.fail(s, err)
		}
	})
	for c := range s.consumers { // those that are not in line
		if err := s.b.forbids(c.id, s, access.Receive); err != nil {
			c.failLocked(err)
		}
	}
	for _, t := range s.taps {
		if err := s.b.forbids(t.id, s, access.Look); err != nil {
			t.withdrawLocked(err)
		}
	}
	for n := s.blocked.first(); n != nil; {
		next := n.next
		if !n.value.reserve { // doors have the mode themselves
			if err := s.b.forbids(n.value.caller, s, access.Send); err != nil {
				s.unblockLocked(n)
				n.value.end(queue.Stored{}, err)
			}
		}
		n = next
	}
}

// nobody is the error of a caller who is no local user and wants to own something.
func nobody(id identity.Identity, what string) *reason.Error {
	return reason.New(reason.AccessDenied, "%v is no local user and may not create %s, since nobody would own them: connect to the unix socket, or map the certificate to a user (tls.users in the configuration)", id, what)
}
