"""A worker that was killed goes on at once, although the group has not missed it yet; one that comes back from the dead stops.

The session lasts four minutes here, far longer than a test may take: whoever had to wait for its end would be seen.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from infra.embedded.stack import Stack
from projections.platform import migrate
from streams import ids
from streams.codec import encode
from streams.topics import Topics, partition_of
from tests import projection_log as log
from tests.integration.test_clickhouse_projections_worker import producer

__all__ = ["producer"]

Start = Callable[[], Awaitable[asyncio.subprocess.Process]]
SESSION_SECONDS = 240
PATIENCE_SECONDS = 180


@pytest.fixture
async def start(stack: Stack, topics: Topics, database: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts the worker of `streams` under one name; all are ended behind the test."""
    await migrate(database)
    env = os.environ | {
        "FW_DATA_DIR": str(tmp_path),
        "FW_KAFKA_BOOTSTRAP": stack.kafka,
        "FW_POSTGRES_URL": database,
        "FW_CLICKHOUSE_URL": "http://unused/unused",
        "FW_TOPIC_PREFIX": topics.prefix,
        "FW_SECRET_KEY": "00" * 32,
        "FW_OPERATOR_TOKEN": "operator",
        "FW_GROUP_INSTANCE": "a",
        "FW_KAFKA_SESSION_SECONDS": str(SESSION_SECONDS),
    }
    async with AsyncExitStack() as ending:

        async def end(process: asyncio.subprocess.Process) -> None:
            if process.returncode is None:
                process.kill()
                await process.wait()

        async def start_() -> asyncio.subprocess.Process:
            with (tmp_path / "streams.log").open("ab") as output:
                command = (sys.executable, "-m", "projections", "streams")
                process = await asyncio.create_subprocess_exec(*command, env=env, stdout=output, stderr=output)
            ending.push_async_callback(end, process)
            return process

        yield start_
    print((tmp_path / "streams.log").read_text())  # pytest shows it where a test fails


@pytest.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


class Tenant:
    """One tenant's streams: what was decided, and whether it can be read."""

    def __init__(self, topics: Topics, producer: AIOKafkaProducer, db: asyncpg.Connection[asyncpg.Record]) -> None:
        self.topics, self.producer, self.db, self.id, self.made = topics, producer, db, ids.new_id(), 0

    async def create(self) -> None:
        self.made += 1
        made, about = log.created(slug=f"s{self.made}"), log.meta(self.id, ids.new_id(), version=1)
        await self.producer.send_and_wait(self.topics.decisions.name, encode(made, about), self.id.bytes, partition_of(self.id))

    async def all_seen(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self._rows() < self.made:
                await asyncio.sleep(0.02)
        assert await self._rows() == self.made

    async def _rows(self) -> int:
        try:
            return int(await self.db.fetchval("SELECT count(*) FROM streams WHERE tenant_id = $1", self.id) or 0)
        except asyncpg.UndefinedTableError:
            return 0


async def test_a_killed_worker_goes_on_before_the_group_has_missed_it(
    start: Start, topics: Topics, producer: AIOKafkaProducer, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    tenant = Tenant(topics, producer, db)
    for _ in range(3):
        await tenant.create()
        worker = await start()
        await tenant.all_seen()
        worker.kill()
        await worker.wait()


async def test_a_frozen_worker_whose_name_another_bears_does_no_harm_and_exits(
    start: Start, topics: Topics, producer: AIOKafkaProducer, db: asyncpg.Connection[asyncpg.Record]
) -> None:
    tenant = Tenant(topics, producer, db)
    await tenant.create()
    frozen = await start()
    await tenant.all_seen()  # by the first fill
    await tenant.create()
    await tenant.all_seen()  # by the worker, which is a member of the group now
    frozen.send_signal(signal.SIGSTOP)
    await tenant.create()
    successor = await start()
    await tenant.all_seen()
    frozen.send_signal(signal.SIGCONT)
    await tenant.create()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await frozen.wait() == 3
    await tenant.create()
    await tenant.all_seen()
    assert successor.returncode is None
