"""Messages: what programs hand in, what they are handed out, and what peek shows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Type as Class, Union

from . import _convert as convert
from ._errors import Error, Internal, InvalidArgument
from ._proto import message_pb2 as pb
from ._proto import message_service_pb2 as ms
from ._selector import Names, Type, type_number

if TYPE_CHECKING:
    from ._settle import Lease

_REASON_BYTES = 256


@dataclass
class Message:
    """What a program hands in: a body and what is said about it.

    body           bytes, or text that is sent as UTF-8; may be empty
    type           a positive number, or one of the names that the queue has for its types
    priority       0 to 32767, higher first, as in mq_send(3)
    headers        travel with the body; values as the body
    delay          not delivered before this long after it was sent: seconds or timedelta
    not_before     not delivered before this time; not together with delay
    ttl            dropped when it was not consumed this long after it was sent: seconds or timedelta; None: never
    dedup_id       a second message with the same id within the queue's window is not stored again
    correlation_id for the programs' own use
    reply_to       the queue in which an answer is expected
    content_type   the media type of the body
    """

    body: convert.Bytes = b""
    type: Type = 1
    priority: int = 0
    headers: Mapping[str, convert.Bytes] = field(default_factory=dict)
    delay: Optional[convert.Duration] = None
    not_before: Optional[datetime] = None
    ttl: Optional[convert.Duration] = None
    dedup_id: str = ""
    correlation_id: str = ""
    reply_to: str = ""
    content_type: str = ""

    def _proto(self, names: Names) -> pb.Message:
        if self.delay is not None and self.not_before is not None:
            raise InvalidArgument("a message with delay and not_before: give one of them")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int) or not 0 <= self.priority <= 32767:
            raise InvalidArgument(f"priority {self.priority!r}: it must be a number from 0 to 32767")
        message = pb.Message(
            type=type_number(self.type, names),
            priority=self.priority,
            body=convert.to_bytes(self.body, "a body"),
            dedup_id=self.dedup_id,
            correlation_id=self.correlation_id,
            reply_to=convert.queue_name(self.reply_to) if self.reply_to else "",
            content_type=self.content_type,
        )
        for name, value in self.headers.items():
            message.headers[name] = convert.to_bytes(value, f"header {name!r}")
        if self.delay is not None:
            message.delay.CopyFrom(convert.duration(self.delay, "delay"))
        if self.not_before is not None:
            message.not_before.CopyFrom(convert.timestamp(self.not_before, "not_before"))
        if self.ttl is not None:
            message.ttl.CopyFrom(convert.duration(self.ttl, "ttl"))
        return message


Sendable = Union[Message, bytes, bytearray, memoryview, str]
"""A message, or its body alone."""


def message(body: Sendable, fields: Mapping[str, Any]) -> Message:
    """The message that a send is about."""
    if not isinstance(body, Message):
        return Message(body, **fields)
    if fields:
        raise InvalidArgument(f"a Message and {', '.join(fields)}: set the Message's own fields")
    return body


def messages(batch: List[Sendable], names: Names) -> List[pb.Message]:
    """A batch as ipcd.v1 carries it. What is wrong with one names its index."""
    result = []
    for index, one in enumerate(batch):
        try:
            result.append(message(one, {})._proto(names))
        except (TypeError, ValueError) as err:  # of protobuf, such as text that is no UTF-8
            error = err if isinstance(err, Error) else InvalidArgument(str(err))
            if len(batch) > 1 and error.index is None:
                error.index = index
            raise error from None
    return result


class Sent(NamedTuple):
    """What became of a message that was sent."""

    sequence: int
    """Rises in each queue and is never used twice."""
    duplicate: bool
    """It was not stored: sequence is that of the first message with its dedup id."""
    sent_at: datetime
    """As the daemon stamped it."""


def sent(stored: ms.Stored, count: int) -> List[Sent]:
    """What became of each message of a batch."""
    if stored.count != count or len(stored.duplicates) > count:
        raise Internal(f"{count} messages were sent, the answer is about {stored.count}")
    duplicates = {d.index: d.sequence for d in stored.duplicates}
    at = convert.when(stored.send_time)
    result, sequence = [], stored.first_sequence
    for index in range(count):
        if index in duplicates:
            result.append(Sent(duplicates[index], True, at))
        else:
            result.append(Sent(sequence, False, at))
            sequence += 1
    return result


def _fields(m: pb.Message) -> Dict[str, Any]:
    return dict(
        body=m.body,
        type=m.type,
        priority=m.priority,
        headers=dict(m.headers),
        ttl=convert.span(m.ttl) if m.HasField("ttl") else None,
        dedup_id=m.dedup_id,
        correlation_id=m.correlation_id,
        reply_to=m.reply_to,
        content_type=m.content_type,
    )


class Delivery:
    """A message as it is handed out, leased until it is settled.

    ack, nack, touch, release and bury settle it. They raise StaleReceipt, and change nothing, once the delivery is over:
    settled before, or its lease expired. As a context manager it acks at the end, nacks when the block raises, and does
    neither when the block has settled it:

        with delivery:
            work(delivery.body)

    body, type, priority, headers, ttl, dedup_id, correlation_id, reply_to, content_type are those of Message.

    queue          the queue's name
    sequence       rises in each queue and is never used twice
    attempts       leases of this message that ended in nack, expiry or a broken stream
    sent_at        as the daemon stamped it
    lease_expires  by the daemon's clock, as of the delivery or the last touch; None if it was consumed at once
    receipt        names this delivery and no later one; text that is safe in a shell; "" if it was consumed at once
    truncated_from the length in bytes of the whole body, if it was cut to the receiver's buffer, else 0
    """

    body: bytes
    type: int
    priority: int
    headers: Dict[str, bytes]
    ttl: Optional[float]
    dedup_id: str
    correlation_id: str
    reply_to: str
    content_type: str

    def __init__(self, delivery: pb.Delivery, queue: str, lease: Optional[Lease]) -> None:
        self.__dict__.update(_fields(delivery.message))
        self.queue = delivery.queue or queue
        self.sequence: int = delivery.sequence
        self.sent_at: datetime = convert.when(delivery.send_time)
        self.attempts: int = delivery.attempts
        self.lease_expires: Optional[datetime] = None
        if delivery.HasField("lease_expire_time"):
            self.lease_expires = convert.when(delivery.lease_expire_time)
        self.receipt: str = delivery.receipt
        self.truncated_from: int = delivery.truncated_from
        self._lease = lease
        self._settled = lease is None

    def __repr__(self) -> str:
        return f"<Delivery {self.queue} #{self.sequence} type {self.type}, {len(self.body)} bytes>"

    def ack(self) -> None:
        """Says that the message is done. It is removed."""
        self._settle(ms.Settlement(ack=ms.Ack()))

    def nack(self, delay: Optional[convert.Duration] = None, reason: str = "") -> None:
        """Says that it failed: it counts as an attempt and comes again after the delay, or with None after the queue's
        back-off. The reason, cut to 256 bytes, goes into the headers should the message be dead-lettered."""
        nack = ms.Nack(reason=convert.cut(reason, _REASON_BYTES))
        if delay is not None:
            nack.delay.CopyFrom(convert.duration(delay, "delay"))
        self._settle(ms.Settlement(nack=nack))

    def release(self) -> None:
        """Gives the message back without counting an attempt."""
        self._settle(ms.Settlement(release=ms.Release()))

    def bury(self, reason: str = "") -> None:
        """Sets the message aside until it is kicked."""
        self._settle(ms.Settlement(bury=ms.Bury(reason=convert.cut(reason, _REASON_BYTES))))

    def touch(self, lease: Optional[convert.Duration] = None) -> datetime:
        """Restarts the lease from now, for as long as given or as it was. Returns its new end by the daemon's clock."""
        touch = ms.Touch()
        if lease is not None:
            touch.lease.CopyFrom(convert.duration(lease, "lease"))
        self.lease_expires = self._held().settle(self, ms.Settlement(touch=touch))
        assert self.lease_expires is not None
        return self.lease_expires

    def reply(self, body: Sendable = b"", **fields: Any) -> Sent:
        """Sends an answer to the queue in reply_to under the delivery's correlation id. Takes what Queue.send takes.
        Raises QueueNotFound if nobody waits for it any more. The delivery is settled separately, best after this."""
        if not self.reply_to:
            raise InvalidArgument("the message asks for no reply: its reply_to is empty", queue=self.queue)
        answer = message(body, fields)
        if not answer.correlation_id:
            answer = replace(answer, correlation_id=self.correlation_id)
        return self._held().client.queue(self.reply_to).send(answer)

    def __enter__(self) -> Delivery:
        return self

    def __exit__(
        self, kind: Optional[Class[BaseException]], error: Optional[BaseException], _: Optional[TracebackType]
    ) -> None:
        if self._settled:
            return
        if error is None:
            self.ack()
            return
        try:
            self._fail(error)
        except Error:
            pass  # the message comes again anyway, and what the block raised matters more

    def _fail(self, error: BaseException) -> None:
        """What an exception means: it counts as an attempt, unless the program was made to stop."""
        if isinstance(error, Exception):
            self.nack(reason=f"{type(error).__name__}: {error}")
        else:
            self.release()

    def _settle(self, settlement: ms.Settlement) -> None:
        self._held().settle(self, settlement)
        self._settled = True

    def _done_elsewhere(self) -> None:
        """It was settled by its receipt."""
        self._settled = True
        if self._lease is not None:
            self._lease.settled_elsewhere(self)

    def _held(self) -> Lease:
        if self._lease is None:
            raise InvalidArgument("the message was consumed at once: there is nothing to settle", queue=self.queue)
        return self._lease


