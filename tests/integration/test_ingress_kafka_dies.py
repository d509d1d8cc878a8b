"""Kafka is killed and comes back while a node publishes: nothing is lost, the order holds, the ingress is not restarted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from infra.embedded.kafka import Kafka
from infra.embedded.ports import free_ports
from infra.embedded.server import spawn, stop, wait_ready
from infra.kafka import apply
from infra.processes.ingress import running
from streams.codec import decode
from streams.ingress.client import Outgoing, Publisher
from streams.ingress.credentials import issue
from streams.topics import Topics
from tests.ingress import SECRET_KEY, buffer_changed, fact, ingress_settings, records


class Broker:
    """A Kafka of this test's own."""

    def __init__(self, data_dir: Path) -> None:
        port, controller_port = free_ports(2)
        self.kafka = Kafka(data_dir / "kafka", port, controller_port)
        self._log = data_dir / "kafka.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = spawn(self.kafka.prepare(self._log), self._log)
        wait_ready(self.kafka, self._process, self._log)

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process, self.kafka.stop_signals)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


async def test_kafka_is_killed_and_comes_back(broker: Broker) -> None:
    topics, credential, streams = Topics(), issue(SECRET_KEY, "edge-1", None), [uuid4() for _ in range(5)]
    tenant_id = uuid4()
    await apply(broker.kafka.address, topics)
    async with running(ingress_settings(broker.kafka.address, topics)) as ingress:
        await ingress.ready()
        async with Publisher(f"127.0.0.1:{ingress.port}", lambda: credential) as publisher:
            receipts, killed = [], asyncio.Event()

            async def publish() -> None:
                for n in range(600):
                    if n == 400:
                        await killed.wait()
                    receipts.append(await publisher.publish([Outgoing(fact(tenant_id, s, n)) for s in streams]))
                    await asyncio.sleep(0.005)

            publishing = asyncio.create_task(publish())
            while len(receipts) < 100 or not receipts[0].done():
                await asyncio.sleep(0.01)
            await asyncio.to_thread(broker.kill)
            killed.set()
            acknowledged = sum(r.done() for r in receipts)
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(180):
                await publishing
                assert await asyncio.gather(*receipts) == [()] * 600
    assert 0 < acknowledged < 600
    seen = dict.fromkeys(
        (meta.aggregate_id, event) for event, meta in (decode(r.value) for r in await records(broker.kafka.address, topics.facts))
    )
    for stream_id in streams:
        assert [event for of, event in seen if of == stream_id] == [buffer_changed(n) for n in range(600)]
