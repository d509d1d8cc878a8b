"""What may happen to a command worker, and that the log is right afterwards: record by record what the model says."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import ProducerFenced

from commands.partition import Partition
from infra.embedded.stack import Stack
from streams.kafka import Kafka
from streams.topics import PARTITIONS, Topics, partition_of
from tests.command_worker import Client, Worker, WorkerStarter, client, equals_model, tenants, traffic, workers


@pytest.fixture
def starter(stack: Stack, topics: Topics, tmp_path: Path) -> Iterator[WorkerStarter]:
    with workers(stack.kafka, topics, tmp_path) as starter:
        yield starter


@pytest.fixture
async def sender(stack: Stack, topics: Topics) -> AsyncIterator[Client]:
    async with client(stack.kafka, topics) as sender:
        yield sender


async def trickle(sender: Client, n: int, seed: int, stop: asyncio.Event) -> int:
    """Sends commands in small bursts until told to stop, or all are sent; how many were."""
    commands = traffic(n, seed, tenants(24, seed))
    sent = 0
    while sent < n and not stop.is_set():
        await sender.send_all(commands[sent : sent + 40])
        sent = min(sent + 40, n)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.02)
    return sent


async def ready(worker: Worker) -> None:
    await asyncio.to_thread(worker.wait_ready)


async def owned(worker: Worker, at_least: int) -> None:
    """Waits until a worker owns so many partitions."""
    while (await asyncio.to_thread(worker.metrics))["fw_commands_partitions_owned"] < at_least:
        await asyncio.sleep(0.05)


async def test_killed_again_and_again_each_command_takes_effect_once(starter: WorkerStarter, sender: Client) -> None:
    rng = random.Random(4)
    stop = asyncio.Event()
    traffic_task = asyncio.create_task(trickle(sender, 60_000, 2, stop))
    for _ in range(5):
        worker = starter.start()
        await ready(worker)
        await asyncio.sleep(rng.uniform(0.05, 0.8))  # anywhere in its work
        await asyncio.to_thread(worker.kill)
    stop.set()
    sent = await traffic_task
    starter.start()
    assert await sender.answers(sent) == sent
    counted, _ = await equals_model(sender)
    assert counted == sent
    raw = sum(map(len, await sender.read(sender.topics.decisions, committed=False)))
    committed = sum(map(len, await sender.read(sender.topics.decisions)))
    assert raw >= committed


async def test_frozen_until_another_took_over_and_then_woken(starter: WorkerStarter, sender: Client) -> None:
    stop = asyncio.Event()
    traffic_task = asyncio.create_task(trickle(sender, 60_000, 3, stop))
    zombie = starter.start()
    await ready(zombie)
    await asyncio.sleep(0.3)
    zombie.signal(signal.SIGSTOP)
    heir = starter.start()
    await ready(heir)
    await owned(heir, PARTITIONS)
    zombie.signal(signal.SIGCONT)
    await owned(zombie, 1)
    stop.set()
    sent = await traffic_task
    assert await sender.answers(sent) == sent
    assert (await equals_model(sender))[0] == sent


async def test_two_workers_share_the_partitions_and_hand_them_over(starter: WorkerStarter, sender: Client) -> None:
    stop = asyncio.Event()
    traffic_task = asyncio.create_task(trickle(sender, 60_000, 5, stop))
    first = starter.start()
    await ready(first)
    second = starter.start()
    await ready(second)
    await owned(first, 1)
    await owned(second, 1)
    first.signal(signal.SIGTERM)
    assert await asyncio.to_thread(first.process.wait, 180) == 0
    await owned(second, PARTITIONS)
    stop.set()
    sent = await traffic_task
    assert await sender.answers(sent) == sent
    assert (await equals_model(sender))[0] == sent


async def test_a_writer_deaf_to_rebalances_is_fenced_by_its_successor(stack: Stack, topics: Topics, sender: Client) -> None:
    """Two writers of one partition at once, of which the first was told nothing: only the fence is left."""
    tenant = tenants(1)[0]
    group = AIOKafkaConsumer(
        bootstrap_servers=stack.kafka,
        group_id=f"{topics.prefix}commands",
        enable_auto_commit=False,
        isolation_level="read_uncommitted",
    )
    await group.start()
    commands = traffic(600, seed=6, of=[tenant])
    old, new = (Partition(Kafka(stack.kafka), topics, group, f"{topics.prefix}commands", partition_of(tenant)) for _ in range(2))
    zombie = asyncio.create_task(old.run())
    successor: asyncio.Task[None] | None = None
    try:
        await sender.send_all(commands[:200])
        assert await sender.answers(200) == 200
        successor = asyncio.create_task(new.run())
        await sender.send_all(commands[200:400])
        while not new.is_ready:
            assert not successor.done(), successor.exception()
            await asyncio.sleep(0.01)
        await sender.send_all(commands[400:])
        assert await sender.answers(600) == 600
        with pytest.raises(ProducerFenced):
            await asyncio.wait_for(zombie, 180)
        assert not successor.done()
        assert (await equals_model(sender))[0] == 600
    finally:
        for task in (zombie, successor):
            if task is not None:
                task.cancel()
                with contextlib.suppress(BaseException):
                    await task
        await group.stop()
        # aiokafka leaves a future with the fence's error behind. Collected here, its complaint cannot come in the midst of
        # something else: its traceback is parsed, and Python 3.11 cannot parse while it parses.
        gc.collect()
