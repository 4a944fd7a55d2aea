package queue

// Stats is what a queue holds and what it has done.
type Stats struct {
	Ready, Delayed, Leased, Buried, Uncommitted int64 // messages by state
	Bytes                                       int64 // of bodies, headers and ids in any state
	OldestReady                                 int64 // wall time, ns since 1970, when the oldest ready message was sent; 0: none is ready
	DedupIDs                                    int64 // remembered now

	Sent            uint64 // stored
	Delivered       uint64
	Consumed        uint64 // acked, or consumed at once
	Nacked          uint64
	LeaseExpired    uint64 // leases that ran out or whose stream broke
	TTLDropped      uint64
	OverflowDropped uint64
	DeadLettered    uint64
	Purged          uint64
	Duplicates      uint64
	Peeked          uint64
	Moved           uint64 // to another queue
}

// State is where a message stands in its queue.
type State uint8

const (
	uncommitted State = iota // decided, not yet published; seen by nobody
	Ready
	Delayed
	Leased
	Buried
)

// String returns the state's name as the API shows it.
func (s State) String() string {
	return [...]string{"uncommitted", "ready", "delayed", "leased", "buried"}[s]
}

// Filter narrows what peek shows and what purge, kick, move and redrive touch. The zero Filter means everything.
type Filter struct {
	Selector    Selector
	States      []State // none: all
	MinSequence uint64
	MaxSequence uint64 // 0: no bound
	SentBefore  int64  // wall time, ns since 1970; 0: no bound
	Headers     []Header
}

// Peeked is a message as it stands in its queue.
type Peeked struct {
	Delivery          // Receipt is zero
	State      State  //
	Due        int64  // Delayed: when it becomes ready; wall time, ns since 1970
	Expires    int64  // when its TTL ends; 0: never
	BuryReason string // Buried
}
