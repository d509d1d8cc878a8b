"""Commands decided per second on one partition, in batches of 500, one Kafka transaction each.

`python -m bench.commands --json` prints a line of JSON per figure. FW_TEST_STACK names a running stack; else one is started.

* decided: real commands (Avro, real rules, versions, fingerprints) through `commands.partition`, as the worker runs it.
  Beside it: the same transactions around the smallest domain there is (JSON in, one dictionary, JSON out).
* single: the same worker with one command in flight, so with one transaction per command. Shows what batching is worth.
* folded: records of the decisions topic per second, as at the start of a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from commands import metrics
from commands.__main__ import tune_collector
from commands.fold import fold
from commands.lines import Line, send
from commands.partition import BATCH_MAX_COMMANDS, GAP_SECONDS, Partition
from infra.embedded.stack import Stack, running
from infra.kafka import apply
from infra.kafka.cluster import admin
from streams import codec, ids
from streams.generated import Command, CreateStream, Meta, RegisterTenant, RenameStream
from streams.kafka import Kafka, idempotent_producer, reader, transactional_producer
from streams.telemetry import configure_logs
from streams.topics import Topics, partition_of

STREAMS = 1000


@contextlib.contextmanager
def servers() -> Iterator[Stack]:
    """The running stack that FW_TEST_STACK names, else one of our own."""
    if file := os.environ.get("FW_TEST_STACK"):
        yield Stack.load(Path(file))
        return
    with TemporaryDirectory() as directory, running(Path(directory)) as stack:
        yield stack


@contextlib.asynccontextmanager
async def fresh_topics(kafka: str) -> AsyncIterator[Topics]:
    topics = Topics(f"b{secrets.token_hex(4)}.")
    await apply(kafka, topics)
    try:
        yield topics
    finally:
        async with admin(kafka) as client:
            await client.delete_topics([t.name for t in topics.all()])


def commands(n: int, tenant: UUID) -> Iterator[bytes]:
    """A tenant with a thousand streams that are renamed: one event and one outcome each."""
    now = datetime.now(UTC)
    streams = [ids.new_id() for _ in range(STREAMS)]

    def value(command: Command, aggregate: UUID) -> bytes:
        command_id = ids.new_id()
        return codec.encode(command, Meta(command_id, tenant, aggregate, 0, command_id, command_id, now, "token:bench"))

    yield value(RegisterTenant("Bench", "fwt_bench", b"t" * 32), tenant)
    for i in range(1, n):
        stream = streams[i % STREAMS]
        if i <= STREAMS:
            name = f"stream-{i}"
            yield value(CreateStream(f"Stream {i}", name, name, name, "sk_bench", b"k" * 32), stream)
        else:
            yield value(RenameStream(f"Stream, renamed {i}"), stream)


async def fill(kafka: str, topic: str, partition: int, values: Iterator[bytes]) -> None:
    producer = idempotent_producer(kafka, "bench")
    await producer.start()
    try:
        await asyncio.gather(*await send(producer, topic, partition, [Line(b"bench", value, ()) for value in values]))
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def owning(kafka: str, topics: Topics, partition: int) -> AsyncIterator[Partition]:
    """The writer of a partition, from the moment at which it decides."""
    group = AIOKafkaConsumer(
        bootstrap_servers=kafka,
        group_id=f"{topics.prefix}bench",
        enable_auto_commit=False,
        isolation_level="read_uncommitted",
        auto_offset_reset="earliest",
    )
    await group.start()
    writer = Partition(Kafka(kafka), topics, group, f"{topics.prefix}bench", partition)
    running_writer = asyncio.create_task(writer.run())
    try:
        while not writer.is_ready:
            await asyncio.sleep(0.001)
        yield writer
    finally:
        running_writer.cancel()
        await asyncio.wait([running_writer])
        await group.stop()


def handled() -> float:
    """Commands whose transaction is committed, by the worker's own metric."""
    return sum(s.value for m in metrics.commands.collect() for s in m.samples if s.name == "fw_commands_total")


async def decided_per_second(kafka: str, topics: Topics, n: int) -> float:
    tenant = ids.new_id()
    partition = partition_of(tenant)
    await fill(kafka, topics.commands.name, partition, commands(n, tenant))
    before = handled()
    async with owning(kafka, topics, partition):
        began = time.perf_counter()
        while handled() - before < n:
            await asyncio.sleep(0.002)
        return n / (time.perf_counter() - began)


async def single_per_second(kafka: str, topics: Topics, n: int) -> float:
    tenant = ids.new_id()
    partition = partition_of(tenant)
    producer = idempotent_producer(kafka, "bench")
    await producer.start()
    try:
        async with owning(kafka, topics, partition):
            began, before = time.perf_counter(), handled()
            for i, value in enumerate(commands(n, tenant), start=1):
                await producer.send_and_wait(topics.commands.name, value, partition=partition)
                while handled() - before < i:
                    await asyncio.sleep(0.001)
            return n / (time.perf_counter() - began)
    finally:
        await producer.stop()


