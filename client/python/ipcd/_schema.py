"""What the bodies of a queue's messages are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Union

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from . import _convert as convert
from ._errors import InvalidArgument
from ._proto import schema_service_pb2 as pb
from ._selector import Type, type_number

if TYPE_CHECKING:
    from ._queue import Queue

Descriptors = Union[bytes, Any]
"""A serialized FileDescriptorSet with all imports, or the DESCRIPTOR of a module that protoc made."""


@dataclass(frozen=True)
class Schema:
    """A version of a queue's schema."""

    version: int
    """Rises from 1; never used twice in a queue."""
    descriptors: bytes
    """A serialized FileDescriptorSet; empty in what register_schema returns."""
    types: Dict[int, str]
    """The full names of the protobuf messages of types."""
    validated: List[int]
    """Types of which sends that do not fit are refused."""
    created_at: datetime
    created: bool = True
    """False where it was the current version already."""
    incompatibilities: List[str] = field(default_factory=list)
    """What is incompatible with the version before, where that was allowed, or in a dry run."""


def register(
    queue: Queue,
    descriptors: Descriptors,
    types: Mapping[Type, str],
    validate: bool,
    allow_incompatible: bool,
    dry_run: bool,
) -> Schema:
    """See Queue.register_schema."""
    names = queue.client._names(queue.name)
    request = pb.RegisterSchemaRequest(
        queue=queue.name,
        file_descriptor_set=_serialized(descriptors),
        types=[
            pb.TypeSchema(type=type_number(type, names), message=message, validate=validate)
            for type, message in types.items()
        ],
        allow_incompatible=allow_incompatible,
        dry_run=dry_run,
    )
    r = queue.client._call(queue.client._schemas.RegisterSchema, request, queue.name)
    return _schema(r.schema, r.created, list(r.incompatibilities))


def get(queue: Queue, version: int) -> Schema:
    """See Queue.schema."""
    request = pb.GetSchemaRequest(queue=queue.name, version=version)
    return _schema(queue.client._call(queue.client._schemas.GetSchema, request, queue.name).schema, True, [])


def remove(queue: Queue) -> None:
    """See Queue.remove_schema."""
    queue.client._call(queue.client._schemas.RemoveSchema, pb.RemoveSchemaRequest(queue=queue.name), queue.name)


def _schema(schema: pb.Schema, created: bool, incompatibilities: List[str]) -> Schema:
    return Schema(
        version=schema.version,
        descriptors=schema.file_descriptor_set,
        types={t.type: t.message for t in schema.types},
        validated=[t.type for t in schema.types if t.validate],
        created_at=convert.when(schema.create_time),
        created=created,
        incompatibilities=incompatibilities,
    )


def _serialized(descriptors: Descriptors) -> bytes:
    if isinstance(descriptors, bytes):
        return descriptors
    if not hasattr(descriptors, "dependencies"):
        raise InvalidArgument(
            f"descriptors of type {type(descriptors).__name__}: it must be a serialized FileDescriptorSet, or the "
            "DESCRIPTOR of a module that protoc made"
        )
    result, seen = FileDescriptorSet(), set()

    def add(file: Any) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        result.file.append(FileDescriptorProto.FromString(file.serialized_pb))

    add(descriptors)
    return result.SerializeToString()