_STATES = {1: "ready", 2: "delayed", 3: "leased", 4: "buried"}


class Peeked:
    """A message as peek and tap show it.

    Has the fields of Delivery but queue, lease and receipt, and:
    state      "ready", "delayed", "leased" or "buried"
    due        when a delayed message becomes ready, or None
    expires    when its TTL ends, or None
    bury_reason why a buried message was buried
    """

    body: bytes
    type: int
    priority: int
    headers: Dict[str, bytes]
    ttl: Optional[float]
    dedup_id: str
    correlation_id: str
    reply_to: str
    content_type: str

    def __init__(self, peeked: pb.PeekedMessage) -> None:
        self.__dict__.update(_fields(peeked.message))
        self.sequence: int = peeked.sequence
        self.sent_at: datetime = convert.when(peeked.send_time)
        self.state: str = _STATES.get(peeked.state, "unspecified")
        self.attempts: int = peeked.attempts
        self.due: Optional[datetime] = self._time(peeked, "due_time")
        self.lease_expires: Optional[datetime] = self._time(peeked, "lease_expire_time")
        self.expires: Optional[datetime] = self._time(peeked, "expire_time")
        self.bury_reason: str = peeked.bury_reason
        self.truncated_from: int = peeked.truncated_from

    @staticmethod
    def _time(peeked: pb.PeekedMessage, name: str) -> Optional[datetime]:
        return convert.when(getattr(peeked, name)) if peeked.HasField(name) else None

    def __repr__(self) -> str:
        return f"<Peeked #{self.sequence} {self.state}, type {self.type}, {len(self.body)} bytes>"


def filter_proto(
    selector: Optional[pb.Selector],
    states: Tuple[str, ...],
    min_sequence: int,
    max_sequence: int,
    older_than: Optional[convert.Duration],
    headers: Optional[Mapping[str, convert.Bytes]],
) -> pb.Filter:
    """Which messages peek shows and purge, kick, move and redrive touch."""
    result = pb.Filter(selector=selector, min_sequence=min_sequence, max_sequence=max_sequence)
    for state in states:
        numbers = [number for number, name in _STATES.items() if name == state]
        if not numbers:
            raise InvalidArgument(f"state {state!r}: it must be one of {', '.join(_STATES.values())}")
        result.states.append(numbers[0])
    if older_than is not None:
        result.older_than.CopyFrom(convert.duration(older_than, "older_than"))
    for name, value in (headers or {}).items():
        result.headers[name] = convert.to_bytes(value, f"header {name!r}")
    return result
