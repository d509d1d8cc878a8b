"""How fast a Faust agent reads the log: whole batches through the adapter, against Faust's own `noack_take`.

Both read the same topic from the beginning with a handler that only counts, each in a process of its own.
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
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.embedded.stack import Stack, running
from streams.faust_batches.fetched import TP, ConsumerRecord

RECORD_BYTES = 200


@contextlib.contextmanager
def servers() -> Iterator[Stack]:
    """The running stack that FW_TEST_STACK names, else one of our own."""
    if file := os.environ.get("FW_TEST_STACK"):
        yield Stack.load(Path(file))
        return
    with TemporaryDirectory() as directory, running(Path(directory)) as stack:
        yield stack


async def fill(kafka: str, topic: str, records: int, value: bytes = b"x" * RECORD_BYTES) -> None:
    """Makes a topic of one partition with so many records."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_batch_size=1 << 20, acks=1)
    await producer.start()
    sent, pending = 0, []
    while sent < records:
        batch = producer.create_batch()
        while sent < records and batch.append(key=None, value=value, timestamp=None) is not None:
            sent += 1
        pending.append(await producer.send_batch(batch, topic, partition=0))
    await asyncio.gather(*pending)
    await producer.stop()


async def drop(kafka: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()


class Counter:
    """Says how fast it went, and ends the process, once it has counted enough."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count, self.began = limit, 0, 0.0

    def add(self, records: int) -> None:
        if not self.began:  # the first batch only starts the clock
            self.began, self.limit = time.perf_counter(), self.limit - records
            return
        self.count += records
        if self.count >= self.limit:
            print(json.dumps(self.count / (time.perf_counter() - self.began)), flush=True)
            os._exit(0)


def read_batches(kafka: str, topic: str, records: int) -> None:
    from streams.faust_batches.app import BatchApp, run

    counter = Counter(records)

    async def from_the_beginning(_: Collection[TP]) -> Mapping[TP, int | None]:
        return {}

    async def handle(_: TP, batch: Sequence[ConsumerRecord]) -> None:
        counter.add(len(batch))

    app = BatchApp(f"bench-{secrets.token_hex(4)}", kafka=kafka, load_offsets=from_the_beginning)
    app.batches([topic], handle)
    run(app)


def read_noack_take(kafka: str, topic: str, records: int) -> None:
    import faust
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    counter = Counter(records)
    app = faust.App(
        f"bench-{secrets.token_hex(4)}",
        broker=f"kafka://{kafka}",
        value_serializer="raw",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
    )

    @app.agent(app.topic(topic, value_serializer="raw"))
    async def deliver(stream: Any) -> None:
        async for events in stream.noack_take(5000, within=0.1):
            counter.add(len(events))

    worker = faust.Worker(app, loglevel="error", redirect_stdouts=False, quiet=True)
    worker.spinner = None
    worker.execute_from_commandline()


ROLES = {"batches": read_batches, "noack_take": read_noack_take}


def measure(role: str, kafka: str, topic: str, records: int) -> float:
    """Records per second, in a process of its own."""
    command = [sys.executable, "-m", "bench.faust_read", "--role", role, "--kafka", kafka, "--topic", topic]
    done = subprocess.run(
        [*command, "--records", str(records)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--role", choices=ROLES)
    parser.add_argument("--kafka")
    parser.add_argument("--topic")
    arguments = parser.parse_args()
    if arguments.role:
        ROLES[arguments.role](arguments.kafka, arguments.topic, arguments.records)
        return
    topic = f"bench-{secrets.token_hex(4)}"
    with servers() as stack:
        asyncio.run(fill(stack.kafka, topic, arguments.records))
        try:
            ours = measure("batches", stack.kafka, topic, arguments.records)
            baseline = measure("noack_take", stack.kafka, topic, min(arguments.records, 50_000))
        finally:
            asyncio.run(drop(stack.kafka, topic))
    result = {
        "name": "log read by a Faust agent",
        "ours": round(ours),
        "baseline": round(baseline),
        "unit": "records/s",
        "baseline_is": "the same agent through Faust's noack_take",
        "target": 150_000,
        "target_ratio": 20,
    }
    print(
        json.dumps(result)
        if arguments.json
        else f"{result['name']}: {ours:,.0f} records/s, noack_take {baseline:,.0f}, {ours / baseline:.1f}x"
    )


if __name__ == "__main__":
    main()
