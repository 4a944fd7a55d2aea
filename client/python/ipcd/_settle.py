"""How deliveries are settled."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Iterable, List, Optional, Protocol

from . import _convert as convert
from . import _errors as errors
from ._message import Delivery
from ._proto import message_service_pb2 as ms

if TYPE_CHECKING:
    from ._client import Client

_SETTLEMENTS_MAX = 65536


class Lease(Protocol):
    """What a delivery is settled through."""

    client: Client

    def settle(self, delivery: Delivery, settlement: ms.Settlement) -> Optional[datetime]:
        """Says what becomes of the delivery, waits for the daemon's word, and returns the new end of a lease that was
        touched."""

    def settled_elsewhere(self, delivery: Delivery) -> None:
        """Notes that the delivery was settled by its receipt."""


class ByReceipt:
    """Settles in calls of their own."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def settle(self, delivery: Delivery, settlement: ms.Settlement) -> Optional[datetime]:
        settlement.receipt = delivery.receipt
        try:
            response = self.client._call(
                self.client._messages.Settle, ms.SettleRequest(settlements=[settlement]), delivery.queue
            )
        except errors.Error as e:
            e.index = None
            raise
        if response.failures:
            failure = errors.of_part(response.failures[0].error, delivery.queue)
            failure.index = None
            raise failure
        return convert.when(response.touched[0].lease_expire_time) if response.touched else None

    def settled_elsewhere(self, delivery: Delivery) -> None:
        pass


def ack_all(client: Client, deliveries: Iterable[Delivery]) -> None:
    """Acks many in as few calls as possible."""
    todo = list(deliveries)
    failures: List[errors.Error] = []
    for start in range(0, len(todo), _SETTLEMENTS_MAX):
        part = todo[start : start + _SETTLEMENTS_MAX]
        for d in part:
            if not d.receipt:
                raise errors.InvalidArgument(f"delivery {d.sequence} has no receipt to ack it by", queue=d.queue)
        request = ms.SettleRequest(settlements=[ms.Settlement(receipt=d.receipt, ack=ms.Ack()) for d in part])
        response = client._call(client._messages.Settle, request)
        failed = set()
        for f in response.failures:
            failed.add(f.index)
            e = errors.of_part(f.error, part[f.index].queue if f.index < len(part) else "")
            e.index = start + f.index
            failures.append(e)
        for i, d in enumerate(part):
            if i not in failed:
                d._done_elsewhere()
    if failures:
        failures[0].failures = tuple(failures)
        raise failures[0]
