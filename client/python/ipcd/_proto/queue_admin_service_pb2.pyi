from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import message_pb2 as _message_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

BIND_OVERFLOW_REFUSE: BindOverflow
BIND_OVERFLOW_SKIP: BindOverflow
BIND_OVERFLOW_UNSPECIFIED: BindOverflow
DESCRIPTOR: _descriptor.FileDescriptor
DURABILITY_JOURNAL: Durability
DURABILITY_MEMORY: Durability
DURABILITY_UNSPECIFIED: Durability
KERNEL_QUEUE_MODE_AUTO: KernelQueueMode
KERNEL_QUEUE_MODE_BOTH: KernelQueueMode
KERNEL_QUEUE_MODE_IN: KernelQueueMode
KERNEL_QUEUE_MODE_NONE: KernelQueueMode
KERNEL_QUEUE_MODE_OUT: KernelQueueMode
KERNEL_QUEUE_MODE_UNSPECIFIED: KernelQueueMode
OVERFLOW_POLICY_BLOCK: OverflowPolicy
OVERFLOW_POLICY_DROP_OLDEST: OverflowPolicy
OVERFLOW_POLICY_REJECT: OverflowPolicy
OVERFLOW_POLICY_UNSPECIFIED: OverflowPolicy

class Backoff(_message.Message):
    __slots__ = ["initial", "max"]
    INITIAL_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    initial: _duration_pb2.Duration
    max: _duration_pb2.Duration
    def __init__(self, initial: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Bind(_message.Message):
    __slots__ = ["destination", "overflow", "selector"]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    destination: str
    overflow: BindOverflow
    selector: _message_pb2.Selector
    def __init__(self, destination: _Optional[str] = ..., selector: _Optional[_Union[_message_pb2.Selector, _Mapping]] = ..., overflow: _Optional[_Union[BindOverflow, str]] = ...) -> None: ...

class BindQueueRequest(_message.Message):
    __slots__ = ["bind", "source"]
    BIND_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    bind: Bind
    source: str
    def __init__(self, source: _Optional[str] = ..., bind: _Optional[_Union[Bind, _Mapping]] = ...) -> None: ...

class BindQueueResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class BindStatus(_message.Message):
    __slots__ = ["copied_total", "destination", "problem", "skipped_total"]
    COPIED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    copied_total: int
    destination: str
    problem: str
    skipped_total: int
    def __init__(self, destination: _Optional[str] = ..., copied_total: _Optional[int] = ..., skipped_total: _Optional[int] = ..., problem: _Optional[str] = ...) -> None: ...

class CreateQueueRequest(_message.Message):
    __slots__ = ["exclusive", "name", "settings"]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    exclusive: bool
    name: str
    settings: QueueSettings
    def __init__(self, name: _Optional[str] = ..., settings: _Optional[_Union[QueueSettings, _Mapping]] = ..., exclusive: bool = ...) -> None: ...

class CreateQueueResponse(_message.Message):
    __slots__ = ["created", "queue"]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    created: bool
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ..., created: bool = ...) -> None: ...

class DeleteQueueRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteQueueResponse(_message.Message):
    __slots__ = ["messages"]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: int
    def __init__(self, messages: _Optional[int] = ...) -> None: ...

class GetQueueRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetQueueResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class KernelQueue(_message.Message):
    __slots__ = ["max_messages", "message_size", "mode", "out_selector", "type", "type_prefix"]
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OUT_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TYPE_PREFIX_FIELD_NUMBER: _ClassVar[int]
    max_messages: int
    message_size: int
    mode: KernelQueueMode
    out_selector: _message_pb2.Selector
    type: int
    type_prefix: bool
    def __init__(self, mode: _Optional[_Union[KernelQueueMode, str]] = ..., max_messages: _Optional[int] = ..., message_size: _Optional[int] = ..., type: _Optional[int] = ..., type_prefix: bool = ..., out_selector: _Optional[_Union[_message_pb2.Selector, _Mapping]] = ...) -> None: ...

