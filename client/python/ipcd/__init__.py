"""ipcd: typed messages between the programs of a Linux host.

    import ipcd

    with ipcd.connect() as client:
        jobs = client.queue("/jobs")
        jobs.send(b"resize 7.png", type=7)
        for job in jobs.receive(10, wait=5, types=7):
            with job:  # acks at the end, nacks when the block raises
                work(job.body)

Client, Queue and Consumer may be used by any number of threads at once; a Delivery, a Tap and what peek returns by one at a
time. Times are seconds or timedelta; points in time are datetimes in UTC. What fails raises an ipcd.Error.
"""

from ._address import TLS, default_address
from ._client import Client, Transaction, connect
from ._consumer import Consumer
from ._errors import (
    AccessDenied,
    BindCycle,
    BufferTooSmall,
    Cancelled,
    ConfigInvalid,
    ConsumerEvicted,
    Damaged,
    DeadLetterCycle,
    DiskFull,
    DurabilityMismatch,
    Error,
    Internal,
    InvalidArgument,
    KernelLimit,
    KernelNameTaken,
    MessageTooLarge,
    NotFound,
    OutcomeUnknown,
    QueueDeleted,
    QueueExists,
    QueueFull,
    QueueNotFound,
    QuotaExceeded,
    ReplyLost,
    RingCorrupt,
    RingDeleted,
    RingExists,
    RingNotFound,
    SchemaIncompatible,
    SchemaInvalid,
    SchemaMismatch,
    SchemaNotFound,
    ShuttingDown,
    StaleBatch,
    StaleReceipt,
    TimedOut,
    Unauthenticated,
    Unhealthy,
    Unimplemented,
    Unreachable,
)
from ._message import Delivery, Message, Peeked, Sent
from ._queue import Queue
from ._schema import Schema
from ._selector import ANY, Selector, not_type, of_type, one_of, upto
from ._settings import Bind, QueueInfo, QueueStats
from ._tap import Tap
from ._temporary import TemporaryQueue

__all__ = [
    "ANY",
    "AccessDenied",
    "Bind",
    "BindCycle",
    "BufferTooSmall",
    "Cancelled",
    "Client",
    "ConfigInvalid",
    "Consumer",
    "ConsumerEvicted",
    "Damaged",
    "DeadLetterCycle",
    "Delivery",
    "DiskFull",
    "DurabilityMismatch",
    "Error",
    "Internal",
    "InvalidArgument",
    "KernelLimit",
    "KernelNameTaken",
    "Message",
    "MessageTooLarge",
    "NotFound",
    "OutcomeUnknown",
    "Peeked",
    "Queue",
    "QueueDeleted",
    "QueueExists",
    "QueueFull",
    "QueueInfo",
    "QueueNotFound",
    "QueueStats",
    "QuotaExceeded",
    "ReplyLost",
    "RingCorrupt",
    "RingDeleted",
    "RingExists",
    "RingNotFound",
    "Schema",
    "SchemaIncompatible",
    "SchemaInvalid",
    "SchemaMismatch",
    "SchemaNotFound",
    "Selector",
    "Sent",
    "ShuttingDown",
    "StaleBatch",
    "StaleReceipt",
    "TLS",
    "Tap",
    "TemporaryQueue",
    "TimedOut",
    "Transaction",
    "Unauthenticated",
    "Unhealthy",
    "Unimplemented",
    "Unreachable",
    "connect",
    "default_address",
    "not_type",
    "of_type",
    "one_of",
    "upto",
]
