"""What the adapter promises, against a real Kafka: these fail on an upgrade of Faust or aiokafka that breaks it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiokafka
import faust
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver

from infra.embedded.stack import Stack
from streams.faust_batches import transport
from streams.kafka import transactional_producer
from streams.topics import Topics


class Reader:
    """A process of tests/faust_reader.py, and the lines that it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[dict[str, list[int] | list[str]]] = []
        self.errors = ""
        self._reading = asyncio.gather(self._read_lines(), self._read_errors())

    async def _read_lines(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.said.append(json.loads(line))

    async def _read_errors(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            self.errors += line.decode()

    @property
    def values(self) -> list[str]:
        return [str(value) for said in self.said for value in said["values"]]

    async def exit_code(self, seconds: float = 180) -> int:
        code = await asyncio.wait_for(self.process.wait(), seconds)
        await self._reading
        return code

    async def until(self, claim: Callable[[], bool], seconds: float = 180) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not claim():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"not within {seconds} s; it said {self.said[-3:]} and {self.errors[-2000:]}")

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.exit_code()


Start = Callable[..., Awaitable[Reader]]


@pytest.fixture
async def start(stack: Stack, topics: Topics) -> AsyncIterator[Start]:
    started: list[Reader] = []

    async def start(mode: str = "values", **options: object) -> Reader:
        command = [
            sys.executable,
            "-m",
            "tests.faust_reader",
            "--kafka",
            stack.kafka,
            "--topic",
            topics.facts.name,
            "--mode",
            mode,
        ]
        options = {"group": f"{topics.prefix}readers"} | options
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        pipe = asyncio.subprocess.PIPE
        started.append(Reader(await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, limit=1 << 24)))
        return started[-1]

    yield start
    for reader in started:
        await reader.end()


async def produce(producer: AIOKafkaProducer, topic: str, values: list[str], partition: int = 0) -> None:
    await asyncio.gather(*[await producer.send(topic, value.encode(), partition=partition) for value in values])


def numbers(first: int, behind: int) -> list[str]:
    return [str(n) for n in range(first, behind)]


def test_the_private_names_are_there_and_mean_what_they_did() -> None:
    assert driver.Consumer in transport.PRIVATE
    assert issubclass(transport.BatchConsumer, driver.Consumer)
    assert (faust.__version__, aiokafka.__version__) == ("0.15.3", "0.14.0"), "read the adapter again, then change this line"


async def test_many_records_arrive_in_order_as_few_batches(start: Start, producer: AIOKafkaProducer, topics: Topics) -> None:
    await produce(producer, topics.facts.name, numbers(0, 5000))
    reader = await start()
    await reader.until(lambda: len(reader.values) >= 5000)
    assert reader.values == numbers(0, 5000)
    assert len(reader.said) < 50


async def test_batches_keep_to_their_limits_and_one_large_record_goes_alone(
    start: Start, producer: AIOKafkaProducer, topics: Topics
) -> None:
    values = [*numbers(0, 30), "x" * 5000, *numbers(30, 60)]
    await produce(producer, topics.facts.name, values)
    reader = await start(records=7, bytes=1000)
    await reader.until(lambda: len(reader.values) >= len(values))
    assert reader.values == values
    assert max(len(said["values"]) for said in reader.said) <= 7
    assert [said["values"] for said in reader.said if len(str(said["values"][0])) > 100] == [["x" * 5000]]


async def test_with_a_linger_a_trickle_comes_in_batches_and_a_backlog_at_once(
    start: Start, producer: AIOKafkaProducer, topics: Topics
) -> None:
    linger_seconds = 2
    backlog = [str(n) + "x" * 250 for n in range(5000)]
    await produce(producer, topics.facts.name, backlog)
    reader = await start(linger=linger_seconds, bytes=128 << 10)
    await reader.until(lambda: bool(reader.values))
    began = time.monotonic()
    await reader.until(lambda: len(reader.values) >= 4000)
    assert time.monotonic() - began < 3 * linger_seconds  # at least seven fetches, none of which waited
    await reader.until(lambda: len(reader.values) >= 5000)
    told, trickle = len(reader.said), numbers(0, 100)
    for value in trickle:
        await producer.send_and_wait(topics.facts.name, value.encode(), partition=0)
    await reader.until(lambda: len(reader.values) >= 5100)
    assert reader.values == [*backlog, *trickle]
    assert len(reader.said) - told <= 5


async def test_a_slow_handler_gets_everything_in_order(start: Start, producer: AIOKafkaProducer, topics: Topics) -> None:
    """More batches than the queue between Faust's fetcher and the agent holds."""
    await produce(producer, topics.facts.name, numbers(0, 400))
    reader = await start(records=10, pause=0.02)
    await reader.until(lambda: len(reader.values) >= 400)
    assert reader.values == numbers(0, 400)


async def test_aborted_transactions_are_never_handed_out(start: Start, stack: Stack, topics: Topics) -> None:
    writer = transactional_producer(stack.kafka, f"{topics.prefix}writer")
    await writer.start()
    for n in range(10):
        await writer.begin_transaction()
        await asyncio.gather(*[await writer.send(topics.facts.name, f"{n % 2}-{n}".encode(), partition=0) for _ in range(3)])
        await (writer.abort_transaction() if n % 2 else writer.commit_transaction())
    reader = await start(stall=1)  # control records and aborted ones at the end are no stall
    await reader.until(lambda: len(reader.values) >= 15)
    await asyncio.sleep(2.5)  # longer than the watchdog waits: nothing may come, and it must not bite
    await writer.stop()
    assert reader.values == [f"0-{n}" for n in (0, 2, 4, 6, 8) for _ in range(3)]
    assert reader.process.returncode is None


