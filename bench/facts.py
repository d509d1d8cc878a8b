"""Facts from Kafka to their ClickHouse table through the worker of production, against the way one would write it first.

The baseline reads with the same client, decodes with fastavro, and inserts with clickhouse-connect, in blocks as large. Both
read the same topic, every fact of it with an id of its own, into a table of the same definition.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import asyncpg
import fastavro
from aiokafka import AIOKafkaProducer, TopicPartition

from bench.empty_build import make_empty_build, topics_of
from bench.faust_read import servers
from infra.embedded.stack import Stack
from projections.clickhouse import connect
from projections.clickhouse_tables import create
from projections.platform import migrate
from projections.viewer_sessions import PROJECTION
from streams.codec import PREFIX, encode, headers
from streams.generated import Meta, ViewerEnd, ViewerLeft
from streams.ids import derive, new_id
from streams.kafka import reader
from streams.registry import by_name
from streams.topics import Topic, Topics

BUSY_PARTITIONS = 4
EVENT_ID = slice(PREFIX.size + 1, PREFIX.size + 37)
"""Where a framed value has the text of its event id."""


def viewer_left() -> tuple[bytes, list[tuple[str, bytes]]]:
    now = datetime.now(UTC)
    tenant = new_id()
    meta = Meta(new_id(), tenant, derive(tenant, secrets.randbelow(50)), 0, tenant, tenant, now, "node:n1")
    event = ViewerLeft(
        node_id="n1",
        session_id=secrets.token_hex(32),
        viewing_id=new_id(),
        connector=secrets.choice(("HLS", "WebRTC", "TS")),
        country=secrets.choice(("NL", "DE", None)),
        joined_at=now - timedelta(seconds=30),
        seconds=30,
        up_bytes=secrets.randbelow(1 << 30),
        down_bytes=secrets.randbelow(1 << 16),
        end_reason=ViewerEnd.DISCONNECTED,
    )
    return encode(event, meta), list(headers(event, meta))


def facts(count: int) -> Iterator[tuple[bytes, list[tuple[str, bytes]]]]:
    """Facts of some hundred kinds, each with an id of its own."""
    made = [viewer_left() for _ in range(500)]
    for n in range(count):
        value, about = made[n % len(made)]
        text = bytearray(value)
        text[EVENT_ID] = str(uuid4()).encode()
        yield bytes(text), about


async def fill(kafka: str, topic: Topic, values: Iterator[tuple[bytes, list[tuple[str, bytes]]]]) -> int:
    """Appends records, in large batches, to some of the topic's partitions in turn; how many."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=1 << 20, max_request_size=4 << 20, acks=1)
    await producer.start()
    pending: list[asyncio.Future[object]] = []
    batch, count = producer.create_batch(), 0
    for value, about in values:
        if batch.append(key=None, value=value, timestamp=None, headers=about) is None:
            pending.append(await producer.send_batch(batch, topic.name, partition=len(pending) % BUSY_PARTITIONS))
            batch = producer.create_batch()
            batch.append(key=None, value=value, timestamp=None, headers=about)
        count += 1
    pending.append(await producer.send_batch(batch, topic.name, partition=len(pending) % BUSY_PARTITIONS))
    await asyncio.gather(*pending)
    await producer.stop()
    return count


@dataclass(frozen=True, slots=True)
class Databases:
    postgres: str
    clickhouse: str


@contextlib.asynccontextmanager
async def databases(stack: Stack) -> AsyncIterator[Databases]:
    """A database in each server, until the block ends."""
    name = f"bench_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(stack.postgres)
    ch = await connect(stack.clickhouse)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        await ch.command(f"CREATE DATABASE {name}")
        made = Databases(*(f"{url.rsplit('/', 1)[0]}/{name}" for url in (stack.postgres, stack.clickhouse)))
        await migrate(made.postgres)
        yield made
        await ch.command(f"DROP DATABASE {name} SYNC")
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await ch.close()
        await admin.close()


