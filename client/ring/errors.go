//go:build linux

package ring

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/shm"
)

// These reasons arise in this package alone and are never sent, so they are not in the common table.
const (
	handleClosed reason.Reason = "HANDLE_CLOSED"
	laneFull     reason.Reason = "LANE_FULL"
)

// The reasons why a call fails, for errors.Is.
var (
	ErrInvalidArgument = sentinel(reason.InvalidArgument) // the call is malformed, outside the limits, or comes at the wrong moment
	ErrNotFound        = sentinel(reason.RingNotFound)    // no ring has this name
	ErrDeleted         = sentinel(reason.RingDeleted)     // the ring was deleted
	ErrDenied          = sentinel(reason.AccessDenied)    // the ring's, or the socket's, owner, group and mode do not allow it
	ErrQuota           = sentinel(reason.QuotaExceeded)   // the ring has no room for a member, or memory for rings is used up
	ErrTooLarge        = sentinel(reason.MessageTooLarge) // a payload is larger than the ring takes
	ErrFull            = sentinel(laneFull)               // TryPublish would have to wait for a lossless consumer
	ErrEvicted         = sentinel(reason.ConsumerEvicted) // the consumer held a producer up for too long, and may lose messages of that lane from now on; reading goes on
	ErrCorrupt         = sentinel(reason.RingCorrupt)     // a producer's memory does not make sense: its lane is not read on, the others are
	ErrClosed          = sentinel(handleClosed)           // the handle was closed with Close
	ErrTimedOut        = sentinel(reason.TimedOut)        // the context's deadline passed
	ErrCancelled       = sentinel(reason.Cancelled)       // the context was cancelled
	ErrUnreachable     = sentinel(reason.Unreachable)     // no daemon answers at the address
	ErrShuttingDown    = sentinel(reason.ShuttingDown)    // the daemon is stopping
	ErrUnimplemented   = sentinel(reason.Unimplemented)   // this daemon, or this kernel, cannot do it
	ErrInternal        = sentinel(reason.Internal)        // a defect in ipcd
)

// Error is why a call failed: what was wrong, what is allowed, what to do.
type Error struct {
	Reason  string // machine-readable, such as "RING_DELETED"
	Message string // for people
	Ring    string // the ring concerned, or ""
	Lane    uint64 // the lane concerned, or 0

	cause error // what lies behind it, such as a context's error, or nil
}

func sentinel(r reason.Reason) error { return &Error{Reason: string(r)} }

// Error returns the message, with the ring and the lane in front where they are known.
func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = e.Reason
	}
	if e.Lane != 0 {
		s = fmt.Sprintf("lane %d: %s", e.Lane, s)
	}
	if e.Ring != "" {
		s = e.Ring + ": " + s
	}
	return s
}

// Is reports whether target is an Error of the same reason, as the sentinels are.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// Unwrap returns what lies behind the error, such as context.Canceled, or nil.
func (e *Error) Unwrap() error { return e.cause }

func newError(r reason.Reason, format string, args ...any) *Error {
	return &Error{Reason: string(r), Message: fmt.Sprintf(format, args...)}
}

// on returns e with the ring's name. The daemon's messages have it in front already: it is said once.
func (e *Error) on(ring string) *Error {
	if e.Ring == "" {
		e.Ring = ring
		for again := true; again; {
			e.Message, again = strings.CutPrefix(e.Message, ring+": ")
		}
	}
	return e
}

// because returns e with what lies behind it.
func (e *Error) because(cause error) *Error {
	e.cause = cause
	return e
}

// contextError is the Error for the error of a context that ended.
func contextError(err error) *Error {
	if errors.Is(err, context.DeadlineExceeded) {
		return newError(reason.TimedOut, "the deadline passed").because(err)
	}
	return newError(reason.Cancelled, "the call was cancelled").because(err)
}

// dataError turns what a Writer or Reader returned into an Error.
func dataError(err error, ring string) *Error {
	var corrupt *shm.CorruptError
	var evicted *shm.EvictedError
	switch {
	case errors.As(err, &corrupt):
		e := newError(reason.RingCorrupt, "its producer wrote what makes no sense (%s), so it is not read on; the other lanes are", corrupt.What).because(err).on(ring)
		e.Lane = corrupt.Lane
		return e
	case errors.As(err, &evicted):
		e := newError(reason.ConsumerEvicted, "this consumer held the producer up for longer than the ring's stall time: from now on it may lose messages of this lane").because(err).on(ring)
		e.Lane = evicted.Lane
		return e
	case errors.Is(err, shm.ErrClosed):
		return newError(handleClosed, "the handle is closed").on(ring)
	case errors.Is(err, shm.ErrTooLarge):
		return newError(reason.MessageTooLarge, "%v", err).because(err).on(ring)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return contextError(err).on(ring)
	}
	// What remains is what was wrong with the call: a type that is not positive, a commit of nothing, two
	// goroutines in one handle.
	return newError(reason.InvalidArgument, "%v", err).because(err).on(ring)
}
