"""The client: one connection to one daemon."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Type as Class

import grpc

from . import _convert as convert
from . import _errors as errors
from ._address import TLS, default_address, open_channel
from ._convert import Deadline
from ._exchange import Lanes, once, pause, unknown_transaction
from ._message import Delivery, Sendable, Sent, message, messages, sent
from ._proto import message_service_pb2 as ms
from ._proto import message_service_pb2_grpc as ms_grpc
from ._proto import queue_admin_service_pb2 as qa
from ._proto import queue_admin_service_pb2_grpc as qa_grpc
from ._proto import schema_service_pb2_grpc as schema_grpc
from ._proto import system_service_pb2 as system
from ._proto import system_service_pb2_grpc as system_grpc
from ._queue import Queue
from ._receive import receive
from ._request import Requester
from ._selector import Types
from ._settings import QueueInfo, queue_info, settings_proto
from ._settle import ByReceipt, ack_all
from ._temporary import TemporaryQueue


def connect(address: str = "", *, tls: Optional[TLS] = None, insecure: bool = False, user_agent: str = "") -> Client:
    """A client of the daemon at the address, which connects at its first call.

    address is "unix:///path/to/socket", "/path/to/socket", or "host:port" for TCP; "" is IPCD_ADDRESS, else the default
    socket. TCP needs tls, or what TLS.from_environment finds, or else insecure and a loopback address. Raises
    InvalidArgument if that does not fit.
    """
    return Client(address, tls=tls, insecure=insecure, user_agent=user_agent)


class Client:
    """Talks to one daemon. Any number of threads may use it at once.

    It is a context manager that closes itself. A process that forks must connect after that: gRPC's threads do not
    survive in the child.
    """

    def __init__(
        self, address: str = "", *, tls: Optional[TLS] = None, insecure: bool = False, user_agent: str = ""
    ) -> None:
        self._channel, self.address = open_channel(address or default_address(), tls, insecure, user_agent)
        self._admin = qa_grpc.QueueAdminServiceStub(self._channel)
        self._messages = ms_grpc.MessageServiceStub(self._channel)
        self._schemas = schema_grpc.SchemaServiceStub(self._channel)
        self._system = system_grpc.SystemServiceStub(self._channel)
        self._lanes = Lanes()
        self._by_receipt = ByReceipt(self)
        self._requester = Requester(self)
        self._closed = False
        self._lock = threading.Lock()  # guards all below
        self._instance = ""  # of the daemon; "": not known
        self._type_names: Dict[str, Mapping[str, int]] = {}  # by queue

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: Optional[Class[BaseException]], error: Optional[BaseException], _: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and all calls under way."""
        self._closed = True
        self._requester.close()
        self._channel.close()

    def __repr__(self) -> str:
        return f"<ipcd.Client of {self.address}>"

    # Queues.

    def queue(self, name: str) -> Queue:
        """The queue of that name, with or without its slash. This asks the daemon nothing."""
        return Queue(self, convert.queue_name(name))

    def create_queue(self, name: str, *, exclusive: bool = False, **settings: Any) -> Queue:
        """Makes a queue; where one with the same settings exists, that is it. Raises QueueExists where its settings are
        others, or with exclusive in any case. None stands for a setting's default.

        max_messages, max_bytes    what it holds at most, in any state
        max_message_size           bytes of a body
        lease                      seconds or timedelta
        max_attempts               failed leases until a message is dead-lettered or buried
        dead_letter_queue, dead_letter_expired
        overflow                   "reject", "block" or "drop-oldest"
        durability                 "journal" or "memory"
        backoff_initial, backoff_max   seconds or timedelta
        dedup_window (seconds or timedelta), max_dedup_ids
        type_names                 {"created": 7}
        mqueue                     "auto", "in", "out", "both" or "none"
        mode, owner_uid, group_gid as of a file
        """
        queue = self.queue(name)
        request = qa.CreateQueueRequest(name=queue.name, settings=settings_proto(settings), exclusive=exclusive)
        self._call(self._admin.CreateQueue, request, queue.name)
        return queue

    def queues(self, glob: str = "") -> Iterator[QueueInfo]:
        """The queues that the caller may look at, by name. glob is a pattern over the name without its slash, such as
        "order*"."""
        for response in self._stream(self._admin.ListQueues, qa.ListQueuesRequest(glob=glob)):
            yield queue_info(response.queue)

    def open_temporary(self, **settings: Any) -> TemporaryQueue:
        """A queue with a name that cannot be guessed, which ends when it is closed, or with this client. It is kept in
        memory, and everybody who knows the name may send to it. Takes the settings of create_queue."""
        return TemporaryQueue(self, settings)

    # Messages.

    def receive_any(
        self,
        queues: Iterable[str],
        n: int = 1,
        *,
        wait: Optional[convert.Duration] = 0,
        types: Types = None,
        lease: Optional[convert.Duration] = None,
        at_once: bool = False,
    ) -> List[Delivery]:
        """As Queue.receive, from any of several queues, up to 256, that are served in turn. Names of types are those of
        the first."""
        names = [convert.queue_name(name) for name in queues]
        if not names:
            raise errors.InvalidArgument("receive from no queue: name 1 to 256")
        return receive(self, names, n, wait=wait, types=types, lease=lease, at_once=at_once)

    def request(self, queue: str, body: Sendable = b"", *, timeout: convert.Duration = 30, **fields: Any) -> Delivery:
        """Sends a request to a queue and returns the reply, which is settled already. Takes what Queue.send takes.

        Without a ttl the request lives no longer than the timeout. Raises TimedOut if no reply comes in time, ReplyLost if
        none can come any more since the connection broke, OutcomeUnknown if the request may not have been stored. A reply
        that comes too late is dropped and counted in late_replies.
        """
        return self._requester.request(self.queue(queue), message(body, fields), Deadline(timeout))

    @property
    def late_replies(self) -> int:
        """Replies that came when nobody waited for them any more."""
        return self._requester.late

    def ack(self, deliveries: Iterable[Delivery]) -> None:
        """Acks many deliveries, possibly of different queues, in one call, each for itself. Where some fail it raises the
        first error, with all of them in failures; the others are done."""
        ack_all(self, deliveries)

    @contextmanager
    def transaction(self, timeout: Optional[convert.Duration] = None) -> Iterator[Transaction]:
        """Gathers what is to be done in a block, and does all of it or nothing at its end: messages are stored and
        deliveries acked together, also across a crash. If the block raises nothing is done.

            with client.transaction() as tx:
                tx.send("/invoices", body)
                tx.ack(order)

        It never waits for room. One stale receipt or full queue refuses all; the error's index is then the send or,
        counted after all of them, the acked delivery.
        """
        tx = Transaction(self)
        yield tx
        tx._commit(Deadline(timeout))

    # The daemon.

    def info(self) -> Dict[str, Any]:
        """What the daemon is and holds: version, instance, pid, start_time, state_dir, addresses, queues, messages, bytes."""
        r = self._call(self._system.GetInfo, system.GetInfoRequest())
        return dict(
            version=r.version,
            instance=r.instance,
            pid=r.pid,
            start_time=convert.when(r.start_time),
            state_dir=r.state_dir,
            addresses=list(r.addresses),
            queues=r.queues,
            messages=r.messages,
            bytes=r.bytes,
        )

    # For the rest of the package.

    def _call(self, method: Callable[..., Any], request: Any, queue: str = "", timeout: Optional[float] = None) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as err:
            raise errors.of_call(err, self.address, queue) from None
        except ValueError as err:
            raise self._or_closed(err)

    def _stream(self, method: Callable[..., Any], request: Any, queue: str = "") -> Iterator[Any]:
        """The responses of a call. It ends with the iterator."""
        try:
            call = method(request)
        except ValueError as err:
            raise self._or_closed(err)
        try:
            yield from call
        except grpc.RpcError as err:
            raise errors.of_call(err, self.address, queue) from None
        finally:
            call.cancel()

    def _or_closed(self, err: ValueError) -> Exception:
        if not self._closed:
            return err
        closed = errors.Cancelled("the client is closed")
        closed._sent = False
        return closed

    def _daemon_instance(self, timeout: Optional[float]) -> str:
        with self._lock:
            if self._instance:
                return self._instance
        return self._ask_instance(timeout)

    def _ask_instance(self, timeout: Optional[float]) -> str:
        instance = self._call(self._system.GetInfo, system.GetInfoRequest(), timeout=timeout).instance
        with self._lock:
            self._instance = instance
        return instance

    def _forget_instance(self) -> None:
        with self._lock:
            self._instance = ""

    def _await_answer(self, deadline: Deadline) -> None:
        """Returns once a daemon answers again. Raises once that takes too long, or it does not let us in."""
        attempt = 0
        while True:
            try:
                self._ask_instance(deadline.left())
                return
            except errors.Error as e:
                if not e._broken() or deadline.over():
                    raise
            pause(attempt, deadline)
            attempt += 1

    def _names(self, queue: str) -> Callable[[], Mapping[str, int]]:
        """Asks for the names of a queue's types, once."""

        def names() -> Mapping[str, int]:
            with self._lock:
                known = self._type_names.get(queue)
            if known is None:
                known = self.queue(queue).info().settings["type_names"]
                with self._lock:
                    self._type_names[queue] = known
            return known

        return names

    def _forget_names(self, queue: str) -> None:
        with self._lock:
            self._type_names.pop(queue, None)


