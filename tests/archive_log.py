"""Partitions of a real log in every shape that the archive has to take: plain, transactional, aborted, without key or value."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from infra.embedded.stack import Stack
from streams.archive.archiver import Archiver
from streams.archive.history import History, open_history
from streams.archive.objects import Objects
from streams.faust_batches.fetched import ConsumerRecord
from streams.kafka import idempotent_producer, reader, transactional_producer
from streams.settings import Settings, read_settings
from streams.topics import Topic, Topics

Seen = tuple[int, int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


def settings_of(stack: Stack, topics: Topics, archive: Path) -> Settings:
    return read_settings(
        {
            "FW_KAFKA_BOOTSTRAP": stack.kafka,
            "FW_POSTGRES_URL": stack.postgres,
            "FW_CLICKHOUSE_URL": stack.clickhouse,
            "FW_TOPIC_PREFIX": topics.prefix,
            "FW_SECRET_KEY": "00" * 32,
            "FW_OPERATOR_TOKEN": "t",
            "FW_ARCHIVE_URL": str(archive),
        }
    )


def archiver_of(settings: Settings, *topics: Topic, range_bytes: int = 64 << 20) -> Archiver:
    return Archiver(Objects(settings.archive_url), settings.kafka, topics, 3600, range_bytes)


async def delete_before(kafka: str, topic: Topic, partition: int, offset: int) -> None:
    """What retention does, at once."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(topic.name, partition): RecordsToDelete(before_offset=offset)})
    await admin.close()


def seen(records: Sequence[ConsumerRecord]) -> list[Seen]:
    """What of records has to be the same."""
    return [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in records]


async def everything(history: History, topic: Topic, partition: int) -> list[Seen]:
    first, end = (await history.ranges(topic))[partition]
    return await between(history, topic, partition, first, end)


async def between(history: History, topic: Topic, partition: int, first: int, end: int) -> list[Seen]:
    return [s async for batch in history.read(topic, partition, first, end) for s in seen(batch)]


async def on_the_log(kafka: str, topic: Topic, partition: int, first: int = 0) -> list[Seen]:
    """The partition as Kafka alone has it."""
    tp, found = TopicPartition(topic.name, partition), list[Seen]()
    consumer = reader(kafka, "t")
    await consumer.start()
    try:
        consumer.assign([tp])
        consumer.seek(tp, first)
        end = (await consumer.end_offsets([tp]))[tp]
        while await consumer.position(tp) < end:
            found += seen((await consumer.getmany(tp, timeout_ms=100)).get(tp, []))
    finally:
        await consumer.stop()
    return found


@contextlib.asynccontextmanager
async def history_of(settings: Settings) -> AsyncIterator[History]:
    async with open_history(settings) as history:
        yield history


class Writer:
    """Appends to one partition, by a plain producer and by transactions that end well or not."""

    def __init__(self, kafka: str, topic: Topic, partition: int) -> None:
        self.kafka, self.topic, self.partition = kafka, topic, partition
        self.plain_producer: AIOKafkaProducer = idempotent_producer(kafka, "t")
        self.producer: AIOKafkaProducer = transactional_producer(kafka, f"t-{topic.name}-{partition}")
        self._count = 0
        self._began_ms = int(time.time() * 1000) - 3_600_000  # brokers refuse the future, and delete what is old

    async def __aenter__(self) -> Writer:
        await self.plain_producer.start()
        await self.producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.plain_producer.stop()
        await self.producer.stop()

    async def plain(self, count: int, size: int = 20) -> None:
        for _ in range(count):
            await self._send(self.plain_producer, size)

    async def committed(self, count: int) -> None:
        async with self.producer.transaction():
            for _ in range(count):
                await self._send(self.producer)

    async def aborted(self, count: int) -> None:
        await self.producer.begin_transaction()
        for _ in range(count):
            await self._send(self.producer)
        await self.producer.abort_transaction()

    async def marker_only(self) -> None:
        """A transaction that named the partition and wrote nothing: its writer died in between."""
        await self.producer.begin_transaction()
        tp = TopicPartition(self.topic.name, self.partition)
        self.producer._txn_manager.maybe_add_partition_to_txn(tp)
        while tp not in self.producer._txn_manager.txn_partitions:
            await asyncio.sleep(0.001)
        await self.producer.abort_transaction()

    async def _send(self, producer: AIOKafkaProducer, size: int = 20) -> None:
        """No two alike; now and then without key, value or headers."""
        n = self._count = self._count + 1
        await producer.send_and_wait(
            self.topic.name,
            value=None if n % 7 == 0 else f"{n}".encode().ljust(size, b"."),
            key=None if n % 5 == 0 and n % 7 else f"k{n}".encode(),
            partition=self.partition,
            timestamp_ms=self._began_ms + 1000 * n,
            headers=[] if n % 3 == 0 else [("tenant_id", b"x"), ("n", str(n % 4).encode())],
        )
