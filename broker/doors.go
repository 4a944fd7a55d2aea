package broker

import (
	"context"

	"github.com/ipcd/ipcd/broker/queue"
)

// Doors is what the broker needs of kernel doors; transport/doors implements it.
type Doors interface {
	// Open makes the kernel objects that the spec asks for and lets nothing flow yet. Where the mode is
	// queue.KernelAuto a kernel limit is no error: the door's status says what is in the way, and the
	// door tries again by itself. Otherwise the error says what is wrong, and nothing is left behind.
	Open(spec DoorSpec) (Door, error)
}

// DoorSpec is a queue as its doors need to know it.
type DoorSpec struct {
	Queue          string // name
	ID             uint64
	Kernel         queue.KernelQueue
	MaxMessageSize int // bytes of a body
	Mode           uint32
	OwnerUID       uint32
	GroupGID       uint32
	Lane           DoorQueue // the way to the queue
}

// Door is the open kernel doors of one queue.
type Door interface {
	// Start lets messages flow.
	Start()
	// Status tells how each direction fares.
	Status() []DoorStatus
	// Protect gives the kernel objects another mode, owner and group. They stay the same objects: who has
	// one open goes on using it. What could not be done is in Status.
	Protect(mode, uid, gid uint32)
	// Recall takes back what is in outgoing kernel queues: what has left them is settled as consumed,
	// the rest released. The door does not fill them again before the broker's Lease hands out more.
	// It is called without the queue's lock held.
	Recall(ctx context.Context) error
	// Close ends the flow and recalls. If remove is true the kernel objects are unlinked too. No
	// goroutine of the door is left when it returns.
	Close(remove bool)
}

// DoorStatus is how one direction of a queue's kernel doors fares.
type DoorStatus struct {
	Direction   string // "in" or "out"
	Name        string // of the kernel object
	Open        bool
	Problem     string // why it is not open, or what is wrong; "": nothing
	MaxMessages int
	MessageSize int
	Current     int    // messages in the kernel object now
	Passed      uint64 // messages that passed
	Skipped     uint64 // too large for the kernel (out), or not understood (in)
	UID, GID    uint32 // who owns the kernel object
	Mode        uint32
}

// DoorQueue is a queue as its doors use it. Native users are anonymous: access was decided by the
// kernel object's mode, and what they send is charged to the queue's owner.
type DoorQueue interface {
	// Reserve waits until the queue has room for so many messages of so many bytes together, in line
	// with other senders, and keeps it. What can never fit is refused at once with QueueFull. Other errors
	// are the context's, QueueDeleted and ShuttingDown.
	Reserve(ctx context.Context, messages int, bytes int64) (Reservation, error)
	// Lease waits until messages that match are ready, no other receiver wants them, and the queue is
	// not paused; it leases up to max of them without an end. Bodies larger than maxBody are passed
	// over; skipped says how many were, each counted once.
	Lease(ctx context.Context, selector queue.Selector, max, maxBody int) (deliveries []queue.Delivery, skipped int, err error)
	// Settle records which leased messages have left through the door and gives the others back,
	// uncounted. Stale receipts are passed over.
	Settle(consumed, released []queue.Receipt)
}

// Reservation is room kept in a queue.
type Reservation interface {
	// Send stores messages in the reserved room, in order. They must fit it. A message that the queue
	// refuses for what it is (its size, its type) is left out: refused says how many and err why the
	// first of them.
	Send(messages []queue.Message) (refused int, err error)
	// Release gives back what was not used. It may be called more than once.
	Release()
}
