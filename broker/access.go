package broker

import (
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// access is what a caller wants to do with a queue. The first three are permission bits of a mode.
type access uint32

const (
	look    access = 0o4     // peek and statistics: read
	send    access = 0o2     // write
	receive access = 0o6     // read and write
	manage  access = 1 << 10 // change it: the owner's
	remove  access = 1 << 11 // the owner's too
)

func (a access) String() string {
	switch a {
	case look:
		return "look at it (read permission)"
	case send:
		return "send to it (write permission)"
	case receive:
		return "receive from it (read and write permission)"
	}
	return "change it (only its owner, root and the daemon's user may)"
}

// isAdmin reports whether the identity may do everything.
func (b *Broker) isAdmin(id identity.Identity) bool {
	return id.IsRoot() || id.Kind == identity.Unix && b.adminUID != 0 && id.UID == b.adminUID
}

// allowed decides as for a file: the owner's bits if it is the owner, else the group's if it is in the
// group, else the others'.
func (b *Broker) allowed(id identity.Identity, s *queue.Settings, want access) bool {
	if b.isAdmin(id) {
		return true
	}
	owner := id.Kind == identity.Unix && id.UID == s.OwnerUID
	if want == manage || want == remove {
		return owner
	}
	bits := access(s.Mode)
	switch {
	case owner:
		bits >>= 6
	case id.InGroup(s.GroupGID):
		bits >>= 3
	}
	return bits&want == want
}

// check is allowed as an error.
func (b *Broker) check(id identity.Identity, s *served, want access) error {
	settings := s.access.Load()
	if b.allowed(id, settings, want) {
		if s.damaged.Load() != nil && want != look && want != remove {
			return damagedError(s)
		}
		return nil
	}
	return reason.New(reason.AccessDenied, "%v may not %v: it belongs to uid %d, gid %d and has mode %#o",
		id, want, settings.OwnerUID, settings.GroupGID, settings.Mode).On(s.name)
}

// mayDeadLetter reports whether a queue's owner may send to its dead-letter queue.
func (b *Broker) mayDeadLetter(from, to *queue.Settings) bool {
	owner := identity.Identity{Kind: identity.Unix, UID: from.OwnerUID, GID: from.GroupGID}
	return b.allowed(owner, to, send)
}

// endForbiddenLocked ends what waits, and streams of deliveries, on behalf of callers whose access was
// withdrawn.
func (s *served) endForbiddenLocked() {
	s.receivers.each(func(n *waiting[*receiver]) {
		if err := s.b.check(n.value.caller, s, receive); err != nil {
			s.receivers.remove(n)
			n.value.end(nil, err)
		}
	})
	for c := range s.consumers { // those that are not in line
		if err := s.b.check(c.id, s, receive); err != nil {
			c.failLocked(err)
		}
	}
	for n := s.blocked.first(); n != nil; {
		next := n.next
		if !n.value.reserve { // doors have the mode themselves
			if err := s.b.check(n.value.caller, s, send); err != nil {
				s.unblockLocked(n)
				n.value.end(queue.Stored{}, err)
			}
		}
		n = next
	}
}
