package broker

import (
	"time"

	"github.com/ipcd/ipcd/broker/queue"
)

// Info is a queue as it is now.
type Info struct {
	Name      string
	ID        uint64
	Settings  queue.Settings
	Paused    bool
	CreatedAt int64 // wall time, ns since 1970
	Stats     Stats
	Doors     []DoorStatus
	Binds     []BindStatus // in the order of the settings' binds
	Temporary bool
	Schema    uint32 // current version; 0: it has none
}

// BindStatus is how a bind fares.
type BindStatus struct {
	To      string
	Copied  uint64 // since the daemon started
	Skipped uint64 // copies that the destination went without, since then
	Problem string // why the last one was skipped, if one was
}

// Stats is what is known about a queue and those who use it.
type Stats struct {
	queue.Stats
	Receivers      int     // Receive calls waiting, and consumers
	BlockedSenders int     // senders waiting for room
	Taps           int     // who copy what arrives
	Copied         uint64  // copies that its binds stored elsewhere since the daemon started
	CopiesSkipped  uint64  // copies that other queues went without, since then
	SendRate       float64 // messages a second, as the rates below
	DeliveryRate   float64
	AckRate        float64
}

// Edit changes settings in place, before they are checked.
type Edit func(*queue.Settings) error

// SendRequest is a batch: all of it is stored, or nothing.
type SendRequest struct {
	Queue    string
	Messages []queue.Message
	Producer string // with Batch: a repeat of the same pair gets the first answer. "": none
	Batch    uint64
	Instance string        // the daemon instance the batch was first sent to; "": not checked
	Wait     time.Duration // how long a full queue that blocks may keep the sender waiting; < 0: as long as the context lasts
}

// ReceiveRequest asks for messages.
type ReceiveRequest struct {
	Queue    string
	Queues   []string // instead of Queue: any of these, in turn
	Selector queue.Selector
	Max      int           // messages; 0 stands for 1
	Wait     time.Duration // for the first; 0: not at all
	Lease    time.Duration // 0: the queue's
	Consume  bool          // consumed at once instead of leased
	MaxBody  int           // bytes of a body; 0: any size
	Truncate bool          // cut what is larger than MaxBody instead of failing
}

// Outcome is what becomes of a delivery.
type Outcome uint8

const (
	Ack Outcome = iota
	Nack
	Touch
	Release
	Bury
)

// Settlement ends, prolongs or gives back one lease.
type Settlement struct {
	Receipt queue.Receipt
	Verdict
}

// TagSettlement does so for the deliveries First to Last of a Consumer, both included.
type TagSettlement struct {
	First, Last uint64
	Verdict
}

// Verdict is an outcome with its particulars.
type Verdict struct {
	Outcome Outcome
	Delay   time.Duration // Nack: before it comes again; < 0: the queue's back-off
	Lease   time.Duration // Touch: from now; 0: as long as it was
	Reason  string        // Nack and Bury
}

// SettleFailure is a settlement that changed nothing.
type SettleFailure struct {
	Index int    // of the settlement in the request
	Tag   uint64 // of the delivery, in a range of tags
	Err   error
}

// Touched is a lease that was prolonged.
type Touched struct {
	Index     int   // of the settlement in the request
	LeaseEnds int64 // wall time, ns since 1970
}

// Settled is the outcome of settlements: those in neither list are done.
type Settled struct {
	Failures []SettleFailure
	Touched  []Touched
}

// PeekRequest asks for a page of messages as they stand.
type PeekRequest struct {
	Queue  string
	Filter queue.Filter // no States: Ready
	Max    int          // messages of the page, 1 to limits.PeekPage
	// Cursor is where the page before ended, "" for the first.
	Cursor string
	// MaxBody cuts bodies to so many bytes; 0: whole.
	MaxBody int
	// BySequence shows messages of all states asked for by sequence, instead of state by state.
	BySequence bool
}

// PeekPage is a page of messages. A page may be empty and yet not the last: work under the queue's
// lock is bounded.
type PeekPage struct {
	Messages []queue.Peeked
	Cursor   string // "" at the end
	// Last is the highest sequence that was visible when the page was made.
	Last uint64
}

// SelectRequest names the messages that purge or kick means.
type SelectRequest struct {
	Queue  string
	Filter queue.Filter
	Max    int  // messages; 0: all
	DryRun bool // count only
	Cursor string
}

// MoveRequest names the messages to move, as SelectRequest does, and whereto.
type MoveRequest struct {
	From, To string
	Filter   queue.Filter
	Max      int  // messages; 0: all
	DryRun   bool // count only
	Cursor   string
}

// RedriveRequest names the dead letters that go back to where they came from.
type RedriveRequest struct {
	Queue  string
	Filter queue.Filter
	Max    int  // messages; 0: all
	DryRun bool // count only
}

// Redriven is what went back to one queue.
type Redriven struct {
	Queue    string
	Messages int64
	Err      error // why the rest stayed where it is
}

// ImportRequest is messages with their past: all are stored, or none.
type ImportRequest struct {
	Queue    string
	Messages []queue.Peeked
	// As in SendRequest.
	Producer string
	Batch    uint64
	Instance string
}

// TapRequest asks for copies of what arrives.
type TapRequest struct {
	Queue   string
	Filter  queue.Filter // selector and headers count
	MaxBody int          // cuts bodies to so many bytes; 0: whole
}

// Tapped is what arrived.
type Tapped struct {
	Messages []queue.Peeked
	Skipped  uint64 // messages that were meant and left out before these
}

// SchemaRequest is the next version of a queue's schema.
type SchemaRequest struct {
	Queue             string
	Descriptors       []byte // a serialized google.protobuf.FileDescriptorSet
	Types             []queue.TypeSchema
	AllowIncompatible bool
	DryRun            bool // check only
}

// SchemaOutcome is what came of a SchemaRequest.
type SchemaOutcome struct {
	Schema            queue.Schema
	Created           bool
	Incompatibilities []string
}

// ConsumeRequest opens a Consumer.
type ConsumeRequest struct {
	Queue    string
	Selector queue.Selector
	Lease    time.Duration // 0: the queue's
	Consume  bool          // consumed at once instead of leased
}

// Deliveries are consecutive deliveries of a Consumer: the tag of the first is First, the others
// follow by one.
type Deliveries struct {
	First      uint64
	Deliveries []queue.Delivery
}

// Totals is what all queues hold together.
type Totals struct {
	Queues    int
	Temporary int // among those
	Messages  int64
	Bytes     int64
	// Sends to temporary queues that had ended, since the daemon started.
	LateReplies uint64
}
