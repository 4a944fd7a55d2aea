"""Receiving, from one queue or several."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, List, Optional

from . import _convert as convert
from . import _errors as errors
from ._convert import Deadline
from ._exchange import pause
from ._message import Delivery
from ._proto import message_service_pb2 as ms
from ._selector import Types, selector

if TYPE_CHECKING:
    from ._client import Client

_MESSAGES_MAX = 16384
_PATIENCE = 10.0  # seconds for which a receive at least tries to get its connection back


def receive(
    client: Client,
    queues: List[str],
    n: int,
    *,
    wait: Optional[convert.Duration],
    types: Types,
    lease: Optional[convert.Duration],
    at_once: bool,
    max_body_bytes: int = 0,
    truncate: bool = False,
) -> List[Delivery]:
    """See Queue.receive."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MESSAGES_MAX:
        raise errors.InvalidArgument(f"receive {n!r} messages: it must be 1 to {_MESSAGES_MAX}")
    queue = queues[0] if len(queues) == 1 else ""
    request = ms.ReceiveRequest(
        queue=queue,
        queues=[] if queue else queues,
        selector=selector(types)._proto(client._names(queues[0])),
        max_messages=n,
        lease=None if lease is None else convert.duration(lease, "lease"),
        settle_mode=ms.SETTLE_MODE_CONSUME if at_once else ms.SETTLE_MODE_LEASE,
        max_body_bytes=max_body_bytes,
        truncate=truncate,
    )
    total = None if wait is None else convert.seconds(wait, "wait")
    start, end, attempt = time.monotonic(), Deadline(total), 0
    while True:
        request.wait.CopyFrom(convert.duration(end.within(convert.WAIT_MAX), "wait"))
        try:
            response = client._call(client._messages.Receive, request, queue)
        except errors.Error as e:
            if not e._broken() or (not e._sent and attempt == 0):
                raise
            if e._sent and at_once and not e._answered:
                raise errors.OutcomeUnknown(
                    f"messages that were consumed at once may be lost: {e.message}", queue=queue
                ) from None
            patience = None if total is None else max(0.0, start + max(total, _PATIENCE) - time.monotonic())
            again = Deadline(patience)
            pause(attempt, again)
            attempt += 1
            client._await_answer(again)
            continue
        if response.deliveries or end.over():
            held = None if at_once else client._by_receipt
            return [Delivery(d, queue, held) for d in response.deliveries]
