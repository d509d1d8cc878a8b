"""Archive and log as one stream of records.

Invariant: below the archive's end A records come from the archive, from A on from the log, so nothing comes twice and nothing
is left out at the seam. Where neither has what was asked for, HistoryGap is raised before a record behind the gap is given.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from streams.archive.chain import Chain, Range, load_chains
from streams.archive.errors import HistoryGap
from streams.archive.files import ArchiveReader, blocks_of, file_of, gap
from streams.archive.objects import Objects
from streams.faust_batches.fetched import TP, ConsumerRecord
from streams.kafka import reader
from streams.settings import Settings
from streams.topics import Topic

__all__ = ["History", "Range", "open_history"]

FETCH_RECORDS: Final = 5000


@contextlib.asynccontextmanager
async def open_history(settings: Settings) -> AsyncIterator[History]:
    """History of the installation that the settings name. Raises ArchiveUnreachable, and what Kafka raises."""
    ends = reader(settings.kafka, "history-ends", fetch_bytes=64 << 10)
    await ends.start()
    with ThreadPoolExecutor(2, thread_name_prefix="history") as threads:
        try:
            yield History(Objects(settings.archive_url), ends, lambda: reader(settings.kafka, "history"), threads)
        finally:
            await ends.stop()


class History:
    """Reads what was ever appended to a topic. Any number of reads at once; each on the log has a consumer of its own."""

    def __init__(
        self, objects: Objects, ends: AIOKafkaConsumer, consumer: Callable[[], AIOKafkaConsumer], threads: ThreadPoolExecutor
    ) -> None:
        self._objects, self._ends, self._consumer = objects, ends, consumer
        self._archive = ArchiveReader(objects, threads)
        self._chains: dict[str, Mapping[int, Chain]] = {}

    async def archived(self, topic: Topic) -> Mapping[int, Range]:
        """What the archive alone has, by partition; a partition that has nothing there is left out."""
        return {p: r for p, chain in (await self._of(topic)).items() if (r := chain.range)}

    async def ranges(self, topic: Topic) -> Mapping[int, Range]:
        """Where history begins and (read_committed) ends now, of every partition."""
        chains, tps = await self._of(topic), [TopicPartition(topic.name, p) for p in range(topic.partitions)]
        if len(chains) < topic.partitions:  # one may have been archived for the first time since
            chains = self._chains[topic.name] = await load_chains(self._objects, topic.name)
        await asyncio.gather(*(chain.extend() for chain in chains.values()))
        begins, ends = await asyncio.gather(self._ends.beginning_offsets(tps), self._ends.end_offsets(tps))
        found = {}
        for tp in tps:
            archived = chains[tp.partition].range if tp.partition in chains else None
            first = begins[tp] if archived is None else min(archived.first, begins[tp])
            found[tp.partition] = Range(first, max(ends[tp], archived.end if archived else 0))
        return found

    async def offset_at(self, topic: Topic, partition: int, when: datetime) -> int:
        """The first offset that was appended at or after a time; the end where there is none."""
        milliseconds = round(when.timestamp() * 1000)
        chain = (await self._of(topic)).get(partition)
        if chain is not None and chain.firsts:
            index = await chain.first_range_until(milliseconds)
            for first in chain.firsts[index:]:
                manifest = await chain.manifest(first)
                if manifest.last_appended_ms is None or manifest.last_appended_ms < milliseconds:
                    continue
                for batch in blocks_of(await file_of(self._objects, manifest), manifest):
                    for record in batch:
                        if record.timestamp >= milliseconds:
                            return record.offset
        return await self._offset_on_log(topic, partition, milliseconds, chain.end if chain is not None else 0)

    async def _offset_on_log(self, topic: Topic, partition: int, milliseconds: int, not_before: int) -> int:
        tp = TopicPartition(topic.name, partition)
        found = (await self._ends.offsets_for_times({tp: milliseconds}))[tp]
        end = (await self.ranges(topic))[partition].end
        return end if found is None else min(end, max(found.offset, not_before))

    async def read(self, topic: Topic, partition: int, start: int, end: int) -> AsyncIterator[Sequence[ConsumerRecord]]:
        """Batches of the records with start <= offset < end, in order; ends when all of them were given.

        Raises HistoryGap, ArchiveDamaged, ArchiveUnreachable; what was given before stays true.
        """
        tp, position = TP(topic.name, partition), start
        chain = (await self._of(topic)).get(partition)
        while chain is not None and position < end:
            if position >= chain.end:
                await chain.extend()
            if position >= chain.end:
                break
            if position < chain.firsts[0]:
                begins, _ = await self._log_range(tp)
                if begins <= position:
                    break  # the log reaches further back than the archive
                raise gap(tp, position, chain.firsts[0])
            until = min(end, chain.end)
            async for batch in self._archive.read(chain, position, until):
                yield batch
            position = until
        if position < end:
            async for batch in self._logged(tp, position, end):
                yield batch

    async def _logged(self, tp: TP, start: int, end: int) -> AsyncIterator[Sequence[ConsumerRecord]]:
        begins, ends = await self._log_range(tp)
        if begins > start:
            raise gap(tp, start, begins)
        if ends < end:
            raise HistoryGap(f"{tp.topic}/{tp.partition} ends at {ends}: there is nothing up to {end} yet. Ask for less.")
        partition = TopicPartition(*tp)
        log = self._consumer()
        await log.start()
        try:
            log.assign([partition])
            log.seek(partition, start)
            while await log.position(partition) < end:
                fetched = await log.getmany(partition, timeout_ms=100, max_records=FETCH_RECORDS)
                records = fetched.get(partition, [])
                if records and records[-1].offset >= end:
                    records = [record for record in records if record.offset < end]
                if records:
                    yield records
        except OffsetOutOfRangeError:
            begins, _ = await self._log_range(tp)
            raise gap(tp, start, begins) from None
        finally:
            await log.stop()

    async def _log_range(self, tp: TP) -> Range:
        partition = TopicPartition(*tp)
        begins, ends = await asyncio.gather(self._ends.beginning_offsets([partition]), self._ends.end_offsets([partition]))
        return Range(begins[partition], ends[partition])

    async def _of(self, topic: Topic) -> Mapping[int, Chain]:
        if topic.name not in self._chains:
            self._chains[topic.name] = await load_chains(self._objects, topic.name)
        return self._chains[topic.name]
