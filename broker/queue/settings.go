package queue

import (
	"fmt"
	"math"
	"regexp"
	"time"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

// Overflow is what a full queue does with a send.
type Overflow uint8

const (
	Reject     Overflow = iota // refuse it
	Block                      // let the sender wait
	DropOldest                 // drop the oldest ready message of the lowest priority
)

// Durability is what of a queue survives a crash.
type Durability uint8

const (
	Journal Durability = iota // everything that was acknowledged
	Memory                    // nothing but the definition
)

// KernelMode says which POSIX message queues stand before a queue.
type KernelMode uint8

const (
	KernelAuto KernelMode = iota // in, where kernel limits allow
	KernelIn
	KernelOut
	KernelBoth
	KernelNone
)

// KernelQueue is how the POSIX message queues of a queue are set up (mq_overview(7)).
type KernelQueue struct {
	Mode        KernelMode
	MaxMessages int      // mq_maxmsg; 0: limits.KernelMessagesDefault
	MessageSize int      // mq_msgsize; 0: the smaller of the queue's maximum message size and the kernel's
	Type        int64    // of what comes in
	TypePrefix  bool     // the first 8 bytes of what comes in, in native byte order, are its type
	OutSelector Selector // what goes out
}

// Settings is what was declared for a queue. Every field has its final value: Default returns those
// of a queue that says nothing.
type Settings struct {
	MaxMessages       int64
	MaxBytes          int64
	MaxMessageSize    int
	Lease             time.Duration
	MaxAttempts       int
	DeadLetter        string // a queue's name, or "": bury
	DeadLetterExpired bool
	Overflow          Overflow
	Durability        Durability
	BackoffInitial    time.Duration // 0: none
	BackoffMax        time.Duration
	DedupWindow       time.Duration
	MaxDedupIDs       int64
	TypeNames         map[string]int64
	Kernel            KernelQueue
	Mode              uint32 // permission bits
	OwnerUID          uint32
	GroupGID          uint32
	Binds             []Bind // by destination
}

// Default returns the settings of a queue for which nothing was declared, owned by uid and gid.
func Default(uid, gid uint32) Settings {
	return Settings{
		MaxMessages:    limits.QueueMessagesDefault,
		MaxBytes:       limits.QueueBytesDefault,
		MaxMessageSize: limits.MessageSizeDefault,
		Lease:          limits.LeaseDefault,
		MaxAttempts:    limits.MaxAttemptsDefault,
		DedupWindow:    limits.DedupWindowDefault,
		MaxDedupIDs:    limits.DedupIDsDefault,
		Durability:     Memory,
		Kernel:         KernelQueue{Type: 1},
		Mode:           limits.ModeDefault,
		OwnerUID:       uid,
		GroupGID:       gid,
	}
}

var namePattern = regexp.MustCompile(fmt.Sprintf(`^/[A-Za-z0-9_-][A-Za-z0-9._-]{0,%d}$`, limits.NameLength-1))

// CheckName says what is wrong with a queue's name, if anything.
func CheckName(name string) error {
	if namePattern.MatchString(name) {
		return nil
	}
	return reason.Invalid("name", "queue name %.220q: it must be a slash and then 1 to %d of A-Z a-z 0-9 . _ -, not starting with a dot", name, limits.NameLength)
}

var typeNamePattern = regexp.MustCompile(fmt.Sprintf(`^[A-Za-z_][A-Za-z0-9._-]{0,%d}$`, limits.TypeNameLength-1))

func between[T int | int64](field string, v, low, high T) error {
	if v < low || v > high {
		return reason.Invalid("settings."+field, "%s %d: it must be %d to %d", field, v, low, high)
	}
	return nil
}

func durationBetween(field string, v, low, high time.Duration) error {
	if v < low || v > high {
		return reason.Invalid("settings."+field, "%s %v: it must be %v to %v", field, v, low, high)
	}
	return nil
}

// Check says what is wrong with the settings, if anything. Whether the dead-letter queue exists and
// what the kernel allows is not its business.
func (s *Settings) Check() error {
	for _, err := range []error{
		between("max_messages", s.MaxMessages, 1, limits.QueueMessagesMax),
		between("max_bytes", s.MaxBytes, 1, limits.QueueBytesMax),
		between("max_message_size", s.MaxMessageSize, 0, limits.MessageSizeMax),
		durationBetween("lease", s.Lease, limits.LeaseMin, limits.LeaseMax),
		between("max_attempts", s.MaxAttempts, 1, limits.MaxAttemptsMax),
		durationBetween("backoff.initial", s.BackoffInitial, 0, limits.DelayMax),
		durationBetween("backoff.max", s.BackoffMax, s.BackoffInitial, limits.DelayMax),
		durationBetween("dedup_window", s.DedupWindow, 0, limits.DedupWindowMax),
		between("max_dedup_ids", s.MaxDedupIDs, 0, limits.DedupIDsMax),
	} {
		if err != nil {
			return err
		}
	}
	if s.OwnerUID == limits.NoID || s.GroupGID == limits.NoID {
		return reason.Invalid("settings.owner_uid", "owner_uid %d, group_gid %d: %d stands for no user and no group (chown(2)); name another", s.OwnerUID, s.GroupGID, uint32(limits.NoID))
	}
	if s.DeadLetter != "" {
		if err := CheckName(s.DeadLetter); err != nil {
			return reason.Invalid("settings.dead_letter_queue", "dead_letter_queue: %v", err)
		}
	} else if s.DeadLetterExpired {
		return reason.Invalid("settings.dead_letter_expired", "dead_letter_expired without a dead_letter_queue: name one")
	}
	if s.Overflow > DropOldest || s.Durability > Memory || s.Kernel.Mode > KernelNone {
		return reason.Invalid("settings", "an unknown overflow policy, durability or mqueue mode")
	}
	if s.Mode&^0o777 != 0 {
		return reason.Invalid("settings.mode", "mode %#o: only permission bits are allowed, such as 0660", s.Mode)
	}
	if len(s.TypeNames) > limits.TypeNames {
		return reason.Invalid("settings.type_names", "%d type names: a queue may have %d", len(s.TypeNames), limits.TypeNames)
	}
	numbers := make(map[int64]string, len(s.TypeNames))
	for name, t := range s.TypeNames {
		if !typeNamePattern.MatchString(name) {
			return reason.Invalid("settings.type_names", "type name %.80q: it must be a letter or _ and then up to %d of A-Z a-z 0-9 . _ -", name, limits.TypeNameLength-1)
		}
		if t <= 0 {
			return reason.Invalid("settings.type_names", "type name %q stands for %d: types are positive", name, t)
		}
		if other, taken := numbers[t]; taken {
			return reason.Invalid("settings.type_names", "type names %q and %q both stand for %d", min(name, other), max(name, other), t)
		}
		numbers[t] = name
	}
	k := &s.Kernel
	if k.MaxMessages < 0 || k.MaxMessages > 65536 {
		return reason.Invalid("settings.mqueue.max_messages", "mqueue.max_messages %d: it must be 1 to 65536, or 0 for %d", k.MaxMessages, limits.KernelMessagesDefault)
	}
	if k.MessageSize < 0 || k.MessageSize > limits.MessageSizeMax {
		return reason.Invalid("settings.mqueue.message_size", "mqueue.message_size %d: it must be 1 to %d, or 0 for the kernel's limit", k.MessageSize, limits.MessageSizeMax)
	}
	if k.Type <= 0 {
		return reason.Invalid("settings.mqueue.type", "mqueue.type %d: types are 1 to %d", k.Type, int64(math.MaxInt64))
	}
	selector, err := k.OutSelector.Check()
	if err != nil {
		return err
	}
	k.OutSelector = selector
	return s.checkBinds()
}

// backoff is how long a message waits after its n-th failed lease, n from 1.
func (s *Settings) backoff(n int) time.Duration {
	d := s.BackoffInitial
	for i := 1; i < n && d < s.BackoffMax; i++ {
		d *= 2
	}
	return min(d, s.BackoffMax)
}
