"""The policy as a process: ready when it has said everything, ended by SIGTERM, and honest about why it ends by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from streams.codec import encode
from streams.kafka import idempotent_producer
from streams.topics import Topics
from tests.ingress import SECRET_KEY, meta
from tests.policy_log import Decisions, created, newest, written

A = uuid4()


@pytest.fixture
async def decisions(stack: Stack, topics: Topics) -> AsyncIterator[Decisions]:
    async with idempotent_producer(stack.kafka, "test") as producer:
        yield Decisions(producer, topics)


async def start(stack: Stack, topics: Topics, port: int) -> asyncio.subprocess.Process:
    env = {
        "PATH": os.environ["PATH"],
        "FW_KAFKA_BOOTSTRAP": stack.kafka,
        "FW_POSTGRES_URL": stack.postgres,
        "FW_CLICKHOUSE_URL": stack.clickhouse,
        "FW_TOPIC_PREFIX": topics.prefix,
        "FW_SECRET_KEY": SECRET_KEY.hex(),
        "FW_OPERATOR_TOKEN": "operator",
        "FW_METRICS_PORT": str(port),
    }
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "infra.processes.policy", env=env)


async def until_ready(process: asyncio.subprocess.Process, port: int) -> str:
    """Its metrics."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http, asyncio.timeout(180):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return (await http.get("/metrics")).text
            except httpx.TransportError:
                assert process.returncode is None
            await asyncio.sleep(0.05)


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(180):
        return await process.wait()


async def test_ready_once_everything_is_said_and_a_clean_end(stack: Stack, topics: Topics, decisions: Decisions) -> None:
    lobby = uuid4()
    await decisions.decide(A, lobby, created("lobby"))
    [port] = free_ports(1)
    process = await start(stack, topics, port)
    try:
        assert 'fw_policy_written_total{kind="StreamPolicy"} 1.0' in await until_ready(process, port)
        assert list(newest(await written(stack.kafka, topics))) == [lobby]
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_killed_one_is_replaced_and_says_nothing_twice(stack: Stack, topics: Topics, decisions: Decisions) -> None:
    streams = [uuid4() for _ in range(50)]
    [port] = free_ports(1)
    process = await start(stack, topics, port)
    try:
        await until_ready(process, port)
        await asyncio.gather(*(decisions.decide(A, stream_id, created("x")) for stream_id in streams))
        process.kill()  # wherever it is
        await process.wait()
        process = await start(stack, topics, port)
        await until_ready(process, port)
        found = await written(stack.kafka, topics)
        assert sorted(record.key or b"" for record in found) == sorted(stream_id.bytes for stream_id in streams)
    finally:
        process.kill()
        await process.wait()


async def test_a_decision_that_cannot_be_read_ends_it_with_a_code_of_its_own(
    stack: Stack, topics: Topics, decisions: Decisions
) -> None:
    await decisions.decide_raw(A, encode(created("x"), meta(A, uuid4(), version=1))[:-1])
    [port] = free_ports(1)
    process = await start(stack, topics, port)
    try:
        assert await ended(process) == 70
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
