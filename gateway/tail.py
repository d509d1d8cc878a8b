"""The live end of a topic, read once per gateway and handed on record by record.

Invariant: `next_offset[p]` moves in the same step in which a record is handed on, so whoever notes it and listens from then on
gets every record from that offset on, each once. A break in the log is told (`on_gap`), never jumped over in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.codec import Header
from streams.kafka import reader, stopped
from streams.telemetry import log
from streams.topics import Topic

MAX_RECORDS: Final = 2000
logger = log(__name__)


class Record(Protocol):
    """What is used of aiokafka's ConsumerRecord."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


class Tail:
    """Reads all partitions of one topic from their ends, committed records only, without a group."""

    def __init__(self, bootstrap: str, topic: Topic, on_record: Callable[[Record], None], on_gap: Callable[[int], None]) -> None:
        self.topic = topic
        self.next_offset: dict[int, int] = {}
        self._consumer = reader(bootstrap, f"gateway-tail-{topic.name}")
        self._on_record, self._on_gap = on_record, on_gap

    async def start(self) -> None:
        """Ends are known and reading is positioned when this returns."""
        await self._consumer.start()
        partitions = [TopicPartition(self.topic.name, p) for p in range(self.topic.partitions)]
        self._consumer.assign(partitions)
        for tp, offset in (await self._consumer.end_offsets(partitions)).items():
            self._consumer.seek(tp, offset)
            self.next_offset[tp.partition] = offset

    async def run(self) -> None:
        """Hands on records until cancelled."""
        while True:
            try:
                batches = await self._consumer.getmany(timeout_ms=1000, max_records=MAX_RECORDS)
            except OffsetOutOfRangeError as error:
                await self._restart_at(error.args[0])
                continue
            for tp, records in batches.items():
                for record in records:
                    self.next_offset[tp.partition] = record.offset + 1
                    self._on_record(record)
            await asyncio.sleep(0)  # a flood of records may not keep requests waiting

    async def _restart_at(self, lost: dict[TopicPartition, int]) -> None:
        """Retention overtook us, or the log was cut: go on where the log begins or ends, and say so."""
        first = await self._consumer.beginning_offsets(list(lost))
        last = await self._consumer.end_offsets(list(lost))
        for tp, offset in lost.items():
            again = first[tp] if offset < first[tp] else last[tp]
            logger.error("lost records", topic=tp.topic, partition=tp.partition, offset=offset, again_at=again)
            self._consumer.seek(tp, again)
            self.next_offset[tp.partition] = again
            self._on_gap(tp.partition)

    async def stop(self) -> None:
        await stopped(self._consumer)
