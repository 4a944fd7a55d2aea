// Package reason holds the one table of what can go wrong: reason, gRPC code, exit code of ipcctl and
// the errno's name that a C programmer would expect.
package reason

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
)

// Domain is the domain of every google.rpc.ErrorInfo that ipcd sends.
const Domain = "ipcd"

// Reason is the machine-readable cause of an error. It is what clients may switch on.
type Reason string

// The reasons. Their meaning for the caller stands beside each.
const (
	InvalidArgument    Reason = "INVALID_ARGUMENT"    // the request is malformed or outside the limits
	QueueNotFound      Reason = "QUEUE_NOT_FOUND"     // no queue has this name
	QueueExists        Reason = "QUEUE_EXISTS"        // a queue has this name, with other settings
	QueueFull          Reason = "QUEUE_FULL"          // the queue holds all that it may
	QuotaExceeded      Reason = "QUOTA_EXCEEDED"      // a limit other than the queue's room was reached
	MessageTooLarge    Reason = "MESSAGE_TOO_LARGE"   // a body is larger than the queue takes
	BufferTooSmall     Reason = "BUFFER_TOO_SMALL"    // a message is larger than the receiver's buffer
	StaleReceipt       Reason = "STALE_RECEIPT"       // the receipt names a delivery that is over
	DurabilityMismatch Reason = "DURABILITY_MISMATCH" // a journal queue would depend on a memory queue
	QueueDeleted       Reason = "QUEUE_DELETED"       // the queue went away during the call
	AccessDenied       Reason = "ACCESS_DENIED"       // the queue's owner, group and mode do not allow it
	DiskFull           Reason = "DISK_FULL"           // no room to make the message durable
	Damaged            Reason = "DAMAGED"             // the queue is read-only, since the journal is damaged
	KernelLimit        Reason = "KERNEL_LIMIT"        // a limit of the kernel's message queues is in the way
	TimedOut           Reason = "TIMED_OUT"           // the deadline passed
	Unhealthy          Reason = "UNHEALTHY"           // the daemon met an error of its own and stops
	ShuttingDown       Reason = "SHUTTING_DOWN"       // the daemon is stopping
	Unimplemented      Reason = "UNIMPLEMENTED"       // this version cannot do it
	OutcomeUnknown     Reason = "OUTCOME_UNKNOWN"     // the batch may or may not have been stored
	StaleBatch         Reason = "STALE_BATCH"         // the batch id is older than what is remembered
	KernelNameTaken    Reason = "KERNEL_NAME_TAKEN"   // a kernel queue of that name belongs to somebody else
	DeadLetterCycle    Reason = "DEAD_LETTER_CYCLE"   // dead-letter queues would form a circle
	BindCycle          Reason = "BIND_CYCLE"          // queues would hand copies on in a circle
	SchemaNotFound     Reason = "SCHEMA_NOT_FOUND"    // the queue has no schema, or not this version
	SchemaInvalid      Reason = "SCHEMA_INVALID"      // the descriptor set, or what it is said to hold, does not make sense
	SchemaIncompatible Reason = "SCHEMA_INCOMPATIBLE" // readers or writers of the version before could trip over it
	SchemaMismatch     Reason = "SCHEMA_MISMATCH"     // a body is not what the queue's schema asks for
	RingNotFound       Reason = "RING_NOT_FOUND"      // no ring has this name
	RingExists         Reason = "RING_EXISTS"         // a ring has this name, with other settings
	RingDeleted        Reason = "RING_DELETED"        // the ring went away during the call
	RingCorrupt        Reason = "RING_CORRUPT"        // a producer's memory does not make sense: its lane is not read on
	ConsumerEvicted    Reason = "CONSUMER_EVICTED"    // a lossless consumer held a producer up for too long
	ConfigInvalid      Reason = "CONFIG_INVALID"      // the configuration has a mistake, and the one before stays in force
	Unauthenticated    Reason = "UNAUTHENTICATED"     // the caller's certificate is missing or not valid any more
	Cancelled          Reason = "CANCELLED"           // the caller gave up
	Unreachable        Reason = "UNREACHABLE"         // no daemon answers at the address
	Internal           Reason = "INTERNAL"            // a defect in ipcd
)

// Row is one line of the table.
type Row struct {
	Code  codes.Code // of the gRPC status
	Exit  int        // of ipcctl; see errno(3) and sysexits(3) for the traditions
	Errno string     // the errno's name
}