async def test_an_open_transaction_is_waited_for_and_is_no_stall(start: Start, stack: Stack, topics: Topics) -> None:
    writer = transactional_producer(stack.kafka, f"{topics.prefix}writer")
    await writer.start()
    await writer.begin_transaction()
    await writer.send_and_wait(topics.facts.name, b"open", partition=0)
    reader = await start(stall=1)
    await reader.until(lambda: "positioned" in reader.errors)
    await asyncio.sleep(2.5)  # longer than the watchdog waits
    assert (reader.values, reader.process.returncode) == ([], None)
    await writer.commit_transaction()
    await reader.until(lambda: reader.values == ["open"])
    await writer.stop()


@pytest.mark.parametrize("position", [0, 37, 99])
async def test_the_store_says_where_to_begin_whatever_kafka_says(
    start: Start, stack: Stack, producer: AIOKafkaProducer, topics: Topics, position: int
) -> None:
    await produce(producer, topics.facts.name, numbers(0, 100))
    group, tp = f"{topics.prefix}group", TopicPartition(topics.facts.name, 0)
    for p in range(1, topics.facts.partitions):
        await produce(producer, topics.facts.name, ["-"] * 100, p)  # the same position is asked of every partition
    committing = AIOKafkaConsumer(bootstrap_servers=stack.kafka, group_id=group, enable_auto_commit=False)
    await committing.start()
    committing.assign([tp])
    await committing.commit({tp: 80})
    await committing.stop()
    reader = await start(group=group, start=position)
    await reader.until(lambda: len([v for v in reader.values if v != "-"]) >= 100 - position)
    assert [v for v in reader.values if v != "-"] == numbers(position, 100)


async def test_kafkas_commit_follows_for_lag_displays(
    start: Start, stack: Stack, producer: AIOKafkaProducer, topics: Topics
) -> None:
    await produce(producer, topics.facts.name, numbers(0, 100))
    reader = await start()
    await reader.until(lambda: len(reader.values) >= 100)
    looking = AIOKafkaConsumer(bootstrap_servers=stack.kafka, group_id=f"{topics.prefix}readers", enable_auto_commit=False)
    await looking.start()
    async with asyncio.timeout(180):
        while await looking.committed(TopicPartition(topics.facts.name, 0)) != 100:
            await asyncio.sleep(0.1)
    await looking.stop()


async def test_a_position_outside_of_the_topic_stops_the_worker(start: Start, producer: AIOKafkaProducer, topics: Topics) -> None:
    await produce(producer, topics.facts.name, numbers(0, 10))
    reader = await start(start=11)
    assert await reader.exit_code() == 70
    assert "the stored position is 11" in reader.errors
    assert reader.values == []


@pytest.mark.parametrize(("mode", "code"), [("crash", 70), ("halted", 70), ("superseded", 3), ("stuck", 75), ("block", 75)])
async def test_how_a_worker_ends(start: Start, producer: AIOKafkaProducer, topics: Topics, mode: str, code: int) -> None:
    await produce(producer, topics.facts.name, numbers(0, 100))
    reader = await start(mode, records=10, stall=2)
    assert await reader.exit_code() == code
    assert reader.values == numbers(0, 20)
    assert ("Traceback" in reader.errors) == (mode == "crash"), reader.errors


async def test_a_store_that_cannot_be_asked_ends_the_worker(start: Start, producer: AIOKafkaProducer, topics: Topics) -> None:
    reader = await start("no_store")
    assert await reader.exit_code() == 70
    assert "no store" in reader.errors


async def test_sigterm_is_a_clean_stop_and_hands_over_at_once(start: Start, producer: AIOKafkaProducer, topics: Topics) -> None:
    await produce(producer, topics.facts.name, numbers(0, 10))
    first = await start()
    await first.until(lambda: len(first.values) >= 10)
    second = await start()
    first.process.send_signal(signal.SIGTERM)
    assert await first.exit_code() == 0
    await second.until(lambda: second.values == numbers(0, 10))
    for p in range(topics.facts.partitions):
        await produce(producer, topics.facts.name, [f"later {p}"], p)
    await second.until(lambda: len({v for v in second.values if v.startswith("later")}) == topics.facts.partitions)


async def test_partitions_move_under_load_and_no_record_is_missed(
    start: Start, producer: AIOKafkaProducer, topics: Topics
) -> None:
    """Workers come and go while records are written; every record reaches some worker, in order per assignment."""
    count = 3000

    async def write() -> None:
        for n in range(count):
            await producer.send(topics.facts.name, str(n).encode(), partition=n % 12)
            if n % 20 == 0:
                await asyncio.sleep(0.01)
        await producer.flush()

    first = await start()
    await first.until(lambda: "positioned" in first.errors)
    writing = asyncio.create_task(write())
    second = await start()
    await second.until(lambda: bool(second.values))
    second.process.kill()
    third = await start()
    await third.until(lambda: bool(third.values))
    third.process.send_signal(signal.SIGTERM)
    assert await third.exit_code() == 0
    await writing
    await first.until(lambda: len({*first.values, *second.values, *third.values}) == count)
    assert first.process.returncode is None
