// Package identity says who a caller is, as established by the kernel and not by the caller.
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
)

// String returns the kind's name as the API shows it.
func (k Kind) String() string {
	if k == Unix {
		return "unix"
	}
	return "anonymous"
}

// Identity is on whose behalf a call is made. The zero value is anonymous.
type Identity struct {
	Kind   Kind
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups
	PID    int32    // 0 if unknown; for people only, never for decisions
}

// String describes the identity for logs and errors.
func (id Identity) String() string {
	if id.Kind == Anonymous {
		return "anonymous"
	}
	if id.PID == 0 {
		return fmt.Sprintf("uid %d", id.UID)
	}
	return fmt.Sprintf("uid %d (pid %d)", id.UID, id.PID)
}

// InGroup reports whether gid is the identity's group or one of its supplementary groups.
func (id Identity) InGroup(gid uint32) bool {
	return id.Kind == Unix && (id.GID == gid || slices.Contains(id.Groups, gid))
}

// IsRoot reports whether the kernel says that the caller is root.
func (id Identity) IsRoot() bool { return id.Kind == Unix && id.UID == 0 }
