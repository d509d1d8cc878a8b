"""What an edge node publishes through: batches in flight, in order, until Kafka has acknowledged each.

Invariants
* A batch leaves `_waiting` only by its acknowledgement, and every connection begins with the oldest one that waits. So nothing is
  lost, the first time that an event stands on the log it stands in order, and a resend repeats events by their id.
* Where the ingress fails at what waits again and again, without a word that it is its own trouble, they are sent in
  ever smaller parts until the item is found that it fails at (`isolation.py`); that one is refused with the code POISON.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc
import grpc.aio

from streams.codec import PREFIX
from streams.errors import Invalid
from streams.ingress.ingress_pb2 import Batch, BatchAck, Item, Refusal
from streams.ingress.ingress_pb2_grpc import IngressStub
from streams.ingress.isolation import Isolation
from streams.ingress.limits import ACCEPTED, ITEM_OVERHEAD_BYTES, MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_ITEM_BYTES
from streams.ingress.line import Credential, Line, authorization, is_own_trouble, open_channel, pauses, sentence
from streams.meta_bytes import read_meta
from streams.telemetry import log

logger = log(__name__)

if TYPE_CHECKING:
    from streams.ingress.ingress_pb2_grpc import IngressAsyncStub


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event on its way: framed Avro, and the trace that it belongs to."""

    value: bytes
    traceparent: str | None = None

    @property
    def size_bytes(self) -> int:
        """Upper bound of its share of a batch."""
        return len(self.value) + ITEM_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that is not on the log and never will be."""

    index: int  # in its batch
    code: str  # name of Refusal.Code
    reason: str


POISON: Final = "POISON"
SUSPECTED_AFTER: Final = 5  # connections that failed before anything was acknowledged
_NOT_OF_THE_ITEMS: Final = frozenset(
    (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNIMPLEMENTED,
    )
)
Call = grpc.aio.StreamStreamCall[Batch, BatchAck]
Channel = Callable[[str, Credential], grpc.aio.Channel]
"""Opens a channel to `host:port`."""
Receipt = asyncio.Future[tuple[Refused, ...]]
"""Done when Kafka has acknowledged every item of a batch but those it lists."""


@dataclass(slots=True, eq=False)
class _Waiting:
    message: Batch
    receipt: Receipt


class _Search:
    """Of the item at which the ingress fails, among the oldest batches."""

    def __init__(self, batches: Sequence[_Waiting]) -> None:
        self.batches = batches
        self.is_on_the_wire = False  # the part that is to be sent now was sent, and is not acknowledged
        self._items = [(waiting, index) for waiting in batches for index in range(len(waiting.message.items))]
        self._refused: dict[int, Refused] = {}  # by place in `_items`, as the ingress says
        self.parts = Isolation(len(self._items), lambda one, other: self._aggregate(one) == self._aggregate(other))

    def message(self) -> Batch:
        self.is_on_the_wire = True
        return Batch(number=0, items=[self._item(place) for place in self.parts.part or ()])

    def acknowledged(self, ack: BatchAck) -> None:
        part = self.parts.part
        if part is None or ack.number:
            raise ProtocolBroken(f"the ingress acknowledged batch {ack.number} out of order")
        for refusal in ack.refusals:
            place = part[refusal.index]
            self._refused[place] = Refused(self._items[place][1], Refusal.Code.Name(refusal.code), refusal.reason)
        self.parts.passed()
        self.is_on_the_wire = False

    def refused(self, of: _Waiting) -> tuple[Refused, ...]:
        given_up = {place: Refused(self._items[place][1], POISON, why) for place, why in self.parts.given_up.items()}
        every = sorted((self._refused | given_up).items())
        return tuple(refused for place, refused in every if self._items[place][0] is of)

    def _item(self, place: int) -> Item:
        waiting, index = self._items[place]
        return waiting.message.items[index]

    def _aggregate(self, place: int) -> object:
        """Whose order matters; of what cannot be read, its own."""
        try:
            return read_meta(self._item(place).value, PREFIX.size)[0].aggregate_id
        except (Invalid, ValueError, IndexError, EOFError):
            return place


class ProtocolBroken(Exception):
    """The server answered what was not asked."""


class Publisher:
    """A node's way to the log. Reconnects for ever; `line` says how that goes.

    `async with Publisher("127.0.0.1:18006", credential) as publisher: receipt = await publisher.publish(items)`
    """

    def __init__(
        self, address: str, credential: Credential, *, batches_in_flight: int = 32, channel: Channel = open_channel
    ) -> None:
        self._more = asyncio.Event()
        self.line = Line(wake=self._more.set)
        self._address, self._credential, self._channel = address, credential, channel
        self._room = asyncio.Semaphore(batches_in_flight)
        self._waiting: deque[_Waiting] = deque()
        self._sent = 0  # how many of `_waiting`, from its left, are on the wire of the current connection
        self._number = 0
        self._acknowledged_total = 0
        self._suspected = 0  # connections in a row that failed at the oldest batch
        self._search: _Search | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay_connected(), name="ingress publisher")
        self._task.add_done_callback(self._give_up)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Stops at once. Receipts that are still open are cancelled: what they stood for must be published again."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

    @property
    def batches_waiting(self) -> int:
        return len(self._waiting)

    async def publish(self, items: Sequence[Outgoing]) -> Receipt:
        """Queues a batch behind all earlier ones; waits while too many are unacknowledged. The order is that of the calls.

        ValueError: no items, or more than a batch may hold. Nothing of the batch is sent then.
        """
        message = Batch(items=[Item(value=i.value, traceparent=i.traceparent or "") for i in items])
        if not 0 < len(items) <= MAX_BATCH_ITEMS:
            raise ValueError(f"a batch has 1 to {MAX_BATCH_ITEMS} items, not {len(items)}")
        # Checked here too: the server would cut the connection, again and again.
        if (size := message.ByteSize() + 10) > MAX_BATCH_BYTES:
            raise ValueError(f"a batch has at most {MAX_BATCH_BYTES} bytes, not {size}; an item at most {MAX_ITEM_BYTES}")
        if self._task is None or self._task.done():
            raise RuntimeError("the publisher does not run: use it inside `async with`")
        await self._room.acquire()
        self._number += 1
        message.number = self._number
        receipt: Receipt = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(message, receipt))
        self._more.set()
        return receipt

    def _give_up(self, task: asyncio.Task[None]) -> None:
        """Nobody sends any more: whoever waits for a receipt is told, with the bug that ended the task where it was one."""
        bug = None if task.cancelled() else task.exception()
        for waiting in self._waiting:
            if bug is None:
                waiting.receipt.cancel()
            elif not waiting.receipt.done():
                waiting.receipt.set_exception(bug)

    async def _stay_connected(self) -> None:
        pause = pauses()
        while True:
            acknowledged = self._acknowledged_total
            try:
                async with self._channel(self._address, self._credential) as channel:
                    await self._converse(IngressStub(channel))
                problem = "the ingress ended the connection"
            except grpc.aio.AioRpcError as error:
                problem = sentence(error)
                if self.line.is_up and acknowledged == self._acknowledged_total:
                    self._suspect(error)
            except (ProtocolBroken, OSError, ValueError) as error:  # OSError, ValueError: the credential cannot be read
                problem = str(error)
            if self.line.is_up:
                pause = pauses()
                if self.line.stale.is_set():  # we wanted it so
                    continue
            self.line.down(problem)
            await asyncio.sleep(next(pause))

    async def _converse(self, stub: IngressAsyncStub) -> None:
        """One connection, from its beginning to its end."""
        self.line.stale.clear()
        call: Call = stub.Publish(metadata=authorization(self._credential))  # type: ignore[call-arg]  # the stub wants an iterator
        writer: asyncio.Task[None] | None = None
        try:
            if ACCEPTED in [(key, value) for key, value in await call.initial_metadata() or ()]:  # else the first read says why
                self.line.up()
            self._sent = 0
            if self._search is not None:
                self._search.is_on_the_wire = False
            self._more.set()
            writer = asyncio.create_task(self._write(call))
            while isinstance(ack := await call.read(), BatchAck):
                self._acknowledge(ack)
        finally:
            call.cancel()
            if writer is not None:
                writer.cancel()
                await asyncio.wait([writer])

    async def _write(self, call: Call) -> None:
        # A write that fails says nothing: the reader gets the status of the call and ends the connection.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._more.wait()
                self._more.clear()
                if self.line.stale.is_set():  # nothing more in this connection; the ingress answers what it has, and ends it
                    await call.done_writing()
                    return
                if self._search is not None:
                    if not self._search.is_on_the_wire:
                        await call.write(self._search.message())
                    continue
                while self._sent < len(self._waiting):
                    message = self._waiting[self._sent].message
                    self._sent += 1  # before the write: its acknowledgement may be read while the write is awaited
                    await call.write(message)

    def _suspect(self, error: grpc.aio.AioRpcError) -> None:
        """The ingress took the connection, and then failed before it had acknowledged anything."""
        if error.code() in _NOT_OF_THE_ITEMS or is_own_trouble(error):
            return
        if self._search is not None:
            is_explained = error.code() is not grpc.StatusCode.UNAVAILABLE
            self._search.parts.failed(sentence(error), is_explained=is_explained)
            if not self._search.parts.has_passed and len(self._search.batches) < len(self._waiting):
                self._begin_search()  # with what came since: something has to pass before anything is given up
            self._end_search()
        elif self._sent:
            self._suspected += 1
            if self._suspected >= SUSPECTED_AFTER:
                logger.error("the ingress fails again and again; the item that it fails at is searched", problem=sentence(error))
                self._begin_search()

    def _begin_search(self) -> None:
        self._search = _Search(tuple(self._waiting))

    def _end_search(self) -> None:
        """Tells the owners of the batches that were searched, once every item of them is acknowledged or given up."""
        search = self._search
        if search is None or search.parts.part is not None:
            return
        self._search, self._suspected = None, 0
        for waiting in search.batches:
            self._waiting.popleft()
            self._room.release()
            if not waiting.receipt.done():
                waiting.receipt.set_result(search.refused(waiting))
        self._more.set()

    def _acknowledge(self, ack: BatchAck) -> None:
        self._acknowledged_total += 1
        self._suspected = 0
        if self._search is not None:
            self._search.acknowledged(ack)
            self._end_search()
            self._more.set()
            return
        if not self._sent or self._waiting[0].message.number != ack.number:
            raise ProtocolBroken(f"the ingress acknowledged batch {ack.number} out of order")
        done = self._waiting.popleft()
        self._sent -= 1
        self._room.release()
        if not done.receipt.done():  # its owner may have stopped waiting
            done.receipt.set_result(tuple(Refused(r.index, Refusal.Code.Name(r.code), r.reason) for r in ack.refusals))
