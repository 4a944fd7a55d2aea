"""Consuming: deliveries as they come, kept while they are worked on, and given back in good order."""

from __future__ import annotations

import queue
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional, Type as Class

from . import _convert as convert
from . import _errors as errors
from ._exchange import pause_seconds
from ._message import Delivery
from ._proto import message_service_pb2 as ms
from ._selector import Types, selector
from ._stream import Stream

if TYPE_CHECKING:
    from ._queue import Queue

_PREFETCH_MAX = 1 << 20


class Consumer:
    """Iterates over a queue's messages, waiting for them, inside a with statement:

        with queue.consumer(types="created") as deliveries:
            for delivery in deliveries:
                with delivery:
                    work(delivery.body)

    Leases are prolonged at half their time until the deliveries are settled. At most prefetch deliveries are there that
    are not settled; more come as they are. Any number of threads may iterate over one consumer at once.

    stop ends it gracefully, as the end of the with statement does: it takes no more, gives back what nobody has begun,
    without counting an attempt, and waits for the daemon's word on what was settled. Deliveries that are still
    held at the end of the with statement are given back too.

    A connection that breaks is made again; the deliveries of the broken one come again, and can no longer be settled
    (StaleReceipt). on_reconnect is told why. on_error is told of settlements by run that failed; it is called from another
    thread and must not wait for a settlement. What they raise ends the consumer.
    """

    def __init__(
        self,
        queue_: Queue,
        types: Types,
        lease: Optional[convert.Duration],
        prefetch: int,
        on_error: Optional[Callable[[Delivery, errors.Error], Any]],
        on_reconnect: Optional[Callable[[errors.Error], Any]],
    ) -> None:
        if not 1 <= prefetch <= _PREFETCH_MAX:
            raise errors.InvalidArgument(f"prefetch {prefetch}: it must be 1 to {_PREFETCH_MAX}")
        self.queue = queue_
        self.prefetch = prefetch
        self.on_error = on_error
        self.open = ms.ConsumeOpen(
            queue=queue_.name,
            selector=selector(types)._proto(queue_.client._names(queue_.name)),
            lease=None if lease is None else convert.duration(lease, "lease"),
            receipts=True,
        )
        self.backlog: queue.SimpleQueue[Optional[Delivery]] = queue.SimpleQueue()  # None: there will be no more
        self.stopping = False
        self._on_reconnect = on_reconnect
        self._begun: queue.SimpleQueue[Optional[BaseException]] = queue.SimpleQueue()
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()  # while it waits to connect again
        self._stream: Optional[Stream] = None
        self._error: Optional[BaseException] = None
        self._thread = threading.Thread(target=self._run, name="ipcd-consumer", daemon=True)

    # The calling threads.

    def __enter__(self) -> Consumer:
        self._thread.start()
        try:
            error = self._begun.get()
        except BaseException:  # the program was interrupted
            self.stop()
            raise
        if error is not None:
            self._thread.join()
            raise error
        return self

    def __exit__(
        self, kind: Optional[Class[BaseException]], error: Optional[BaseException], _: Optional[TracebackType]
    ) -> None:
        self.stop()
        stream = self._stream
        if stream is not None:
            stream.release_all()
        self._thread.join()

    def __iter__(self) -> Iterator[Delivery]:
        return self

    def __next__(self) -> Delivery:
        delivery = self._next(None)
        if delivery is None:
            if self._error is not None:
                raise self._error
            raise StopIteration
        return delivery

    def get(self, timeout: Optional[convert.Duration] = None) -> Optional[Delivery]:
        """The next delivery, or None if none comes in the time given, or the consumer was stopped."""
        try:
            delivery = self._next(None if timeout is None else convert.seconds(timeout, "timeout"))
        except queue.Empty:
            return None
        if delivery is None and self._error is not None:
            raise self._error
        return delivery

    def _next(self, timeout: Optional[float]) -> Optional[Delivery]:
        while not self.stopping:
            delivery = self.backlog.get(timeout=timeout)
            if delivery is None:
                self.backlog.put(None)  # for the other threads
                return None
            if not delivery._lease.stream.holds(delivery):  # type: ignore[union-attr]
                continue
            if not self.stopping:
                return delivery
            delivery._lease.later = True  # type: ignore[union-attr]
            try:
                delivery.release()
            except errors.StaleReceipt:
                pass  # its connection broke: it comes again anyway
        return None

    def run(self, handler: Callable[[Delivery], Any], concurrency: int = 1) -> None:
        """Hands each delivery to the handler, in as many threads, until the consumer is stopped; acks it when the handler
        returns, and nacks it when it raises. Raises why the consumer ended, if it was not stopped."""
        if concurrency == 1:
            self._work(handler)
            return
        failed: List[BaseException] = []

        def work() -> None:
            try:
                self._work(handler)
            except BaseException as err:
                failed.append(err)
                self.stop()

        threads = [
            threading.Thread(target=work, name=f"ipcd-handler-{i}", daemon=True) for i in range(max(1, concurrency))
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:  # the program was interrupted: those that work may finish
            self.stop()
            for thread in threads:
                thread.join()
            raise
        if failed:
            raise failed[0]

    def _work(self, handler: Callable[[Delivery], Any]) -> None:
        for delivery in self:
            failure: Optional[BaseException] = None
            try:
                handler(delivery)
            except BaseException as err:
                failure = err
            if not delivery._settled:
                self._settle(delivery, failure)
            if failure is not None and not isinstance(failure, Exception):
                raise failure

    def _settle(self, delivery: Delivery, failure: Optional[BaseException]) -> None:
        """Settles what a handler is done with, without waiting for the daemon's word."""
        delivery._lease.later = True  # type: ignore[union-attr]
        try:
            if failure is None:
                delivery.ack()
            else:
                delivery._fail(failure)
        except errors.Error as e:
            self.report(delivery, e)

    def report(self, delivery: Delivery, error: errors.Error) -> None:
        """Tells who wants to know that a settlement failed for which nobody waits."""
        if self.on_error is not None:
            self.on_error(delivery, error)

    def stop(self) -> None:
        """Ends the consumer gracefully, without waiting for that. Any thread may call it, and a signal handler too."""
        # No lock is taken: a signal handler may run while its thread holds any.
        self.stopping = True
        self._woken.put(None)
        stream = self._stream
        if stream is not None:
            stream.wake()

    # The thread that keeps a stream open and reads it.

    def _run(self) -> None:
        try:
            self._error = self._keep()
        except BaseException as err:  # of a callback: whoever iterates is told
            self._error = err
        self._begun.put(self._error)
        self.backlog.put(None)

    def _keep(self) -> Optional[errors.Error]:
        """Keeps a stream open until it is stopped, or the daemon refuses. Returns why."""
        begun, attempt = False, 0
        while not self.stopping:
            stream = self._stream = Stream(self)
            error = stream.run(self._opened if not begun else lambda: None)
            if stream.opened:
                begun, attempt = True, 0
            if self.stopping:
                return None
            if error is not None and not (begun and error._broken()):
                return error
            if self._on_reconnect is not None:
                self._on_reconnect(error or errors.Unreachable("the daemon ended the stream"))
            try:
                self._woken.get(timeout=pause_seconds(attempt))
            except queue.Empty:
                attempt += 1
        return None

    def _opened(self) -> None:
        self._begun.put(None)
