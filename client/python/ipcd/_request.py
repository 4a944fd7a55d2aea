"""Request and reply: one queue for the replies to all requests of a client."""

from __future__ import annotations

import queue
import secrets
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, Optional

from . import _errors as errors
from ._convert import Deadline
from ._message import Delivery, Message

if TYPE_CHECKING:
    from ._client import Client
    from ._queue import Queue
    from ._temporary import TemporaryQueue

_REPLIES = 256  # taken at once


class Requester:
    """Sends requests and hands each reply to who waits for it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._opening = threading.Lock()  # held while a session is opened
        self._session: Optional[_Session] = None
        self._lock = threading.Lock()  # guards the one below
        self.late = 0

    def request(self, to: Queue, message: Message, deadline: Deadline) -> Delivery:
        if message.correlation_id or message.reply_to:
            raise errors.InvalidArgument(
                "a request's correlation_id and reply_to are the client's to choose: leave both"
            )
        session, waiter = self._begin(secrets.token_hex(16))
        try:
            fields: Dict[str, Any] = dict(correlation_id=waiter.id, reply_to=session.queue.name)
            left = deadline.left()
            if message.ttl is None and left:
                fields["ttl"] = left
            to.send(replace(message, **fields), timeout=left)
            return waiter.wait(deadline)
        finally:
            session.forget(waiter)

    def close(self) -> None:
        session = self._session
        if session is not None:
            session.queue.close()

    def _begin(self, id: str) -> tuple[_Session, _Waiter]:
        """A waiter, in a session that has not ended yet."""
        while True:
            with self._opening:
                if self._session is None:
                    self._session = _Session(self, self._client.open_temporary())
                session = self._session
            waiter = session.add(id)
            if waiter is not None:
                return session, waiter
            self._drop(session)

    def _drop(self, session: _Session) -> None:
        with self._opening:
            if self._session is session:
                self._session = None

    def count_late(self) -> None:
        with self._lock:
            self.late += 1


class _Waiter:
    """A request that waits for its reply."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.answers: queue.SimpleQueue[Optional[Delivery]] = queue.SimpleQueue()  # None: the session has ended

    def wait(self, deadline: Deadline) -> Delivery:
        try:
            answer = self.answers.get(timeout=deadline.left())
        except queue.Empty:
            raise errors.TimedOut(
                "no reply came in the time given; the request may have been handled, or may still be"
            ) from None
        if answer is None:
            raise errors.ReplyLost(
                "the queue for replies has ended, since the connection to the daemon broke or the client was closed: the "
                "request may have been handled, and no reply to it can come any more"
            )
        return answer


class _Session:
    """A temporary queue for replies, and the thread that reads it."""

    def __init__(self, requester: Requester, temporary: TemporaryQueue) -> None:
        self.queue = temporary
        self._requester = requester
        self._lock = threading.Lock()  # guards all below
        self._waiting: Optional[Dict[str, _Waiter]] = {}  # None: it has ended
        threading.Thread(target=self._read, name="ipcd-replies", daemon=True).start()

    def add(self, id: str) -> Optional[_Waiter]:
        """A new waiter, or None if the session has ended."""
        with self._lock:
            if self._waiting is None or self.queue.ended:
                return None
            waiter = self._waiting[id] = _Waiter(id)
            return waiter

    def forget(self, waiter: _Waiter) -> None:
        with self._lock:
            if self._waiting is not None:
                self._waiting.pop(waiter.id, None)

    def _read(self) -> None:
        self.queue._on_end(self._end)
        try:
            while True:
                for reply in self.queue.receive(_REPLIES, wait=None, at_once=True):
                    with self._lock:
                        waiter = (self._waiting or {}).pop(reply.correlation_id, None)
                    if waiter is None:
                        self._requester.count_late()
                    else:
                        waiter.answers.put(reply)
        except errors.Error:
            pass  # whatever it was, replies may be missing
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, None
        for waiter in (waiting or {}).values():
            waiter.answers.put(None)
        self.queue.close()
