"""From the POST of a trigger to a subscriber's WebSocket, at a steady rate: edge agent with its journal on disk, gRPC ingress,
Kafka, gateway, socket. The baseline is Kafka alone in the same run: produce with acks=all, consume.

Every trigger is a STREAM_BUFFER over a TCP connection of its own, as MistServer sends it; its buffer length is its number, by
which the event is recognized. A trigger is sent at its time whether or not the one before has arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec
import uvloop
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.demo.api import Api, subscribe
from infra.demo.operations import READ_OWN_WRITE, AboutStream
from infra.demo.run import tenant
from infra.demo.stack import Stack
from streams.kafka import idempotent_producer, reader
from tests.up import up

WATCH = "subscription($id: ID!) { streamEvents(streamId: $id) { __typename ... on BufferChanged { bufferMs } } }"
CREATE = """mutation($input: CreateStreamInput!) {
  createStream(input: $input) { ... on CreateStreamSuccess { position stream { id internalName } } }
}"""
WARM_UP = 200
PATIENCE_SECONDS = 30.0


class Created(msgspec.Struct, rename="camel"):
    id: str
    internal_name: str


class Success(msgspec.Struct):
    position: str
    stream: Created


class Answer(msgspec.Struct, rename="camel"):
    create_stream: Success


class Event(msgspec.Struct, rename="camel"):
    typename: str = msgspec.field(name="__typename")
    buffer_ms: int | None = None


class Watched(msgspec.Struct, rename="camel"):
    stream_events: Event


class Arrivals:
    """When each number was sent, and when it arrived."""

    def __init__(self, count: int) -> None:
        self.sent, self.arrived = [0.0] * count, [0.0] * count
        self.missing, self.complete = count, asyncio.Event()

    def arrive(self, number: int) -> None:
        if 0 <= number < len(self.arrived) and not self.arrived[number]:
            self.arrived[number] = time.perf_counter()
            self.missing -= 1
            if not self.missing:
                self.complete.set()

    def milliseconds(self, share: float) -> float:
        """That share of all took at most so long; the first ones only warm everything up."""
        taken = sorted(a - s for s, a in zip(self.sent[WARM_UP:], self.arrived[WARM_UP:], strict=True))
        return round(taken[min(len(taken) - 1, int(len(taken) * share))] * 1e3, 1)


async def at_rate(arrivals: Arrivals, per_second: float, send: Callable[[int], Awaitable[None]]) -> None:
    """Sends every number at its time; returns when the last has arrived."""
    began, sending = time.perf_counter(), set[asyncio.Task[None]]()

    async def one(number: int) -> None:
        arrivals.sent[number] = time.perf_counter()
        await send(number)

    for number in range(len(arrivals.sent)):
        await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
        task = asyncio.create_task(one(number))
        sending.add(task)
        task.add_done_callback(sending.discard)
    await asyncio.gather(*sending)
    try:
        await asyncio.wait_for(arrivals.complete.wait(), PATIENCE_SECONDS)
    except TimeoutError:
        raise SystemExit(f"{arrivals.missing} of {len(arrivals.sent)} never arrived") from None


def trigger(host: str, stream: str, number: int) -> bytes:
    health = {"buffer": number, "jitter": 10, "maxkeepaway": 45000, "tracks": []}
    body = f"live+{stream}\nFULL\n{json.dumps(health)}"
    now = time.time_ns() // 1_000_000
    return (
        f"POST /trigger/STREAM_BUFFER HTTP/1.1\r\nAccept: */*\r\nContent-Length: {len(body)}\r\nContent-Type: text/plain\r\n"
        f"Host: {host}\r\nUser-Agent: MistServer/3.10\r\nX-Attempt: 1\r\nX-Instance: benchbenchbenchb\r\nX-Name: edge-1\r\n"
        f"X-PID: 4242\r\nX-Trigger: STREAM_BUFFER\r\nX-Trigger-UUID: {uuid4()}\r\nX-Trigger-UnixMillis: {now}\r\n"
        f"X-Version: 3.10\r\n\r\n{body}"
    ).encode()


async def through_the_platform(stack: Stack, count: int, per_second: float) -> Arrivals:
    token = await tenant(stack)
    async with Api(stack.graphql, token) as api:
        made = (await api.ask(Answer, CREATE, input={"title": "Latency"})).create_stream
        stream = made.stream
        await api.ask(AboutStream, READ_OWN_WRITE, id=stream.id, after=made.position)
    arrivals, subscribed = Arrivals(count), asyncio.Event()

    async def watch() -> None:
        async for answer in subscribe(stack.graphql_ws, token, Watched, WATCH, {"id": stream.id}):
            subscribed.set()
            if answer.stream_events.buffer_ms is not None:
                arrivals.arrive(answer.stream_events.buffer_ms)

    edge = urlsplit(stack.edge)

    async def post(number: int) -> None:
        incoming, outgoing = await asyncio.open_connection(edge.hostname, edge.port)
        outgoing.write(trigger(edge.netloc, stream.internal_name, number))
        status = await incoming.readline()
        outgoing.close()
        if b" 200 " not in status:
            raise SystemExit(f"the edge agent answered {status!r}")

    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(watch())
        await asyncio.wait_for(subscribed.wait(), PATIENCE_SECONDS)
        await at_rate(arrivals, per_second, post)
        watcher.cancel()
    return arrivals


async def through_kafka(bootstrap: str, count: int, per_second: float) -> Arrivals:
    """Produced with acks=all, consumed by another client; nothing in between but the broker."""
    topic, arrivals = f"bench-{secrets.token_hex(4)}", Arrivals(count)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    producer, consumer = idempotent_producer(bootstrap, "bench"), reader(bootstrap, "bench")
    await producer.start()
    await consumer.start()
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek(place, 0)

    async def consume() -> None:
        async for record in consumer:
            arrivals.arrive(int(record.value[:8]))

    async def produce(number: int) -> None:
        await producer.send_and_wait(topic, f"{number:08}".encode() + bytes(200), partition=0)

    try:
        async with asyncio.TaskGroup() as tasks:
            consuming = tasks.create_task(consume())
            await at_rate(arrivals, per_second, produce)
            consuming.cancel()
    finally:
        await consumer.stop()
        await producer.stop()
        await admin.delete_topics([topic])
        await admin.close()
    return arrivals


async def measure(line: dict[str, object], count: int, per_second: float) -> Sequence[dict[str, object]]:
    ours = await through_the_platform(msgspec.convert(line, Stack), count, per_second)
    alone = await through_kafka(str(line["kafka"]), count, per_second)
    return [
        {
            "name": f"trigger POST to subscriber's socket, {per_second:.0f}/s, {label}",
            "ours": ours.milliseconds(share),
            "baseline": alone.milliseconds(share),
            "unit": "ms",
            "baseline_is": "Kafka produce and consume alone",
            "target": target,
            "lower_is_better": True,
        }
        for label, share, target in (("p50", 0.5, 15), ("p99", 0.99, 80))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--per-second", type=float, default=200)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="fw-bench-") as directory, up(Path(directory) / "data") as stack:
        results = uvloop.run(measure(dict(stack.line), arguments.count, arguments.per_second))
    for result in results:
        print(
            json.dumps(result)
            if arguments.json
            else f"{result['name']}: {result['ours']} ms, {result['baseline_is']}: {result['baseline']} ms"
        )


if __name__ == "__main__":
    main()
