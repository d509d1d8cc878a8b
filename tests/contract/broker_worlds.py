"""The two brokers that keep one contract: the simulator's, and the real Kafka of the stack."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import RequestTimedOutError
from aiokafka.protocol.produce import ProduceRequest

from streams.kafka import Cluster, Kafka
from tests.sim.cluster import SimCluster
from tests.sim.loop import SimLoop, current

T = TypeVar("T")


class World(Protocol):
    """A broker, and time for a test to run in. Names of a world are new for each test."""

    cluster: Cluster
    prefix: str

    def run(self, work: Coroutine[Any, Any, T]) -> T: ...
    async def create_topic(self, partitions: int = 1) -> str: ...
    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None: ...
    def lose_next_answer(self, producer: AIOKafkaProducer) -> Callable[[], bool]:
        """Of the broker to a batch that this producer sends and the broker takes; whether that has happened."""
        ...


class SimWorld:
    def __init__(self, seed: int) -> None:
        self._loop = SimLoop(seed)
        self._sim = SimCluster(self._loop)
        self.cluster: Cluster = self._sim
        self.prefix, self._topics = "t", 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._loop.run(asyncio.wait_for(work, 300))
        finally:
            self._loop.end()

    async def create_topic(self, partitions: int = 1) -> str:
        self._topics += 1
        name = f"{self.prefix}-{self._topics}"
        self._sim.broker.create_topic(name, partitions)
        return name

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        for tp, offset in before.items():
            self._sim.broker.delete_records(tp, offset)

    def lose_next_answer(self, producer: AIOKafkaProducer) -> Callable[[], bool]:
        self._sim.network.trap(current(), "Produce", "after", "lose")
        return lambda: not self._sim.network.traps


class KafkaWorld:
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self.cluster: Cluster = Kafka(bootstrap)
        self.prefix = f"contract-{secrets.token_hex(4)}"
        self._topics: list[str] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def and_clean() -> T:
            try:
                return await asyncio.wait_for(work, 180)
            finally:
                await self._delete_topics()

        return asyncio.run(and_clean())

    async def create_topic(self, partitions: int = 1) -> str:
        name = f"{self.prefix}-{len(self._topics)}"
        self._topics.append(name)
        admin = await self._admin()
        try:
            await admin.create_topics([NewTopic(name, partitions, 1)])
        finally:
            await admin.close()
        while len(list((await self.cluster.leaders()).get(name, ()))) < partitions:
            await asyncio.sleep(0.02)
        return name

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        admin = await self._admin()
        try:
            await admin.delete_records({tp: RecordsToDelete(offset) for tp, offset in before.items()})
        finally:
            await admin.close()

    def lose_next_answer(self, producer: AIOKafkaProducer) -> Callable[[], bool]:
        send, lost = producer.client.send, asyncio.Event()

        async def losing(node: int, request: object, **options: object) -> object:
            answer = await send(node, request, **options)
            if isinstance(request, ProduceRequest) and not lost.is_set():
                lost.set()
                raise RequestTimedOutError()
            return answer

        producer.client.send = losing
        return lost.is_set

    async def _delete_topics(self) -> None:
        admin = await self._admin()
        try:
            await admin.delete_topics(self._topics)
        finally:
            await admin.close()

    async def _admin(self) -> AIOKafkaAdminClient:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        return admin


async def read_to(consumer: AIOKafkaConsumer, tp: TopicPartition, end: int) -> list[ConsumerRecord]:
    """What comes until the position has reached `end`."""
    out: list[ConsumerRecord] = []
    while await consumer.position(tp) < end:
        out += (await consumer.getmany(timeout_ms=200)).get(tp, [])
    return out


async def values(cluster: Cluster, tp: TopicPartition, *, committed: bool = True, start: int = 0) -> list[bytes]:
    """Everything on a partition, up to its end as this reader is told it."""
    consumer = cluster.reader("contract", committed=committed)
    await consumer.start()
    try:
        consumer.assign([tp])
        consumer.seek(tp, start)
        end = (await consumer.end_offsets([tp]))[tp]
        return [record.value for record in await read_to(consumer, tp, end)]
    finally:
        await consumer.stop()


async def transaction(producer: AIOKafkaProducer, tp: TopicPartition, *messages: bytes, commits: bool = True) -> None:
    await producer.begin_transaction()
    for message in messages:
        await producer.send_and_wait(tp.topic, message, partition=tp.partition)
    if commits:
        await producer.commit_transaction()
    else:
        await producer.abort_transaction()
