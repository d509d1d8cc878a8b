"""The ClickHouse projections as processes: from Kafka to rows that can be read, killed in the middle, alone and in pairs."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer

from infra.embedded.stack import Stack
from projections import viewer_sessions
from projections.clickhouse import AsyncClient, connect, rows
from projections.platform import migrate
from streams import ids
from streams.codec import encode, headers
from streams.errors import Transient
from streams.generated import Event, ViewerEnd, ViewerJoined, ViewerLeft
from streams.kafka import idempotent_producer
from streams.topics import Topics, partition_of
from tests.fact_log import at, fact_meta

Start = Callable[[str], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def producer(stack: Stack) -> AsyncIterator[AIOKafkaProducer]:
    started = idempotent_producer(stack.kafka, "test")
    await started.start()
    yield started
    await started.stop()


@pytest.fixture
async def ch(clickhouse_database: str) -> AsyncIterator[AsyncClient]:
    client = await connect(clickhouse_database)
    yield client
    await client.close()


@pytest.fixture
async def start(stack: Stack, topics: Topics, database: str, clickhouse_database: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts the process of a projection; all are ended behind the test."""
    await migrate(database)
    env = os.environ | {
        "FW_DATA_DIR": str(tmp_path),
        "FW_KAFKA_BOOTSTRAP": stack.kafka,
        "FW_POSTGRES_URL": database,
        "FW_CLICKHOUSE_URL": clickhouse_database,
        "FW_TOPIC_PREFIX": topics.prefix,
        "FW_SECRET_KEY": "00" * 32,
        "FW_OPERATOR_TOKEN": "operator",
    }
    async with AsyncExitStack() as ending:

        async def end(process: asyncio.subprocess.Process) -> None:
            if process.returncode is None:
                process.kill()
                await process.wait()

        async def start_(name: str) -> asyncio.subprocess.Process:
            with (tmp_path / f"{name}.log").open("ab") as log:
                command = (sys.executable, "-m", "projections", name)
                process = await asyncio.create_subprocess_exec(*command, env=env, stdout=log, stderr=log)
            ending.push_async_callback(end, process)
            return process

        yield start_


async def send(producer: AIOKafkaProducer, topics: Topics, event: Event, tenant: UUID, stream: UUID, seconds: float) -> None:
    meta = fact_meta(tenant, stream, at(seconds))
    partition = partition_of(stream)
    await producer.send(topics.facts.name, encode(event, meta), partition=partition, headers=headers(event, meta))


async def count(ch: AsyncClient, table: str) -> int:
    try:
        return int((await rows(ch, f"SELECT count() FROM {table}", {}))[0][0])
    except Transient:  # no tables yet
        return 0


async def until(ch: AsyncClient, table: str, expected: int) -> None:
    async with asyncio.timeout(180):
        while await count(ch, table) < expected:
            await asyncio.sleep(0.01)


def viewing(n: int) -> tuple[ViewerJoined, ViewerLeft]:
    viewing_id = uuid4()
    session = f"s{n}"
    return (
        ViewerJoined(node_id="n1", session_id=session, viewing_id=viewing_id, connector="HLS"),
        ViewerLeft(
            node_id="n1",
            session_id=session,
            viewing_id=viewing_id,
            connector="HLS",
            seconds=n,
            up_bytes=1000 * n,
            down_bytes=n,
            end_reason=ViewerEnd.DISCONNECTED,
        ),
    )


async def test_from_kafka_to_the_audience(start: Start, topics: Topics, producer: AIOKafkaProducer, ch: AsyncClient) -> None:
    await start("viewer_sessions")
    tenant, stream = ids.new_id(), ids.new_id()
    for n in range(3):
        joined, left = viewing(n)
        await send(producer, topics, joined, tenant, stream, n)
        if n:
            await send(producer, topics, left, tenant, stream, 100 + n)
    await until(ch, "viewer_left_v", 2)
    await until(ch, "viewer_joined_v", 3)
    audience = (await viewer_sessions.audience(ch, tenant, [stream]))[stream]
    assert (audience.now, audience.peak, audience.total, audience.unique) == (1, 3, 3, 3)
    assert (audience.viewer_seconds, audience.up_bytes, audience.down_bytes) == (1 + 2, 1000 + 2000, 1 + 2)
    # Not a timed test: a bound that only waiting for some timeout would break. A busy machine has more tries.
    seconds = list[float]()
    while len(seconds) < 15 or (min(seconds) >= 0.2 and len(seconds) < 200):
        n = len(seconds)
        began = time.perf_counter()
        await send(producer, topics, viewing(n)[0], tenant, stream, 200 + n)
        await until(ch, "viewer_joined_v", 4 + n)
        seconds.append(time.perf_counter() - began)
    print(f"\nfact to queryable row: p50 {1000 * sorted(seconds)[len(seconds) // 2]:.0f} ms, min {1000 * min(seconds):.0f} ms")
    assert min(seconds) < 0.2


async def test_killed_in_the_middle_again_and_again_every_viewing_counts_once(
    start: Start, topics: Topics, producer: AIOKafkaProducer, ch: AsyncClient
) -> None:
    """kill -9 at moments that nobody chose, half of the time with a second worker beside it."""
    rng = random.Random(4)
    tenant = ids.new_id()
    audience = [ids.new_id() for _ in range(30)]
    total = 20_000

    async def produce() -> None:
        for n in range(total):
            joined, left = viewing(n)
            stream = audience[n % len(audience)]
            await send(producer, topics, joined, tenant, stream, n)
            await send(producer, topics, left, tenant, stream, n + 10)
            if n % 100 == 0:
                await asyncio.sleep(0.02)
        await producer.flush()

    producing = asyncio.create_task(produce())
    for kill in range(5):
        first = await start("viewer_sessions")
        beside = await start("viewer_sessions") if kill % 2 else None
        seen = await count(ch, "viewer_left_v")
        await until(ch, "viewer_left_v", min(seen + 1, total))
        await asyncio.sleep(rng.uniform(0, 0.4))  # the moment is the test's random input
        for process in (first, beside):
            if process:
                process.kill()
                await process.wait()
    await producing
    await start("viewer_sessions")
    await until(ch, "viewer_left_v", total)
    await until(ch, "viewer_joined_v", total)
    sums = await rows(ch, "SELECT count(), uniqExact(viewing_id), sum(seconds), sum(up_bytes) FROM viewer_left_v", {})
    assert tuple(sums[0]) == (total, total, sum(range(total)), 1000 * sum(range(total)))
    found = await viewer_sessions.audience(ch, tenant, audience)
    assert sum(a.total for a in found.values()) == total
    assert sum(a.now for a in found.values()) == 0
    raw = await count(ch, "viewer_left_1")
    print(f"\n{total} viewings, 5 kills; rows in the table before merging: {raw}")
