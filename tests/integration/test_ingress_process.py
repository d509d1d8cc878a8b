"""The process as `fw up` runs it: ready when it is, metrics, a clean end, a clear sentence when it cannot start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from infra.embedded.stack import Stack
from streams.ingress.client import Outgoing, Publisher
from streams.ingress.credentials import issue
from streams.topics import Topics
from tests.ingress import SECRET_KEY, fact


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


async def start(**env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infra.processes.ingress",
        env={"PATH": os.environ["PATH"], **env},
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
def env(stack: Stack, topics: Topics) -> dict[str, str]:
    return {
        "FW_KAFKA_BOOTSTRAP": stack.kafka,
        "FW_POSTGRES_URL": stack.postgres,
        "FW_CLICKHOUSE_URL": stack.clickhouse,
        "FW_TOPIC_PREFIX": topics.prefix,
        "FW_SECRET_KEY": SECRET_KEY.hex(),
        "FW_OPERATOR_TOKEN": "operator",
        "FW_METRICS_PORT": str(free_port()),
        "FW_INGRESS_LISTEN": f"127.0.0.1:{free_port()}",
    }


@pytest.fixture
async def ended() -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Processes that a test started; what still runs after it is killed."""
    processes: list[asyncio.subprocess.Process] = []
    yield processes
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_ready_metrics_and_a_clean_end(env: dict[str, str], ended: list[asyncio.subprocess.Process]) -> None:
    process = await start(**env)
    ended.append(process)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{env['FW_METRICS_PORT']}") as http, asyncio.timeout(180):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.returncode is None
            await asyncio.sleep(0.05)
        tenant_id, credential = uuid4(), issue(SECRET_KEY, "edge-1", None)
        async with Publisher(env["FW_INGRESS_LISTEN"], lambda: credential) as publisher:
            items = [Outgoing(fact(tenant_id, uuid4(), 1)), Outgoing(b"broken")]
            assert [r.code for r in await (await publisher.publish(items))] == ["MALFORMED"]
            metrics = (await http.get("/metrics")).text
        assert 'fw_ingress_events_total{event_type="BufferChanged"} 1.0' in metrics
        assert 'fw_ingress_refused_total{code="MALFORMED"} 1.0' in metrics
        assert "fw_ingress_policy_records 0.0" in metrics
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_a_port_that_is_taken_is_an_error(env: dict[str, str], ended: list[asyncio.subprocess.Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["FW_INGRESS_LISTEN"].rpartition(":")[2])))
        taken.listen()
        process = await start(**env)
        ended.append(process)
        async with asyncio.timeout(180):
            _, error = await process.communicate()
    assert process.returncode == 1
    assert env["FW_INGRESS_LISTEN"] in error.decode()
    assert "Traceback" not in error.decode()


async def test_settings_that_are_missing_are_named_all_at_once(ended: list[asyncio.subprocess.Process]) -> None:
    process = await start(FW_DATA_DIR="none", FW_METRICS_PORT="x")
    ended.append(process)
    async with asyncio.timeout(180):
        _, error = await process.communicate()
    assert process.returncode == 2
    assert {"FW_KAFKA_BOOTSTRAP", "FW_SECRET_KEY", "FW_METRICS_PORT"} <= {line.split()[0] for line in error.decode().splitlines()}
