package ring

import (
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// access is what a caller wants to do with a ring. The first three are permission bits of a mode.
type access uint32

const (
	consume access = 0o4     // and look at it: read
	produce access = 0o2     // write
	gate    access = 0o6     // consume and hold producers back: read and write
	manage  access = 1 << 10 // change or delete it: the owner's
)

func (a access) String() string {
	switch a {
	case consume:
		return "look at it or consume it (read permission)"
	case produce:
		return "produce into it (write permission)"
	case gate:
		return "consume it losslessly, which holds producers back (read and write permission)"
	}
	return "change it (only its owner, root and the daemon's user may)"
}

// accessOf is what a member of that role needs.
func accessOf(role Role, lossless bool) access {
	switch {
	case role == Producer:
		return produce
	case lossless:
		return gate
	}
	return consume
}

// isAdmin reports whether the identity may do everything.
func (r *Rings) isAdmin(id identity.Identity) bool {
	return id.IsRoot() || id.Kind == identity.Unix && r.adminUID != 0 && id.UID == r.adminUID
}

// allowed decides as for a file: the owner's bits if it is the owner, else the group's if it is in the group, else
// the others'.
func (r *Rings) allowed(id identity.Identity, s *Settings, want access) bool {
	if r.isAdmin(id) {
		return true
	}
	owner := id.Kind == identity.Unix && id.UID == s.OwnerUID
	if want == manage {
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
func (r *Rings) check(id identity.Identity, rg *ring, want access) error {
	s := rg.settings.Load()
	if r.allowed(id, s, want) {
		return nil
	}
	return reason.New(reason.AccessDenied, "%v may not %v: it belongs to uid %d, gid %d and has mode %#o",
		id, want, s.OwnerUID, s.GroupGID, s.Mode).On(rg.name)
}

// find returns the ring of that name, if the caller may use it so.
func (r *Rings) find(id identity.Identity, name string, want access) (*ring, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	r.mu.RLock()
	rg := r.byName[name]
	r.mu.RUnlock()
	if rg == nil {
		return nil, reason.New(reason.RingNotFound, "there is no such ring: create it first").On(name)
	}
	if err := r.check(id, rg, want); err != nil {
		return nil, err
	}
	return rg, nil
}
