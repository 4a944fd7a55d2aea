"""Why calls fail: one exception class for each reason that ipcd's table of errors has."""

from __future__ import annotations

from typing import Dict, Optional, Sequence, Tuple, Type

import grpc

from ._proto import status_pb2

DOMAIN = "ipcd"
_DETAILS = "grpc-status-details-bin"
_NEVER_SENT = "failed to connect to all addresses"


class Error(Exception):
    """Why a call failed: what was wrong, what is allowed and what to do.

    reason      machine-readable, such as "QUEUE_FULL"
    message     for people
    queue       the queue or ring concerned, or ""
    index       the message, settlement or part of a transaction concerned, counted from 0, or None
    field       the field of the request concerned, or ""
    retry_after when trying again may help, in seconds, or None
    failures    where a call is about several things that fail each for itself: all their errors
    """

    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        queue: str = "",
        index: Optional[int] = None,
        field: str = "",
        retry_after: Optional[float] = None,
        reason: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.queue = queue
        self.index = index
        self.field = field
        self.retry_after = retry_after
        self.failures: Sequence[Error] = ()
        if reason:
            self.reason = reason
        self._answered = False  # the daemon said so, as opposed to the connection or this package
        self._sent = True  # the request may have reached the daemon

    def __str__(self) -> str:
        text = self.message or self.reason
        if self.index is not None:
            text = f"[{self.index}] {text}"
        if self.queue:
            text = f"{self.queue}: {text}"
        return text

    def _on(self, queue: str) -> Error:
        self.queue = self.queue or queue
        return self

    def _broken(self) -> bool:
        """The connection failed, or the daemon goes away, so that another try may help."""
        return isinstance(self, (Unreachable, ShuttingDown, Unhealthy))

    def _leaves_open(self) -> bool:
        """As the refusal of a repeat this tells nothing about the tries before it: the daemon refused it before it
        looked at what the queue remembers of its producers."""
        return self._broken() or isinstance(self, (StaleBatch, QueueNotFound, QueueDeleted, AccessDenied, Internal))


class NotFound(Error):
    """What the call names does not exist."""


class InvalidArgument(Error, ValueError):
    """The request is malformed or outside the limits."""

    reason = "INVALID_ARGUMENT"


class QueueNotFound(NotFound):
    """No queue has this name."""

    reason = "QUEUE_NOT_FOUND"


class QueueExists(Error):
    """A queue has this name, with other settings."""

    reason = "QUEUE_EXISTS"


class QueueFull(Error):
    """The queue holds all that it may."""

    reason = "QUEUE_FULL"


class QuotaExceeded(Error):
    """A limit other than the queue's room was reached."""

    reason = "QUOTA_EXCEEDED"


class MessageTooLarge(Error):
    """A body is larger than the queue takes."""

    reason = "MESSAGE_TOO_LARGE"


class BufferTooSmall(Error):
    """A message is larger than the receiver's buffer."""

    reason = "BUFFER_TOO_SMALL"


class StaleReceipt(Error):
    """The delivery is over: it was settled before, or its lease ended, and nothing was changed."""

    reason = "STALE_RECEIPT"


class DurabilityMismatch(Error):
    """A journal queue would depend on a memory queue."""

    reason = "DURABILITY_MISMATCH"


class QueueDeleted(Error):
    """The queue went away during the call."""

    reason = "QUEUE_DELETED"


class AccessDenied(Error):
    """The owner, group and mode of the queue, or of the socket, do not allow it."""

    reason = "ACCESS_DENIED"


class DiskFull(Error):
    """There is no room to make the message durable."""

    reason = "DISK_FULL"


class Damaged(Error):
    """The queue is read-only, since the journal is damaged."""

    reason = "DAMAGED"


class KernelLimit(Error):
    """A limit of the kernel's message queues is in the way."""

    reason = "KERNEL_LIMIT"


class TimedOut(Error, TimeoutError):
    """The time given is over, and surely nothing was done."""

    reason = "TIMED_OUT"


class Unhealthy(Error):
    """The daemon met an error of its own and stops."""

    reason = "UNHEALTHY"


class ShuttingDown(Error):
    """The daemon is stopping."""

    reason = "SHUTTING_DOWN"


class Unimplemented(Error):
    """This daemon cannot do it."""

    reason = "UNIMPLEMENTED"


class OutcomeUnknown(Error):
    """It is not known whether the messages were stored, or received."""

    reason = "OUTCOME_UNKNOWN"


class ReplyLost(OutcomeUnknown):
    """The queue for replies has ended, so that none can come. The request itself may have been handled."""


class StaleBatch(Error):
    """The batch id is older than what the daemon remembers."""

    reason = "STALE_BATCH"


class KernelNameTaken(Error):
    """A kernel queue of that name belongs to somebody else."""

    reason = "KERNEL_NAME_TAKEN"


class DeadLetterCycle(Error):
    """Dead-letter queues would form a circle."""

    reason = "DEAD_LETTER_CYCLE"


class BindCycle(Error):
    """Queues would hand copies on in a circle."""

    reason = "BIND_CYCLE"


class SchemaNotFound(NotFound):
    """The queue has no schema, or not this version."""

    reason = "SCHEMA_NOT_FOUND"


class SchemaInvalid(Error):
    """The descriptor set, or what it is said to hold, does not make sense."""

    reason = "SCHEMA_INVALID"