async def worker_rate(projection: str, stack: Stack, topics: Topics, count: int) -> float:
    """Records per second of `python -m projections NAME`, from the first commit that is seen to the last."""
    async with databases(stack) as of:
        with TemporaryDirectory() as directory:
            env = os.environ | {
                "FW_DATA_DIR": str(Path(directory)),
                "FW_KAFKA_BOOTSTRAP": stack.kafka,
                "FW_POSTGRES_URL": of.postgres,
                "FW_CLICKHOUSE_URL": of.clickhouse,
                "FW_TOPIC_PREFIX": topics.prefix,
                "FW_SECRET_KEY": "00" * 32,
                "FW_OPERATOR_TOKEN": "bench",
                "FW_LOG_LEVEL": "error",
            }
            await make_empty_build(projection, env)
            worker = subprocess.Popen([sys.executable, "-m", "projections", projection], env=env)
            try:
                return await _rate(of.postgres, count)
            finally:
                worker.kill()
                worker.wait()


async def _rate(url: str, until: int) -> float:
    db = await asyncpg.connect(url)
    first, began = 0, 0.0
    async with asyncio.timeout(120):
        while True:
            done = int(await db.fetchval("SELECT sum(next_offset) FROM platform.projection_offset") or 0)
            if done and not first:
                first, began = done, time.perf_counter()
            if done >= until:
                break
            await asyncio.sleep(0.005)
    await db.close()
    return (done - first) / (time.perf_counter() - began)


async def baseline_rate(stack: Stack, topics: Topics, count: int) -> float:
    """Read, decode, insert, one after another."""
    async with databases(stack) as of:
        ch = await connect(of.clickhouse)
        for statement in create(PROJECTION.tables, {}, {}):
            await ch.command(statement)
        kafka = reader(stack.kafka, "bench", fetch_bytes=4 << 20)
        await kafka.start()
        partitions = [TopicPartition(topics.facts.name, p) for p in range(BUSY_PARTITIONS)]
        kafka.assign(partitions)
        await kafka.seek_to_beginning(*partitions)
        decode = _decoder()
        done, first, began = 0, 0, 0.0
        while done < count:
            for partition, records in (await kafka.getmany(timeout_ms=500, max_records=10_000)).items():
                table = [decode(record.value, partition.partition, record.timestamp, record.offset) for record in records]
                names = list(table[0])
                await ch.insert(
                    "viewer_left_1",
                    [list(row.values()) for row in table],
                    column_names=names,
                    settings={"log_comment": "0"},
                )
                done += len(records)
                if not first:
                    first, began = done, time.perf_counter()
        rate = (done - first) / (time.perf_counter() - began)
        await kafka.stop()
        await ch.close()
        return rate


def _decoder() -> Callable[[bytes, int, int, int], dict[str, object]]:
    schema = fastavro.parse_schema(dict(by_name()["ViewerLeft"].schema))
    epoch = datetime.fromtimestamp(0, UTC)

    def decode(value: bytes, partition: int, timestamp: int, offset: int) -> dict[str, object]:
        body = io.BytesIO(value)
        body.seek(PREFIX.size)
        fields: dict[str, object] = fastavro.schemaless_reader(body, schema, None)  # type: ignore[assignment]  # a record
        meta: dict[str, object] = fields.pop("meta")  # type: ignore[assignment]  # and a record in it
        place = {"_partition": partition, "_appended_at": epoch + timedelta(milliseconds=timestamp), "_offset": offset}
        return {**place, "_seal": 0, **meta, **fields}

    return decode


async def run(count: int) -> tuple[float, float]:
    with servers() as stack:
        async with topics_of(stack.kafka) as topics:
            await fill(stack.kafka, topics.facts, facts(count))
            ours = await worker_rate("viewer_sessions", stack, topics, count)
            return ours, await baseline_rate(stack, topics, count // 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--facts", type=int, default=400_000)
    arguments = parser.parse_args()
    ours, baseline = asyncio.run(run(arguments.facts))
    result = {
        "name": "facts from Kafka to their ClickHouse table",
        "ours": round(ours),
        "baseline": round(baseline),
        "unit": "facts/s",
        "baseline_is": "aiokafka, fastavro decode, clickhouse-connect insert",
        "target": 120_000,
        "target_ratio": 3,
    }
    text = f"{result['name']}: {ours:,.0f} facts/s, decoded and inserted {baseline:,.0f}, {ours / baseline:.1f}x"
    print(json.dumps(result) if arguments.json else text)


if __name__ == "__main__":
    main()
