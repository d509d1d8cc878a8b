"""Events per second that the gRPC ingress acknowledges after Kafka: in batches, against one unary call per event.

Node and ingress are two processes, as in life; the events are the same, and both ways lead through the same producer.
`python -m bench.ingress --json` prints one line of JSON. FW_TEST_STACK names a running stack; else one is started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from uuid import uuid4

import grpc.aio

from infra.embedded.stack import Stack
from infra.embedded.stack import running as running_stack
from infra.kafka import apply
from infra.kafka.cluster import admin
from infra.processes.ingress import running
from streams import ids
from streams.codec import encode
from streams.generated import Meta, ViewerEnd, ViewerLeft
from streams.ingress.client import Outgoing, Publisher
from streams.ingress.credentials import issue, verify
from streams.ingress.ingress_pb2 import BatchAck, Item
from streams.ingress.item import Gate, Routed
from streams.telemetry import configure_logs
from streams.topics import Topics
from tests.ingress import NOON, SECRET_KEY, ingress_settings

BATCH, IN_FLIGHT, UNARY_CALLS = 1_000, 32, 64
ONE = "/bench.Ingress/PublishOne"


def events(count: int) -> Sequence[Outgoing]:
    """Viewers leaving 1,000 streams of 10 tenants."""
    tenants = [uuid4() for _ in range(10)]
    streams = [(uuid4(), tenants[n % 10]) for n in range(1_000)]
    made = []
    for n in range(count):
        stream_id, tenant_id = streams[n % len(streams)]
        event_id = ids.derive(stream_id, n)
        left = ViewerLeft(
            node_id="edge-1",
            session_id=f"{n:032x}",
            viewing_id=event_id,
            connector="HLS",
            seconds=17,
            up_bytes=1_263_288,
            down_bytes=3_120,
            end_reason=ViewerEnd.DISCONNECTED,
        )
        made.append(Outgoing(encode(left, Meta(event_id, tenant_id, stream_id, 0, event_id, event_id, NOON, "node:edge-1"))))
    return made


async def serve(kafka: str, prefix: str) -> None:
    """The ingress, and beside it a server that takes one event a call. Prints both ports; ends with SIGTERM."""
    configure_logs("ingress", "warning")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    topics = Topics(prefix)
    gate = Gate(topics, verify(SECRET_KEY, issue(SECRET_KEY, "edge-1", None)))
    async with running(ingress_settings(kafka, topics)) as ingress:
        await ingress.ready()

        async def publish_one(request: Item, _context: object) -> BatchAck:
            routed = gate.pass_item(request.value, request.traceparent)
            assert isinstance(routed, Routed)
            await ingress.appender.log().append([routed])
            return BatchAck()

        handler = grpc.unary_unary_rpc_method_handler(publish_one, Item.FromString, BatchAck.SerializeToString)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Ingress", {"PublishOne": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(json.dumps([ingress.port, port]), flush=True)
        await stop.wait()
        await server.stop(1)


async def batched(port: int, outgoing: Sequence[Outgoing]) -> None:
    credential = issue(SECRET_KEY, "edge-1", None)
    async with Publisher(f"127.0.0.1:{port}", lambda: credential, batches_in_flight=IN_FLIGHT) as publisher:
        receipts = [await publisher.publish(outgoing[n : n + BATCH]) for n in range(0, len(outgoing), BATCH)]
        for refused in await asyncio.gather(*receipts):
            assert not refused


async def unary(port: int, outgoing: Sequence[Outgoing]) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(ONE, Item.SerializeToString, BatchAck.FromString)
        rest = iter(outgoing)

        async def caller() -> None:
            for one in rest:
                await call(Item(value=one.value))

        await asyncio.gather(*(caller() for _ in range(UNARY_CALLS)))


async def per_second(
    send: Callable[[int, Sequence[Outgoing]], Awaitable[None]], port: int, outgoing: Sequence[Outgoing]
) -> float:
    began = time.perf_counter()
    await send(port, outgoing)
    return len(outgoing) / (time.perf_counter() - began)


@contextlib.contextmanager
def served(kafka: str, prefix: str) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", "bench.ingress", "--serve", kafka, prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ours, one = json.loads(process.stdout.readline())
            yield ours, one
        finally:
            process.terminate()
            process.wait(20)


@contextlib.contextmanager
def stack() -> Iterator[Stack]:
    if file := os.environ.get("FW_TEST_STACK"):
        yield Stack.load(Path(file))
        return
    with tempfile.TemporaryDirectory() as data_dir, running_stack(Path(data_dir)) as started:
        yield started


async def measure(kafka: str, count: int, rounds: int) -> dict[str, object]:
    configure_logs("bench", "warning")
    prefix = f"bench{uuid4().hex[:6]}."
    await apply(kafka, Topics(prefix))
    outgoing = events(count)
    ours, baseline = [], []
    try:
        with served(kafka, prefix) as (port, unary_port):
            await batched(port, outgoing[: 10 * BATCH])  # warm
            for _ in range(rounds):
                ours.append(await per_second(batched, port, outgoing))
                baseline.append(await per_second(unary, unary_port, outgoing[: count // 20]))
    finally:
        async with admin(kafka) as client:
            await client.delete_topics([t.name for t in Topics(prefix).all()])
    return {
        "name": "gRPC ingress, events acknowledged by Kafka",
        "ours": round(median(ours)),
        "baseline": round(median(baseline)),
        "unit": "events/s",
        "baseline_is": "one unary call per event, 64 calls at once",
        "target": 60_000,
        "event_bytes": len(outgoing[0].value),
        "rounds": {"ours": [round(n) for n in ours], "baseline": [round(n) for n in baseline]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, metavar=("KAFKA", "PREFIX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(*arguments.serve))
        return
    with stack() as servers:
        result = asyncio.run(measure(servers.kafka, arguments.count, arguments.rounds))
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"{result['name']}: {result['ours']:,} {result['unit']} ({result['baseline_is']}: {result['baseline']:,})")


if __name__ == "__main__":
    main()
