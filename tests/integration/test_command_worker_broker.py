"""The command worker without a broker, and with one that dies: it waits, and goes on by itself."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from infra.embedded.aot import cache_file
from infra.embedded.kafka import Kafka
from infra.embedded.ports import free_ports
from infra.embedded.server import spawn, stop, wait_ready
from infra.kafka import apply
from streams.topics import Topics
from tests.command_worker import client, equals_model, free_port, tenants, traffic, workers


def test_without_a_broker_it_waits_and_still_ends_when_told(tmp_path: Path) -> None:
    with workers(f"127.0.0.1:{free_port()}", Topics(), tmp_path) as starter:
        worker = starter.start()
        while "begins again" not in worker.log.read_text():
            assert worker.process.poll() is None, worker.log.read_text()
            time.sleep(0.02)
        assert not worker.is_ready
        worker.signal(signal.SIGTERM)
        assert worker.process.wait(180) == 0
        assert "Traceback" not in worker.log.read_text()


class Broker:
    """A broker of our own, to be killed."""

    def __init__(self, directory: Path) -> None:
        kafka_port, controller_port = free_ports(2)
        self.kafka = Kafka(directory / "kafka", kafka_port, controller_port, aot_cache=cache_file())
        self.log = directory / "kafka.log"
        self.process: Popen[bytes] | None = None

    def start(self) -> None:
        self.process = spawn(self.kafka.prepare(self.log), self.log)
        wait_ready(self.kafka, self.process, self.log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(180)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    if broker.process is not None and broker.process.poll() is None:
        stop(broker.process, broker.kafka.stop_signals)


async def test_a_broker_that_is_killed_and_comes_back(broker: Broker, tmp_path: Path) -> None:
    topics = Topics()
    await apply(broker.kafka.address, topics)
    commands = traffic(9_000, seed=8, of=tenants(24))
    with workers(broker.kafka.address, topics, tmp_path) as starter:
        worker = await asyncio.to_thread(starter.start().wait_ready)
        async with client(broker.kafka.address, topics) as sender:
            await sender.send_all(commands[:3000])
            assert await sender.answers(1) >= 1
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
        async with client(broker.kafka.address, topics) as sender:
            await sender.send_all(commands[3000:])
            assert await sender.answers(9_000) == 9_000
            assert (await equals_model(sender))[0] == 9_000
        assert worker.process.poll() is None, "the same process"
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.process.wait, 180) == 0
