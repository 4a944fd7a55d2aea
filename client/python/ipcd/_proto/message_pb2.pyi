from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
MESSAGE_STATE_BURIED: MessageState
MESSAGE_STATE_DELAYED: MessageState
MESSAGE_STATE_LEASED: MessageState
MESSAGE_STATE_READY: MessageState
MESSAGE_STATE_UNSPECIFIED: MessageState

class Delivery(_message.Message):
    __slots__ = ["attempts", "lease_expire_time", "message", "queue", "receipt", "send_time", "sequence", "truncated_from"]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FROM_FIELD_NUMBER: _ClassVar[int]
    attempts: int
    lease_expire_time: _timestamp_pb2.Timestamp
    message: Message
    queue: str
    receipt: str
    send_time: _timestamp_pb2.Timestamp
    sequence: int
    truncated_from: int
    def __init__(self, message: _Optional[_Union[Message, _Mapping]] = ..., queue: _Optional[str] = ..., sequence: _Optional[int] = ..., send_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., attempts: _Optional[int] = ..., lease_expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., receipt: _Optional[str] = ..., truncated_from: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ["code", "index", "message", "reason", "retry_after"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    code: int
    index: int
    message: str
    reason: str
    retry_after: _duration_pb2.Duration
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., retry_after: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., index: _Optional[int] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ["headers", "max_sequence", "min_sequence", "older_than", "selector", "states"]
    class HeadersEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    OLDER_THAN_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    headers: _containers.ScalarMap[str, bytes]
    max_sequence: int
    min_sequence: int
    older_than: _duration_pb2.Duration
    selector: Selector
    states: _containers.RepeatedScalarFieldContainer[MessageState]
    def __init__(self, selector: _Optional[_Union[Selector, _Mapping]] = ..., states: _Optional[_Iterable[_Union[MessageState, str]]] = ..., min_sequence: _Optional[int] = ..., max_sequence: _Optional[int] = ..., older_than: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., headers: _Optional[_Mapping[str, bytes]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ["body", "content_type", "correlation_id", "dedup_id", "delay", "headers", "not_before", "priority", "reply_to", "ttl", "type"]
    class HeadersEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    BODY_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    DEDUP_ID_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    content_type: str
    correlation_id: str
    dedup_id: str
    delay: _duration_pb2.Duration
    headers: _containers.ScalarMap[str, bytes]
    not_before: _timestamp_pb2.Timestamp
    priority: int
    reply_to: str
    ttl: _duration_pb2.Duration
    type: int
    def __init__(self, type: _Optional[int] = ..., priority: _Optional[int] = ..., body: _Optional[bytes] = ..., headers: _Optional[_Mapping[str, bytes]] = ..., delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., not_before: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., dedup_id: _Optional[str] = ..., correlation_id: _Optional[str] = ..., reply_to: _Optional[str] = ..., content_type: _Optional[str] = ...) -> None: ...

class PeekedMessage(_message.Message):
    __slots__ = ["attempts", "bury_reason", "due_time", "expire_time", "lease_expire_time", "message", "send_time", "sequence", "state", "truncated_from"]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BURY_REASON_FIELD_NUMBER: _ClassVar[int]
    DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FROM_FIELD_NUMBER: _ClassVar[int]
    attempts: int
    bury_reason: str
    due_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    lease_expire_time: _timestamp_pb2.Timestamp
    message: Message
    send_time: _timestamp_pb2.Timestamp
    sequence: int
    state: MessageState
    truncated_from: int
    def __init__(self, message: _Optional[_Union[Message, _Mapping]] = ..., sequence: _Optional[int] = ..., send_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[MessageState, str]] = ..., attempts: _Optional[int] = ..., due_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lease_expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., bury_reason: _Optional[str] = ..., truncated_from: _Optional[int] = ...) -> None: ...

class Selector(_message.Message):
    __slots__ = ["lowest_upto", "not_type", "type", "types"]
    LOWEST_UPTO_FIELD_NUMBER: _ClassVar[int]
    NOT_TYPE_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    lowest_upto: int
    not_type: int
    type: int
    types: TypeSet
    def __init__(self, type: _Optional[int] = ..., lowest_upto: _Optional[int] = ..., not_type: _Optional[int] = ..., types: _Optional[_Union[TypeSet, _Mapping]] = ...) -> None: ...

class TypeSet(_message.Message):
    __slots__ = ["types"]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    types: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, types: _Optional[_Iterable[int]] = ...) -> None: ...

class MessageState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
