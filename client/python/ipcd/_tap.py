"""Copies of what arrives in a queue."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Deque, Optional, Type as Class
from collections import deque

from . import _errors as errors
from ._message import Peeked
from ._proto import message_service_pb2 as ms

if TYPE_CHECKING:
    from ._queue import Queue


class Tap:
    """Iterates over copies of what arrives in a queue since the tap was opened. It is a context manager that closes itself.

    A reader that is too slow misses messages: skipped is how many so far.
    """

    def __init__(self, queue: Queue, request: ms.TapRequest) -> None:
        self.skipped = 0
        self._ready: Deque[Peeked] = deque()
        self._responses = queue.client._stream(queue.client._messages.Tap, request, queue.name)
        # The first response is empty and says that the tap is open.
        if next(self._responses, None) is None:
            raise errors.Internal("the daemon opened no tap and does not say why", queue=queue.name)

    def __iter__(self) -> Tap:
        return self

    def __next__(self) -> Peeked:
        while not self._ready:
            response = next(self._responses)
            self.skipped += response.skipped
            self._ready.extend(Peeked(one) for one in response.messages)
        return self._ready.popleft()

    def close(self) -> None:
        """Ends the tap. The thread that iterates over it does that; another one closes the client."""
        self._responses.close()  # type: ignore[attr-defined]  # it is a generator

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self, kind: Optional[Class[BaseException]], error: Optional[BaseException], _: Optional[TracebackType]
    ) -> None:
        self.close()
