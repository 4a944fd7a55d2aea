"""Queues that end with the session that opened them."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Type as Class

import grpc

from . import _errors as errors
from ._proto import queue_admin_service_pb2 as qa
from ._queue import Queue
from ._settings import settings_proto

if TYPE_CHECKING:
    from ._client import Client

# How many seconds close waits for the daemon.
_PATIENCE = 2


class TemporaryQueue(Queue):
    """A queue with a name that cannot be guessed. It ends when it is closed, when its client is, when the connection breaks,
    or when nothing refers to this object any more; what it holds goes with it. It is a context manager that closes itself.
    """

    def __init__(self, client: Client, settings: Mapping[str, Any]) -> None:
        request = qa.OpenTemporaryQueueRequest(settings=settings_proto(settings))
        try:
            self._call = client._admin.OpenTemporaryQueue(request)
            name = next(self._call).queue.name
        except grpc.RpcError as err:
            raise errors.of_call(err, client.address) from None
        except StopIteration:
            raise errors.Internal("the daemon opened no temporary queue and does not say why") from None
        except ValueError as err:
            raise client._or_closed(err)
        super().__init__(client, name)
        self._ended = threading.Event()
        self._on_end(self._ended.set)

    @property
    def ended(self) -> bool:
        """Whether the queue has ended."""
        return self._ended.is_set()

    def close(self) -> None:
        """Ends the queue. Nothing can be sent to it any more then, unless the daemon did not answer for two seconds."""
        if not self.ended:
            try:  # the end of the call alone would reach the daemon later
                self.client._call(self.client._admin.DeleteQueue, qa.DeleteQueueRequest(name=self.name), self.name, _PATIENCE)
            except errors.Error:
                pass  # what is in its way ends with the call
        self._call.cancel()

    def _on_end(self, callback: Callable[[], None]) -> None:
        """Calls back once, when the queue has ended."""
        if not self._call.add_callback(callback):
            callback()

    def __enter__(self) -> TemporaryQueue:
        return self

    def __exit__(
        self, kind: Optional[Class[BaseException]], error: Optional[BaseException], _: Optional[TracebackType]
    ) -> None:
        self.close()
