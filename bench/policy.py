"""The policy's way: from a decision on the log to a node that has it, and what a whole snapshot of 100,000 streams costs.

The baseline of the first is Kafka alone: produced with acks=all, consumed by another client. The snapshot is told by a real
ingress to a real client over loopback, without and with what the node does with it (verified, understood, on its disk); the
first is the baseline of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import uvloop
from aiokafka import TopicPartition

from edge_agent.journal import Journal
from edge_agent.journal_file import Upkeep
from edge_agent.policy import PolicyTable
from edge_agent.policy_intake import PolicyIntake
from edge_agent.running import settle_memory
from infra import kafka
from infra.embedded.stack import Stack
from infra.processes.ingress import running
from projections.policy import Policies
from streams.codec import encode
from streams.generated import StreamCreated, StreamDisabled, StreamEnabled
from streams.ids import new_id
from streams.ingress.credentials import issue
from streams.ingress.line import Line
from streams.ingress.policy_client import watch_policy
from streams.kafka import Kafka, idempotent_producer, reader
from streams.policy_publisher import PolicyPublisher
from streams.topics import Topics, partition_of
from tests.ingress import SECRET_KEY, ingress_settings, meta

STREAMS = 100_000
CREDENTIAL = issue(SECRET_KEY, "bench", None)
PATIENCE_SECONDS = 300.0


def result(name: str, ours: float, unit: str, **more: object) -> dict[str, object]:
    return {"name": name, "ours": ours, "unit": unit, "lower_is_better": True, **more}


async def create_streams(bootstrap: str, topics: Topics, tenant_id: UUID, count: int) -> UUID:
    """Decisions that create so many streams; gives one of them."""
    async with idempotent_producer(bootstrap, "bench") as producer:
        partition, stream_id = partition_of(tenant_id), new_id()
        for n in range(count):
            stream_id = new_id()
            names = f"Stream {n}", f"s-{n}", f"playback{n:08}", f"internal{n:012}"
            event = StreamCreated(*names, "sk_abcdefgh", secrets.token_bytes(32))
            value = encode(event, meta(tenant_id, stream_id, version=1))
            await producer.send(topics.decisions.name, value, partition=partition)
            if n % 1000 == 999:
                await producer.flush()
    return stream_id


async def timed(count: int, send: Callable[[int], Awaitable[None]], arrived: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds of the median."""
    taken = []
    for n in range(count):
        began = time.perf_counter()
        await send(n)
        await arrived()
        taken.append(time.perf_counter() - began)
    return round(sorted(taken)[len(taken) // 2] * 1e3, 1)


async def decision_to_node(stack: Stack, topics: Topics, address: str, tenant_id: UUID, stream_id: UUID, count: int) -> float:
    watching = watch_policy(address, lambda: CREDENTIAL, Line())
    async with aclosing(watching) as news, idempotent_producer(stack.kafka, "bench") as producer:
        while not (await anext(news)).is_complete:
            pass

        async def decide(n: int) -> None:
            event = StreamDisabled() if n % 2 == 0 else StreamEnabled()
            value = encode(event, meta(tenant_id, stream_id, version=1))
            await producer.send_and_wait(topics.decisions.name, value, partition=partition_of(tenant_id))

        async def told() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (await anext(news)).records:
                    pass

        return await timed(count, decide, told)


async def through_kafka(stack: Stack, topics: Topics, count: int) -> float:
    place = TopicPartition(topics.facts.name, 0)
    async with idempotent_producer(stack.kafka, "bench") as producer, reader(stack.kafka, "bench") as consumer:
        consumer.assign([place])
        await consumer.seek_to_end(place)

        async def send(_: int) -> None:
            await producer.send_and_wait(place.topic, bytes(300), partition=0)

        async def arrived() -> None:
            await consumer.getone()

        return await timed(count, send, arrived)


async def snapshot(address: str, directory: Path | None) -> tuple[float, int, float]:
    """Seconds, bytes on the wire (without framing), and the longest that the node's loop was held up, in milliseconds of CPU:
    what others do on the machine is no matter of ours.

    With a directory: verified, understood and on the disk, as a node takes it.
    """
    size, longest, is_done = 0, 0.0, False

    async def heart() -> None:
        nonlocal longest
        while not is_done:
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)
            await asyncio.sleep(0.001)

    began, beating = time.perf_counter(), asyncio.create_task(heart())
    journal = Journal(directory / "journal.db") if directory else None
    if journal is not None:
        journal.open()
        intake = PolicyIntake(journal, PolicyTable(), lambda: CREDENTIAL, {})
        intake.begins()
        settle_memory()
    async with aclosing(watch_policy(address, lambda: CREDENTIAL, Line())) as all_news:
        async for news in all_news:
            size += sum(len(r.value) + len(r.signature) for r in news.records)
            if journal is not None:
                await intake.take(news, time.time_ns() // 1_000_000)
            if news.is_complete:
                break
    if journal is not None:
        assert await journal.kept(Upkeep())
        journal.close()
    is_done = True
    await beating
    return time.perf_counter() - began, size, longest * 1e3


async def measure(stack: Stack, streams: int, decisions: int) -> Sequence[dict[str, object]]:
    topics, tenant_id = Topics(f"bench{secrets.token_hex(4)}."), new_id()
    await kafka.apply(stack.kafka, topics)
    async with AsyncExitStack() as clean:
        clean.push_async_callback(_delete, stack.kafka, topics)
        directory = Path(clean.enter_context(TemporaryDirectory(prefix="fw-bench-")))
        stream_id = await create_streams(stack.kafka, topics, tenant_id, streams)
        publisher = PolicyPublisher(Kafka(stack.kafka), topics, SECRET_KEY, Policies)
        began, publishing = time.perf_counter(), asyncio.create_task(publisher.run())
        clean.push_async_callback(_ended, publishing)
        while not publisher.is_current:
            await asyncio.sleep(0.05)
        published_seconds = time.perf_counter() - began
        began = time.perf_counter()
        async with running(ingress_settings(stack.kafka, topics)) as ingress:
            await ingress.ready()
            read_seconds = time.perf_counter() - began
            address = f"127.0.0.1:{ingress.port}"
            told, size, _ = await snapshot(address, None)
            taken, _, longest_ms = await snapshot(address, directory)
            ours_ms = await decision_to_node(stack, topics, address, tenant_id, stream_id, decisions)
        kafka_ms = await through_kafka(stack, topics, decisions)
    of = f"{streams:,} streams"
    alone = {"baseline": kafka_ms, "baseline_is": "Kafka alone", "target": 1000}
    only_told = {"baseline": round(told, 1), "baseline_is": "told only"}
    return [
        result(f"policy: decision to node, p50, {of} known", ours_ms, "ms", **alone),
        result(f"policy: snapshot of {of}, verified and on disk", round(taken, 1), "s", **only_told),
        result(f"policy: snapshot of {of}, size", round(size / 1e6, 1), "MB"),
        result(f"policy: longest hold-up of a node that takes it, {of}", round(longest_ms, 1), "ms"),
        result(f"policy: first publication of {of}", round(published_seconds, 1), "s"),
        result(f"policy: ingress ready with {of}", round(read_seconds, 1), "s"),
    ]


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _delete(bootstrap: str, topics: Topics) -> None:
    from infra.kafka.cluster import admin

    async with admin(bootstrap) as client:
        await client.delete_topics([t.name for t in topics.all()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--decisions", type=int, default=40)
    arguments = parser.parse_args()
    stack = Stack.load(Path(os.environ["FW_TEST_STACK"]))
    for line in uvloop.run(measure(stack, arguments.streams, arguments.decisions)):
        print(json.dumps(line) if arguments.json else f"{line['name']}: {line['ours']} {line['unit']}")


if __name__ == "__main__":
    main()
