from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetSchemaRequest(_message.Message):
    __slots__ = ["queue", "version"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    queue: str
    version: int
    def __init__(self, queue: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class GetSchemaResponse(_message.Message):
    __slots__ = ["schema", "versions"]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    schema: Schema
    versions: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, schema: _Optional[_Union[Schema, _Mapping]] = ..., versions: _Optional[_Iterable[int]] = ...) -> None: ...

class RegisterSchemaRequest(_message.Message):
    __slots__ = ["allow_incompatible", "dry_run", "file_descriptor_set", "queue", "types"]
    ALLOW_INCOMPATIBLE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FILE_DESCRIPTOR_SET_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    allow_incompatible: bool
    dry_run: bool
    file_descriptor_set: bytes
    queue: str
    types: _containers.RepeatedCompositeFieldContainer[TypeSchema]
    def __init__(self, queue: _Optional[str] = ..., file_descriptor_set: _Optional[bytes] = ..., types: _Optional[_Iterable[_Union[TypeSchema, _Mapping]]] = ..., allow_incompatible: bool = ..., dry_run: bool = ...) -> None: ...

class RegisterSchemaResponse(_message.Message):
    __slots__ = ["created", "incompatibilities", "schema"]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    INCOMPATIBILITIES_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    created: bool
    incompatibilities: _containers.RepeatedScalarFieldContainer[str]
    schema: Schema
    def __init__(self, schema: _Optional[_Union[Schema, _Mapping]] = ..., created: bool = ..., incompatibilities: _Optional[_Iterable[str]] = ...) -> None: ...

class RemoveSchemaRequest(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: str
    def __init__(self, queue: _Optional[str] = ...) -> None: ...

class RemoveSchemaResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Schema(_message.Message):
    __slots__ = ["create_time", "file_descriptor_set", "types", "version"]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    FILE_DESCRIPTOR_SET_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    create_time: _timestamp_pb2.Timestamp
    file_descriptor_set: bytes
    types: _containers.RepeatedCompositeFieldContainer[TypeSchema]
    version: int
    def __init__(self, version: _Optional[int] = ..., file_descriptor_set: _Optional[bytes] = ..., types: _Optional[_Iterable[_Union[TypeSchema, _Mapping]]] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TypeSchema(_message.Message):
    __slots__ = ["message", "type", "validate"]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_FIELD_NUMBER: _ClassVar[int]
    message: str
    type: int
    validate: bool
    def __init__(self, type: _Optional[int] = ..., message: _Optional[str] = ..., validate: bool = ...) -> None: ...
