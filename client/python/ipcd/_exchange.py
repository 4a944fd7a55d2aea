"""Calls that may be made again when their answer was lost, without being done twice.

A batch carries the id of its producer and its own, under which the daemon stores it once, and the daemon instance that
saw it first: a later instance, which cannot know whether the batch was stored, refuses it.
"""

from __future__ import annotations

import itertools
import random
import secrets
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional, TypeVar

from . import _errors as errors
from ._convert import Deadline

if TYPE_CHECKING:
    from ._client import Client

Answer = TypeVar("Answer")

# How long, in seconds, after its connection broke a batch may still be sent again. The daemon remembers batches for two
# minutes; the rest of that covers the time in which a dead connection went unnoticed.
RESEND_WINDOW = 60.0
_INSTANCE_TRIES = 4
_REFUSED_BY_GRPC = (errors.QuotaExceeded, errors.Unimplemented, errors.InvalidArgument)


class Lane:
    """A producer as the daemon sees it, with one batch under way at a time, so that its batch ids rise."""

    def __init__(self, producer: str) -> None:
        self.producer = producer
        self.batch = 0

    def next_batch(self) -> int:
        self.batch += 1
        return self.batch


class Lanes:
    """A client's producers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._client = secrets.token_hex(16)
        self._made = 0
        self._free: List[Lane] = []

    @contextmanager
    def take(self) -> Iterator[Lane]:
        """A lane for one call. It is not used again if its batch may still be under way at the daemon."""
        with self._lock:
            if self._free:
                lane = self._free.pop()
            else:
                self._made += 1
                lane = Lane(f"{self._client}/{self._made}")
        try:
            yield lane
        except errors.Error as e:
            if not isinstance(e, errors.OutcomeUnknown):
                self._give(lane)
            raise
        # Not where the program was interrupted: nobody knows what became of the batch.
        self._give(lane)

    def _give(self, lane: Lane) -> None:
        with self._lock:
            self._free.append(lane)


def pause(attempt: int, deadline: Deadline) -> None:
    """Waits before another try, attempt counted from 0."""
    time.sleep(deadline.within(pause_seconds(attempt)))


def pause_seconds(attempt: int) -> float:
    """How long to wait before another try: twice as long each time, up to two seconds, and not all at once."""
    return min(0.02 * 2 ** min(attempt, 7), 2.0) * random.uniform(0.8, 1.2)


def once(
    client: Client,
    call: Callable[[str, Optional[float]], Answer],
    deadline: Deadline,
    instance: str,
    unknown: Callable[[errors.Error], errors.Error],
    leaves_open: Callable[[errors.Error], bool] = errors.Error._leaves_open,
) -> Answer:
    """Makes a call until it is answered, over as many connections as that takes.

    call makes it, for the instance and with the seconds given. leaves_open says whether the refusal of a repeat tells
    nothing about the tries before it. unknown is the error where it remains open what became of the call.
    """
    broken: Optional[Deadline] = None  # until when it may be repeated, once a connection broke with the call on it
    for attempt in itertools.count():
        try:
            return call(instance, deadline.left())
        except errors.Error as error:
            e = error
        answered, unsure = e._answered, broken is not None
        if answered and isinstance(e, errors.Unhealthy):
            unsure = True  # the disk failed with the outcome on its way there
        elif answered and not unsure:
            if not isinstance(e, errors.OutcomeUnknown) or attempt >= _INSTANCE_TRIES:
                raise e
            # Another instance than the one asked for refused it; nothing was done anywhere.
            instance = client._ask_instance(deadline.left())
            continue
        elif answered and not e._broken():
            raise unknown(e) if leaves_open(e) else e
        if not (unsure or e._sent):
            raise e  # no connection took it
        if deadline.over():
            raise unknown(errors.TimedOut("the time given is over"))
        if not e._broken():
            if broken is None and isinstance(e, _REFUSED_BY_GRPC):
                raise e
            raise unknown(e)
        client._forget_instance()
        if broken is None:
            broken = Deadline(deadline.within(RESEND_WINDOW))
        try:
            pause(attempt, broken)
            client._await_answer(broken)
        except errors.Error as lost:
            raise unknown(errors.TimedOut("the time given is over") if deadline.over() else lost) from None
    raise AssertionError("unreachable")


def unknown_stored(queue: str) -> Callable[[errors.Error], errors.Error]:
    """The error for a batch that was sent and not answered."""

    def unknown(cause: errors.Error) -> errors.Error:
        return errors.OutcomeUnknown(
            f"it is not known whether the messages were stored ({cause.message}); look with peek, or send again with a "
            "dedup id",
            queue=queue,
        )

    return unknown


def unknown_transaction(cause: errors.Error) -> errors.Error:
    """The error for a transaction that was sent and not answered."""
    return errors.OutcomeUnknown(f"it is not known whether the transaction was done ({cause.message}); look with peek")
