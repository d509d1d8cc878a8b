"""A platform for tests of rebuilds: topics and databases of its own, workers as processes, `fw` as a process or in this one."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from infra.embedded.stack import Stack
from projections.platform import connect, migrate
from projections.rebuild.lock import alone
from projections.rebuild.progress import Progress
from projections.rebuild.site import Site, open_site
from projections.worker import projection_of
from streams.codec import encode, headers
from streams.generated import Event, Meta
from streams.kafka import idempotent_producer
from streams.recorded import Position
from streams.settings import read_settings
from streams.topics import Topics, partition_of

T = TypeVar("T")
FW = str(Path(sys.executable).parent / "fw")


@dataclass
class Platform:
    """Kafka topics, databases, and the processes of one test."""

    topics: Topics
    env: dict[str, str]
    db: asyncpg.Pool[asyncpg.Record]
    producer: AIOKafkaProducer
    tmp: Path
    started: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def append(self, event: Event, about: Meta) -> Position:
        topic = self.topics.of(type(event).__name__)
        partition = partition_of(about.tenant_id)
        sent = await self.producer.send_and_wait(
            topic.name, encode(event, about), partition=partition, headers=headers(event, about)
        )
        return Position(partition, sent.offset)

    async def worker(self, name: str) -> asyncio.subprocess.Process:
        with (self.tmp / f"{name}.log").open("ab") as out:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "projections", name, env=self.env, stdout=out, stderr=out
            )
        self.started.append(process)
        return process

    async def start(self, *command: str, env: dict[str, str] | None = None) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            FW, *command, env=self.env | (env or {}), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        self.started.append(process)
        return process

    async def fw(self, *command: str) -> tuple[int, str]:
        process = await self.start(*command)
        out, _ = await asyncio.wait_for(process.communicate(), 180)
        return process.returncode or 0, out.decode()

    def log(self, name: str) -> str:
        return (self.tmp / f"{name}.log").read_text()[-3000:]

    async def end(self) -> None:
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture
async def small_platform(
    stack: Stack, topics: Topics, database: str, clickhouse_database: str, tmp_path: Path
) -> AsyncIterator[Platform]:
    await migrate(database)
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("FW_")},
        "FW_DATA_DIR": str(tmp_path),
        "FW_KAFKA_BOOTSTRAP": stack.kafka,
        "FW_POSTGRES_URL": database,
        "FW_CLICKHOUSE_URL": clickhouse_database,
        "FW_TOPIC_PREFIX": topics.prefix,
        "FW_SECRET_KEY": "00" * 32,
        "FW_OPERATOR_TOKEN": "operator",
    }
    pool, producer = await connect(database), idempotent_producer(stack.kafka, "test")
    await producer.start()
    made = Platform(topics, env, pool, producer, tmp_path)
    yield made
    await made.end()
    await producer.stop()
    await pool.close()


async def working(platform: Platform, name: str, task: Callable[[Site], Awaitable[T]], lines: list[str] | None = None) -> T:
    """Does to a projection what `fw rebuild`, `fw verify` and `fw replay` do, without the price of a process."""
    settings, projection = read_settings(platform.env), projection_of(name)
    progress = Progress((lines if lines is not None else []).append)
    async with alone(settings.postgres_url, name, "test"), open_site(projection, settings, progress) as site:
        return await task(site)


async def said(process: asyncio.subprocess.Process, what: str) -> None:
    """Until the process prints a line with `what` in it."""
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), 180):
        if re.search(what, line.decode()):
            return
    pytest.fail(f"it ended without saying {what}")
