from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from . import message_pb2 as _message_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor
PEEK_ORDER_SEQUENCE: PeekOrder
PEEK_ORDER_STATE: PeekOrder
PEEK_ORDER_UNSPECIFIED: PeekOrder
SETTLE_MODE_CONSUME: SettleMode
SETTLE_MODE_LEASE: SettleMode
SETTLE_MODE_UNSPECIFIED: SettleMode

class Ack(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class BatchResult(_message.Message):
    __slots__ = ["batch_id", "error", "stored"]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    error: _message_pb2.Error
    stored: Stored
    def __init__(self, batch_id: _Optional[int] = ..., stored: _Optional[_Union[Stored, _Mapping]] = ..., error: _Optional[_Union[_message_pb2.Error, _Mapping]] = ...) -> None: ...

class Bury(_message.Message):
    __slots__ = ["reason"]
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ConsumeOpen(_message.Message):
    __slots__ = ["lease", "queue", "receipts", "selector", "settle_mode"]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    SETTLE_MODE_FIELD_NUMBER: _ClassVar[int]
    lease: _duration_pb2.Duration
    queue: str
    receipts: bool
    selector: _message_pb2.Selector
    settle_mode: SettleMode
    def __init__(self, queue: _Optional[str] = ..., selector: _Optional[_Union[_message_pb2.Selector, _Mapping]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., settle_mode: _Optional[_Union[SettleMode, str]] = ..., receipts: bool = ...) -> None: ...

class ConsumeOpened(_message.Message):
    __slots__ = ["lease"]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: _duration_pb2.Duration
    def __init__(self, lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ConsumeRequest(_message.Message):
    __slots__ = ["credit", "drain", "open", "settlements"]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    SETTLEMENTS_FIELD_NUMBER: _ClassVar[int]
    credit: Credit
    drain: Drain
    open: ConsumeOpen
    settlements: Settlements
    def __init__(self, open: _Optional[_Union[ConsumeOpen, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., settlements: _Optional[_Union[Settlements, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class ConsumeResponse(_message.Message):
    __slots__ = ["deliveries", "drained", "opened", "settle_results"]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    SETTLE_RESULTS_FIELD_NUMBER: _ClassVar[int]
    deliveries: Deliveries
    drained: Drained
    opened: ConsumeOpened
    settle_results: SettleResults
    def __init__(self, deliveries: _Optional[_Union[Deliveries, _Mapping]] = ..., settle_results: _Optional[_Union[SettleResults, _Mapping]] = ..., drained: _Optional[_Union[Drained, _Mapping]] = ..., opened: _Optional[_Union[ConsumeOpened, _Mapping]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ["bytes", "messages"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    messages: int
    def __init__(self, messages: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class Deliveries(_message.Message):
    __slots__ = ["deliveries", "first_tag"]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    FIRST_TAG_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[_message_pb2.Delivery]
    first_tag: int
    def __init__(self, first_tag: _Optional[int] = ..., deliveries: _Optional[_Iterable[_Union[_message_pb2.Delivery, _Mapping]]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Drained(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Duplicate(_message.Message):
    __slots__ = ["index", "sequence"]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    index: int
    sequence: int
    def __init__(self, index: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class ImportMessagesRequest(_message.Message):
    __slots__ = ["batch_id", "instance", "messages", "producer_id", "queue"]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    instance: str
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.PeekedMessage]
    producer_id: str
    queue: str
    def __init__(self, queue: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.PeekedMessage, _Mapping]]] = ..., producer_id: _Optional[str] = ..., batch_id: _Optional[int] = ..., instance: _Optional[str] = ...) -> None: ...

class ImportMessagesResponse(_message.Message):
    __slots__ = ["stored"]
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: Stored
    def __init__(self, stored: _Optional[_Union[Stored, _Mapping]] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ["delay", "reason"]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    delay: _duration_pb2.Duration
    reason: str
    def __init__(self, delay: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class PeekRequest(_message.Message):
    __slots__ = ["cursor", "filter", "follow", "limit", "max_body_bytes", "order", "queue"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    filter: _message_pb2.Filter
    follow: bool
    limit: int
    max_body_bytes: int
    order: PeekOrder
    queue: str
    def __init__(self, queue: _Optional[str] = ..., filter: _Optional[_Union[_message_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., cursor: _Optional[str] = ..., follow: bool = ..., max_body_bytes: _Optional[int] = ..., order: _Optional[_Union[PeekOrder, str]] = ...) -> None: ...

class PeekResponse(_message.Message):
    __slots__ = ["cursor", "messages"]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.PeekedMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[_message_pb2.PeekedMessage, _Mapping]]] = ..., cursor: _Optional[str] = ...) -> None: ...

class ReceiveRequest(_message.Message):
    __slots__ = ["lease", "max_body_bytes", "max_messages", "queue", "queues", "selector", "settle_mode", "truncate", "wait"]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    MAX_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    QUEUES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    SETTLE_MODE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    lease: _duration_pb2.Duration
    max_body_bytes: int
    max_messages: int
    queue: str
    queues: _containers.RepeatedScalarFieldContainer[str]
    selector: _message_pb2.Selector
    settle_mode: SettleMode
    truncate: bool
    wait: _duration_pb2.Duration
    def __init__(self, queue: _Optional[str] = ..., selector: _Optional[_Union[_message_pb2.Selector, _Mapping]] = ..., max_messages: _Optional[int] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., settle_mode: _Optional[_Union[SettleMode, str]] = ..., max_body_bytes: _Optional[int] = ..., truncate: bool = ..., queues: _Optional[_Iterable[str]] = ...) -> None: ...

class ReceiveResponse(_message.Message):
    __slots__ = ["deliveries"]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[_message_pb2.Delivery]
    def __init__(self, deliveries: _Optional[_Iterable[_Union[_message_pb2.Delivery, _Mapping]]] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ["batch_id", "instance", "messages", "producer_id", "queue", "wait"]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    instance: str
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.Message]
    producer_id: str
    queue: str
    wait: _duration_pb2.Duration
    def __init__(self, queue: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.Message, _Mapping]]] = ..., producer_id: _Optional[str] = ..., batch_id: _Optional[int] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., instance: _Optional[str] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ["stored"]
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: Stored
    def __init__(self, stored: _Optional[_Union[Stored, _Mapping]] = ...) -> None: ...

class SendStreamBatch(_message.Message):
    __slots__ = ["batch_id", "messages", "wait"]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.Message]
    wait: _duration_pb2.Duration
    def __init__(self, batch_id: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.Message, _Mapping]]] = ..., wait: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SendStreamOpen(_message.Message):
    __slots__ = ["instance", "producer_id", "queue"]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    instance: str
    producer_id: str
    queue: str
    def __init__(self, queue: _Optional[str] = ..., producer_id: _Optional[str] = ..., instance: _Optional[str] = ...) -> None: ...

class SendStreamRequest(_message.Message):
    __slots__ = ["batch", "open"]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    batch: SendStreamBatch
    open: SendStreamOpen
    def __init__(self, open: _Optional[_Union[SendStreamOpen, _Mapping]] = ..., batch: _Optional[_Union[SendStreamBatch, _Mapping]] = ...) -> None: ...

class SendStreamResponse(_message.Message):
    __slots__ = ["results"]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[BatchResult]
    def __init__(self, results: _Optional[_Iterable[_Union[BatchResult, _Mapping]]] = ...) -> None: ...

class SettleFailure(_message.Message):
    __slots__ = ["error", "index", "tag"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    error: _message_pb2.Error
    index: int
    tag: int
    def __init__(self, index: _Optional[int] = ..., error: _Optional[_Union[_message_pb2.Error, _Mapping]] = ..., tag: _Optional[int] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ["settlements"]
    SETTLEMENTS_FIELD_NUMBER: _ClassVar[int]
    settlements: _containers.RepeatedCompositeFieldContainer[Settlement]
    def __init__(self, settlements: _Optional[_Iterable[_Union[Settlement, _Mapping]]] = ...) -> None: ...

class SettleResponse(_message.Message):
    __slots__ = ["failures", "touched"]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    TOUCHED_FIELD_NUMBER: _ClassVar[int]
    failures: _containers.RepeatedCompositeFieldContainer[SettleFailure]
    touched: _containers.RepeatedCompositeFieldContainer[TouchedLease]
    def __init__(self, failures: _Optional[_Iterable[_Union[SettleFailure, _Mapping]]] = ..., touched: _Optional[_Iterable[_Union[TouchedLease, _Mapping]]] = ...) -> None: ...

class SettleResults(_message.Message):
    __slots__ = ["failures", "settle_id", "touched"]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    SETTLE_ID_FIELD_NUMBER: _ClassVar[int]
    TOUCHED_FIELD_NUMBER: _ClassVar[int]
    failures: _containers.RepeatedCompositeFieldContainer[SettleFailure]
    settle_id: int
    touched: _containers.RepeatedCompositeFieldContainer[TouchedLease]
    def __init__(self, settle_id: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[SettleFailure, _Mapping]]] = ..., touched: _Optional[_Iterable[_Union[TouchedLease, _Mapping]]] = ...) -> None: ...

class Settlement(_message.Message):
    __slots__ = ["ack", "bury", "nack", "receipt", "release", "tags", "touch"]
    ACK_FIELD_NUMBER: _ClassVar[int]
    BURY_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    TOUCH_FIELD_NUMBER: _ClassVar[int]
    ack: Ack
    bury: Bury
    nack: Nack
    receipt: str
    release: Release
    tags: TagRange
    touch: Touch
    def __init__(self, receipt: _Optional[str] = ..., tags: _Optional[_Union[TagRange, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., touch: _Optional[_Union[Touch, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., bury: _Optional[_Union[Bury, _Mapping]] = ...) -> None: ...

class Settlements(_message.Message):
    __slots__ = ["settle_id", "settlements"]
    SETTLEMENTS_FIELD_NUMBER: _ClassVar[int]
    SETTLE_ID_FIELD_NUMBER: _ClassVar[int]
    settle_id: int
    settlements: _containers.RepeatedCompositeFieldContainer[Settlement]
    def __init__(self, settle_id: _Optional[int] = ..., settlements: _Optional[_Iterable[_Union[Settlement, _Mapping]]] = ...) -> None: ...

class Stored(_message.Message):
    __slots__ = ["count", "duplicates", "first_sequence", "send_time"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SEND_TIME_FIELD_NUMBER: _ClassVar[int]
    count: int
    duplicates: _containers.RepeatedCompositeFieldContainer[Duplicate]
    first_sequence: int
    send_time: _timestamp_pb2.Timestamp
    def __init__(self, first_sequence: _Optional[int] = ..., count: _Optional[int] = ..., duplicates: _Optional[_Iterable[_Union[Duplicate, _Mapping]]] = ..., send_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TagRange(_message.Message):
    __slots__ = ["first", "last"]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class TapRequest(_message.Message):
    __slots__ = ["filter", "max_body_bytes", "queue"]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    MAX_BODY_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    filter: _message_pb2.Filter
    max_body_bytes: int
    queue: str
    def __init__(self, queue: _Optional[str] = ..., filter: _Optional[_Union[_message_pb2.Filter, _Mapping]] = ..., max_body_bytes: _Optional[int] = ...) -> None: ...

class TapResponse(_message.Message):
    __slots__ = ["messages", "skipped"]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.PeekedMessage]
    skipped: int
    def __init__(self, messages: _Optional[_Iterable[_Union[_message_pb2.PeekedMessage, _Mapping]]] = ..., skipped: _Optional[int] = ...) -> None: ...

class Touch(_message.Message):
    __slots__ = ["lease"]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: _duration_pb2.Duration
    def __init__(self, lease: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class TouchedLease(_message.Message):
    __slots__ = ["index", "lease_expire_time"]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    index: int
    lease_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, index: _Optional[int] = ..., lease_expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class TransactRequest(_message.Message):
    __slots__ = ["batch_id", "instance", "producer_id", "receipts", "sends"]
    BATCH_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    SENDS_FIELD_NUMBER: _ClassVar[int]
    batch_id: int
    instance: str
    producer_id: str
    receipts: _containers.RepeatedScalarFieldContainer[str]
    sends: _containers.RepeatedCompositeFieldContainer[TransactSend]
    def __init__(self, sends: _Optional[_Iterable[_Union[TransactSend, _Mapping]]] = ..., receipts: _Optional[_Iterable[str]] = ..., producer_id: _Optional[str] = ..., batch_id: _Optional[int] = ..., instance: _Optional[str] = ...) -> None: ...

class TransactResponse(_message.Message):
    __slots__ = ["stored"]
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: _containers.RepeatedCompositeFieldContainer[Stored]
    def __init__(self, stored: _Optional[_Iterable[_Union[Stored, _Mapping]]] = ...) -> None: ...

class TransactSend(_message.Message):
    __slots__ = ["messages", "queue"]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[_message_pb2.Message]
    queue: str
    def __init__(self, queue: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[_message_pb2.Message, _Mapping]]] = ...) -> None: ...

class SettleMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class PeekOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
