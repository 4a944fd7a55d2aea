from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BackupRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ["data", "done_bytes", "total_bytes"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DONE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    done_bytes: int
    total_bytes: int
    def __init__(self, data: _Optional[bytes] = ..., done_bytes: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class Caller(_message.Message):
    __slots__ = ["admin", "gid", "groups", "kind", "name", "pid", "uid"]
    ADMIN_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    admin: bool
    gid: int
    groups: _containers.RepeatedScalarFieldContainer[int]
    kind: str
    name: str
    pid: int
    uid: int
    def __init__(self, kind: _Optional[str] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., groups: _Optional[_Iterable[int]] = ..., pid: _Optional[int] = ..., name: _Optional[str] = ..., admin: bool = ...) -> None: ...

class ClientConnection(_message.Message):
    __slots__ = ["caller", "calls", "calls_total", "command", "connect_time", "door", "id", "remote_address", "user_agent", "uses"]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    CALLS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    CONNECT_TIME_FIELD_NUMBER: _ClassVar[int]
    DOOR_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REMOTE_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    USES_FIELD_NUMBER: _ClassVar[int]
    caller: Caller
    calls: int
    calls_total: int
    command: str
    connect_time: _timestamp_pb2.Timestamp
    door: str
    id: int
    remote_address: str
    user_agent: str
    uses: _containers.RepeatedCompositeFieldContainer[ClientUse]
    def __init__(self, id: _Optional[int] = ..., door: _Optional[str] = ..., caller: _Optional[_Union[Caller, _Mapping]] = ..., command: _Optional[str] = ..., remote_address: _Optional[str] = ..., connect_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., uses: _Optional[_Iterable[_Union[ClientUse, _Mapping]]] = ..., calls: _Optional[int] = ..., calls_total: _Optional[int] = ..., user_agent: _Optional[str] = ...) -> None: ...

class ClientUse(_message.Message):
    __slots__ = ["behind", "method", "name", "outstanding", "since"]
    BEHIND_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    behind: int
    method: str
    name: str
    outstanding: int
    since: _timestamp_pb2.Timestamp
    def __init__(self, method: _Optional[str] = ..., name: _Optional[str] = ..., since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., outstanding: _Optional[int] = ..., behind: _Optional[int] = ...) -> None: ...

class GetInfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class GetInfoResponse(_message.Message):
    __slots__ = ["addresses", "attach_socket", "bytes", "caller", "go_version", "instance", "late_replies_total", "messages", "pid", "queues", "ring_memory_bytes", "rings", "start_time", "state_dir", "storage", "temporary_queues", "version"]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ATTACH_SOCKET_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CALLER_FIELD_NUMBER: _ClassVar[int]
    GO_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    LATE_REPLIES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    RINGS_FIELD_NUMBER: _ClassVar[int]
    RING_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_DIR_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    TEMPORARY_QUEUES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    attach_socket: str
    bytes: int
    caller: Caller
    go_version: str
    instance: str
    late_replies_total: int
    messages: int
    pid: int
    queues: int
    ring_memory_bytes: int
    rings: int
    start_time: _timestamp_pb2.Timestamp
    state_dir: str
    storage: Storage
    temporary_queues: int
    version: str
    def __init__(self, version: _Optional[str] = ..., instance: _Optional[str] = ..., pid: _Optional[int] = ..., start_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., state_dir: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., queues: _Optional[int] = ..., messages: _Optional[int] = ..., bytes: _Optional[int] = ..., caller: _Optional[_Union[Caller, _Mapping]] = ..., go_version: _Optional[str] = ..., storage: _Optional[_Union[Storage, _Mapping]] = ..., attach_socket: _Optional[str] = ..., rings: _Optional[int] = ..., ring_memory_bytes: _Optional[int] = ..., temporary_queues: _Optional[int] = ..., late_replies_total: _Optional[int] = ...) -> None: ...

class GetMetricsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ["text"]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    def __init__(self, text: _Optional[bytes] = ...) -> None: ...

class ListClientsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ListClientsResponse(_message.Message):
    __slots__ = ["client"]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    client: ClientConnection
    def __init__(self, client: _Optional[_Union[ClientConnection, _Mapping]] = ...) -> None: ...

class ListQuotasRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ListQuotasResponse(_message.Message):
    __slots__ = ["principal", "quotas"]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    principal: Principal
    quotas: _containers.RepeatedCompositeFieldContainer[Quota]
    def __init__(self, principal: _Optional[_Union[Principal, _Mapping]] = ..., quotas: _Optional[_Iterable[_Union[Quota, _Mapping]]] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ["anonymous", "certificate", "uid"]
    ANONYMOUS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    anonymous: bool
    certificate: str
    uid: int
    def __init__(self, uid: _Optional[int] = ..., certificate: _Optional[str] = ..., anonymous: bool = ...) -> None: ...

class Quota(_message.Message):
    __slots__ = ["limit", "resource", "source", "used"]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    limit: int
    resource: str
    source: str
    used: int
    def __init__(self, resource: _Optional[str] = ..., used: _Optional[int] = ..., limit: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ["applied", "need_restart", "refused", "warnings"]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    NEED_RESTART_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    applied: _containers.RepeatedScalarFieldContainer[str]
    need_restart: _containers.RepeatedScalarFieldContainer[str]
    refused: _containers.RepeatedScalarFieldContainer[str]
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, applied: _Optional[_Iterable[str]] = ..., need_restart: _Optional[_Iterable[str]] = ..., refused: _Optional[_Iterable[str]] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class SetQuotaRequest(_message.Message):
    __slots__ = ["limits", "principal", "reset", "unlimited"]
    class LimitsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.ScalarMap[str, int]
    principal: Principal
    reset: _containers.RepeatedScalarFieldContainer[str]
    unlimited: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, principal: _Optional[_Union[Principal, _Mapping]] = ..., limits: _Optional[_Mapping[str, int]] = ..., unlimited: _Optional[_Iterable[str]] = ..., reset: _Optional[_Iterable[str]] = ...) -> None: ...

class SetQuotaResponse(_message.Message):
    __slots__ = ["quotas"]
    QUOTAS_FIELD_NUMBER: _ClassVar[int]
    quotas: _containers.RepeatedCompositeFieldContainer[Quota]
    def __init__(self, quotas: _Optional[_Iterable[_Union[Quota, _Mapping]]] = ...) -> None: ...

class Storage(_message.Message):
    __slots__ = ["commits_total", "damage", "damaged", "damaged_queues", "disk_bytes", "durable", "full", "live_bytes", "memory_bytes", "segments", "sync_time_max", "sync_time_total", "used_bytes"]
    COMMITS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_QUEUES_FIELD_NUMBER: _ClassVar[int]
    DAMAGE_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    LIVE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    SYNC_TIME_MAX_FIELD_NUMBER: _ClassVar[int]
    SYNC_TIME_TOTAL_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    commits_total: int
    damage: str
    damaged: int
    damaged_queues: _containers.RepeatedScalarFieldContainer[str]
    disk_bytes: int
    durable: bool
    full: bool
    live_bytes: int
    memory_bytes: int
    segments: int
    sync_time_max: _duration_pb2.Duration
    sync_time_total: _duration_pb2.Duration
    used_bytes: int
    def __init__(self, durable: bool = ..., segments: _Optional[int] = ..., used_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., live_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., commits_total: _Optional[int] = ..., sync_time_total: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., sync_time_max: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., full: bool = ..., damaged: _Optional[int] = ..., damaged_queues: _Optional[_Iterable[str]] = ..., damage: _Optional[str] = ...) -> None: ...
