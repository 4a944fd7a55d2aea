"""One Consume stream.

Three parties work on it: the consumer's thread reads what the daemon says (run), gRPC's thread alone writes (_requests),
and the program's threads hand in settlements (Held.settle).

    delivered -> in the backlog -> in the program's hands -> settled -> confirmed
                     |                     |
                     |                     +-> stream broke: it can no longer be settled
                     +-> stopping: released; stream broke: dropped
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional

import grpc

from . import _convert as convert
from . import _errors as errors
from ._message import Delivery
from ._proto import message_service_pb2 as ms

if TYPE_CHECKING:
    from ._client import Client
    from ._consumer import Consumer

_CREDIT_BYTES = 16 << 20
_FRAME_SETTLEMENTS = 4096


@dataclass
class _Settling:
    """A settlement on its way. answer is None where nobody waits for it."""

    delivery: Delivery
    settlement: ms.Settlement
    answer: Optional[Future[Optional[datetime]]]


class Held:
    """The lease of a delivery of a stream."""

    def __init__(self, stream: Stream, client: Client, tag: int, size: int) -> None:
        self.stream = stream
        self.client = client
        self.tag = tag
        self.size = size  # bytes of credit
        self.leased = time.monotonic()  # when the lease last began, as far as known here
        self.later = False  # settle does not wait

    def settle(self, delivery: Delivery, settlement: ms.Settlement) -> Optional[datetime]:
        answer: Optional[Future[Optional[datetime]]] = None if self.later else Future()
        self.stream.settle(delivery, settlement, answer)
        return None if answer is None else answer.result()

    def settled_elsewhere(self, delivery: Delivery) -> None:
        self.stream.forget(delivery)


def _stale(delivery: Delivery) -> errors.StaleReceipt:
    return errors.StaleReceipt(
        "the delivery is over: it was settled before, or its connection broke and the message comes again",
        queue=delivery.queue,
    )


class Stream:
    """See above."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._client = consumer.queue.client
        self._commands: queue.SimpleQueue[Optional[_Settling]] = queue.SimpleQueue()  # None: look what there is to do
        self.opened = False
        self._call: Any = None
        self._lease = 0.0  # seconds; 0: not known yet
        self._lock = threading.Lock()  # guards all below
        self._unsettled: Dict[int, Delivery] = {}
        self._unconfirmed: Dict[int, List[_Settling]] = {}
        self._credit = ms.Credit()  # to be given back to the daemon
        self._giving_back = False  # nothing goes to the backlog any more
        self._drained = False
        self._broken = False

    # The program's threads.

    def holds(self, delivery: Delivery) -> bool:
        """Whether a delivery of the backlog is still to be worked on."""
        with self._lock:
            return delivery._lease.tag in self._unsettled  # type: ignore[union-attr]

    def settle(self, delivery: Delivery, settlement: ms.Settlement, answer: Optional[Future[Any]]) -> None:
        """Hands in a settlement. answer is told what came of it."""
        held: Held = delivery._lease  # type: ignore[assignment]
        with self._lock:
            if self._broken or held.tag not in self._unsettled:
                raise _stale(delivery)
            if settlement.HasField("touch"):
                held.leased = time.monotonic()
            else:
                self._done(held)
            settlement.tags.first = settlement.tags.last = held.tag
            self._commands.put(_Settling(delivery, settlement, answer))

    def forget(self, delivery: Delivery) -> None:
        """Notes that a delivery was settled by its receipt."""
        with self._lock:
            if delivery._lease.tag in self._unsettled:  # type: ignore[union-attr]
                self._done(delivery._lease)  # type: ignore[arg-type]
        self.wake()

    def release_all(self) -> None:
        """Gives back whatever is not settled."""
        with self._lock:
            held = list(self._unsettled.values())
        for delivery in held:
            try:
                self.settle(delivery, ms.Settlement(release=ms.Release()), None)
                delivery._settled = True
            except errors.StaleReceipt:
                pass  # somebody was faster

    def wake(self) -> None:
        """Lets the writer look what there is to do."""
        self._commands.put(None)

    def _done(self, held: Held) -> None:
        """Notes, with the lock held, that a delivery is settled, and that its credit can be given back."""
        del self._unsettled[held.tag]
        self._credit.messages += 1
        self._credit.bytes += held.size

    # gRPC's thread: what is written.

    def _requests(self) -> Iterator[ms.ConsumeRequest]:
        yield ms.ConsumeRequest(open=self._consumer.open)
        yield ms.ConsumeRequest(credit=ms.Credit(messages=self._consumer.prefetch, bytes=_CREDIT_BYTES))
        settle_id, drain_sent, touched = 0, False, time.monotonic()
        while True:
            settlements = self._gather(touched)
            if self._lease and time.monotonic() >= touched + self._lease / 4:
                touched = time.monotonic()
                settlements += self._touches(touched)
            if self._consumer.stopping:
                settlements += self._give_back()
            if settlements:
                settle_id += 1
                if not self._expect(settle_id, settlements):
                    return
                frame = ms.Settlements(settle_id=settle_id, settlements=[s.settlement for s in settlements])
                yield ms.ConsumeRequest(settlements=frame)
            if self._consumer.stopping and not drain_sent:
                drain_sent = True
                yield ms.ConsumeRequest(drain=ms.Drain())
            credit = self._credit_due()
            if credit is not None and not drain_sent:
                yield ms.ConsumeRequest(credit=credit)
            with self._lock:
                if self._broken or (self._drained and not self._unsettled and not self._unconfirmed):
                    if self._commands.empty():
                        return

    def _gather(self, touched: float) -> List[_Settling]:
        """Waits until there is something to do, and takes what was handed in."""
        result: List[_Settling] = []
        timeout = max(0.0, touched + self._lease / 4 - time.monotonic()) if self._lease else None
        try:
            command = self._commands.get(timeout=timeout)
            while True:
                if command is not None:
                    result.append(command)
                if len(result) >= _FRAME_SETTLEMENTS:
                    return result
                command = self._commands.get_nowait()
        except queue.Empty:
            return result

    def _expect(self, settle_id: int, settlements: List[_Settling]) -> bool:
        """Notes that settlements are about to be written; False: the stream is over, and who waits is told."""
        with self._lock:
            if not self._broken:
                self._unconfirmed[settle_id] = settlements
                return True
        for settling in settlements:
            self._fail(settling, _stale(settling.delivery))
        return False

    def _touches(self, now: float) -> List[_Settling]:
        """Restarts the leases that are old: so each is restarted between a quarter and a half of its time."""
        result = []
        with self._lock:
            for tag, delivery in self._unsettled.items():
                held: Held = delivery._lease  # type: ignore[assignment]
                if now - held.leased >= self._lease / 4:
                    held.leased = now
                    touch = ms.Settlement(touch=ms.Touch(), tags=ms.TagRange(first=tag, last=tag))
                    result.append(_Settling(delivery, touch, None))
        return result

    def _give_back(self) -> List[_Settling]:
        """Releases what nobody has begun."""
        result = []
        with self._lock:
            first, self._giving_back = not self._giving_back, True
            while first:
                try:
                    delivery = self._consumer.backlog.get_nowait()
                except queue.Empty:
                    break
                if delivery is not None:
                    result += self._released(delivery)
        if first:
            self._consumer.backlog.put(None)
        return result

    def _released(self, delivery: Delivery) -> List[_Settling]:
        """What releases a delivery, with the lock held; nothing if it is not ours, or settled."""
        held: Held = delivery._lease  # type: ignore[assignment]
        if held.stream is not self or held.tag not in self._unsettled:
            return []
        self._done(held)
        delivery._settled = True
        release = ms.Settlement(release=ms.Release(), tags=ms.TagRange(first=held.tag, last=held.tag))
        return [_Settling(delivery, release, None)]

    def _credit_due(self) -> Optional[ms.Credit]:
        """Credit goes back in halves, and all of it when nothing is left to do, so that a message as large as all credit
        can come."""
        with self._lock:
            credit = self._credit
            if credit.messages == 0 or (
                self._unsettled
                and credit.messages < (self._consumer.prefetch + 1) // 2
                and credit.bytes < _CREDIT_BYTES // 2
            ):
                return None
            self._credit = ms.Credit()
            return credit

    # The consumer's thread: what is read.

    def run(self, opened: Callable[[], None]) -> Optional[errors.Error]:
        """Works until the stream ends, and returns why; None: in good order."""
        try:
            self._call = self._client._messages.Consume(self._requests())
            for response in self._call:
                kind = response.WhichOneof("kind")
                if kind == "opened":
                    self._lease = convert.span(response.opened.lease)
                    self.opened = True
                    self.wake()  # from now on leases can be prolonged
                    opened()
                elif kind == "deliveries":
                    self._delivered(response.deliveries)
                elif kind == "settle_results":
                    self._confirmed(response.settle_results)
                elif kind == "drained":
                    with self._lock:
                        self._drained = True
                    self.wake()
            return None
        except grpc.RpcError as err:
            return errors.of_call(err, self._client.address, self._consumer.queue.name)
        except ValueError as err:
            return errors.Cancelled(f"the client is closed ({err})")
        finally:
            self._end()

    def _delivered(self, frame: ms.Deliveries) -> None:
        released = []
        for i, one in enumerate(frame.deliveries):
            m = one.message
            size = len(m.body) + sum(len(k.encode()) + len(v) for k, v in m.headers.items())
            size += sum(len(text.encode()) for text in (m.dedup_id, m.correlation_id, m.reply_to, m.content_type))
            held = Held(self, self._client, frame.first_tag + i, size)
            delivery = Delivery(one, self._consumer.queue.name, held)
            with self._lock:
                self._unsettled[held.tag] = delivery
                if self._giving_back:
                    released += self._released(delivery)
                else:
                    self._consumer.backlog.put(delivery)
        for settling in released:
            self._commands.put(settling)

    def _confirmed(self, results: ms.SettleResults) -> None:
        with self._lock:
            frame = self._unconfirmed.pop(results.settle_id, [])
        failed = {f.index: errors.of_part(f.error, self._consumer.queue.name) for f in results.failures}
        ends = {t.index: convert.when(t.lease_expire_time) for t in results.touched}
        for index, settling in enumerate(frame):
            error = failed.get(index)
            if error is not None:
                error.index = None
                if isinstance(error, errors.StaleReceipt):
                    self.forget(settling.delivery)
                self._fail(settling, error)
                continue
            if index in ends:
                settling.delivery.lease_expires = ends[index]
            if settling.answer is not None:
                settling.answer.set_result(ends.get(index))
        self.wake()

    def _fail(self, settling: _Settling, error: errors.Error) -> None:
        if settling.answer is not None:
            settling.answer.set_exception(error)
        else:
            self._consumer.report(settling.delivery, error)

    def _end(self) -> None:
        """Notes that the stream is over. What is not settled never will be."""
        if self._call is not None:
            self._call.cancel()
        with self._lock:
            self._broken = True
            lost = [settling for frame in self._unconfirmed.values() for settling in frame]
            self._unconfirmed.clear()
            self._unsettled.clear()
            while True:
                try:
                    command = self._commands.get_nowait()
                except queue.Empty:
                    break
                if command is not None:
                    lost.append(command)
        self.wake()  # the writer ends
        for settling in lost:
            self._fail(settling, _stale(settling.delivery))
