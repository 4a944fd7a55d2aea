"""A queue, as a client sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from . import _convert as convert
from . import _errors as errors
from . import _schema
from ._convert import Deadline
from ._exchange import once, unknown_stored
from ._message import Delivery, Peeked, Sendable, Sent, filter_proto, message, messages, sent
from ._proto import message_pb2 as pb
from ._proto import message_service_pb2 as ms
from ._proto import queue_admin_service_pb2 as qa
from ._receive import receive
from ._schema import Descriptors, Schema
from ._selector import Type, Types, selector
from ._settings import QueueInfo, mask, queue_info, settings_proto

if TYPE_CHECKING:
    from ._client import Client
    from ._consumer import Consumer
    from ._tap import Tap

Handler = Callable[[Delivery], Any]

# With what the names of temporary queues, and of no others, begin.
_TEMPORARY = "/tmp."


class Queue:
    """A queue of a client. It holds nothing but its name: Client.queue makes one. Any number of threads may use it.

    Where messages are chosen (peek, purge, kick, move, redrive) these keywords narrow which, and all that is given
    must hold: types, states ("ready", "delayed", "leased", "buried"), min_sequence, max_sequence, older_than (seconds or
    timedelta since they were sent), headers (that have exactly these values).
    """

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    def __repr__(self) -> str:
        return f"<ipcd.Queue {self.name}>"

    # Sending.

    def send(self, body: Sendable = b"", *, timeout: Optional[convert.Duration] = None, **fields: Any) -> Sent:
        """Stores a message and returns once it is committed. Takes a Message, or a body and the fields of Message:

            queue.send(b"...", type=7, headers={"k": "v"}, ttl=60)

        Should the connection break meanwhile, it is sent again under ids under which the daemon stores it once. Raises
        OutcomeUnknown where it remains open whether it was stored, also because the timeout was over. At a full queue
        that lets senders wait, this waits up to the timeout.
        """
        return self.send_many([message(body, fields)], timeout=timeout)[0]

    def send_many(self, batch: Iterable[Sendable], *, timeout: Optional[convert.Duration] = None) -> List[Sent]:
        """Stores a batch of messages or bodies, all of it or nothing; otherwise as send. Where one is refused the error's
        index names it."""
        request = ms.SendRequest(queue=self.name, messages=messages(list(batch), self.client._names(self.name)))
        deadline = Deadline(timeout)
        instance = self.client._daemon_instance(deadline.left())

        def call(instance: str, timeout: Optional[float]) -> ms.SendResponse:
            request.instance = instance
            wait = deadline.blocked_wait()
            if wait is not None:
                request.wait.CopyFrom(wait)
            return self.client._call(self.client._messages.Send, request, self.name, timeout)

        with self.client._lanes.take() as lane:
            request.producer_id, request.batch_id = lane.producer, lane.next_batch()
            response = once(self.client, call, deadline, instance, unknown_stored(self.name))
        return sent(response.stored, len(request.messages))

    # Receiving.

    def receive(
        self,
        n: int = 1,
        *,
        wait: Optional[convert.Duration] = 0,
        types: Types = None,
        lease: Optional[convert.Duration] = None,
        at_once: bool = False,
        max_body_bytes: int = 0,
        truncate: bool = False,
    ) -> List[Delivery]:
        """Up to n messages (16384 at most) as soon as something matches, or none when the wait is over. They are leased:
        they come again unless they are acked in time.

        wait           for the first, seconds or timedelta; 0: not at all; None: until one comes
        types          which types are meant: a type, several, a Selector, or text such as "upto:7"
        lease          seconds or timedelta; None: the queue's
        at_once        they count as consumed when they are handed out, and nothing needs settling
        max_body_bytes the receiver's buffer for one body; a larger message stays queued, with BufferTooSmall, unless
                       truncate says to cut it

        Should the connection break it asks again, for the rest of the wait and at least 10 seconds; with at_once it
        rather raises OutcomeUnknown, for messages may be lost.
        """
        return receive(
            self.client,
            [self.name],
            n,
            wait=wait,
            types=types,
            lease=lease,
            at_once=at_once,
            max_body_bytes=max_body_bytes,
            truncate=truncate,
        )

    def consumer(
        self,
        *,
        types: Types = None,
        lease: Optional[convert.Duration] = None,
        prefetch: int = 64,
        on_error: Optional[Callable[[Delivery, errors.Error], Any]] = None,
        on_reconnect: Optional[Callable[[errors.Error], Any]] = None,
    ) -> Consumer:
        """An iterator over the queue's messages that waits for them, for use in a with statement; see Consumer."""
        from ._consumer import Consumer

        return Consumer(self, types, lease, prefetch, on_error, on_reconnect)

    def consume(self, handler: Handler, *, concurrency: int = 1, **options: Any) -> None:
        """Hands the queue's messages to the handler, in as many threads as concurrency says, until the program is interrupted
        (KeyboardInterrupt, SystemExit), which ends it gracefully, or the daemon refuses, such as with QueueDeleted. Each
        delivery is acked when the handler returns and nacked when it raises, unless the handler has settled it; its lease is
        prolonged meanwhile. Takes the options of consumer, which is what to use where the program itself is to end it.
        """
        with self.consumer(**options) as consumer:
            consumer.run(handler, concurrency)

    def respond(self, handler: Callable[[Delivery], Sendable], *, concurrency: int = 1, **options: Any) -> None:
        """As consume, and sends what the handler returns to who asked. The reply goes first, and then the ack: a request
        may be handled twice, but none is lost. A reply is dropped where the requester has gone, and its temporary queue
        with it; where any other queue is missing the request is nacked."""

        def answer(delivery: Delivery) -> None:
            body = handler(delivery)
            try:
                delivery.reply(body)
            except (errors.QueueNotFound, errors.QueueDeleted):
                if not delivery.reply_to.startswith(_TEMPORARY):
                    raise

        self.consume(answer, concurrency=concurrency, **options)

    # Looking.

    def info(self) -> QueueInfo:
        """The queue as it is now."""
        return queue_info(self._admin("GetQueue", qa.GetQueueRequest(name=self.name)).queue)

    def peek(
        self,
        *,
        limit: int = 0,
        follow: bool = False,
        max_body_bytes: int = 0,
        by_sequence: bool = False,
        **filters: Any,
    ) -> Iterator[Peeked]:
        """Shows messages and changes nothing: the ready ones, unless states says otherwise, in the order in which they
        would be received, or by_sequence. limit: at most so many, 0 for all. follow: go on with messages as they arrive, by
        sequence. max_body_bytes: cut bodies to so many, 0 for whole."""
        order = ms.PEEK_ORDER_SEQUENCE if by_sequence else ms.PEEK_ORDER_UNSPECIFIED
        request = ms.PeekRequest(
            queue=self.name,
            filter=self._filter(filters),
            limit=limit,
            follow=follow,
            max_body_bytes=max_body_bytes,
            order=order,
        )
        for response in self.client._stream(self.client._messages.Peek, request, self.name):
            for one in response.messages:
                yield Peeked(one)

    def tap(
        self,
        *,
        types: Types = None,
        headers: Optional[Mapping[str, convert.Bytes]] = None,
        max_body_bytes: int = 0,
    ) -> Tap:
        """Copies what arrives from now on, whoever consumes it; see Tap."""
        from ._tap import Tap

        meant = self._filter(dict(types=types, headers=headers))
        return Tap(self, ms.TapRequest(queue=self.name, filter=meant, max_body_bytes=max_body_bytes))

    # Managing.

    def update(self, **settings: Any) -> QueueInfo:
        """Changes settings, those of Client.create_queue. None returns one to its default."""
        request = qa.UpdateQueueRequest(name=self.name, settings=settings_proto(settings), update_mask=mask(settings))
        info = queue_info(self._admin("UpdateQueue", request).queue)
        self.client._forget_names(self.name)
        return info

    def delete(self) -> int:
        """Deletes the queue, and returns how many messages went with it."""
        self.client._forget_names(self.name)
        return self._admin("DeleteQueue", qa.DeleteQueueRequest(name=self.name)).messages

    def pause(self) -> None:
        """Stops deliveries, not sends."""
        self._admin("PauseQueue", qa.PauseQueueRequest(name=self.name))

    def resume(self) -> None:
        """Lets deliveries go on."""
        self._admin("ResumeQueue", qa.ResumeQueueRequest(name=self.name))

    def purge(self, *, limit: int = 0, dry_run: bool = False, **filters: Any) -> int:
        """Removes messages for good: those that are ready, delayed or buried, unless states says otherwise. Returns how
        many. limit: at most so many, 0 for all. dry_run: count only."""
        request = qa.PurgeQueueRequest(name=self.name, filter=self._filter(filters), dry_run=dry_run)
        return self._all("PurgeQueue", request, limit)

    def kick(self, *, limit: int = 0, dry_run: bool = False, **filters: Any) -> int:
        """Returns buried messages to ready, and says how many; otherwise as purge."""
        request = qa.KickMessagesRequest(name=self.name, filter=self._filter(filters), dry_run=dry_run)
        return self._all("KickMessages", request, limit)

    def move(self, destination: str, *, limit: int = 0, dry_run: bool = False, **filters: Any) -> int:
        """Moves messages to another queue, in atomic steps: each is always in exactly one of the two. They get new
        sequences and keep their order; otherwise as purge. Should it fail half-way, what was moved stays moved."""
        request = qa.MoveMessagesRequest(
            source=self.name,
            destination=convert.queue_name(destination),
            filter=self._filter(filters),
            dry_run=dry_run,
        )
        return self._all("MoveMessages", request, limit)

    def redrive(self, *, limit: int = 0, dry_run: bool = False, **filters: Any) -> Dict[str, int]:
        """Moves dead letters back, each to the queue it came from, and returns how many to which. Where some had to stay it
        raises the first error, with all of them in failures, each with its queue; the others are moved."""
        request = qa.RedriveMessagesRequest(name=self.name, filter=self._filter(filters), limit=limit, dry_run=dry_run)
        redriven = self._admin("RedriveMessages", request).redriven
        failures = tuple(errors.of_part(r.error, r.queue) for r in redriven if r.HasField("error"))
        if failures:
            failures[0].failures = failures
            raise failures[0]
        return {r.queue: r.messages for r in redriven}

    def bind(self, destination: str, *, types: Types = None, skip: bool = False) -> None:
        """Lets the queue hand on a copy of what is sent to it, stored in the same record. Where the destination cannot take
        its copy the send is refused, or with skip the destination goes without. A bind that is there is changed."""
        bind = qa.Bind(
            destination=convert.queue_name(destination),
            selector=self._selector(types),
            overflow=qa.BIND_OVERFLOW_SKIP if skip else qa.BIND_OVERFLOW_REFUSE,
        )
        self._admin("BindQueue", qa.BindQueueRequest(source=self.name, bind=bind))

    def unbind(self, destination: str) -> None:
        """Ends a bind."""
        request = qa.UnbindQueueRequest(source=self.name, destination=convert.queue_name(destination))
        self._admin("UnbindQueue", request)

    def register_schema(
        self,
        descriptors: Descriptors,
        types: Mapping[Type, str],
        *,
        validate: bool = False,
        allow_incompatible: bool = False,
        dry_run: bool = False,
    ) -> Schema:
        """Makes the next version of the queue's schema: what protobuf messages the bodies of types are.

            queue.register_schema(orders_pb2.DESCRIPTOR, {"created": "acme.Order"}, validate=True)

        descriptors is a serialized FileDescriptorSet, or the DESCRIPTOR of a module that protoc made. validate refuses
        sends of these types whose bodies are not such messages, with SchemaMismatch. What an existing reader or writer could
        trip over raises SchemaIncompatible, unless allowed. dry_run: check only."""
        return _schema.register(self, descriptors, types, validate, allow_incompatible, dry_run)

    def schema(self, version: int = 0) -> Schema:
        """A version of the queue's schema; 0: the current one. Raises SchemaNotFound if there is none."""
        return _schema.get(self, version)

    def remove_schema(self) -> None:
        """Removes all versions. Bodies are plain bytes again."""
        _schema.remove(self)

    # For the rest of the package.

    def _admin(self, method: str, request: Any) -> Any:
        return self.client._call(getattr(self.client._admin, method), request, self.name)

    def _all(self, method: str, request: Any, limit: int) -> int:
        """Calls until there is nothing left to do, or the limit is reached."""
        done = 0
        while True:
            request.limit = limit - done if limit else 0
            response = self._admin(method, request)
            done += response.messages
            if not response.cursor or (limit and done >= limit):
                return done
            request.cursor = response.cursor

    def _selector(self, types: Types) -> Optional[pb.Selector]:
        return selector(types)._proto(self.client._names(self.name))

    def _filter(self, filters: Dict[str, Any]) -> pb.Filter:
        types = self._selector(filters.pop("types", None))
        states = filters.pop("states", ())
        names: Tuple[str, ...] = ("min_sequence", "max_sequence", "older_than", "headers")
        unknown = set(filters) - set(names)
        if unknown:
            raise TypeError(
                f"unexpected {', '.join(sorted(unknown))}: messages are chosen by types, states, {', '.join(names)}"
            )
        return filter_proto(
            types,
            (states,) if isinstance(states, str) else tuple(states),
            filters.get("min_sequence", 0),
            filters.get("max_sequence", 0),
            filters.get("older_than"),
            filters.get("headers"),
        )
