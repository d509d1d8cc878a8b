"""From kill -9 of a worker to caught up: the projection `streams` and the command worker, as processes, restarted at once.

`python -m bench.recovery --json` prints a line of JSON per figure. FW_TEST_STACK names a running stack; else one is started.

Before the kill the worker has caught up; while it is dead a record comes in. Recovered means that its effect can be read: the row
in Postgres, the outcome on the decisions topic. Beside it, in the same run: the first start of the same process, from its
execution to the same effect. What a restart costs beyond that is what the group made it wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from statistics import median

import asyncpg
import uvloop
from aiokafka import TopicPartition

from bench.commands import fresh_topics, servers
from infra.embedded.stack import Stack
from projections.platform import migrate
from streams import codec, ids
from streams.generated import Meta, RegisterTenant, StreamCreated
from streams.kafka import idempotent_producer, reader
from streams.topics import Topics, partition_of

SESSION_SECONDS = "3"  # as `fw up` sets it


@contextlib.asynccontextmanager
async def database(url: str) -> AsyncIterator[str]:
    name = f"b_{secrets.token_hex(6)}"
    server = await asyncpg.connect(url)
    await server.execute(f'CREATE DATABASE "{name}" STRATEGY file_copy')
    try:
        made = f"{url.rsplit('/', 1)[0]}/{name}"
        await migrate(made)
        yield made
    finally:
        await server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await server.close()


Effect = Callable[[], Awaitable[None]]
"""Sends a record, and returns when what follows from it can be read."""


async def recoveries(
    command: list[str], env: Mapping[str, str], send: Callable[[], Awaitable[Effect]], rounds: int
) -> list[float]:
    """Seconds of the first start, then of each recovery."""
    seconds: list[float] = []
    with tempfile.TemporaryFile() as log:
        process: subprocess.Popen[bytes] | None = None
        try:
            for _ in range(rounds + 1):
                if process is not None:
                    process.kill()
                began = time.perf_counter()
                seen = await send()
                if process is not None:
                    process.wait()
                process = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log)
                await seen()
                seconds.append(time.perf_counter() - began)
        finally:
            if process is not None:
                process.kill()
                process.wait()
    return seconds


async def projection(stack: Stack, topics: Topics, env: Mapping[str, str], rounds: int) -> list[float]:
    producer = idempotent_producer(stack.kafka, "bench")
    await producer.start()
    db = await asyncpg.connect(env["FW_POSTGRES_URL"])
    tenant = ids.new_id()

    async def send() -> Effect:
        stream, event = ids.new_id(), ids.new_id()
        meta = Meta(event, tenant, stream, 1, event, event, datetime.now(UTC), "token:bench")
        made = StreamCreated("Bench", f"s{stream}", f"p{stream}", f"i{stream}", "sk_bench", b"k" * 32)
        partition = partition_of(tenant)
        await producer.send_and_wait(topics.decisions.name, codec.encode(made, meta), tenant.bytes, partition)

        async def seen() -> None:
            while True:
                with contextlib.suppress(asyncpg.UndefinedTableError):
                    if await db.fetchval("SELECT count(*) FROM streams WHERE stream_id = $1", stream):
                        return
                await asyncio.sleep(0.01)

        return seen

    try:
        return await recoveries([sys.executable, "-m", "projections", "streams"], env, send, rounds)
    finally:
        await db.close()
        await producer.stop()


async def commands(stack: Stack, topics: Topics, env: Mapping[str, str], rounds: int) -> list[float]:
    producer, outcomes = idempotent_producer(stack.kafka, "bench"), reader(stack.kafka, "bench")
    await producer.start()
    await outcomes.start()
    tps = [TopicPartition(topics.decisions.name, n) for n in range(topics.decisions.partitions)]
    outcomes.assign(tps)
    await outcomes.seek_to_beginning()

    async def send() -> Effect:
        tenant, command_id = ids.new_id(), ids.new_id()
        meta = Meta(command_id, tenant, tenant, 0, command_id, command_id, datetime.now(UTC), "operator")
        value = codec.encode(RegisterTenant("Bench", "fwt_bench", b"t" * 32), meta)
        await producer.send_and_wait(topics.commands.name, value, tenant.bytes, partition_of(tenant))

        async def seen() -> None:
            while True:
                for records in (await outcomes.getmany(timeout_ms=50)).values():
                    if any(codec.decode(record.value)[1].causation_id == command_id for record in records):
                        return

        return seen

    try:
        return await recoveries([sys.executable, "-m", "commands"], env, send, rounds)
    finally:
        await outcomes.stop()
        await producer.stop()


async def measure(stack: Stack, rounds: int) -> list[dict[str, object]]:
    figures: list[dict[str, object]] = []
    for name, run in (("projection worker", projection), ("command worker", commands)):
        async with fresh_topics(stack.kafka) as topics, database(stack.postgres) as url:
            env = {
                "FW_KAFKA_BOOTSTRAP": stack.kafka,
                "FW_POSTGRES_URL": url,
                "FW_CLICKHOUSE_URL": stack.clickhouse,
                "FW_TOPIC_PREFIX": topics.prefix,
                "FW_SECRET_KEY": "5e" * 32,
                "FW_OPERATOR_TOKEN": "unused",
                "FW_KAFKA_SESSION_SECONDS": SESSION_SECONDS,
                "FW_LOG_LEVEL": "warning",
                "FW_GROUP_INSTANCE": "bench",
            }
            first, *again = await run(stack, topics, env, rounds)
        figures.append(
            {
                "name": f"{name}, from kill -9 to caught up",
                "ours": round(median(again), 2),
                "baseline": round(first, 2),
                "baseline_is": "first start of the same process",
                "unit": "s",
                "target": 5,
                "lower_is_better": True,
                "rounds": [round(s, 2) for s in again],
            }
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON per figure")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with servers() as stack:
        figures = uvloop.run(measure(stack, arguments.rounds))
    for figure in figures:
        print(json.dumps(figure) if arguments.json else "  ".join(f"{k}: {v}" for k, v in figure.items()))


if __name__ == "__main__":
    main()
