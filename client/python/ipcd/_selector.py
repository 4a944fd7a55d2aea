"""Which messages are meant, by their type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Iterable, Mapping, Optional, Tuple, Union

from ._errors import InvalidArgument
from ._proto import message_pb2 as pb

Type = Union[int, str]
"""A message's type: a positive number, or one of the names that the queue has for its types."""

Names = Callable[[], Mapping[str, int]]

_TYPE_MAX = 2**63 - 1
_SET_MAX = 1024


@dataclass(frozen=True)
class Selector:
    """Chooses messages by their type, as msgrcv(2) does. Made by of_type, upto, not_type and one_of; ANY chooses all."""

    kind: str = "any"
    types: Tuple[Type, ...] = ()

    def __str__(self) -> str:
        """As ipcctl takes it."""
        prefix = {"upto": "upto:", "not": "not:"}.get(self.kind, "")
        return prefix + ",".join(str(t) for t in self.types) if self.types else "any"

    def _proto(self, names: Names) -> Optional[pb.Selector]:
        numbers = [type_number(t, names) for t in self.types]
        if self.kind == "type":
            return pb.Selector(type=numbers[0])
        if self.kind == "upto":
            return pb.Selector(lowest_upto=numbers[0])
        if self.kind == "not":
            return pb.Selector(not_type=numbers[0])
        if self.kind == "one_of":
            return pb.Selector(types=pb.TypeSet(types=sorted(set(numbers))))
        return None


ANY = Selector()
"""Chooses every message."""

Types = Union[None, Type, Selector, Iterable[Type]]
"""Which types are meant: None for any; a type; text as ipcctl takes it, such as "upto:7", "not:failed" or "1,2,3"; several
types; or a Selector."""


def of_type(type: Type) -> Selector:
    """Chooses messages of exactly this type."""
    return Selector("type", (type,))


def upto(type: Type) -> Selector:
    """Chooses messages of the lowest type that is at most this one, as msgrcv(2) with a negative mtype."""
    return Selector("upto", (type,))


def not_type(type: Type) -> Selector:
    """Chooses messages of any type but this one, as msgrcv(2) with MSG_EXCEPT."""
    return Selector("not", (type,))


def one_of(*types: Type) -> Selector:
    """Chooses messages of any of these types, of which there may be 1024."""
    if not 1 <= len(types) <= _SET_MAX:
        raise InvalidArgument(f"a set of {len(types)} types: it may have 1 to {_SET_MAX}")
    return Selector("one_of", types)


def selector(types: Types) -> Selector:
    """What was given wherever types are chosen, as a Selector."""
    if types is None:
        return ANY
    if isinstance(types, Selector):
        return types
    if isinstance(types, str):
        return _parse(types)
    if isinstance(types, int):
        return of_type(types)
    if isinstance(types, Iterable) and not isinstance(types, (bytes, bytearray)):
        return one_of(*types)
    raise InvalidArgument(f"types {types!r}: it must be a type, several of them, a Selector, or None for any")


def _parse(text: str) -> Selector:
    text = text.strip()
    if text in ("", "any"):
        return ANY
    for prefix, make in (("upto:", upto), ("<=", upto), ("not:", not_type), ("!", not_type)):
        if text.startswith(prefix):
            return make(text[len(prefix) :].strip())
    parts = [part.strip() for part in text.split(",")]
    return of_type(parts[0]) if len(parts) == 1 else one_of(*parts)


def type_number(type: Type, names: Names) -> int:
    """The number of a type. names is asked only where a name is given that is no number."""
    if isinstance(type, str):
        if type.isascii() and type.isdigit():
            type = int(type)
        else:
            known = names()
            if type in known:
                return known[type]
            allowed = ": " + ", ".join(sorted(known)[:8]) if known else ", of which it has none"
            raise InvalidArgument(f"type {type!r}: it must be a positive number or one of the queue's names{allowed}")
    if isinstance(type, bool) or not isinstance(type, int) or not 1 <= type <= _TYPE_MAX:
        raise InvalidArgument(
            f"type {type!r}: it must be a number from 1 to {_TYPE_MAX}, or a name of the queue's types"
        )
    return type
