package ring

import (
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// rightOf is what a member of that role needs.
func rightOf(role Role, lossless bool) access.Right {
	switch {
	case role == Producer:
		return access.Send
	case lossless:
		return access.Receive // it holds producers back
	}
	return access.Look
}

// right is what the member needs to stay.
func (m *Member) right() access.Right {
	return rightOf(m.role, m.role == Consumer && m.lossless)
}

// object is the ring as access is decided about it.
func (rg *ring) object() access.Object {
	s := rg.settings.Load()
	return access.Object{Kind: access.Ring, Name: rg.name, OwnerUID: s.OwnerUID, GroupGID: s.GroupGID, Mode: s.Mode}
}

// find returns the ring of that name, if the caller may use it so.
func (r *Rings) find(id identity.Identity, name string, want access.Right) (*ring, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	r.mu.RLock()
	rg := r.byName[name]
	r.mu.RUnlock()
	if rg == nil {
		return nil, reason.New(reason.RingNotFound, "there is no such ring: create it first").On(name)
	}
	if err := r.access.Denial(id, rg.object(), want); err != nil {
		return nil, err // whoever was called tells of it, without a lock
	}
	return rg, nil
}

// localUser refuses who is no user of this machine: nobody could be charged for the memory, nor own anything.
func localUser(id identity.Identity, what, name string) error {
	if _, ok := id.User(); ok {
		return nil
	}
	return reason.New(reason.AccessDenied, "%v may not %s: it is no user of this machine; connect to the unix socket, or name a user for the certificate in tls.users",
		id, what).On(name)
}

// withdrawnLocked returns ACCESS_DENIED for a member that may not be one any more. It does not log, as a lock is held.
func (m *Member) withdrawnLocked() error {
	rg := m.ring
	if m.daemon && m.role == Producer {
		return nil // on whose behalf is asked at every publish
	}
	o := rg.object()
	if rg.rings.access.Allows(m.who, o, m.right()) {
		return nil
	}
	return reason.New(reason.AccessDenied, "%v may not %s any more: it belongs to uid %d, gid %d and has mode %#o, and no rule grants it",
		m.who, m.right().On(o.Kind), o.OwnerUID, o.GroupGID, o.Mode).On(rg.name)
}

// AccessChanged is to be called after the policy has changed: members and subscriptions that may not be any more are
// thrown out, as after a change of mode.
func (r *Rings) AccessChanged() {
	for _, rg := range r.all() {
		rg.enforce(nil)
	}
}
