"""Fixtures over the real servers: Kafka, PostgreSQL, ClickHouse.

Invariant: the servers start once per run (or not at all, when FW_TEST_STACK names the stack.json of running ones); what
one test makes in them has a name of its own and is gone after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import asyncpg
import clickhouse_connect
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from infra import kafka
from infra.embedded.stack import Stack, running
from streams.topics import Topics

T = TypeVar("T")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Addresses of the three servers."""
    if file := os.environ.get("FW_TEST_STACK"):
        yield Stack.load(Path(file))
        return
    with running(tmp_path_factory.mktemp("stack")) as started:
        yield started


@pytest.fixture
def topics(stack: Stack) -> Iterator[Topics]:
    """All topics of the platform, under a prefix that no other test has."""
    topics = Topics(f"t{secrets.token_hex(4)}.")
    blocking(kafka.apply(stack.kafka, topics))
    yield topics
    blocking(_delete_topics(stack.kafka, topics.prefix))


@pytest.fixture
def database(stack: Stack) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    name = f"t_{secrets.token_hex(6)}"
    blocking(_postgres(stack.postgres, f'CREATE DATABASE "{name}" STRATEGY file_copy'))
    yield f"{stack.postgres.rsplit('/', 1)[0]}/{name}"
    blocking(_postgres(stack.postgres, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def clickhouse_database(stack: Stack) -> Iterator[str]:
    """URL of an empty ClickHouse database."""
    name = f"t_{secrets.token_hex(6)}"
    with contextlib.closing(clickhouse_connect.get_client(dsn=stack.clickhouse)) as client:
        client.command(f"CREATE DATABASE {name}")
        yield f"{stack.clickhouse.rsplit('/', 1)[0]}/{name}"
        client.command(f"DROP DATABASE {name} SYNC")


def blocking(work: Coroutine[None, None, T]) -> T:
    """Runs a coroutine to its end on a thread of its own: a test's event loop may exist already."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _delete_topics(bootstrap: str, prefix: str) -> None:
    """Everything under the prefix: also what a Faust worker made for itself."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if ours := [name for name in await admin.list_topics() if name.startswith(prefix)]:
            await admin.delete_topics(ours)
    finally:
        await admin.close()


async def _postgres(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
