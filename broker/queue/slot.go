package queue

// slot is what a queue keeps of a message beside its payload: 48 bytes, no pointers. Slots live in the
// pages of the index and are named by number; 0 names none.
type slot struct {
	seq    uint64 // 0: the slot is free
	sentAt int64  // wall time, ns
	ref    ref    // the payload

	// Ready: the neighbours in the class's list, or the children in its tree (flagInTree).
	// Buried: the children in the tree of buried messages.
	// Uncommitted, with flagBury: left is the number of the reason.
	// Leased: left is the length of the lease in ms, 0 if it has no end.
	// Leased and delayed: right is the record that made it so, see Queue.entering.
	left, right uint32

	class    uint32 // type and priority
	timer    uint32 // by flagDue and flagExpires a timer, a long one or none
	delivery uint32 // counts the leases
	attempts uint16
	state    State
	flags    uint8
}

const (
	flagInTree  uint8 = 1 << iota // Ready: in the class's tree, not its list
	flagExtras                    // the payload begins with headers and ids
	flagTooBig                    // passed over by a kernel door, and counted
	flagDamaged                   // the payload can not be read
	flagBury                      // Uncommitted: it will be buried
	flagDue                       // the timer says when it is due
	flagExpires                   // the timer says when its TTL ends
)
