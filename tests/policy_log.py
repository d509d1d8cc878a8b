"""What the tests of the policy have in common: decisions on the log, a publisher beside them, and what it wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar
from uuid import UUID

from aiokafka import AIOKafkaProducer, ConsumerRecord

from projections.policy import Policies
from streams.codec import decode_policy, encode
from streams.generated import Event, Policy, StreamCreated, StreamKey, StreamPolicy
from streams.ingress.policy_news import PolicyNews
from streams.kafka import Kafka, reader
from streams.policies import CONFIRMED, policy_key
from streams.policy_publisher import PolicyPublisher, to_the_end
from streams.topics import Topics, partition_of
from tests.ingress import SECRET_KEY, meta

WAIT_SECONDS = 180
P = TypeVar("P")


class Decisions:
    """Appends decisions as a command worker would."""

    def __init__(self, producer: AIOKafkaProducer, topics: Topics) -> None:
        self._producer, self._topic = producer, topics.decisions.name

    async def decide(self, tenant_id: UUID, aggregate_id: UUID, *events: Event) -> None:
        for event in events:
            await self.decide_raw(tenant_id, encode(event, meta(tenant_id, aggregate_id, version=1)))

    async def decide_raw(self, tenant_id: UUID, value: bytes) -> None:
        await self._producer.send_and_wait(self._topic, value, tenant_id.bytes, partition_of(tenant_id))


def created(name: str) -> StreamCreated:
    return StreamCreated(name, name, f"play-{name}", f"int-{name}", f"sk_{name}", name.encode())


def policy(tenant_id: UUID, stream_id: UUID, name: str) -> StreamPolicy:
    """What `created` gives."""
    keys = (StreamKey(f"sk_{name}", name.encode()),)
    return StreamPolicy(tenant_id, stream_id, f"int-{name}", f"play-{name}", keys, False, version=1)


@asynccontextmanager
async def publishing(kafka: str, topics: Topics, secret_key: bytes = SECRET_KEY) -> AsyncIterator[PolicyPublisher]:
    """A publisher that has said everything that was decided before."""
    publisher = PolicyPublisher(Kafka(kafka), topics, secret_key, Policies)
    running = asyncio.create_task(publisher.run())
    try:
        await until(lambda: publisher.is_current or running.done())
        if running.done():
            running.result()
        yield publisher
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(true: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.005)


async def written(kafka: str, topics: Topics) -> Sequence[ConsumerRecord[bytes, bytes]]:
    """All that was ever put on the policy topic and not compacted away yet, but confirmations."""
    async with reader(kafka, "test") as committed, reader(kafka, "test", committed=False) as whole, asyncio.timeout(WAIT_SECONDS):
        found = [record async for record in to_the_end(committed, whole, topics.policy) if record.key != CONFIRMED.bytes]
    return sorted(found, key=lambda r: (r.partition, r.offset))


def newest(found: Iterable[ConsumerRecord[bytes, bytes]]) -> Mapping[UUID, Policy]:
    return {UUID(bytes=r.key or b""): decode_policy(r.value or b"") for r in found}


def policies_of(news: PolicyNews) -> Sequence[Policy]:
    return [decode_policy(signed.value) for signed in news.records]


def of_kind(kind: type[P], policies: Iterable[Policy]) -> Sequence[P]:
    return [p for p in policies if isinstance(p, kind)]


async def next_policies(news: AsyncIterator[PolicyNews], count: int = 1) -> Sequence[Policy]:
    """The next records that are told, signs of life skipped."""
    found: list[Policy] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(found) < count:
            one = await anext(news)
            assert not one.of_snapshot
            found += policies_of(one)
    return found


async def until_told(news: AsyncIterator[PolicyNews], keys: Iterable[UUID]) -> Mapping[UUID, Policy]:
    """Everything that is told until these are known."""
    known: dict[UUID, Policy] = {}
    wanted = set(keys)
    async with asyncio.timeout(WAIT_SECONDS):
        while not known.keys() >= wanted:
            known |= {policy_key(p): p for p in policies_of(await anext(news))}
    return known