async def trivial_per_second(kafka: str, topics: Topics, n: int) -> float:
    """The same transactions around accounts and amounts: what the machinery costs without codec and rules."""
    partition = 0
    source, target = (TopicPartition(t.name, partition) for t in (topics.facts, topics.nodes))
    values = (json.dumps({"id": str(i), "account": str(i % STREAMS), "amount": 1}).encode() for i in range(n))
    await fill(kafka, source.topic, partition, values)
    producer = transactional_producer(kafka, f"bench-{topics.prefix}")
    log_reader = reader(kafka, "bench")
    await producer.start()
    await log_reader.start()
    accounts: dict[str, tuple[int, int]] = {}
    answers: dict[str, dict[str, object]] = {}
    try:
        log_reader.assign([source])
        log_reader.seek(source, 0)
        began, done = time.perf_counter(), 0
        while done < n:
            records = (await log_reader.getmany(timeout_ms=1000, max_records=BATCH_MAX_COMMANDS)).get(source, [])
            lines = [line for record in records for line in trivial(json.loads(record.value), accounts, answers)]
            await transact(producer, source, target, lines, records[-1].offset + 1)
            done += len(records)
            await asyncio.sleep(GAP_SECONDS)
        return n / (time.perf_counter() - began)
    finally:
        await producer.stop()
        await log_reader.stop()


def trivial(
    command: dict[str, object], accounts: dict[str, tuple[int, int]], answers: dict[str, dict[str, object]]
) -> Sequence[Line]:
    account, amount = str(command["account"]), int(str(command["amount"]))
    balance, version = accounts.get(account, (0, 0))
    event = {"kind": "event", "id": command["id"], "account": account, "amount": amount, "version": version + 1}
    answer: dict[str, object] = {"kind": "answer", "id": command["id"], "ok": True, "version": version + 1}
    accounts[account] = balance + amount, version + 1
    answers[str(command["id"])] = answer
    return [Line(b"bench", json.dumps(record).encode(), ()) for record in (event, answer)]


async def transact(
    producer: AIOKafkaProducer, source: TopicPartition, target: TopicPartition, lines: Sequence[Line], position: int
) -> None:
    await producer.begin_transaction()
    await asyncio.gather(*await send(producer, target.topic, target.partition, lines))
    await producer.send_offsets_to_transaction({source: position}, "bench")
    await producer.commit_transaction()


async def folded_per_second(kafka: str, topics: Topics) -> float:
    """The fullest partition of the decisions, folded as a worker does at its start."""
    partitions = [TopicPartition(topics.decisions.name, p) for p in range(topics.decisions.partitions)]
    log_reader = reader(kafka, "bench")
    await log_reader.start()
    try:
        ends = await log_reader.end_offsets(partitions)
        fullest = max(partitions, key=lambda tp: ends[tp])
        began = time.perf_counter()
        await fold(log_reader, fullest, 0, ends[fullest])
        return float(ends[fullest] / (time.perf_counter() - began))
    finally:
        await log_reader.stop()


async def measure(kafka: str, n: int) -> list[dict[str, object]]:
    async with fresh_topics(kafka) as topics:
        await decided_per_second(kafka, topics, 2 * BATCH_MAX_COMMANDS)  # imports, caches, first transactions
        trivial = await trivial_per_second(kafka, topics, n)
        decided = await decided_per_second(kafka, topics, n)
        folded = await folded_per_second(kafka, topics)
        single = await single_per_second(kafka, topics, 200)
    return [
        {
            "name": "commands decided, one partition, batches of 500",
            "ours": round(decided),
            "baseline": round(trivial),
            "baseline_is": "the same transactions around a trivial domain in JSON",
            "unit": "commands/s",
            "target": 15_000,
        },
        {
            "name": "commands decided, one partition, batched",
            "ours": round(decided),
            "baseline": round(single),
            "baseline_is": "one command in flight, one transaction each",
            "unit": "commands/s",
        },
        {
            "name": "decisions and outcomes folded at a worker's start",
            "ours": round(folded),
            "unit": "records/s",
            "target": 66_667,  # a million decisions and their outcomes in 30 s
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON per figure")
    parser.add_argument("--commands", type=int, default=50_000)
    arguments = parser.parse_args()
    tune_collector()
    configure_logs("bench", "error")
    with servers() as stack:
        figures = uvloop.run(measure(stack.kafka, arguments.commands))
    for figure in figures:
        print(json.dumps(figure) if arguments.json else "  ".join(f"{k}: {v}" for k, v in figure.items()))


if __name__ == "__main__":
    main()