class SchemaIncompatible(Error):
    """Readers or writers of the schema's version before could trip over it."""

    reason = "SCHEMA_INCOMPATIBLE"


class SchemaMismatch(Error):
    """A body is not what the queue's schema asks for."""

    reason = "SCHEMA_MISMATCH"


class RingNotFound(NotFound):
    """No ring has this name."""

    reason = "RING_NOT_FOUND"


class RingExists(Error):
    """A ring has this name, with other settings."""

    reason = "RING_EXISTS"


class RingDeleted(Error):
    """The ring went away during the call."""

    reason = "RING_DELETED"


class RingCorrupt(Error):
    """A producer's memory makes no sense: its lane is not read on."""

    reason = "RING_CORRUPT"


class ConsumerEvicted(Error):
    """A lossless consumer held a producer up for too long."""

    reason = "CONSUMER_EVICTED"


class ConfigInvalid(Error):
    """The daemon's configuration has a mistake, and the one before stays in force."""

    reason = "CONFIG_INVALID"


class Unauthenticated(Error):
    """A certificate, the client's or the daemon's, is missing, foreign or not valid any more."""

    reason = "UNAUTHENTICATED"


class Cancelled(Error):
    """The caller gave up, or the client is closed."""

    reason = "CANCELLED"


class Unreachable(Error):
    """No daemon answers at the address, or the connection broke."""

    reason = "UNREACHABLE"


class Internal(Error):
    """A defect in ipcd."""

    reason = "INTERNAL"


def _leaves(cls: Type[Error]) -> Dict[str, Type[Error]]:
    table = {cls.__dict__["reason"]: cls} if cls is not Error and "reason" in cls.__dict__ else {}
    for sub in cls.__subclasses__():
        table.update(_leaves(sub))
    return table


BY_REASON: Dict[str, Type[Error]] = _leaves(Error)

_BY_CODE: Dict[grpc.StatusCode, Type[Error]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: QueueNotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QuotaExceeded,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    grpc.StatusCode.CANCELLED: Cancelled,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
}

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def of_reason(reason: str, message: str) -> Error:
    """The error for a reason; a reason that this version does not know stays readable in .reason."""
    return BY_REASON.get(reason, Error)(message, reason=reason)


def of_part(part, queue: str = "") -> Error:
    """The error of a part of a call that went on, as ipcd.v1.Error tells it."""
    if part.reason:
        error = of_reason(part.reason, part.message)
    else:
        error = _BY_CODE.get(_CODES.get(part.code), Internal)(part.message)
    error.queue = queue
    error._answered = True
    if part.HasField("index"):
        error.index = part.index
    if part.HasField("retry_after"):
        error.retry_after = part.retry_after.ToTimedelta().total_seconds()
    return error


def _details(call: grpc.Call) -> Tuple[bytes, ...]:
    return tuple(v for k, v in (call.trailing_metadata() or ()) if k == _DETAILS and isinstance(v, bytes))


def of_call(call: grpc.RpcError, target: str, queue: str = "") -> Error:
    """The error for a call that gRPC says has failed."""
    status = status_pb2.Status()
    for raw in _details(call):
        try:
            status.ParseFromString(raw)
        except Exception:  # each runtime of protobuf has its own; what cannot be read explains nothing
            status.Clear()
    info, violation, retry = None, "", None
    for detail in status.details:
        name = detail.type_url.rpartition("/")[2]
        if name == "google.rpc.ErrorInfo":
            candidate = status_pb2.ErrorInfo.FromString(detail.value)
            if candidate.domain == DOMAIN:
                info = candidate
        elif name == "google.rpc.RetryInfo":
            retry = status_pb2.RetryInfo.FromString(detail.value).retry_delay.ToTimedelta().total_seconds()
        elif name == "google.rpc.BadRequest":
            fields = status_pb2.BadRequest.FromString(detail.value).field_violations
            violation = fields[0].field if fields else ""
    text = call.details() or ""
    if info is None:
        return _explain(call.code(), text, target, queue)
    error = of_reason(info.reason, text)
    error._answered = True
    error.queue = info.metadata.get("queue", "") or queue
    index = info.metadata.get("index", "")
    if index.isdigit():
        error.index = int(index)
    error.field, error.retry_after = violation, retry
    return error


def _explain(code: grpc.StatusCode, text: str, target: str, queue: str) -> Error:
    """The error for a status that did not come from ipcd but from gRPC underneath."""
    if code is not grpc.StatusCode.UNAVAILABLE:
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            text = "the time given is over"
        return _BY_CODE.get(code, Internal)(text, queue=queue)
    # In words alone does gRPC say whether it had a connection when it took the call. With retries switched off it
    # takes a call to no second one.
    sent = not text.startswith(_NEVER_SENT)
    error: Error
    if sent:
        error = Unreachable(f"the connection to {target} broke: {text}")
    elif "Permission denied" in text:
        error = AccessDenied(
            f"no access to {target}: {text}; the socket, or a directory before it, is closed to this user"
        )
    elif "CERTIFICATE" in text.upper():
        error = Unauthenticated(f"{target}: the daemon's certificate, or ours, is not accepted: {text}")
    else:
        error = Unreachable(f"no ipcd answers at {target}: {text}; is it running, and is this its address?")
    error._sent = sent
    return error
