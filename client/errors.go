package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

// The reasons why a call fails, for errors.Is.
var (
	ErrInvalidArgument    = sentinel(reason.InvalidArgument)    // the request is malformed or outside the limits
	ErrQueueNotFound      = sentinel(reason.QueueNotFound)      // no queue has this name
	ErrQueueExists        = sentinel(reason.QueueExists)        // a queue has this name, with other settings
	ErrQueueFull          = sentinel(reason.QueueFull)          // the queue holds all that it may
	ErrQuotaExceeded      = sentinel(reason.QuotaExceeded)      // a limit other than the queue's room was reached
	ErrMessageTooLarge    = sentinel(reason.MessageTooLarge)    // a body is larger than the queue takes
	ErrBufferTooSmall     = sentinel(reason.BufferTooSmall)     // a message is larger than the receiver's buffer
	ErrStaleReceipt       = sentinel(reason.StaleReceipt)       // the delivery is over
	ErrDurabilityMismatch = sentinel(reason.DurabilityMismatch) // a journal queue would depend on a memory queue
	ErrQueueDeleted       = sentinel(reason.QueueDeleted)       // the queue went away during the call
	ErrAccessDenied       = sentinel(reason.AccessDenied)       // the queue's, or the socket's, owner, group and mode do not allow it
	ErrDiskFull           = sentinel(reason.DiskFull)           // no room to make the message durable
	ErrDamaged            = sentinel(reason.Damaged)            // the queue is read-only, since the journal is damaged
	ErrKernelLimit        = sentinel(reason.KernelLimit)        // a limit of the kernel's message queues is in the way
	ErrTimedOut           = sentinel(reason.TimedOut)           // the deadline passed
	ErrUnhealthy          = sentinel(reason.Unhealthy)          // the daemon met an error of its own and stops
	ErrShuttingDown       = sentinel(reason.ShuttingDown)       // the daemon is stopping
	ErrUnimplemented      = sentinel(reason.Unimplemented)      // this daemon cannot do it
	ErrOutcomeUnknown     = sentinel(reason.OutcomeUnknown)     // the messages may or may not have been stored, or received
	ErrStaleBatch         = sentinel(reason.StaleBatch)         // the batch id is older than what the daemon remembers
	ErrKernelNameTaken    = sentinel(reason.KernelNameTaken)    // a kernel queue of that name belongs to somebody else
	ErrDeadLetterCycle    = sentinel(reason.DeadLetterCycle)    // dead-letter queues would form a circle
	ErrBindCycle          = sentinel(reason.BindCycle)          // queues would hand copies on in a circle
	ErrSchemaNotFound     = sentinel(reason.SchemaNotFound)     // the queue has no schema, or not this version
	ErrSchemaInvalid      = sentinel(reason.SchemaInvalid)      // the descriptor set, or what it is said to hold, does not make sense
	ErrSchemaIncompatible = sentinel(reason.SchemaIncompatible) // readers or writers of the version before could trip over it
	ErrSchemaMismatch     = sentinel(reason.SchemaMismatch)     // a body is not what the queue's schema asks for
	ErrRingNotFound       = sentinel(reason.RingNotFound)       // no ring has this name
	ErrRingExists         = sentinel(reason.RingExists)         // a ring has this name, with other settings
	ErrRingDeleted        = sentinel(reason.RingDeleted)        // the ring went away during the call
	ErrRingCorrupt        = sentinel(reason.RingCorrupt)        // a producer's memory makes no sense: its lane is not read on
	ErrConsumerEvicted    = sentinel(reason.ConsumerEvicted)    // a lossless consumer held a producer up for too long
	ErrConfigInvalid      = sentinel(reason.ConfigInvalid)      // the daemon's configuration has a mistake, and the one before stays in force
	ErrUnauthenticated    = sentinel(reason.Unauthenticated)    // a certificate, the client's or the daemon's, is missing, foreign or not valid any more
	ErrCancelled          = sentinel(reason.Cancelled)          // the caller gave up
	ErrUnreachable        = sentinel(reason.Unreachable)        // no daemon answers at the address; nothing was sent
	ErrInternal           = sentinel(reason.Internal)           // a defect in ipcd
)

// Whole is the Index of an Error that concerns a call or batch as a whole.
const Whole = reason.Whole

// Error is why a call failed: what was wrong, what is allowed, what to do.
type Error struct {
	Reason     string        // machine-readable, such as "QUEUE_FULL"
	Message    string        // for people
	Queue      string        // the queue or ring concerned, or ""
	Index      int           // the message, settlement or part of a transaction concerned, counted from 0, or Whole
	Field      string        // the field of the request concerned, or ""
	RetryAfter time.Duration // when trying again may help, or 0

	cause        error // what lies behind it, such as a context's error, or nil
	answered     bool  // the daemon said so, as opposed to the connection or the client
	disconnected bool  // the connection broke, or could not be made
}

func sentinel(r reason.Reason) error { return &Error{Reason: string(r), Index: Whole} }

