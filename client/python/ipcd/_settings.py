"""What is declared for a queue, and what it is and holds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional

from google.protobuf.field_mask_pb2 import FieldMask

from . import _convert as convert
from ._errors import InvalidArgument
from ._proto import queue_admin_service_pb2 as qa

_PLAIN = (
    "max_messages",
    "max_bytes",
    "max_message_size",
    "max_attempts",
    "dead_letter_queue",
    "dead_letter_expired",
    "max_dedup_ids",
    "mode",
    "owner_uid",
    "group_gid",
)
_SPANS = ("lease", "dedup_window")
_OVERFLOW = {"reject": 1, "block": 2, "drop-oldest": 3}
_DURABILITY = {"journal": 1, "memory": 2}
_MQUEUE = {"auto": 1, "in": 2, "out": 3, "both": 4, "none": 5}
_NAMES = (*_PLAIN, *_SPANS, "overflow", "durability", "mqueue", "backoff_initial", "backoff_max", "type_names")


def settings_proto(settings: Mapping[str, Any]) -> qa.QueueSettings:
    """Settings as keywords say them. None stands for the default."""
    result = qa.QueueSettings()
    for name, value in settings.items():
        if name not in _NAMES:
            raise InvalidArgument(f"setting {name!r}: a queue has {', '.join(sorted(_NAMES))}")
        if value is None:
            continue
        try:
            _set(result, name, value)
        except (TypeError, ValueError, AttributeError) as err:
            if isinstance(err, InvalidArgument):
                raise
            raise InvalidArgument(f"setting {name} = {value!r}: {err}") from None
    return result


def _set(settings: qa.QueueSettings, name: str, value: Any) -> None:
    if name == "dead_letter_queue":
        settings.dead_letter_queue = convert.queue_name(value) if value else ""
    elif name in _PLAIN:
        setattr(settings, name, value)
    elif name in _SPANS:
        getattr(settings, name).CopyFrom(convert.duration(value, name))
    elif name == "overflow":
        settings.overflow = _enum(name, _OVERFLOW, value)
    elif name == "durability":
        settings.durability = _enum(name, _DURABILITY, value)
    elif name == "mqueue":
        settings.mqueue.mode = _enum(name, _MQUEUE, value)
    elif name == "type_names":
        settings.type_names.update(value)
    else:
        getattr(settings.backoff, name[len("backoff_") :]).CopyFrom(convert.duration(value, name))


def _enum(name: str, values: Mapping[str, int], value: Any) -> Any:
    if value not in values:
        raise InvalidArgument(f"setting {name} = {value!r}: it must be one of {', '.join(values)}")
    return values[value]


def mask(settings: Mapping[str, Any]) -> FieldMask:
    """Which settings an update takes."""
    paths = []
    for name in settings:
        if name.startswith("backoff_"):
            name = name.replace("_", ".")
        paths.append("mqueue.mode" if name == "mqueue" else name)
    return FieldMask(paths=paths)


@dataclass(frozen=True)
class QueueStats:
    """What a queue holds and what it has done.

    Messages by state: ready, delayed, leased, buried, uncommitted (decided but not yet committed); bytes are of bodies,
    headers and ids in any state; oldest_age in seconds since the oldest ready message was sent, or None; rates in
    messages a second over the last ten seconds or so; totals since the queue was made.
    """

    ready: int = 0
    delayed: int = 0
    leased: int = 0
    buried: int = 0
    uncommitted: int = 0
    bytes: int = 0
    oldest_age: Optional[float] = None
    receivers: int = 0
    blocked_senders: int = 0
    send_rate: float = 0.0
    delivery_rate: float = 0.0
    ack_rate: float = 0.0
    sent_total: int = 0
    delivered_total: int = 0
    consumed_total: int = 0
    nacked_total: int = 0
    lease_expired_total: int = 0
    ttl_dropped_total: int = 0
    overflow_dropped_total: int = 0
    dead_lettered_total: int = 0
    purged_total: int = 0
    moved_total: int = 0
    duplicates_total: int = 0
    peeked_total: int = 0
    dedup_ids: int = 0
    taps: int = 0

    @property
    def messages(self) -> int:
        """In any state."""
        return self.ready + self.delayed + self.leased + self.buried + self.uncommitted


@dataclass(frozen=True)
class Bind:
    """Where a queue hands copies on of what is sent to it."""

    destination: str
    types: str
    """Which types, as ipcctl writes a selector."""
    skip: bool
    """Where the destination cannot take a copy it goes without; else the send is refused."""
    copied_total: int = 0
    skipped_total: int = 0
    problem: str = ""
    """Why the last copy was skipped, if one was."""


@dataclass(frozen=True)
class QueueInfo:
    """A queue as it is now. settings has the keywords of create_queue, each with its value; times are in seconds."""

    name: str
    id: int
    """Never used for another queue."""
    settings: Dict[str, Any]
    paused: bool
    created_at: datetime
    stats: QueueStats
    binds: List[Bind] = field(default_factory=list)
    temporary: bool = False
    """It ends with the session that opened it."""
    schema_version: int = 0
    """0: it has no schema."""


def queue_info(queue: qa.Queue) -> QueueInfo:
    """What the daemon tells of a queue."""
    s, stats = queue.settings, queue.stats
    settings: Dict[str, Any] = {name: getattr(s, name) for name in _PLAIN}
    settings.update((name, convert.span(getattr(s, name))) for name in _SPANS)
    settings["overflow"] = _name(_OVERFLOW, s.overflow)
    settings["durability"] = _name(_DURABILITY, s.durability)
    settings["mqueue"] = _name(_MQUEUE, s.mqueue.mode)
    settings["backoff_initial"] = convert.span(s.backoff.initial)
    settings["backoff_max"] = convert.span(s.backoff.max)
    settings["type_names"] = dict(s.type_names)
    numbers = {f.name: getattr(stats, f.name) for f in fields(QueueStats) if f.name != "oldest_age"}
    oldest = convert.span(stats.oldest_age) if stats.HasField("oldest_age") else None
    return QueueInfo(
        name=queue.name,
        id=queue.id,
        settings=settings,
        paused=queue.paused,
        created_at=convert.when(queue.create_time),
        stats=QueueStats(oldest_age=oldest, **numbers),
        binds=_binds(queue),
        temporary=queue.temporary,
        schema_version=queue.schema_version,
    )


def _name(values: Mapping[str, int], number: int) -> str:
    return next((name for name, value in values.items() if value == number), f"unknown({number})")


def _binds(queue: qa.Queue) -> List[Bind]:
    status = {b.destination: b for b in queue.binds}
    result = []
    for bind in queue.settings.binds:
        now = status.get(bind.destination, qa.BindStatus())
        skip = bind.overflow == qa.BIND_OVERFLOW_SKIP
        result.append(
            Bind(
                bind.destination, _selector_text(bind.selector), skip, now.copied_total, now.skipped_total, now.problem
            )
        )
    return result


def _selector_text(selector: Any) -> str:
    kind = selector.WhichOneof("kind")
    if kind == "types":
        return ",".join(str(t) for t in selector.types.types)
    prefix = {"type": "", "lowest_upto": "upto:", "not_type": "not:"}
    return prefix[kind] + str(getattr(selector, kind)) if kind in prefix else "any"
