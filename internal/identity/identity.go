// Package identity says who a caller is, as established by the kernel or a certificate and not by the caller.
package identity

import (
	"fmt"
	"slices"
)

// Kind is how an identity was established.
type Kind uint8

const (
	// Anonymous is a caller of whom nothing is known. It is the zero Kind.
	Anonymous Kind = iota
	// Unix is a process on this host, identified by SO_PEERCRED and SO_PEERGROUPS (unix(7)).
	Unix
	// Certificate is who holds the key of a certificate that the daemon's authority has signed.
	Certificate
)

// String returns the kind's name as the API shows it.
func (k Kind) String() string {
	switch k {
	case Unix:
		return "unix"
	case Certificate:
		return "certificate"
	}
	return "anonymous"
}

// Identity is on whose behalf a call is made. The zero value is anonymous.
type Identity struct {
	Kind   Kind
	Mapped bool // the configuration says as which local user a certificate acts: UID, GID and Groups are that user's
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups
	PID    int32    // 0 if unknown; for people only, never for decisions
	Name   string   // of a certificate: its SPIFFE ID, else its subject as of RFC 4514
}

// User returns the uid of an identity that is, or acts as, a local user; ok tells whether it is one.
func (id Identity) User() (uid uint32, ok bool) {
	return id.UID, id.Kind == Unix || id.Kind == Certificate && id.Mapped
}

// String describes the identity for logs and errors.
func (id Identity) String() string {
	switch {
	case id.Kind == Anonymous:
		return "anonymous"
	case id.Kind == Certificate && id.Mapped:
		return fmt.Sprintf("certificate %q (uid %d)", id.Name, id.UID)
	case id.Kind == Certificate:
		return fmt.Sprintf("certificate %q", id.Name)
	case id.PID == 0:
		return fmt.Sprintf("uid %d", id.UID)
	}
	return fmt.Sprintf("uid %d (pid %d)", id.UID, id.PID)
}

// InGroup reports whether gid is the identity's group or one of its supplementary groups.
func (id Identity) InGroup(gid uint32) bool {
	_, ok := id.User()
	return ok && (id.GID == gid || slices.Contains(id.Groups, gid))
}

// IsRoot reports whether the kernel says that the caller is root. A certificate never is.
func (id Identity) IsRoot() bool { return id.Kind == Unix && id.UID == 0 }

// Principal is whom something is charged to: a user, a certificate that acts as none, or all anonymous callers
// together. It can be compared, and be the key of a map. The zero value is anonymous.
type Principal struct {
	Kind Kind
	UID  uint32 // of Unix, 0 for others
	Name string // of Certificate, "" for others
}

// Principal returns whom the identity's doings are charged to.
func (id Identity) Principal() Principal {
	if uid, ok := id.User(); ok {
		return User(uid)
	}
	return Principal{Kind: id.Kind, Name: id.Name}
}

// User is a local user.
func User(uid uint32) Principal { return Principal{Kind: Unix, UID: uid} }

// String describes whom something is charged to.
func (p Principal) String() string {
	switch p.Kind {
	case Unix:
		return fmt.Sprintf("uid %d", p.UID)
	case Certificate:
		return fmt.Sprintf("certificate %q", p.Name)
	}
	return "anonymous callers"
}

// Does returns the principal with the form of a verb that goes with it, as in "uid 7 uses" and "anonymous callers
// use".
func (p Principal) Does(one, many string) string {
	if p.Kind == Anonymous {
		return p.String() + " " + many
	}
	return p.String() + " " + one
}