// Error returns the message, with the queue and the index in front where they are known.
func (e *Error) Error() string {
	s := e.Message
	if s == "" {
		s = e.Reason
	}
	if e.Index != Whole {
		s = fmt.Sprintf("[%d] %s", e.Index, s)
	}
	if e.Queue != "" {
		s = e.Queue + ": " + s
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
	return &Error{Reason: string(r), Message: fmt.Sprintf(format, args...), Index: Whole}
}

func (e *Error) on(queue string) *Error {
	if e.Queue == "" {
		e.Queue = queue
	}
	return e
}

func (e *Error) is(r reason.Reason) bool { return e.Reason == string(r) }

// because returns e with what lies behind it.
func (e *Error) because(cause error) *Error {
	e.cause = cause
	return e
}

func errClosed() *Error { return newError(reason.Cancelled, "the client is closed") }

func errStale() *Error {
	return newError(reason.StaleReceipt, "the delivery is over: it was settled before, or its stream broke and the message comes again")
}

// contextError is the Error for a context that ended.
func contextError(ctx context.Context) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return newError(reason.TimedOut, "the deadline passed").because(context.DeadlineExceeded)
	}
	return newError(reason.Cancelled, "the call was cancelled").because(context.Canceled)
}

// outcomeUnknown is the Error for a batch that was sent and not answered.
func outcomeUnknown(queue string, cause *Error) *Error {
	return newError(reason.OutcomeUnknown, "it is not known whether the messages were stored (%s); look with peek, or send again with a dedup id", cause.Message).on(queue).because(cause)
}

// rpcError is the Error for what a gRPC call returned; queue is the queue or ring it was about, or "".
func (c *Client) rpcError(err error, queue string) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	s := status.Convert(err)
	e := &Error{Message: s.Message(), Queue: queue, Index: Whole}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != reason.Domain {
				continue
			}
			e.Reason, e.answered = d.GetReason(), true
			if name := d.GetMetadata()["queue"]; name != "" {
				e.Queue = name
			}
			if index, err := strconv.ParseInt(d.GetMetadata()["index"], 10, 32); err == nil && index >= 0 {
				e.Index = int(index)
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		case *errdetails.BadRequest:
			if v := d.GetFieldViolations(); len(v) > 0 {
				e.Field = v[0].GetField()
			}
		}
	}
	if !e.answered {
		c.explain(e, s.Code())
	}
	return e
}

// explain gives a reason to a status that did not come from ipcd but from gRPC underneath.
func (c *Client) explain(e *Error, code codes.Code) {
	e.Reason = string(reasonOf(code))
	switch code {
	case codes.DeadlineExceeded:
		e.Message, e.cause = "the deadline passed", context.DeadlineExceeded
	case codes.Canceled:
		e.Message, e.cause = "the call was cancelled", context.Canceled
	case codes.Unavailable:
		e.disconnected = true
		e.Queue = "" // it is not the queue's fault
		dialError := c.dialError.Load()
		var known *Error
		switch {
		case dialError == nil:
			e.Message = fmt.Sprintf("the connection to %s broke: %s", c.target, e.Message)
			if c.plaintext && strings.Contains(e.Message, "server preface") {
				e.Message += "; does the daemon want TLS there?"
			}
		case errors.As(*dialError, &known):
			e.Reason = known.Reason
			e.Message, e.cause = fmt.Sprintf("%s: %s", c.target, known.Message), known
		case errors.Is(*dialError, fs.ErrPermission):
			e.Reason = string(reason.AccessDenied)
			e.Message, e.cause = fmt.Sprintf("no access to %s: %v; the socket, or a directory before it, is closed to this user", c.target, *dialError), *dialError
		default:
			e.Message, e.cause = fmt.Sprintf("no ipcd answers at %s: %v; is it running, and is this its address?", c.target, *dialError), *dialError
		}
	}
}

func reasonOf(code codes.Code) reason.Reason {
	switch code {
	case codes.InvalidArgument, codes.OutOfRange:
		return reason.InvalidArgument
	case codes.NotFound:
		return reason.QueueNotFound
	case codes.ResourceExhausted:
		return reason.QuotaExceeded
	case codes.PermissionDenied:
		return reason.AccessDenied
	case codes.Unauthenticated:
		return reason.Unauthenticated
	case codes.Unavailable:
		return reason.Unreachable
	case codes.DeadlineExceeded:
		return reason.TimedOut
	case codes.Canceled:
		return reason.Cancelled
	case codes.Unimplemented:
		return reason.Unimplemented
	}
	return reason.Internal
}

// broken reports whether the connection failed, or the daemon goes away, so that another try may help.
func (e *Error) broken() bool {
	return e.disconnected || e.is(reason.Unreachable) || e.is(reason.ShuttingDown) || e.is(reason.Unhealthy)
}

// leavesOpen reports whether the refusal of a batch that was sent before tells nothing about that: the
// daemon goes away, or refused it before it looked at what the queue remembers of its producers.
func (e *Error) leavesOpen() bool {
	return e.broken() || e.is(reason.StaleBatch) || e.is(reason.QueueNotFound) || e.is(reason.QueueDeleted) || e.is(reason.AccessDenied) || e.is(reason.Internal)
}

// answer turns the error of a part of a call, as the daemon sent it, into an Error.
func answer(p *ipcdv1.Error, queue string) *Error {
	e := &Error{Reason: p.GetReason(), Message: p.GetMessage(), Queue: queue, Index: Whole, RetryAfter: p.GetRetryAfter().AsDuration(), answered: true}
	if e.Reason == "" {
		e.Reason = string(reasonOf(codes.Code(p.GetCode())))
	}
	if p.Index != nil {
		e.Index = int(p.GetIndex())
	}
	return e
}
