package shmring

import (
	"context"
	"os"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/identity"
)

// Rings is what the server needs of broker/ring. Errors are *reason.Error, or the context's.
type Rings interface {
	// Attach checks access and budgets and makes the memory of a new member. It may wait, for as long as
	// the context allows.
	Attach(ctx context.Context, id identity.Identity, q attach.Attach) (Joining, error)
	// Adopt takes a member back that joined in an earlier run of the daemon. memory is what a stranger
	// says to be its own memory: a memfd, but nothing else is known of it. The caller closes it.
	Adopt(ctx context.Context, id identity.Identity, q attach.Adopt, memory *os.File) (Member, error)
}

// Joining is a member whose memory has been made, but is not its writer's yet.
type Joining interface {
	Header() attach.Memory
	// Memory is the writable descriptor. It is the Joining's, and is not valid after Ready or Abandon.
	Memory() *os.File
	// Ready makes it a member, unless its memory is not as it should be. The Joining is over either way.
	Ready() (Member, error)
	// Abandon takes everything back.
	Abandon()
}

// Member is one producer or consumer. The files are its own, and are not valid after Leave.
type Member interface {
	Token() [32]byte
	Epoch() uint64  // the ring's current one
	Own() *os.File  // its memory, read-only
	Page() *os.File // the members page, read-only
	// Members lists the others. Entries for which sent says false have File set, and the files are those
	// of these entries, in their order; the caller closes them. Not called after Leave.
	Members(sent func(id uint64) bool) (attach.Members, []*os.File, error)
	// Behind is how many messages a consumer has not read yet; 0 for a producer. Any goroutine may call it, at any time.
	Behind() uint64
	// Gone is closed when the ring was deleted or access was withdrawn. Members then says which.
	Gone() <-chan struct{}
	// Leave ends the membership.
	Leave(why string)
}