var table = map[Reason]Row{
	InvalidArgument:    {codes.InvalidArgument, 2, "EINVAL"},
	QueueNotFound:      {codes.NotFound, 3, "ENOENT"},
	QueueExists:        {codes.AlreadyExists, 1, "EEXIST"},
	QueueFull:          {codes.ResourceExhausted, 1, "EAGAIN"},
	QuotaExceeded:      {codes.ResourceExhausted, 1, "EDQUOT"},
	MessageTooLarge:    {codes.InvalidArgument, 1, "EMSGSIZE"},
	BufferTooSmall:     {codes.OutOfRange, 1, "E2BIG"},
	StaleReceipt:       {codes.FailedPrecondition, 1, "ESTALE"},
	DurabilityMismatch: {codes.FailedPrecondition, 1, "EINVAL"},
	QueueDeleted:       {codes.Aborted, 3, "EIDRM"},
	AccessDenied:       {codes.PermissionDenied, 5, "EACCES"},
	DiskFull:           {codes.ResourceExhausted, 1, "ENOSPC"},
	Damaged:            {codes.DataLoss, 1, "EBADMSG"},
	KernelLimit:        {codes.ResourceExhausted, 1, "EMFILE"},
	TimedOut:           {codes.DeadlineExceeded, 6, "ETIMEDOUT"},
	Unhealthy:          {codes.Unavailable, 4, "EIO"},
	ShuttingDown:       {codes.Unavailable, 4, "ESHUTDOWN"},
	Unimplemented:      {codes.Unimplemented, 1, "ENOSYS"},
	OutcomeUnknown:     {codes.Aborted, 1, "ECONNRESET"},
	StaleBatch:         {codes.FailedPrecondition, 1, "ESTALE"},
	KernelNameTaken:    {codes.FailedPrecondition, 1, "EEXIST"},
	DeadLetterCycle:    {codes.FailedPrecondition, 1, "ELOOP"},
	BindCycle:          {codes.FailedPrecondition, 1, "ELOOP"},
	SchemaNotFound:     {codes.NotFound, 3, "ENOENT"},
	SchemaInvalid:      {codes.InvalidArgument, 1, "EINVAL"},
	SchemaIncompatible: {codes.FailedPrecondition, 1, "EPROTO"},
	SchemaMismatch:     {codes.InvalidArgument, 1, "EBADMSG"},
	RingNotFound:       {codes.NotFound, 3, "ENOENT"},
	RingExists:         {codes.AlreadyExists, 1, "EEXIST"},
	RingDeleted:        {codes.Aborted, 3, "EIDRM"},
	RingCorrupt:        {codes.DataLoss, 1, "EBADMSG"},
	ConsumerEvicted:    {codes.Aborted, 1, "EPIPE"},
	ConfigInvalid:      {codes.FailedPrecondition, 1, "EINVAL"},
	Unauthenticated:    {codes.Unauthenticated, 5, "EACCES"},
	Cancelled:          {codes.Canceled, 1, "ECANCELED"},
	Unreachable:        {codes.Unavailable, 4, "ECONNREFUSED"},
	Internal:           {codes.Internal, 70, "EPROTO"},
}

// Lookup returns the reason's row; that of Internal for an unknown reason.
func (r Reason) Lookup() Row {
	if row, ok := table[r]; ok {
		return row
	}
	return table[Internal]
}

// All returns every reason, in no order.
func All() []Reason {
	all := make([]Reason, 0, len(table))
	for r := range table {
		all = append(all, r)
	}
	return all
}

// Whole is the Index of an Error that concerns a batch or request as a whole.
const Whole = -1

// Error is an error that may be shown to the caller: what was wrong, what is allowed, what to do.
type Error struct {
	Reason     Reason
	Message    string
	Queue      string        // the queue concerned, or ""
	Index      int           // the element of the batch concerned, or Whole
	Field      string        // the field of the request concerned, or ""
	RetryAfter time.Duration // when trying again may help, or 0
}

// New returns an Error that concerns the whole request.
func New(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...), Index: Whole}
}

// Invalid returns an InvalidArgument error about a field of the request.
func Invalid(field, format string, args ...any) *Error {
	e := New(InvalidArgument, format, args...)
	e.Field = field
	return e
}

// On returns e with the queue's name added, unless it has one.
func (e *Error) On(queue string) *Error {
	if e.Queue == "" {
		e.Queue = queue
	}
	return e
}

// At returns e with the index of the element concerned.
func (e *Error) At(index int) *Error {
	e.Index = index
	return e
}

// Retry returns e with a hint when trying again may help.
func (e *Error) Retry(after time.Duration) *Error {
	e.RetryAfter = after
	return e
}

// Error returns the message, with the queue and the index in front where they are known.
func (e *Error) Error() string {
	s := e.Message
	if e.Index != Whole {
		s = fmt.Sprintf("[%d] %s", e.Index, s)
	}
	if e.Queue != "" {
		s = e.Queue + ": " + s
	}
	return s
}

// Is reports whether target is an Error of the same reason.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason
}

// Of returns the reason of err: that of the Error in its chain, Internal if there is none, "" for nil.
func Of(err error) Reason {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return Internal
}
