// Package access decides who may do what with a queue or a ring: by its owner, group and mode, as for a file, and by
// rules that grant more. Rules never take anything away.
package access

import (
	"path"
	"slices"
	"strings"

	"github.com/ipcd/ipcd/internal/identity"
)

// Right is a set of things that one may do.
type Right uint8

// The rights. A mode grants Look to who may read, Send to who may write, and all three of the first to who may do
// both; Manage is the owner's.
const (
	Look    Right = 1 << iota // peek at it, and see its statistics; consume a ring
	Send                      // send to a queue; produce into a ring
	Receive                   // receive from a queue; consume a ring losslessly, which holds producers back
	Manage                    // change, pause, purge and delete it
)

// On says what the rights allow, as in "uid 7 may not …".
func (r Right) On(k Kind) string {
	var words []string
	for i, word := range doings[k] {
		if r&(1<<i) != 0 {
			words = append(words, word)
		}
	}
	return strings.Join(words, " and ")
}

// Kind is what an object is.
type Kind uint8

// The kinds of objects.
const (
	Queue Kind = iota
	Ring
)

var doings = [...][4]string{
	Queue: {"look at it", "send to it", "receive from it", "manage it"},
	Ring:  {"look at it or consume it", "produce into it", "consume it losslessly, which holds producers back", "manage it"},
}

// Object is a queue or a ring, as far as access goes.
type Object struct {
	Kind     Kind
	Name     string // with its slash
	OwnerUID uint32
	GroupGID uint32
	Mode     uint32 // permission bits, as of a file
}

// Rule grants rights on objects to identities: to each that any of its fields names, on each object whose name a
// pattern of path.Match matches. Patterns are over names without their slash.
type Rule struct {
	Queues       []string
	Rings        []string
	Users        []uint32
	Groups       []uint32
	Certificates []string // patterns of path.Match over certificates' names: * does not cross a slash
	Anonymous    bool
	Allow        Right
}

// Policy is what the configuration says about access. It does not change while it is used.
type Policy struct {
	DaemonUID   uint32 // whose daemon it is: may do everything, as root may
	AdminGroups []uint32
	Rules       []Rule
}

// Admin reports whether the identity may do everything: root, the daemon's user, and who is in a group of admins.
func (p *Policy) Admin(id identity.Identity) bool {
	return id.IsRoot() || id.Kind == identity.Unix && id.UID == p.DaemonUID || slices.ContainsFunc(p.AdminGroups, id.InGroup)
}

// Allows reports whether the identity has all of the rights wanted.
func (p *Policy) Allows(id identity.Identity, o Object, want Right) bool {
	if p.Admin(id) {
		return true
	}
	has := byMode(id, o)
	if has&want == want {
		return true
	}
	for i := range p.Rules {
		if r := &p.Rules[i]; r.Allow&want&^has != 0 && r.names(id) && r.covers(o) {
			if has |= r.Allow; has&want == want {
				return true
			}
		}
	}
	return false
}

// byMode decides as for a file: the owner's bits if it is the owner, else the group's if it is in the group, else the
// others'. Who is no local user has no bits at all.
func byMode(id identity.Identity, o Object) (has Right) {
	uid, ok := id.User()
	if !ok {
		return 0
	}
	bits := o.Mode
	switch {
	case uid == o.OwnerUID:
		bits >>= 6
		has = Manage
	case id.InGroup(o.GroupGID):
		bits >>= 3
	}
	if bits&0o4 != 0 {
		has |= Look
	}
	if bits&0o2 != 0 {
		has |= Send
	}
	if bits&0o6 == 0o6 {
		has |= Receive
	}
	return has
}

func (r *Rule) names(id identity.Identity) bool {
	uid, user := id.User()
	switch {
	case id.Kind == identity.Anonymous:
		return r.Anonymous
	case user && slices.Contains(r.Users, uid), slices.ContainsFunc(r.Groups, id.InGroup):
		return true
	}
	return id.Kind == identity.Certificate && matches(r.Certificates, id.Name)
}

func (r *Rule) covers(o Object) bool {
	if o.Kind == Ring {
		return matches(r.Rings, o.Name[1:])
	}
	return matches(r.Queues, o.Name[1:])
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(pattern, name) // a malformed one matches nothing: the configuration refuses it
		return ok
	})
}
