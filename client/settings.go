package client

import (
	"fmt"
	"time"
)

// Overflow is what a full queue does with a send.
type Overflow uint8

// The overflow policies.
const (
	OverflowDefault    Overflow = iota // as OverflowReject
	OverflowReject                     // refuse it with ErrQueueFull
	OverflowBlock                      // let the sender wait, first come, first served
	OverflowDropOldest                 // drop the oldest ready message of the lowest priority
)

// Durability is what of a queue survives a crash.
type Durability uint8

// The durabilities.
const (
	DurabilityDefault Durability = iota // as DurabilityJournal
	DurabilityJournal                   // everything that was acknowledged: an answer comes once it is on disk
	DurabilityMemory                    // nothing but the queue's definition; faster
)

// KernelMode says which POSIX message queues (mq_overview(7)) stand before a queue.
type KernelMode uint8

// The kernel modes.
const (
	KernelDefault KernelMode = iota // as KernelAuto
	KernelAuto                      // in, where kernel limits allow
	KernelIn                        // native programs send
	KernelOut                       // native programs receive
	KernelBoth                      // two kernel queues, one for each direction
	KernelNone                      // no kernel queue
)

// State is where a message stands in its queue.
type State uint8

// The states.
const (
	StateUnspecified State = iota
	StateReady             // can be received now
	StateDelayed           // waits for its delay or back-off to pass
	StateLeased            // handed to a receiver that has not settled it yet
	StateBuried            // set aside until it is kicked
)

var (
	overflowNames   = []string{"default", "reject", "block", "drop-oldest"}
	durabilityNames = []string{"default", "journal", "memory"}
	kernelModeNames = []string{"default", "auto", "in", "out", "both", "none"}
	stateNames      = []string{"unspecified", "ready", "delayed", "leased", "buried"}
)

// String returns the policy's name: reject, block or drop-oldest.
func (o Overflow) String() string { return enumName(overflowNames, o) }

// MarshalText returns the policy's name.
func (o Overflow) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the policy's name.
func (o *Overflow) UnmarshalText(text []byte) error {
	return parseEnum("overflow policy", overflowNames, text, o)
}

// String returns the durability's name: journal or memory.
func (d Durability) String() string { return enumName(durabilityNames, d) }

// MarshalText returns the durability's name.
func (d Durability) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the durability's name.
func (d *Durability) UnmarshalText(text []byte) error {
	return parseEnum("durability", durabilityNames, text, d)
}

// String returns the mode's name: auto, in, out, both or none.
func (k KernelMode) String() string { return enumName(kernelModeNames, k) }

// MarshalText returns the mode's name.
func (k KernelMode) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the mode's name.
func (k *KernelMode) UnmarshalText(text []byte) error {
	return parseEnum("mqueue mode", kernelModeNames, text, k)
}

// String returns the state's name: ready, delayed, leased or buried.
func (s State) String() string { return enumName(stateNames, s) }

// MarshalText returns the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the state's name.
func (s *State) UnmarshalText(text []byte) error {
	return parseEnum("state", stateNames, text, s)
}

func enumName[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("unknown(%d)", uint8(v))
}

// QueueSettings is what was declared for a queue. When creating or updating one, zero and nil stand for
// the default; in a QueueInfo every field has its value. Fields whose zero means something are pointers,
// for which new(2*time.Minute) is handy.
type QueueSettings struct {
	MaxMessages       int64            // in any state; 0: 1,000,000
	MaxBytes          int64            // of bodies, headers and ids, in any state; 0: 1 GiB
	MaxMessageSize    *int             // bytes of one body; nil: 64 KiB; at most 16 MiB
	Lease             time.Duration    // unless the receiver says otherwise; 0: 30 seconds
	MaxAttempts       int              // failed leases until a message is dead-lettered or buried; 0: 16
	DeadLetterQueue   string           // where messages go that failed too often; "": they are buried
	DeadLetterExpired bool             // messages whose TTL ended are dead-lettered too, not dropped
	Overflow          Overflow         // what a full queue does
	Durability        Durability       // what survives a crash
	BackoffInitial    time.Duration    // how long a message waits after its first failed lease, doubled each time
	BackoffMax        time.Duration    // where the doubling ends
	DedupWindow       *time.Duration   // how long a dedup id is remembered; nil: 2 minutes
	MaxDedupIDs       *int64           // how many are remembered; nil: 1,000,000
	TypeNames         map[string]int64 // names for types, used wherever people read
	Mqueue            KernelQueue      // the POSIX message queues before it
	Mode              *uint32          // permission bits, as of a file: look = read, send = write, receive = read and write; nil: 0600
	OwnerUID          *uint32          // nil: the creator
	GroupGID          *uint32          // nil: the creator's group
	Binds             []Bind           // where copies of what is sent go
}

