"""Decisions from Kafka to rows of the real `streams` projection, against one transaction per event.

The worker is the one that runs in production; its speed is read from the position that it commits with its rows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence

import asyncpg
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.empty_build import make_empty_build
from bench.faust_read import servers
from infra.embedded.stack import Stack
from projections.model import TP, ConsumerRecord
from projections.platform import migrate
from projections.worker import Worker
from streams.codec import encode, headers
from streams.generated import Event, Meta, StreamCreated, StreamDeleted, StreamKeyRotated, StreamRenamed
from streams.ids import derive, new_id
from streams.settings import read_settings
from streams.telemetry import configure
from streams.topics import Topics
from tests.projection_log import at


def decisions(count: int) -> list[tuple[Event, Meta]]:
    """Lives of streams: made, renamed twice, its key rotated; every tenth is deleted."""
    out: list[tuple[Event, Meta]] = []
    tenant = new_id()
    for n in range(count // 4):
        stream = derive(tenant, n)
        life: list[Event] = [
            StreamCreated(f"Stream {n}", f"stream-{n}", f"playback{n}", f"internal{n}", f"sk_{n}", b"h" * 32),
            StreamRenamed(f"Stream {n}, renamed"),
            StreamKeyRotated(f"sk2_{n}", b"h" * 32, at(n)),
            StreamDeleted(f"stream-{n}") if n % 10 == 0 else StreamRenamed(f"Stream {n}, for good"),
        ]
        for version, event in enumerate(life, 1):
            event_id = derive(stream, version)
            out.append((event, Meta(event_id, tenant, stream, version, event_id, event_id, at(n), "tenant")))
    return out


async def fill(kafka: str, topics: Topics, count: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(t.name, t.partitions, 1) for t in topics.all()])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=1 << 20, acks=1)
    await producer.start()
    batch, pending = producer.create_batch(), []
    for event, meta in decisions(count):
        value, about = encode(event, meta), headers(event, meta)
        if batch.append(key=meta.tenant_id.bytes, value=value, timestamp=None, headers=about) is None:
            pending.append(await producer.send_batch(batch, topics.decisions.name, partition=0))
            batch = producer.create_batch()
            batch.append(key=meta.tenant_id.bytes, value=value, timestamp=None, headers=about)
    pending.append(await producer.send_batch(batch, topics.decisions.name, partition=0))
    await asyncio.gather(*pending)
    await producer.stop()


class OneByOne(Worker):
    """The same worker with a transaction for every event."""

    async def handle(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        for record in records:
            await super().handle(tp, [record])


async def measure(role: str, stack: Stack, topics: Topics, until: int) -> float:
    """Events per second between the first position that is seen and `until`; the worker has a database of its own."""
    name = f"bench_{secrets.token_hex(4)}"
    url = f"{stack.postgres.rsplit('/', 1)[0]}/{name}"
    admin = await asyncpg.connect(stack.postgres)
    await admin.execute(f"CREATE DATABASE {name}")
    try:
        await migrate(url)
        env = os.environ | {
            "FW_KAFKA_BOOTSTRAP": stack.kafka,
            "FW_POSTGRES_URL": url,
            "FW_CLICKHOUSE_URL": stack.clickhouse,
            "FW_TOPIC_PREFIX": topics.prefix,
            "FW_SECRET_KEY": "00" * 32,
            "FW_OPERATOR_TOKEN": "bench",
            "FW_LOG_LEVEL": "error",
        }
        await make_empty_build("streams", env)
        worker = subprocess.Popen([sys.executable, "-m", "bench.postgres_projection", "--role", role], env=env)
        try:
            return await _rate(url, until)
        finally:
            worker.kill()
            worker.wait()
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def _rate(url: str, until: int) -> float:
    db = await asyncpg.connect(url)
    first, began = 0, 0.0
    async with asyncio.timeout(120):
        while True:
            at_offset = await db.fetchval("SELECT max(next_offset) FROM platform.projection_offset") or 0
            if at_offset and not first:
                first, began = at_offset, time.perf_counter()
            if at_offset >= until:
                break
            await asyncio.sleep(0.005)
    await db.close()
    return float(at_offset - first) / (time.perf_counter() - began)


async def run(count: int) -> tuple[float, float]:
    topics = Topics(f"bench{secrets.token_hex(3)}.")
    with servers() as stack:
        await fill(stack.kafka, topics, count)
        try:
            return await measure("batches", stack, topics, count), await measure("one_by_one", stack, topics, 4_000)
        finally:
            admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
            await admin.start()
            await admin.delete_topics([t.name for t in topics.all()])
            await admin.close()


ROLES = {"batches": Worker, "one_by_one": OneByOne}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--role", choices=ROLES)
    arguments = parser.parse_args()
    if arguments.role:
        settings = read_settings()
        configure("bench", settings)
        ROLES[arguments.role]("streams", settings).run()
        return
    ours, baseline = asyncio.run(run(arguments.events))
    result = {
        "name": "decisions from Kafka to the streams projection",
        "ours": round(ours),
        "baseline": round(baseline),
        "unit": "events/s",
        "baseline_is": "the same worker, one transaction per event",
        "target": 60_000,
    }
    text = f"{result['name']}: {ours:,.0f} events/s, one transaction per event {baseline:,.0f}, {ours / baseline:.1f}x"
    print(json.dumps(result) if arguments.json else text)


if __name__ == "__main__":
    main()
