"""The projection processes as they run: from Kafka to rows, killed, superseded, asked for their metrics."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from projections import PROJECTIONS, streams, tenants
from projections.platform import connect, migrate
from projections.positions import passed
from streams.codec import encode, headers
from streams.generated import ApiTokenIssued, Event, Meta, StreamRenamed, TenantRegistered
from streams.ids import new_id
from streams.kafka import idempotent_producer
from streams.recorded import Position
from streams.topics import Topic, Topics, partition_of
from tests import projection_log as log


@pytest.fixture
async def db(database: str) -> AsyncIterator[asyncpg.Pool[asyncpg.Record]]:
    await migrate(database)
    pool = await connect(database)
    yield pool
    await pool.close()


@pytest.fixture
async def producer(stack: Stack) -> AsyncIterator[AIOKafkaProducer]:
    started = idempotent_producer(stack.kafka, "test")
    await started.start()
    yield started
    await started.stop()


class Workers:
    """Starts projection processes against one database and one set of topics, and ends them."""

    def __init__(self, stack: Stack, topics: Topics, database: str, tmp: Path) -> None:
        self.env = os.environ | {
            "FW_DATA_DIR": str(tmp),
            "FW_KAFKA_BOOTSTRAP": stack.kafka,
            "FW_POSTGRES_URL": database,
            "FW_CLICKHOUSE_URL": stack.clickhouse,
            "FW_TOPIC_PREFIX": topics.prefix,
            "FW_SECRET_KEY": "00" * 32,
            "FW_OPERATOR_TOKEN": "operator",
        }
        self.tmp = tmp
        self.started: list[asyncio.subprocess.Process] = []

    async def start(self, name: str, **env: str) -> asyncio.subprocess.Process:
        with (self.tmp / f"{name}.log").open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "projections", name, env=self.env | env, stderr=stderr, stdout=stderr
            )
        self.started.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.tmp / f"{name}.log").read_text()

    async def end(self) -> None:
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture
async def workers(stack: Stack, topics: Topics, database: str, tmp_path: Path) -> AsyncIterator[Workers]:
    made = Workers(stack, topics, database, tmp_path)
    yield made
    await made.end()


async def append(producer: AIOKafkaProducer, topic: Topic, event: Event, meta: Meta, traceparent: str | None = None) -> Position:
    partition = partition_of(meta.tenant_id)
    sent = await producer.send_and_wait(
        topic.name, encode(event, meta), partition=partition, headers=headers(event, meta, traceparent)
    )
    return Position(partition, sent.offset)


async def until(claim: Callable[[], Awaitable[bool]], seconds: float = 180) -> None:
    async with asyncio.timeout(seconds):
        while not await claim():
            await asyncio.sleep(0.02)


async def test_a_decision_becomes_a_row_and_a_stop_is_clean(
    workers: Workers, topics: Topics, db: asyncpg.Pool[asyncpg.Record], producer: AIOKafkaProducer
) -> None:
    tenant = new_id()
    port = free_ports(1)[0]
    process = await workers.start("tenants", FW_METRICS_PORT=str(port), FW_LOG_LEVEL="info")
    await until(lambda: ready(port))  # what is on the log before is filled in by other means
    await append(producer, topics.decisions, TenantRegistered(name="Acme"), log.meta(tenant, tenant, version=1))
    issued = ApiTokenIssued(name="first", token_prefix="fw_abc", token_hash=b"h")
    position = await append(producer, topics.decisions, issued, log.meta(tenant, tenant, version=2))
    assert await passed(db, "tenants", position, 180)
    assert await tenants.token_owner(db, "fw_abc") == (tenant, b"h")

    async def get(path: str) -> str:
        return await asyncio.to_thread(
            lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read().decode()
        )

    assert await get("/readyz") == "ready\n"
    metrics = await get("/metrics")
    assert f'fw_projection_events_total{{projection="tenants",topic="{topics.decisions.name}"}} 2.0' in metrics
    at = f'projection="tenants",topic="{topics.decisions.name}",partition="{position.partition}"'
    assert f"fw_projection_next_offset{{{_sorted(at)}}} 2.0" in metrics.replace(at, _sorted(at))
    assert "fw_projection_batch_seconds_count" in metrics
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 180) == 0, workers.log("tenants")
    lines = [json.loads(line) for line in workers.log("tenants").splitlines()]
    ours = [line for line in lines if not line.get("logger", "").startswith("aiokafka")]  # its threads may complain of the broker
    assert {line["projection"] for line in ours} == {"tenants"}


def _sorted(labels: str) -> str:
    return ",".join(sorted(labels.split(",")))


async def test_killed_again_and_again_every_decision_counts_once(
    workers: Workers, topics: Topics, db: asyncpg.Pool[asyncpg.Record], producer: AIOKafkaProducer
) -> None:
    """kill -9 at moments that nobody chose, half of the time with a second worker beside it: the journal is gapless."""
    tenant, stream = new_id(), new_id()
    total, position = 3000, Position(0, 0)

    async def produce() -> None:
        nonlocal position
        for version in range(1, total + 1):
            event = StreamRenamed(title=f"title {version}")
            position = await append(producer, topics.decisions, event, log.meta(tenant, stream, version=version))

    producing = asyncio.create_task(produce())
    for n in range(4):
        process = await workers.start("journal")
        beside = await workers.start("journal") if n % 2 else None
        before = await _rows(db)
        await until(lambda before=before: _more(db, before))  # type: ignore[misc]
        process.kill()
        await process.wait()
        if beside:
            beside.kill()
            await beside.wait()
    await producing
    await workers.start("journal")
    assert await passed(db, "journal", position, 180), workers.log("journal")[-3000:]
    rows = await db.fetch("SELECT version FROM journal ORDER BY log_offset")
    assert [row["version"] for row in rows] == list(range(1, total + 1))


async def ready(port: int) -> bool:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return await asyncio.to_thread(ask)


async def _rows(db: asyncpg.Pool[asyncpg.Record]) -> int:
    if await db.fetchval("SELECT to_regclass('journal')") is None:
        return 0
    return int(await db.fetchval("SELECT count(*) FROM journal"))


async def _more(db: asyncpg.Pool[asyncpg.Record], than: int) -> bool:
    return await _rows(db) > than or than >= 3000


async def test_a_frozen_worker_that_wakes_is_superseded(
    workers: Workers, topics: Topics, db: asyncpg.Pool[asyncpg.Record], producer: AIOKafkaProducer
) -> None:
    """SIGSTOP while another takes over; what the sleeper does on waking changes no row."""
    tenant, stream = new_id(), new_id()
    sleeper = await workers.start("streams")
    position = await append(producer, topics.decisions, log.created(), log.meta(tenant, stream, version=1))
    assert await passed(db, "streams", position, 180)
    sleeper.send_signal(signal.SIGSTOP)
    await workers.start("streams")
    for version in range(2, 50):
        event = StreamRenamed(title=f"title {version}")
        position = await append(producer, topics.decisions, event, log.meta(tenant, stream, version=version))
    assert await passed(db, "streams", position, 180), workers.log("streams")[-3000:]
    sleeper.send_signal(signal.SIGCONT)
    position = await append(producer, topics.decisions, StreamRenamed(title="last"), log.meta(tenant, stream, version=50))
    assert await passed(db, "streams", position, 180), workers.log("streams")[-3000:]
    row = await streams.stream_by_id(db, tenant, stream)
    assert row is not None
    assert row.title == "last"


async def test_a_halted_worker_says_where_and_what_to_do(
    workers: Workers, topics: Topics, db: asyncpg.Pool[asyncpg.Record], producer: AIOKafkaProducer
) -> None:
    process = await workers.start("journal")
    await producer.send_and_wait(topics.decisions.name, b"nonsense", partition=2)
    assert await asyncio.wait_for(process.wait(), 180) == 70
    lines = [json.loads(line) for line in workers.log("journal").splitlines() if line.startswith("{")]
    said = [line for line in lines if "cannot be read" in line.get("reason", "")]
    assert said, workers.log("journal")
    assert f"{topics.decisions.name}/2 at 0" in said[0]["reason"]


async def test_a_wrong_environment_is_told_at_once(workers: Workers) -> None:
    process = await workers.start("streams", FW_POSTGRES_URL="mysql://nope", FW_METRICS_PORT="many")
    assert await asyncio.wait_for(process.wait(), 180) == 2
    assert "FW_POSTGRES_URL must begin with postgresql://" in workers.log("streams")
    assert "FW_METRICS_PORT must be a number" in workers.log("streams")


async def test_a_trace_goes_on_from_the_record_to_the_rows(
    workers: Workers, topics: Topics, db: asyncpg.Pool[asyncpg.Record], producer: AIOKafkaProducer
) -> None:
    received = bytearray()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        body = await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
        received.extend(body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    collector = await asyncio.start_server(collect, "127.0.0.1", 0)
    port = collector.sockets[0].getsockname()[1]
    metrics = free_ports(1)[0]
    otel = f"http://127.0.0.1:{port}/v1/traces"
    await workers.start("tenants", FW_OTEL_ENDPOINT=otel, OTEL_BSP_SCHEDULE_DELAY="100", FW_METRICS_PORT=str(metrics))
    await until(lambda: ready(metrics))
    tenant, trace_id = new_id(), "4bf92f3577b34da6a3ce929d0e0e4736"
    about = log.meta(tenant, tenant, version=1)
    await append(producer, topics.decisions, TenantRegistered(name="Acme"), about, f"00-{trace_id}-00f067aa0ba902b7-01")

    async def arrived() -> bool:
        return bytes.fromhex(trace_id) in received

    await until(arrived)
    assert b"projection tenants" in received
    collector.close()


async def test_the_list_of_projections() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "projections", "--list", stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().split() == list(PROJECTIONS)


async def test_one_decision_is_a_row_within_milliseconds(
    workers: Workers, topics: Topics, db: asyncpg.Pool[asyncpg.Record], producer: AIOKafkaProducer
) -> None:
    """Not a timed test: a bound that only a wait of some timeout (0.1 s and more) would break. A busy machine has more tries."""
    tenant = new_id()
    await workers.start("tenants")
    position = await append(producer, topics.decisions, TenantRegistered(name="Acme"), log.meta(tenant, tenant, version=1))
    assert await passed(db, "tenants", position, 180)
    seconds = list[float]()
    while len(seconds) < 28 or (min(seconds) >= 0.1 and len(seconds) < 400):
        version = 2 + len(seconds)
        position = await append(
            producer, topics.decisions, TenantRegistered(name="Acme"), log.meta(tenant, tenant, version=version)
        )
        began = time.perf_counter()
        assert await passed(db, "tenants", position, 180)
        seconds.append(time.perf_counter() - began)
    print(f"\nKafka's answer to row: p50 {1000 * sorted(seconds)[len(seconds) // 2]:.1f} ms, max {1000 * max(seconds):.1f} ms")
    assert min(seconds) < 0.1
