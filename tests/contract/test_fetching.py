"""What a fetch waits for at a real broker: rarely asked when nothing happens, told at once when something does.

It holds the private attributes of aiokafka to account that `streams/fetching.py` sets.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.embedded.stack import Stack
from streams.fetching import ENOUGH_BYTES, IDLE_MS, wait_as_it_fits
from streams.kafka import reader, stopped
from streams.topics import Topics

PATIENCE_SECONDS = 180
LINGER_MS = 60_000


@pytest.fixture
async def consumer(stack: Stack, topics: Topics) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = reader(stack.kafka, "test")
    await consumer.start()
    yield consumer
    await stopped(consumer)


def at_the_ends(consumer: AIOKafkaConsumer, topics: Topics) -> list[TopicPartition]:
    places = [TopicPartition(topics.facts.name, n) for n in range(topics.facts.partitions)]
    consumer.assign(places)
    for place in places:
        consumer.seek(place, 0)
    return places


def asked(consumer: AIOKafkaConsumer) -> list[tuple[int, int]]:
    """(what it waits for at most in ms, the least bytes) of each fetch from now on."""
    fetcher, waits = consumer._fetcher, list[tuple[int, int]]()
    fetch = fetcher._proc_fetch_request

    async def counted(*request: Any) -> Any:
        waits.append((fetcher._fetch_max_wait_ms, fetcher._fetch_min_bytes))
        return await fetch(*request)

    fetcher._proc_fetch_request = counted
    return waits


async def all_have_leaders(consumer: AIOKafkaConsumer, waits: list[tuple[int, int]]) -> None:
    """Partitions that are new have none yet, and a fetch from them fails at once."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            waits.clear()
            assert await consumer.getmany(timeout_ms=10 * IDLE_MS) == {}
            if len(waits) <= 12:
                return


async def test_whoever_waits_asks_a_few_times_a_second_and_hears_at_once(
    consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, topics: Topics
) -> None:
    waits = asked(consumer)
    [first, *_] = at_the_ends(consumer, topics)
    await all_have_leaders(consumer, waits)
    assert len(waits) >= 2
    assert set(waits) == {(IDLE_MS, 1)}
    late = []
    for n in range(20):
        await producer.send_and_wait(first.topic, b"%d" % n, partition=first.partition)
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [r.value for r in (await consumer.getmany(timeout_ms=60_000))[first]] == [b"%d" % n]
        late.append(time.monotonic() - began)
    assert sorted(late)[10] < IDLE_MS / 1000 / 5, "none waits for a fetch that waits for the others"


async def test_what_is_left_out_because_it_was_not_taken_waits_shortly_only(
    consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, topics: Topics
) -> None:
    waits = asked(consumer)
    [first, second, *_] = at_the_ends(consumer, topics)
    await producer.send_and_wait(first.topic, b"not taken", partition=first.partition)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not any(wait < IDLE_MS for wait, _ in waits):
            await consumer.getmany(second, timeout_ms=10)
    await producer.send_and_wait(second.topic, b"taken", partition=second.partition)
    assert [r.value for r in (await consumer.getmany(second, timeout_ms=60_000))[second]] == [b"taken"]
    assert [r.value for r in (await consumer.getmany(first, timeout_ms=60_000))[first]] == [b"not taken"]


async def test_with_a_linger_the_first_after_a_pause_comes_at_once_and_the_next_are_collected(
    stack: Stack, producer: AIOKafkaProducer, topics: Topics
) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka, group_id=None, auto_offset_reset="none")
    await consumer.start()
    try:
        wait_as_it_fits(consumer, linger_ms=LINGER_MS)
        waits = asked(consumer)
        [first, *_] = at_the_ends(consumer, topics)
        await all_have_leaders(consumer, waits)
        began = time.monotonic()
        await producer.send_and_wait(first.topic, b"first", partition=first.partition)
        assert [r.value for r in (await consumer.getmany(timeout_ms=LINGER_MS))[first]] == [b"first"]
        assert time.monotonic() - began < LINGER_MS / 1000
        collected = [b"%d" % n for n in range(10)]
        for value in collected:
            await producer.send_and_wait(first.topic, value, partition=first.partition)
        enough = bytes(ENOUGH_BYTES)  # so that nothing here has to wait for the linger to end
        await producer.send_and_wait(first.topic, enough, partition=first.partition)
        found = await consumer.getmany(timeout_ms=1000 * PATIENCE_SECONDS)  # one without this partition may be under way
        assert [r.value for r in found[first]] == [*collected, enough]
        assert waits[-1] == (LINGER_MS, ENOUGH_BYTES) or waits[-2] == (LINGER_MS, ENOUGH_BYTES)
    finally:
        await stopped(consumer)
