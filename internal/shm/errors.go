package shm

import (
	"errors"
	"fmt"
)

// Errors of publishing and reading.
var (
	ErrClosed   = errors.New("the handle is closed")
	ErrFull     = errors.New("a consumer that must not lose anything has not read far enough")
	ErrTooLarge = errors.New("the payload is larger than a frame may be")
	ErrType     = errors.New("a type is a positive number")
	ErrClaim    = errors.New("a claim is open: commit or abort it first")
	ErrNoClaim  = errors.New("nothing is claimed, or less than is committed")
	ErrCorrupt  = errors.New("a producer's memory does not make sense: its lane is not read on")
	ErrEvicted  = errors.New("this consumer held a producer up for too long: it does not any more, and may lose messages of that lane")
)

// CorruptError says which lane does not make sense. It is ErrCorrupt.
type CorruptError struct {
	Lane uint64
	What string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("lane %#x: %v: %s", e.Lane, ErrCorrupt, e.What)
}

// Unwrap makes it ErrCorrupt.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// EvictedError says in which lane the consumer was evicted. It is ErrEvicted.
type EvictedError struct{ Lane uint64 }

func (e *EvictedError) Error() string { return fmt.Sprintf("lane %#x: %v", e.Lane, ErrEvicted) }

// Unwrap makes it ErrEvicted.
func (e *EvictedError) Unwrap() error { return ErrEvicted }