class KernelQueueStatus(_message.Message):
    __slots__ = ["current_messages", "direction", "group_gid", "max_messages", "message_size", "mode", "name", "open", "owner_uid", "passed_total", "problem", "skipped_total"]
    CURRENT_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    GROUP_GID_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    OWNER_UID_FIELD_NUMBER: _ClassVar[int]
    PASSED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    current_messages: int
    direction: str
    group_gid: int
    max_messages: int
    message_size: int
    mode: int
    name: str
    open: bool
    owner_uid: int
    passed_total: int
    problem: str
    skipped_total: int
    def __init__(self, direction: _Optional[str] = ..., name: _Optional[str] = ..., open: bool = ..., problem: _Optional[str] = ..., max_messages: _Optional[int] = ..., message_size: _Optional[int] = ..., current_messages: _Optional[int] = ..., passed_total: _Optional[int] = ..., skipped_total: _Optional[int] = ..., owner_uid: _Optional[int] = ..., group_gid: _Optional[int] = ..., mode: _Optional[int] = ...) -> None: ...

class KickMessagesRequest(_message.Message):
    __slots__ = ["cursor", "dry_run", "filter", "limit", "name"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    dry_run: bool
    filter: _message_pb2.Filter
    limit: int
    name: str
    def __init__(self, name: _Optional[str] = ..., filter: _Optional[_Union[_message_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., dry_run: bool = ..., cursor: _Optional[str] = ...) -> None: ...

class KickMessagesResponse(_message.Message):
    __slots__ = ["cursor", "messages"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    messages: int
    def __init__(self, messages: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class ListQueuesRequest(_message.Message):
    __slots__ = ["glob"]
    GLOB_FIELD_NUMBER: _ClassVar[int]
    glob: str
    def __init__(self, glob: _Optional[str] = ...) -> None: ...

class ListQueuesResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class MoveMessagesRequest(_message.Message):
    __slots__ = ["cursor", "destination", "dry_run", "filter", "limit", "source"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    destination: str
    dry_run: bool
    filter: _message_pb2.Filter
    limit: int
    source: str
    def __init__(self, source: _Optional[str] = ..., destination: _Optional[str] = ..., filter: _Optional[_Union[_message_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., dry_run: bool = ..., cursor: _Optional[str] = ...) -> None: ...

class MoveMessagesResponse(_message.Message):
    __slots__ = ["cursor", "messages"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    messages: int
    def __init__(self, messages: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class OpenTemporaryQueueRequest(_message.Message):
    __slots__ = ["settings"]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    settings: QueueSettings
    def __init__(self, settings: _Optional[_Union[QueueSettings, _Mapping]] = ...) -> None: ...

class OpenTemporaryQueueResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class PauseQueueRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class PauseQueueResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class PurgeQueueRequest(_message.Message):
    __slots__ = ["cursor", "dry_run", "filter", "limit", "name"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    dry_run: bool
    filter: _message_pb2.Filter
    limit: int
    name: str
    def __init__(self, name: _Optional[str] = ..., filter: _Optional[_Union[_message_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., dry_run: bool = ..., cursor: _Optional[str] = ...) -> None: ...

class PurgeQueueResponse(_message.Message):
    __slots__ = ["cursor", "messages"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    messages: int
    def __init__(self, messages: _Optional[int] = ..., cursor: _Optional[str] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ["binds", "create_time", "id", "kernel_queues", "name", "paused", "schema_version", "settings", "stats", "temporary"]
    BINDS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KERNEL_QUEUES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    TEMPORARY_FIELD_NUMBER: _ClassVar[int]
    binds: _containers.RepeatedCompositeFieldContainer[BindStatus]
    create_time: _timestamp_pb2.Timestamp
    id: int
    kernel_queues: _containers.RepeatedCompositeFieldContainer[KernelQueueStatus]
    name: str
    paused: bool
    schema_version: int
    settings: QueueSettings
    stats: QueueStats
    temporary: bool
    def __init__(self, name: _Optional[str] = ..., id: _Optional[int] = ..., settings: _Optional[_Union[QueueSettings, _Mapping]] = ..., paused: bool = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., stats: _Optional[_Union[QueueStats, _Mapping]] = ..., kernel_queues: _Optional[_Iterable[_Union[KernelQueueStatus, _Mapping]]] = ..., binds: _Optional[_Iterable[_Union[BindStatus, _Mapping]]] = ..., temporary: bool = ..., schema_version: _Optional[int] = ...) -> None: ...

class QueueSettings(_message.Message):
    __slots__ = ["backoff", "binds", "dead_letter_expired", "dead_letter_queue", "dedup_window", "durability", "group_gid", "lease", "max_attempts", "max_bytes", "max_dedup_ids", "max_message_size", "max_messages", "mode", "mqueue", "overflow", "owner_uid", "type_names"]
    class TypeNamesEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    BACKOFF_FIELD_NUMBER: _ClassVar[int]
    BINDS_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_EXPIRED_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTER_QUEUE_FIELD_NUMBER: _ClassVar[int]
    DEDUP_WINDOW_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    GROUP_GID_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEDUP_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MQUEUE_FIELD_NUMBER: _ClassVar[int]
    OVERFLOW_FIELD_NUMBER: _ClassVar[int]
    OWNER_UID_FIELD_NUMBER: _ClassVar[int]
    TYPE_NAMES_FIELD_NUMBER: _ClassVar[int]
    backoff: Backoff
    binds: _containers.RepeatedCompositeFieldContainer[Bind]
    dead_letter_expired: bool
    dead_letter_queue: str
    dedup_window: _duration_pb2.Duration
    durability: Durability
    group_gid: int
    lease: _duration_pb2.Duration
    max_attempts: int
    max_bytes: int
    max_dedup_ids: int
    max_message_size: int
    max_messages: int
    mode: int
    mqueue: KernelQueue
    overflow: OverflowPolicy
    owner_uid: int
    type_names: _containers.ScalarMap[str, int]
    def __init__(self, max_messages: _Optional[int] = ..., max_bytes: _Optional[int] = ..., max_message_size: _Optional[int] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_attempts: _Optional[int] = ..., dead_letter_queue: _Optional[str] = ..., dead_letter_expired: bool = ..., overflow: _Optional[_Union[OverflowPolicy, str]] = ..., durability: _Optional[_Union[Durability, str]] = ..., backoff: _Optional[_Union[Backoff, _Mapping]] = ..., dedup_window: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., max_dedup_ids: _Optional[int] = ..., type_names: _Optional[_Mapping[str, int]] = ..., mqueue: _Optional[_Union[KernelQueue, _Mapping]] = ..., mode: _Optional[int] = ..., owner_uid: _Optional[int] = ..., group_gid: _Optional[int] = ..., binds: _Optional[_Iterable[_Union[Bind, _Mapping]]] = ...) -> None: ...

class QueueStats(_message.Message):
    __slots__ = ["ack_rate", "blocked_senders", "buried", "bytes", "consumed_total", "dead_lettered_total", "dedup_ids", "delayed", "delivered_total", "delivery_rate", "duplicates_total", "lease_expired_total", "leased", "moved_total", "nacked_total", "oldest_age", "overflow_dropped_total", "peeked_total", "purged_total", "ready", "receivers", "send_rate", "sent_total", "taps", "ttl_dropped_total", "uncommitted"]
    ACK_RATE_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_SENDERS_FIELD_NUMBER: _ClassVar[int]
    BURIED_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DEAD_LETTERED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DEDUP_IDS_FIELD_NUMBER: _ClassVar[int]
    DELAYED_FIELD_NUMBER: _ClassVar[int]
    DELIVERED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_RATE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MOVED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    NACKED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    OLDEST_AGE_FIELD_NUMBER: _ClassVar[int]
    OVERFLOW_DROPPED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PEEKED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PURGED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    RECEIVERS_FIELD_NUMBER: _ClassVar[int]
    SEND_RATE_FIELD_NUMBER: _ClassVar[int]
    SENT_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TAPS_FIELD_NUMBER: _ClassVar[int]
    TTL_DROPPED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    UNCOMMITTED_FIELD_NUMBER: _ClassVar[int]
    ack_rate: float
    blocked_senders: int
    buried: int
    bytes: int
    consumed_total: int
    dead_lettered_total: int
    dedup_ids: int
    delayed: int
    delivered_total: int
    delivery_rate: float
    duplicates_total: int
    lease_expired_total: int
    leased: int
    moved_total: int
    nacked_total: int
    oldest_age: _duration_pb2.Duration
    overflow_dropped_total: int
    peeked_total: int
    purged_total: int
    ready: int
    receivers: int
    send_rate: float
    sent_total: int
    taps: int
    ttl_dropped_total: int
    uncommitted: int
    def __init__(self, ready: _Optional[int] = ..., delayed: _Optional[int] = ..., leased: _Optional[int] = ..., buried: _Optional[int] = ..., uncommitted: _Optional[int] = ..., bytes: _Optional[int] = ..., oldest_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., receivers: _Optional[int] = ..., blocked_senders: _Optional[int] = ..., send_rate: _Optional[float] = ..., delivery_rate: _Optional[float] = ..., ack_rate: _Optional[float] = ..., sent_total: _Optional[int] = ..., delivered_total: _Optional[int] = ..., consumed_total: _Optional[int] = ..., nacked_total: _Optional[int] = ..., lease_expired_total: _Optional[int] = ..., ttl_dropped_total: _Optional[int] = ..., overflow_dropped_total: _Optional[int] = ..., dead_lettered_total: _Optional[int] = ..., purged_total: _Optional[int] = ..., duplicates_total: _Optional[int] = ..., peeked_total: _Optional[int] = ..., dedup_ids: _Optional[int] = ..., moved_total: _Optional[int] = ..., taps: _Optional[int] = ...) -> None: ...

class RedriveMessagesRequest(_message.Message):
    __slots__ = ["dry_run", "filter", "limit", "name"]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    dry_run: bool
    filter: _message_pb2.Filter
    limit: int
    name: str
    def __init__(self, name: _Optional[str] = ..., filter: _Optional[_Union[_message_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., dry_run: bool = ...) -> None: ...

class RedriveMessagesResponse(_message.Message):
    __slots__ = ["redriven"]
    REDRIVEN_FIELD_NUMBER: _ClassVar[int]
    redriven: _containers.RepeatedCompositeFieldContainer[Redriven]
    def __init__(self, redriven: _Optional[_Iterable[_Union[Redriven, _Mapping]]] = ...) -> None: ...

class Redriven(_message.Message):
    __slots__ = ["error", "messages", "queue"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    error: _message_pb2.Error
    messages: int
    queue: str
    def __init__(self, queue: _Optional[str] = ..., messages: _Optional[int] = ..., error: _Optional[_Union[_message_pb2.Error, _Mapping]] = ...) -> None: ...

class ResumeQueueRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ResumeQueueResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class UnbindQueueRequest(_message.Message):
    __slots__ = ["destination", "source"]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    destination: str
    source: str
    def __init__(self, source: _Optional[str] = ..., destination: _Optional[str] = ...) -> None: ...

class UnbindQueueResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class UpdateQueueRequest(_message.Message):
    __slots__ = ["name", "settings", "update_mask"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    name: str
    settings: QueueSettings
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, name: _Optional[str] = ..., settings: _Optional[_Union[QueueSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateQueueResponse(_message.Message):
    __slots__ = ["queue"]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    queue: Queue
    def __init__(self, queue: _Optional[_Union[Queue, _Mapping]] = ...) -> None: ...

class BindOverflow(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class OverflowPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Durability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class KernelQueueMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
