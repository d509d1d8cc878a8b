"""A key's partition as we compute it is the one in which Kafka's own clients put it."""

from __future__ import annotations

import asyncio

from infra.embedded.stack import Stack
from streams.ids import derive, new_id
from streams.kafka import idempotent_producer
from streams.topics import Topics, partition_of


async def test_a_producer_puts_keys_where_we_look_for_them(stack: Stack, topics: Topics) -> None:
    keys = [new_id() for _ in range(300)] + [derive(new_id(), n) for n in range(300)]
    producer = idempotent_producer(stack.kafka, "test-partitions")
    await producer.start()
    try:
        sent = [await producer.send(topics.facts.name, value=b"x", key=key.bytes) for key in keys]
        placed = await asyncio.gather(*sent)
    finally:
        await producer.stop()
    assert [m.partition for m in placed] == [partition_of(key) for key in keys]
    assert {m.partition for m in placed} == set(range(topics.facts.partitions))