class Transaction:
    """What a transaction is to do. sent has the outcome of each message, in order, once the block has ended."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._request = ms.TransactRequest()
        self._acked: List[Delivery] = []
        self.sent: List[Sent] = []

    def send(self, queue: str, body: Sendable = b"", **fields: Any) -> None:
        """Adds a message for a queue. Takes what Queue.send takes."""
        self.send_many(queue, [message(body, fields)])

    def send_many(self, queue: str, batch: Iterable[Sendable]) -> None:
        """Adds messages for a queue."""
        name = convert.queue_name(queue)
        self._request.sends.append(
            ms.TransactSend(queue=name, messages=messages(list(batch), self._client._names(name)))
        )

    def ack(self, *deliveries: Delivery) -> None:
        """Adds that deliveries are done."""
        for d in deliveries:
            if not d.receipt:
                raise errors.InvalidArgument(f"delivery {d.sequence} has no receipt to ack it by", queue=d.queue)
            self._request.receipts.append(d.receipt)
            self._acked.append(d)

    def _commit(self, deadline: Deadline) -> None:
        request, client = self._request, self._client
        if not request.sends and not request.receipts:
            return

        def call(instance: str, timeout: Optional[float]) -> ms.TransactResponse:
            request.instance = instance
            return client._call(client._messages.Transact, request, timeout=timeout)

        if request.sends:
            instance = client._daemon_instance(deadline.left())
            with client._lanes.take() as lane:
                request.producer_id, request.batch_id = lane.producer, lane.next_batch()
                response = once(client, call, deadline, instance, unknown_transaction)
        else:
            # Acks have no ids: a repeat that finds one stale may have found what the first try did.
            response = once(
                client,
                call,
                deadline,
                "",
                unknown_transaction,
                lambda e: e._leaves_open() or isinstance(e, errors.StaleReceipt),
            )
        if len(response.stored) != len(request.sends):
            raise errors.Internal(f"{len(request.sends)} sends were made, the answer is about {len(response.stored)}")
        for send, stored in zip(request.sends, response.stored):
            self.sent.extend(sent(stored, len(send.messages)))
        for d in self._acked:
            d._done_elsewhere()
