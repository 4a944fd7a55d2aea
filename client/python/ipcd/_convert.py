"""Between what Python programs hold and what ipcd.v1 carries."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Optional, Union

from google.protobuf.duration_pb2 import Duration as DurationProto
from google.protobuf.timestamp_pb2 import Timestamp

from ._errors import InvalidArgument

Duration = Union[int, float, timedelta]
"""A span of time: seconds, or a timedelta."""

Bytes = Union[bytes, bytearray, memoryview, str]
"""What goes into bodies and headers; text as UTF-8."""

WAIT_MAX = 24 * 3600.0  # seconds; of a receive or a blocked send


def seconds(value: Duration, what: str) -> float:
    """The span in seconds."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e10:
        raise InvalidArgument(f"{what} {value!r}: it must be seconds, from 0 on, or a timedelta")
    return float(value)


def duration(value: Duration, what: str) -> DurationProto:
    """The span as protobuf carries it, to the nanosecond."""
    whole, part = divmod(round(seconds(value, what) * 1e9), 10**9)
    return DurationProto(seconds=whole, nanos=part)


def span(value: DurationProto) -> float:
    """The span in seconds."""
    return value.seconds + value.nanos / 1e9


def timestamp(value: datetime, what: str) -> Timestamp:
    """The time as protobuf carries it. It must have a time zone."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidArgument(
            f"{what} {value!r}: it must be a datetime with a time zone, such as datetime.now(timezone.utc)"
        )
    result = Timestamp()
    result.FromDatetime(value.astimezone(timezone.utc).replace(tzinfo=None))
    return result


def when(value: Timestamp) -> datetime:
    """The time, in UTC, to the microsecond."""
    return value.ToDatetime().replace(tzinfo=timezone.utc)


def to_bytes(value: Bytes, what: str) -> bytes:
    """The bytes; text as UTF-8."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise InvalidArgument(f"{what} of type {type(value).__name__}: it must be bytes, or str for UTF-8")


def cut(text: str, limit: int) -> str:
    """The text, cut to as many bytes of UTF-8 without cutting a character."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def queue_name(name: str) -> str:
    """The name with its slash."""
    if not isinstance(name, str) or name.strip("/") == "":
        raise InvalidArgument(f"queue {name!r}: it must be a name, such as /jobs")
    return name if name.startswith("/") else "/" + name


class Deadline:
    """When the time given to a call is over; None: never."""

    def __init__(self, timeout: Optional[Duration]) -> None:
        self._end = None if timeout is None else time.monotonic() + seconds(timeout, "timeout")

    def left(self) -> Optional[float]:
        """Seconds that are left, from 0 on; None: any number."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def within(self, most: float) -> float:
        """Seconds that are left, and at most so many."""
        left = self.left()
        return most if left is None else min(left, most)

    def blocked_wait(self) -> Optional[DurationProto]:
        """How long a full queue may keep a send waiting: a little less than is left, so that the daemon can say for
        sure that nothing was stored. None: as long as it likes."""
        left = self.left()
        if left is None:
            return None
        return duration(min(max(left - min(left / 10, 1.0), 0.001), WAIT_MAX), "timeout")
