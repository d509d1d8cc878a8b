"""Kafka clients with every option that correctness hangs on spelled out, in one place.

`Cluster` is where code takes its clients from that must also run on the simulator (`tests/sim/`): its clients keep the same
contract, and `tests/contract/test_broker_contract.py` holds both to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError

from streams.fetching import wait_as_it_fits
from streams.telemetry import log

STOP_SECONDS: Final = 2.0
PAUSE_SECONDS: Final = 0.5

logger = log(__name__)


class Client(Protocol):
    """A producer or a consumer."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


C = TypeVar("C", bound=Client)


class Cluster(Protocol):
    """A Kafka cluster, by the clients that it gives; none of them is started. They have aiokafka's surface and errors."""

    def idempotent_producer(self, client_id: str) -> AIOKafkaProducer: ...
    def transactional_producer(self, transactional_id: str) -> AIOKafkaProducer: ...
    def reader(self, client_id: str, *, committed: bool = True) -> AIOKafkaConsumer: ...
    def member(self, group_id: str, session_ms: int) -> AIOKafkaConsumer: ...

    async def leaders(self) -> Mapping[str, Sequence[int]]:
        """Of every topic, the leader of each partition; -1 where it has none."""
        ...


@dataclass(frozen=True, slots=True)
class Kafka:
    """The real one."""

    bootstrap: str

    def idempotent_producer(self, client_id: str) -> AIOKafkaProducer:
        return idempotent_producer(self.bootstrap, client_id)

    def transactional_producer(self, transactional_id: str) -> AIOKafkaProducer:
        return transactional_producer(self.bootstrap, transactional_id)

    def reader(self, client_id: str, *, committed: bool = True) -> AIOKafkaConsumer:
        return reader(self.bootstrap, client_id, committed=committed)

    def member(self, group_id: str, session_ms: int) -> AIOKafkaConsumer:
        return member(self.bootstrap, group_id, session_ms)

    async def leaders(self) -> Mapping[str, Sequence[int]]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=15_000)
        try:
            await admin.start()
            described = await admin.describe_topics()
        finally:
            await admin.close()
        return {topic["topic"]: [p["leader"] for p in topic["partitions"]] for topic in described}


def idempotent_producer(bootstrap: str, client_id: str) -> AIOKafkaProducer:
    """Appends facts and commands: acknowledged by all replicas, never doubled or re-ordered by a retry."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=1 << 20,
        max_request_size=4 << 20,
        request_timeout_ms=15_000,
        retry_backoff_ms=50,
    )


def transactional_producer(bootstrap: str, transactional_id: str) -> AIOKafkaProducer:
    """Starting it fences every older producer of the same id and ends its open transaction."""
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        client_id=transactional_id,
        transactional_id=transactional_id,
        acks="all",
        linger_ms=0,
        max_batch_size=1 << 20,
        max_request_size=4 << 20,
        transaction_timeout_ms=30_000,
        request_timeout_ms=15_000,
        retry_backoff_ms=20,  # the default of 100 is what one sees as the tail of a transaction's latency
    )


class _Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka is untyped
    async def start(self) -> None:
        """Its coordinator's task has begun when this returns.

        `stop` cancels and awaits that task. One that had not begun would make it raise CancelledError, in place of whatever
        went wrong behind `start`; once begun, the task swallows it.
        """
        await super().start()
        wait_as_it_fits(self)
        await asyncio.sleep(0)


def reader(bootstrap: str, client_id: str, *, committed: bool = True, fetch_bytes: int = 4 << 20) -> AIOKafkaConsumer:
    """Reads partitions that the caller assigns and seeks; no group, no commits.

    `auto_offset_reset="none"`: a position that is gone raises OffsetOutOfRangeError instead of jumping in silence.
    """
    return _Consumer(
        bootstrap_servers=bootstrap,
        client_id=client_id,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed" if committed else "read_uncommitted",
        auto_offset_reset="none",
        max_partition_fetch_bytes=fetch_bytes,
        request_timeout_ms=15_000,
        retry_backoff_ms=50,
    )


def member(bootstrap: str, group_id: str, session_ms: int) -> AIOKafkaConsumer:
    """A member of a group that is told partitions and offsets; positions are committed by its owner alone, never by itself.

    `session_ms` is how long the group waits for one that says nothing. Of the log it sees everything (read_uncommitted), so
    that the ends it tells are the true ones.
    """
    return _Consumer(
        bootstrap_servers=bootstrap,
        client_id=group_id,
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_uncommitted",
        session_timeout_ms=session_ms,
        heartbeat_interval_ms=session_ms // 5,
        rebalance_timeout_ms=10_000,
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        request_timeout_ms=15_000,
        retry_backoff_ms=50,
        metadata_max_age_ms=30_000,  # partitions that this client heard of late are assigned then
    )


async def connected(new_client: Callable[[], C]) -> C:
    """A client that runs, as soon as Kafka answers."""
    while True:
        client = new_client()
        try:
            await client.start()
        except KafkaError as error:
            logger.warning("Kafka does not answer, trying again", error=repr(error))
            await stopped(client)
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return client


async def stopped(client: Client, seconds: float = STOP_SECONDS) -> None:
    """Stops a client, and goes on without it when that takes longer.

    Not `wait_for`: that waits until what it cancels has ended, and a client whose connection broke may swallow the cancellation;
    then whoever stops it would wait for as long as the process lives.
    """
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.wait({stopping}, timeout=seconds)
    if not stopping.cancel() and not stopping.cancelled():
        stopping.exception()  # what went wrong has been told by whatever made us stop


async def ends_of(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
    """Where partitions end, as soon as Kafka says so: a broker that is busy with its start may take longer than a request."""
    while True:
        try:
            ends: Mapping[TopicPartition, int] = await consumer.end_offsets(partitions)
        except KafkaError as error:
            logger.warning("Kafka does not say where the log ends, asking again", error=repr(error))
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return ends
