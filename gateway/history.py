"""What stands on the log between a cursor and now, for one stream.

Invariant: committed records only, each partition in order, up to exactly the offsets that the caller gives: from there on the
live tail delivers. A position that the log no longer has raises Forgotten, with the place where the log begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from gateway.tail import Record
from streams.kafka import reader, stopped

READERS_AT_ONCE: Final = 32
MAX_RECORDS: Final = 2000
FETCH_BYTES: Final = 2 << 20  # the greatest record; what one reader may hold twice


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets [start, end) of one partition."""

    topic: str
    partition: int
    start: int
    end: int


class Forgotten(Exception):
    """The log has no such position any more. `first` is where it begins (or ends, where it is shorter than the position)."""

    def __init__(self, topic: str, first: int) -> None:
        super().__init__(topic, first)
        self.topic, self.first = topic, first


class History:
    """Opens readers, a bounded number at once."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._free = asyncio.Semaphore(READERS_AT_ONCE)

    async def read(self, ranges: list[Range]) -> AsyncIterator[tuple[str, Record]]:
        """Records of the ranges with their topics. Raises Forgotten."""
        todo = {TopicPartition(r.topic, r.partition): r for r in ranges if r.start < r.end}
        if not todo:
            return
        async with self._free:
            consumer = reader(self._bootstrap, "gateway-history", fetch_bytes=FETCH_BYTES)
            await consumer.start()
            try:
                consumer.assign(list(todo))
                first = await consumer.beginning_offsets(list(todo))
                last = await consumer.end_offsets(list(todo))
                for tp, wanted in todo.items():
                    if not first[tp] <= wanted.start <= last[tp]:
                        raise Forgotten(tp.topic, first[tp] if wanted.start < first[tp] else last[tp])
                    consumer.seek(tp, wanted.start)
                while todo:
                    try:
                        batches = await consumer.getmany(*todo, timeout_ms=200, max_records=MAX_RECORDS)
                    except OffsetOutOfRangeError as error:
                        tp = next(iter(error.args[0]))
                        raise Forgotten(tp.topic, (await consumer.beginning_offsets([tp]))[tp]) from error
                    for tp, records in batches.items():
                        for record in records:
                            if record.offset < todo[tp].end:
                                yield tp.topic, record
                    for tp in [tp for tp, wanted in todo.items() if await consumer.position(tp) >= wanted.end]:
                        del todo[tp]
                        consumer.pause(tp)
            finally:
                await stopped(consumer)
