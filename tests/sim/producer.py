"""aiokafka's producer, as much of it as the product uses, on the simulated network.

Invariant: a partition's batches are sent one at a time, in order, and one whose fate is unknown is sent again with the same
sequence number until the broker says. What a transaction holds is on the log before its positions and its end are sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from aiokafka.errors import (
    IllegalOperation,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    ProducerFenced,
)
from aiokafka.structs import OffsetAndMetadata, RecordMetadata, TopicPartition
from aiokafka.util import commit_structure_validate

from tests.sim.broker import Broker
from tests.sim.network import Connection, Network, persist
from tests.sim.partition_log import Message, Sender

BATCH_MAX_BYTES: Final = 1 << 20
REQUEST_MAX_BYTES: Final = 4 << 20
Transact = Callable[[str], None]
State = Literal["uninitialized", "ready", "in transaction", "committing", "aborting", "failed"]


@dataclass(slots=True)
class BatchBuilder:
    messages: list[Message] = field(default_factory=list)
    size_bytes: int = 0

    def append(
        self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]] = ()
    ) -> object | None:
        """None: the batch is full. The first message always fits."""
        message = Message(key, value, tuple(headers), timestamp)
        if self.messages and self.size_bytes + message.size_bytes > BATCH_MAX_BYTES:
            return None
        self.messages.append(message)
        self.size_bytes += message.size_bytes
        return message

    def record_count(self) -> int:
        return len(self.messages)

    def size(self) -> int:
        return self.size_bytes


@dataclass(slots=True, eq=False)
class _Batch:
    tp: TopicPartition
    messages: list[Message]
    futures: list[asyncio.Future[RecordMetadata]]  # one of all, or one of each
    sequence: int | None = None

    def done(self, offset: int) -> None:
        for n, future in enumerate(self.futures):
            if not future.done():
                future.set_result(RecordMetadata(self.tp.topic, self.tp.partition, self.tp, offset + n, -1, 0, 0))

    def fail(self, error: BaseException) -> None:
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


class SimProducer:
    def __init__(
        self, network: Network, broker: Broker, transactional_id: str | None = None, transaction_timeout_ms: int = 30_000
    ) -> None:
        self._network, self._broker = network, broker
        self._id, self._timeout_ms = transactional_id, transaction_timeout_ms
        self._backoff_seconds = 0.05 if transactional_id is None else 0.02
        self._connection, self._coordination = Connection(), Connection()
        self._loop = asyncio.get_running_loop()
        self._producer_id, self._epoch = -1, -1
        self._sequences: dict[TopicPartition, int] = {}
        self._queues: dict[TopicPartition, deque[_Batch]] = {}
        self._state: State = "uninitialized"
        self._added: set[TopicPartition] = set()
        self._group: str | None = None
        self._offsets: deque[tuple[str, dict[TopicPartition, OffsetAndMetadata], asyncio.Future[None]]] = deque()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._work = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._is_closed = False

    # life

    async def start(self) -> None:
        """Raises KafkaConnectionError: the broker does not answer."""
        await self._network.request(self._connection, "Metadata", lambda: None)
        await persist(self._init, 0.02)
        self._state = "ready"
        self._sender = asyncio.create_task(self._send())

    async def _init(self) -> None:
        self._producer_id, self._epoch = await self._network.request(
            self._coordination, "InitProducerId", lambda: self._broker.init_producer(self._id, self._timeout_ms)
        )

    async def stop(self) -> None:
        """Sends what waits, if it can be sent at all."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._sender is not None:
            flushing = asyncio.ensure_future(self.flush())
            await asyncio.wait([flushing, self._sender], return_when=asyncio.FIRST_COMPLETED)
            flushing.cancel()
            self._sender.cancel()
            await asyncio.wait([self._sender])

    async def flush(self) -> None:
        if waiting := [f for queue in self._queues.values() for batch in queue for f in batch.futures]:
            await asyncio.wait(waiting)

    async def __aenter__(self) -> SimProducer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # messages

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder()

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[RecordMetadata]:
        return self._enqueue(_Batch(TopicPartition(topic, partition), list(batch.messages), [self._loop.create_future()]))

    async def send(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[tuple[str, bytes]] | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        assert not (value is None and key is None), "Need at least one: key or value"
        assert partition is not None, "the product names its partitions"
        message = Message(key, value, tuple(headers or ()), timestamp_ms)
        if message.size_bytes > REQUEST_MAX_BYTES:
            raise MessageSizeTooLargeError()
        future: asyncio.Future[RecordMetadata] = self._loop.create_future()
        return self._enqueue(_Batch(TopicPartition(topic, partition), [message], [future]))

    async def send_and_wait(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[tuple[str, bytes]] | None = None,
    ) -> RecordMetadata:
        return await (await self.send(topic, value, key, partition, timestamp_ms, headers))

    def _enqueue(self, batch: _Batch) -> asyncio.Future[RecordMetadata]:
        if self._is_closed:
            raise ProducerClosed()
        if self._id is not None and self._state != "in transaction":
            raise IllegalOperation("Can't send messages while not in transaction")
        queue = self._queues.setdefault(batch.tp, deque())
        last = queue[-1] if queue else None
        if last is not None and last.sequence is None and len(last.messages) == len(last.futures) and len(batch.messages) == 1:
            last.messages += batch.messages  # what waits goes together
            last.futures += batch.futures
        else:
            queue.append(batch)
        self._work.set()
        return batch.futures[0]

    # transactions

    async def begin_transaction(self) -> None:
        self._turn("in transaction", "ready")
        self._ended = self._loop.create_future()

    async def commit_transaction(self) -> None:
        self._turn("committing", "in transaction")
        self._work.set()
        await asyncio.shield(self._ended)

    async def abort_transaction(self) -> None:
        self._turn("aborting", "in transaction")
        self._work.set()
        await asyncio.shield(self._ended)

    async def send_offsets_to_transaction(self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata], group_id: str) -> None:
        if self._state != "in transaction":
            raise IllegalOperation("Not in the middle of a transaction")
        done: asyncio.Future[None] = self._loop.create_future()
        self._offsets.append((group_id, commit_structure_validate(offsets), done))
        self._work.set()
        await asyncio.shield(done)

    def _turn(self, to: State, since: State) -> None:
        if self._id is None:
            raise IllegalOperation("You need to configure transaction_id to use transactions")
        assert self._state == since, f"Invalid state transition {self._state} -> {to}"
        self._state = to

    # the sender

    async def _send(self) -> None:
        try:
            while True:
                self._work.clear()
                if not await self._step():
                    await self._work.wait()
        except KafkaError as error:
            self._fail(ProducerFenced() if isinstance(error, InvalidProducerEpoch) else error)

    async def _step(self) -> bool:
        """One request, the next that is due; False: none is."""
        waiting = {tp: queue[0] for tp, queue in self._queues.items() if queue}
        if self._id is not None and (new := [tp for tp in waiting if tp not in self._added]):
            await self._transact(
                "AddPartitionsToTxn", lambda o: self._broker.transactions.add_partitions(o, self._producer_id, self._epoch, new)
            )
            self._added.update(new)
        elif waiting:
            await self._produce(waiting)
        elif self._offsets:
            await self._send_offsets()
        elif self._state in ("committing", "aborting"):
            await self._end()
        else:
            return False
        return True

    async def _transact(self, api: str, handle: Transact) -> None:
        owner = self._id
        assert owner is not None

        await persist(lambda: self._network.request(self._coordination, api, lambda: handle(owner)), self._backoff_seconds)

    async def _produce(self, batches: dict[TopicPartition, _Batch]) -> None:
        senders = {tp: self._sequenced(batch) for tp, batch in batches.items()}
        messages = {tp: batch.messages for tp, batch in batches.items()}
        try:
            done = await self._network.request(
                self._connection, "Produce", lambda: self._broker.produce(messages, senders, self._id)
            )
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(self._backoff_seconds)
            return
        is_repeated = False
        for tp, result in done.items():
            if isinstance(result, int):
                self._queues[tp].popleft().done(result)
            elif result.retriable:
                is_repeated = True
            else:
                self._queues[tp].popleft().fail(ProducerFenced() if isinstance(result, InvalidProducerEpoch) else result)
        if is_repeated:
            await asyncio.sleep(self._backoff_seconds)

    def _sequenced(self, batch: _Batch) -> Sender:
        if batch.sequence is None:
            batch.sequence = self._sequences.get(batch.tp, 0)
            self._sequences[batch.tp] = batch.sequence + len(batch.messages)
        return Sender(self._producer_id, self._epoch, batch.sequence, self._id is not None)

    async def _send_offsets(self) -> None:
        group_id, offsets, done = self._offsets[0]
        transactions, producer_id, epoch = self._broker.transactions, self._producer_id, self._epoch
        if self._group is None:
            await self._transact("AddOffsetsToTxn", lambda o: transactions.add_group(o, producer_id, epoch, group_id))
            self._group = group_id
        await self._transact("TxnOffsetCommit", lambda o: transactions.commit_offsets(o, producer_id, epoch, group_id, offsets))
        self._offsets.popleft()
        if not done.done():
            done.set_result(None)

    async def _end(self) -> None:
        commits = self._state == "committing"
        if self._added or self._group is not None:
            transactions, producer_id, epoch = self._broker.transactions, self._producer_id, self._epoch
            await self._transact("EndTxn", lambda o: transactions.end(o, producer_id, epoch, commits))
        self._added.clear()
        self._group = None
        self._state = "ready"
        if not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: KafkaError) -> None:
        """Nothing of this producer goes on."""
        self._state = "failed"
        for queue in self._queues.values():
            for batch in queue:
                batch.fail(error)
            queue.clear()
        for _, _, done in self._offsets:
            if not done.done():
                done.set_exception(error)
        if self._ended.done():
            self._ended = self._loop.create_future()
        self._ended.set_exception(error)
        self._ended.exception()  # whoever waits for it hears of it; nobody has to
