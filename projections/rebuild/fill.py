"""Fills a build from history, several partitions at once, up to positions that the caller names and never beyond them.

Invariant: rows and position of a partition move together (the store sees to that), so a fill that was killed goes on where it
was. A partition ends exactly at its target, also where the offsets below it hold no record.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from aiokafka import AIOKafkaConsumer, TopicPartition

from projections.model import TP, ConsumerRecord
from projections.postgres_store import PostgresStore
from projections.rebuild.site import Site
from streams.kafka import reader

if TYPE_CHECKING:
    from projections.clickhouse_store import ClickHouseStore

T = TypeVar("T")
PARTITIONS_AT_ONCE: Final = 4
BATCH_RECORDS: Final = 10_000
BATCH_BYTES: Final = 8 << 20


def behind(at: Mapping[TP, int | None], targets: Mapping[TP, int]) -> dict[TP, int]:
    """Where each partition that is not there yet has to go."""
    return {tp: target for tp, target in targets.items() if (at[tp] or 0) < target}


async def fill(site: Site, store: PostgresStore | ClickHouseStore, targets: Mapping[TP, int]) -> None:
    """Brings the store to the targets from archive and log."""
    at_once, at = asyncio.Semaphore(PARTITIONS_AT_ONCE), store.served.next

    async def one(tp: TP, target: int) -> None:
        async with at_once:
            await _fill_partition(site, store, tp, target)

    filling = [asyncio.create_task(one(tp, target)) for tp, target in behind(at, targets).items()]
    try:
        await asyncio.gather(*filling)
    finally:
        for task in filling:
            task.cancel()
        await asyncio.gather(*filling, return_exceptions=True)


async def _fill_partition(site: Site, store: PostgresStore | ClickHouseStore, tp: TP, target: int) -> None:
    topic = site.topics[tp.topic]
    at = store.served.next[tp]
    if at is None:
        at = (await site.history.ranges(topic))[tp.partition].first
    if at < target:
        async with aclosing(ahead(_prepared(store, tp, gathered(site.history.read(topic, tp.partition, at, target))))) as batches:
            async for records, apply in batches:
                await apply()
                site.progress.moved(records[-1].offset + 1 - at, len(records))
                at = records[-1].offset + 1
    if (store.served.next[tp] or 0) < target:
        await store.skip(tp, target)
        site.progress.moved(max(0, target - at), 0)


async def _prepared(
    store: PostgresStore | ClickHouseStore, tp: TP, batches: AsyncGenerator[Sequence[ConsumerRecord], None]
) -> AsyncGenerator[tuple[Sequence[ConsumerRecord], Callable[[], Awaitable[None]]], None]:
    """Batches, and what applies each; decoded before that, so that no database waits for it, nor we for the database."""
    async with aclosing(batches):
        async for records in batches:
            if isinstance(store, PostgresStore):
                yield records, partial(store.apply, tp, records, store.read(tp, records))
            else:
                yield records, partial(store.apply, tp, records)


async def gathered(batches: AsyncIterator[Sequence[ConsumerRecord]]) -> AsyncGenerator[Sequence[ConsumerRecord], None]:
    """Fewer, larger batches: what a store does once a batch is then done less often."""
    held: list[ConsumerRecord] = []
    size = 0
    async with aclosing(cast("AsyncGenerator[Sequence[ConsumerRecord], None]", batches)):
        async for records in batches:
            held += records
            size += sum(len(record.value or b"") for record in records)
            if len(held) >= BATCH_RECORDS or size >= BATCH_BYTES:
                yield held
                held, size = [], 0
    if held:
        yield held


async def ahead(batches: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same batches; the next one is read while the caller works on one."""

    async def following() -> T | None:
        return await anext(batches, None)

    reading = asyncio.create_task(following())
    try:
        while (batch := await reading) is not None:
            reading = asyncio.create_task(following())
            yield batch
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await batches.aclose()


class Tail:
    """Follows the end of the log with one consumer: many short fills, as before a flip, would each need new ones."""

    def __init__(self, site: Site, store: PostgresStore | ClickHouseStore) -> None:
        self.site, self.store = site, store
        self._consumer: AIOKafkaConsumer | None = None

    async def fill(self, targets: Mapping[TP, int]) -> None:
        """Brings the store to targets that it is not far from; all below them is still on the log."""
        wanted = behind(self.store.served.next, targets)
        if not wanted:
            return
        fresh = {tp: target for tp, target in wanted.items() if self.store.served.next[tp] is None}
        await fill(self.site, self.store, fresh)
        wanted = {tp: target for tp, target in wanted.items() if tp not in fresh}
        if self._consumer is None:
            self._consumer = reader(self.site.settings.kafka, "rebuild-tail")
            await self._consumer.start()
        consumer, partitions = self._consumer, {TopicPartition(*tp): target for tp, target in wanted.items()}
        consumer.assign(list(partitions))
        for tp in partitions:
            consumer.seek(tp, self.store.served.next[TP(*tp)])
        while partitions:
            for tp, fetched in (await consumer.getmany(*partitions, timeout_ms=200)).items():
                if records := [r for r in fetched if r.offset < partitions[tp]]:
                    await self.store.apply(TP(*tp), records)
                    self.site.progress.moved(0, len(records))
            for tp, target in list(partitions.items()):
                if await consumer.position(tp) >= target:
                    if (self.store.served.next[TP(*tp)] or 0) < target:
                        await self.store.skip(TP(*tp), target)
                    del partitions[tp]

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