// Bind says where copies of what is sent to a queue go: they are stored in the same step as what was sent. The destination
// hands on what it gets in turn; one that is reached by several ways gets one copy. Dead letters and messages that are
// moved or imported are not handed on.
type Bind struct {
	Destination string   // a queue's name
	Selector    Selector // of what is handed on
	Skip        bool     // a destination that cannot take its copy goes without; else the send is refused
}

// BindStatus is how a bind fares.
type BindStatus struct {
	Destination  string
	CopiedTotal  int64  // copies stored since the daemon started
	SkippedTotal int64  // copies that the destination went without, since then
	Problem      string // why the last one was skipped; "": none was
}

// KernelQueue is how a queue's POSIX message queues are set up.
type KernelQueue struct {
	Mode        KernelMode
	MaxMessages int      // mq_maxmsg; 0: 10
	MessageSize int      // mq_msgsize in bytes; 0: the queue's maximum message size, at most the kernel's
	Type        int64    // of what comes in; 0 stands for 1
	TypePrefix  bool     // the first 8 bytes of what comes in, in the machine's byte order, are its type
	OutSelector Selector // which messages go out
}

// KernelQueueStatus is how one direction of a queue's POSIX message queues fares.
type KernelQueueStatus struct {
	Direction       string // "in" or "out"
	Name            string // of the kernel queue
	Open            bool
	Problem         string // why it is not open, or what is wrong; "": nothing
	MaxMessages     int
	MessageSize     int // bytes
	CurrentMessages int // in the kernel queue now
	PassedTotal     int64
	SkippedTotal    int64 // too large for the kernel queue (out), or not understood (in)
	OwnerUID        uint32
	GroupGID        uint32
	Mode            uint32
}

// QueueInfo is a queue as it is now.
type QueueInfo struct {
	Name         string
	ID           uint64 // never used for another queue
	Settings     QueueSettings
	Paused       bool
	CreatedAt    time.Time
	Stats        QueueStats
	KernelQueues []KernelQueueStatus
	Binds        []BindStatus // in the order of the settings' binds
	Temporary    bool         // it ends with the session that opened it
	// SchemaVersion is the current version of its schema; 0: it has none.
	SchemaVersion uint32
}

// QueueStats is what a queue holds and what it has done.
type QueueStats struct {
	Ready, Delayed, Leased, Buried, Uncommitted int64         // messages by state; uncommitted: decided but not yet committed
	Bytes                                       int64         // of bodies, headers and ids in any state
	OldestAge                                   time.Duration // since the oldest ready message was sent; negative: none is ready
	Receivers                                   int           // Receive calls waiting, and Consume streams
	BlockedSenders                              int           // senders waiting for room
	Taps                                        int           // who copy what arrives
	SendRate, DeliveryRate, AckRate             float64       // messages a second, over the last ten seconds or so
	SentTotal                                   int64         // since the queue was made, as the totals below
	DeliveredTotal                              int64
	ConsumedTotal                               int64 // acked or consumed at once
	NackedTotal                                 int64
	LeaseExpiredTotal                           int64 // leases that ran out or whose stream broke
	TTLDroppedTotal                             int64 // messages whose TTL ended
	OverflowDroppedTotal                        int64 // messages that made room for newer ones
	DeadLetteredTotal                           int64
	PurgedTotal                                 int64
	DuplicatesTotal                             int64
	PeekedTotal                                 int64
	MovedTotal                                  int64 // to another queue
	DedupIDs                                    int64 // remembered now
}

// Messages is how many messages the queue holds in any state.
func (s QueueStats) Messages() int64 {
	return s.Ready + s.Delayed + s.Leased + s.Buried + s.Uncommitted
}
