"""Appends items of many connections to the log, partition by partition.

Invariant: the items of a partition are sent in the order in which they were appended, one Kafka batch at a time; what came
meanwhile is the next batch. An item counts as appended when all in-sync replicas have it. When one batch fails, all that wait
fail with it, the producer is replaced, and the connections that used it are of no use any more: nothing may overtake what
failed, its client sends everything again on a new connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.errors import Transient
from streams.ingress.item import Routed
from streams.kafka import connected, stopped
from streams.telemetry import log

STOP_SECONDS: Final = 5.0

logger = log(__name__)


@dataclass(slots=True, eq=False)
class _Batch:
    """Of a client; done when the last of its items is on the log."""

    left: int
    done: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class _Partition:
    """What waits for one partition, what is on its way, and whether a task takes care of it."""

    waiting: deque[tuple[Routed, _Batch]] = field(default_factory=deque)
    sent: list[_Batch] = field(default_factory=list)
    is_sending: bool = False


class Log:
    """The log as one connection sees it: of use as long as the producer is that it began with."""

    def __init__(self, appender: Appender, producer: AIOKafkaProducer) -> None:
        self._appender, self._producer = appender, producer

    def append(self, items: Iterable[Routed]) -> asyncio.Future[None]:
        """Queues items at once; the future is done when they are on the log. It fails with Transient: they may not be."""
        return self._appender.append(self._producer, items)


class Appender:
    """One idempotent producer at a time, shared by all connections. `run` keeps it."""

    def __init__(self, new_producer: Callable[[], AIOKafkaProducer]) -> None:
        self._new_producer = new_producer
        self._producer: AIOKafkaProducer | None = None
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.ready, self.failed = asyncio.Event(), asyncio.Event()  # one of them is set, from the first producer on

    @property
    def items_waiting(self) -> int:
        return sum(len(p.waiting) + len(p.sent) for p in self._partitions.values())

    async def run(self) -> None:
        """Keeps a producer until it is cancelled; then sends what waits, and stops it."""
        try:
            while True:
                producer = await connected(self._new_producer)
                self._producer = producer
                self.failed.clear()
                self.ready.set()
                await self.failed.wait()
                await stopped(producer)
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            if self._producer is not None:
                await stopped(self._producer)

    def log(self) -> Log:
        """The log, for a new connection. Raises Transient while Kafka does not answer."""
        if self._producer is None:
            raise Transient("Kafka does not answer: try again in a second")
        return Log(self, self._producer)

    def append(self, producer: AIOKafkaProducer, items: Iterable[Routed]) -> asyncio.Future[None]:
        batch = _Batch(0, asyncio.get_running_loop().create_future())
        if producer is not self._producer:
            batch.done.set_exception(
                Transient("an earlier batch was not taken by Kafka: send all that is not acknowledged again")
            )
            return batch.done
        partitions = self._partitions
        for item in items:
            place = (item.topic, item.partition)
            partition = partitions.get(place)
            if partition is None:
                partition = partitions[place] = _Partition()
            partition.waiting.append((item, batch))
            batch.left += 1
            if not partition.is_sending:
                partition.is_sending = True
                task = asyncio.create_task(self._send(producer, place, partition))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if batch.left == 0:
            batch.done.set_result(None)
        return batch.done

    async def _send(self, producer: AIOKafkaProducer, place: tuple[str, int], partition: _Partition) -> None:
        """Sends what waits for a partition until nothing does."""
        topic, number = place
        try:
            while partition.waiting:
                builder = _filled(producer, partition)
                await (await producer.send_batch(builder, topic, partition=number))
                for batch in partition.sent:
                    batch.left -= 1
                    if batch.left == 0 and not batch.done.done():
                        batch.done.set_result(None)
                partition.sent = []
        except KafkaError as error:
            logger.error("Kafka did not take a batch, starting a new producer", topic=topic, partition=number, error=repr(error))
        finally:
            partition.is_sending = False
            if partition.waiting or partition.sent:
                self._fail(producer)

    def _fail(self, producer: AIOKafkaProducer) -> None:
        """Everything that waits fails, and whatever comes before there is a new producer."""
        if producer is not self._producer:
            return  # another partition was first
        self._producer = None
        partitions, self._partitions = self._partitions, {}
        for partition in partitions.values():
            for batch in (*partition.sent, *(b for _, b in partition.waiting)):
                if not batch.done.done():
                    batch.done.set_exception(Transient("Kafka did not take a batch: send all that is not acknowledged again"))
                    batch.done.exception()  # its connection may be gone: nobody has to look at it
            partition.waiting.clear()
        self.ready.clear()
        self.failed.set()


def _filled(producer: AIOKafkaProducer, partition: _Partition) -> object:
    """A Kafka batch of what waits, as much as one holds."""
    builder = producer.create_batch()
    waiting, sent = partition.waiting, partition.sent
    while waiting:
        item, batch = waiting[0]
        if builder.append(timestamp=None, key=item.key, value=item.value, headers=item.headers) is None:
            break
        waiting.popleft()
        sent.append(batch)
    return builder
