from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import message_pb2 as _message_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
RING_POLICY_LOSSLESS: RingPolicy
RING_POLICY_OVERWRITE: RingPolicy
RING_POLICY_UNSPECIFIED: RingPolicy

class CreateRingRequest(_message.Message):
    __slots__ = ["exclusive", "name", "settings"]
    EXCLUSIVE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    exclusive: bool
    name: str
    settings: RingSettings
    def __init__(self, name: _Optional[str] = ..., settings: _Optional[_Union[RingSettings, _Mapping]] = ..., exclusive: bool = ...) -> None: ...

class CreateRingResponse(_message.Message):
    __slots__ = ["created", "ring"]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    created: bool
    ring: Ring
    def __init__(self, ring: _Optional[_Union[Ring, _Mapping]] = ..., created: bool = ...) -> None: ...

class DeleteRingRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteRingResponse(_message.Message):
    __slots__ = ["members"]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: int
    def __init__(self, members: _Optional[int] = ...) -> None: ...

class GetRingRequest(_message.Message):
    __slots__ = ["name"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetRingResponse(_message.Message):
    __slots__ = ["ring"]
    RING_FIELD_NUMBER: _ClassVar[int]
    ring: Ring
    def __init__(self, ring: _Optional[_Union[Ring, _Mapping]] = ...) -> None: ...

class ListRingsRequest(_message.Message):
    __slots__ = ["glob"]
    GLOB_FIELD_NUMBER: _ClassVar[int]
    glob: str
    def __init__(self, glob: _Optional[str] = ...) -> None: ...

class ListRingsResponse(_message.Message):
    __slots__ = ["ring"]
    RING_FIELD_NUMBER: _ClassVar[int]
    ring: Ring
    def __init__(self, ring: _Optional[_Union[Ring, _Mapping]] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ["messages", "ring"]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[RingMessage]
    ring: str
    def __init__(self, ring: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[RingMessage, _Mapping]]] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ["count", "first_sequence", "lane_id"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LANE_ID_FIELD_NUMBER: _ClassVar[int]
    count: int
    first_sequence: int
    lane_id: int
    def __init__(self, lane_id: _Optional[int] = ..., first_sequence: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Ring(_message.Message):
    __slots__ = ["consumers", "create_time", "epoch", "lanes", "memory_bytes", "name", "ring_id", "settings"]
    CONSUMERS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RING_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    consumers: _containers.RepeatedCompositeFieldContainer[RingConsumer]
    create_time: _timestamp_pb2.Timestamp
    epoch: int
    lanes: _containers.RepeatedCompositeFieldContainer[RingLane]
    memory_bytes: int
    name: str
    ring_id: int
    settings: RingSettings
    def __init__(self, name: _Optional[str] = ..., ring_id: _Optional[int] = ..., settings: _Optional[_Union[RingSettings, _Mapping]] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lanes: _Optional[_Iterable[_Union[RingLane, _Mapping]]] = ..., consumers: _Optional[_Iterable[_Union[RingConsumer, _Mapping]]] = ..., memory_bytes: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class RingConsumer(_message.Message):
    __slots__ = ["anonymous", "backstops_total", "consumer_id", "corrupt_lanes_total", "cursors", "daemon", "join_time", "lag_messages", "lossless", "lost_total", "parked", "parks_total", "pid", "receive_rate", "received_total", "slot", "uid", "unreadable"]
    ANONYMOUS_FIELD_NUMBER: _ClassVar[int]
    BACKSTOPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    CORRUPT_LANES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    JOIN_TIME_FIELD_NUMBER: _ClassVar[int]
    LAG_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    LOSSLESS_FIELD_NUMBER: _ClassVar[int]
    LOST_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PARKED_FIELD_NUMBER: _ClassVar[int]
    PARKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    RECEIVE_RATE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    anonymous: bool
    backstops_total: int
    consumer_id: int
    corrupt_lanes_total: int
    cursors: _containers.RepeatedCompositeFieldContainer[RingCursor]
    daemon: bool
    join_time: _timestamp_pb2.Timestamp
    lag_messages: int
    lossless: bool
    lost_total: int
    parked: bool
    parks_total: int
    pid: int
    receive_rate: float
    received_total: int
    slot: int
    uid: int
    unreadable: bool
    def __init__(self, consumer_id: _Optional[int] = ..., slot: _Optional[int] = ..., uid: _Optional[int] = ..., pid: _Optional[int] = ..., daemon: bool = ..., join_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lossless: bool = ..., parked: bool = ..., received_total: _Optional[int] = ..., lost_total: _Optional[int] = ..., receive_rate: _Optional[float] = ..., parks_total: _Optional[int] = ..., backstops_total: _Optional[int] = ..., lag_messages: _Optional[int] = ..., cursors: _Optional[_Iterable[_Union[RingCursor, _Mapping]]] = ..., anonymous: bool = ..., corrupt_lanes_total: _Optional[int] = ..., unreadable: bool = ...) -> None: ...

class RingCursor(_message.Message):
    __slots__ = ["evicted", "lag_bytes", "lag_messages", "lane_id", "lost_total", "position", "sequence"]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    LAG_BYTES_FIELD_NUMBER: _ClassVar[int]
    LAG_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    LANE_ID_FIELD_NUMBER: _ClassVar[int]
    LOST_TOTAL_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    evicted: bool
    lag_bytes: int
    lag_messages: int
    lane_id: int
    lost_total: int
    position: int
    sequence: int
    def __init__(self, lane_id: _Optional[int] = ..., position: _Optional[int] = ..., sequence: _Optional[int] = ..., lag_messages: _Optional[int] = ..., lag_bytes: _Optional[int] = ..., lost_total: _Optional[int] = ..., evicted: bool = ...) -> None: ...

class RingDelivery(_message.Message):
    __slots__ = ["lane_id", "lost", "payload", "publish_time", "sequence", "type"]
    LANE_ID_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_TIME_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    lane_id: int
    lost: int
    payload: bytes
    publish_time: _timestamp_pb2.Timestamp
    sequence: int
    type: int
    def __init__(self, type: _Optional[int] = ..., payload: _Optional[bytes] = ..., sequence: _Optional[int] = ..., lane_id: _Optional[int] = ..., publish_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., lost: _Optional[int] = ...) -> None: ...

class RingLane(_message.Message):
    __slots__ = ["backstops_total", "blocked", "blocked_time_total", "blocks_total", "daemon", "ended", "evictions_total", "join_time", "known_epoch", "lane_id", "memory_bytes", "oldest_position", "pid", "position", "publish_rate", "sequence", "slot", "slowest_consumer_id", "slowest_lag_messages", "uid", "unreadable", "wakes_elided_total", "wakes_total"]
    BACKSTOPS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_TIME_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DAEMON_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    EVICTIONS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    JOIN_TIME_FIELD_NUMBER: _ClassVar[int]
    KNOWN_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LANE_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    OLDEST_POSITION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_RATE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_CONSUMER_ID_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_LAG_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    WAKES_ELIDED_TOTAL_FIELD_NUMBER: _ClassVar[int]
    WAKES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    backstops_total: int
    blocked: bool
    blocked_time_total: _duration_pb2.Duration
    blocks_total: int
    daemon: bool
    ended: bool
    evictions_total: int
    join_time: _timestamp_pb2.Timestamp
    known_epoch: int
    lane_id: int
    memory_bytes: int
    oldest_position: int
    pid: int
    position: int
    publish_rate: float
    sequence: int
    slot: int
    slowest_consumer_id: int
    slowest_lag_messages: int
    uid: int
    unreadable: bool
    wakes_elided_total: int
    wakes_total: int
    def __init__(self, lane_id: _Optional[int] = ..., slot: _Optional[int] = ..., uid: _Optional[int] = ..., pid: _Optional[int] = ..., daemon: bool = ..., join_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., ended: bool = ..., position: _Optional[int] = ..., oldest_position: _Optional[int] = ..., sequence: _Optional[int] = ..., publish_rate: _Optional[float] = ..., wakes_total: _Optional[int] = ..., wakes_elided_total: _Optional[int] = ..., blocked: bool = ..., blocks_total: _Optional[int] = ..., blocked_time_total: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., evictions_total: _Optional[int] = ..., backstops_total: _Optional[int] = ..., known_epoch: _Optional[int] = ..., slowest_consumer_id: _Optional[int] = ..., slowest_lag_messages: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., unreadable: bool = ...) -> None: ...

class RingLaneError(_message.Message):
    __slots__ = ["error", "lane_id"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LANE_ID_FIELD_NUMBER: _ClassVar[int]
    error: _message_pb2.Error
    lane_id: int
    def __init__(self, lane_id: _Optional[int] = ..., error: _Optional[_Union[_message_pb2.Error, _Mapping]] = ...) -> None: ...

class RingMessage(_message.Message):
    __slots__ = ["payload", "type"]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    payload: bytes
    type: int
    def __init__(self, type: _Optional[int] = ..., payload: _Optional[bytes] = ...) -> None: ...

class RingNewest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class RingOldest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class RingSettings(_message.Message):
    __slots__ = ["capacity_bytes", "group_gid", "max_message_bytes", "mode", "owner_uid", "policy", "retain_bytes", "stall"]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GROUP_GID_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OWNER_UID_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    RETAIN_BYTES_FIELD_NUMBER: _ClassVar[int]
    STALL_FIELD_NUMBER: _ClassVar[int]
    capacity_bytes: int
    group_gid: int
    max_message_bytes: int
    mode: int
    owner_uid: int
    policy: RingPolicy
    retain_bytes: int
    stall: _duration_pb2.Duration
    def __init__(self, capacity_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., policy: _Optional[_Union[RingPolicy, str]] = ..., mode: _Optional[int] = ..., owner_uid: _Optional[int] = ..., group_gid: _Optional[int] = ..., retain_bytes: _Optional[int] = ..., stall: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ["lossless", "newest", "oldest", "ring", "sequence", "types"]
    LOSSLESS_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    OLDEST_FIELD_NUMBER: _ClassVar[int]
    RING_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    lossless: bool
    newest: RingNewest
    oldest: RingOldest
    ring: str
    sequence: int
    types: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, ring: _Optional[str] = ..., oldest: _Optional[_Union[RingOldest, _Mapping]] = ..., newest: _Optional[_Union[RingNewest, _Mapping]] = ..., sequence: _Optional[int] = ..., types: _Optional[_Iterable[int]] = ..., lossless: bool = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ["deliveries", "lane_errors"]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    LANE_ERRORS_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[RingDelivery]
    lane_errors: _containers.RepeatedCompositeFieldContainer[RingLaneError]
    def __init__(self, deliveries: _Optional[_Iterable[_Union[RingDelivery, _Mapping]]] = ..., lane_errors: _Optional[_Iterable[_Union[RingLaneError, _Mapping]]] = ...) -> None: ...

class UpdateRingRequest(_message.Message):
    __slots__ = ["name", "settings", "update_mask"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    name: str
    settings: RingSettings
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, name: _Optional[str] = ..., settings: _Optional[_Union[RingSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateRingResponse(_message.Message):
    __slots__ = ["ring"]
    RING_FIELD_NUMBER: _ClassVar[int]
    ring: Ring
    def __init__(self, ring: _Optional[_Union[Ring, _Mapping]] = ...) -> None: ...

class RingPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
