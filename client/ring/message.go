//go:build linux

package ring

import (
	"time"
	"unsafe"

	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// Message is a message of a ring. PublishBatch takes Type and Payload and ignores the rest.
type Message struct {
	Type     int64  // what the program makes of it: a positive number
	Time     int64  // when it was published, in nanoseconds since 1970; 0 if its producer is Untimed
	Lane     uint64 // the lane that it is of
	Sequence uint64 // its place in the lane, from 1
	Lost     uint64 // how many messages of the lane were lost just before this one
	Payload  []byte // the consumer's buffer: valid until the next call of the consumer
}

// Published returns when the message was published; the zero time if its producer is Untimed.
func (m Message) Published() time.Time {
	if m.Time == 0 {
		return time.Time{}
	}
	return time.Unix(0, m.Time)
}

// Message has the fields of shm.Message, so that the one is the other without being copied. Only the
// documentation differs: the compiler checks it here, and in each conversion.
var _ = Message(shm.Message{})

// frames returns the same messages under the name that shm has for them.
func frames(batch []Message) []shm.Message {
	return unsafe.Slice((*shm.Message)(unsafe.SliceData(batch)), len(batch))
}

// Position is where in the lanes a consumer starts to read. The zero Position is Newest. Lanes that
// appear after it attached are always read from their beginning.
type Position struct {
	kind     positionKind
	sequence uint64
}

type positionKind uint8

const (
	newest positionKind = iota
	oldest
	sequence
)

// Newest is behind what is there already; Oldest is the oldest message of each lane that is still there.
var (
	Newest = Position{kind: newest}
	Oldest = Position{kind: oldest}
)

// Sequence is the first message of each lane whose sequence is n or higher.
func Sequence(n uint64) Position { return Position{kind: sequence, sequence: n} }

func (p Position) start() shm.Start {
	switch p.kind {
	case oldest:
		return shm.Oldest
	case sequence:
		return shm.FromSequence(p.sequence)
	}
	return shm.Newest
}

// checkTypes says what is wrong with ConsumerOptions.Types.
func checkTypes(types []int64) *Error {
	if len(types) > limits.SelectorTypes {
		return newError(reason.InvalidArgument, "%d types: at most %d may be named; name none, and look at each message", len(types), limits.SelectorTypes)
	}
	for _, t := range types {
		if t <= 0 {
			return newError(reason.InvalidArgument, "type %d: a type is a positive number", t)
		}
	}
	return nil
}
