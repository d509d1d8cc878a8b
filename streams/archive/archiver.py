"""The worker that archives: closes the ranges of every topic of facts and decisions by age or size.

Invariant: it keeps nothing that it could lose. What is open lies on the log and is read when its range is closed, so a worker
that is killed has only to look where the archive ends; two at once do each other no harm (writer.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from streams.archive import metrics
from streams.archive.chain import Chain, load_chains
from streams.archive.errors import ArchiveError, ArchiveUnreachable, ForeignArchive
from streams.archive.manifest import Manifest
from streams.archive.objects import Objects
from streams.archive.writer import LogMovedOn, accept_loss, close_range
from streams.faust_batches.fetched import TP
from streams.kafka import reader
from streams.telemetry import log
from streams.topics import Topic, Topics

LOOK_SECONDS = 1.0
RETRY_SECONDS = 5.0
STUCK_SECONDS = 60.0  # before a range that could not be written is read again
PEEK_RECORDS = 100
logger = log(__name__)


def archived_topics(topics: Topics) -> tuple[Topic, ...]:
    """All but commands, whose decisions and outcomes are history, and what Kafka compacts. Dead letters are kept, too."""
    return tuple(t for t in topics.all() if t.name != topics.commands.name and t.cleanup == "delete")


@dataclass(slots=True)
class Part:
    """A partition as the archiver sees it."""

    topic: Topic
    chain: Chain
    log_begins: int = 0
    log_ends: int = 0  # read_committed
    oldest_ms: int | None = None  # when the first record that is not archived was appended; None: nothing is open, or not known
    record_bytes: float = 0.0  # of one record, about
    problem: str | None = None
    stuck_until: float = 0.0

    @property
    def open_records(self) -> int:
        return max(0, self.log_ends - self.chain.end)

    @property
    def lost_records(self) -> int:
        """What the log deleted before it was archived."""
        return max(0, self.log_begins - self.chain.end) if self.chain.firsts else 0

    def age_seconds(self, now: float) -> float:
        return 0.0 if self.oldest_ms is None else max(0.0, now - self.oldest_ms / 1000)

    def seconds_to_loss(self, now: float) -> float | None:
        """Until the log deletes what is not archived; None: never, or there is nothing."""
        if self.topic.retention_ms < 0 or self.oldest_ms is None or not self.open_records:
            return None
        return self.oldest_ms / 1000 + self.topic.retention_ms / 1000 - now

    def is_due(self, now: float, range_seconds: float, range_bytes: int) -> bool:
        if self.problem is not None or not self.open_records:
            return False
        return self.age_seconds(now) >= range_seconds or self.open_records * self.record_bytes >= range_bytes


@dataclass(slots=True)
class Archiver:
    """`run` until cancelled, or `flush` once. One at a time; another process may do the same at once."""

    objects: Objects
    kafka: str
    topics: Sequence[Topic]
    range_seconds: float
    range_bytes: int
    now: Callable[[], float] = time.time
    parts: dict[TP, Part] = field(default_factory=dict)
    has_looked: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str | None = None  # of the storage or the cluster

    async def run(self) -> None:
        """Looks every second, closes what is due. A failure of a part is said, measured and tried again."""
        while True:
            busy, self.problem = False, None
            try:
                async with self._consumers() as (ends, ranges):
                    while True:
                        busy = await self.look(ends, ranges)
                        if not busy:
                            await asyncio.sleep(LOOK_SECONDS)
            except (ArchiveError, KafkaError, OSError) as error:
                self.problem = str(error) if isinstance(error, ArchiveError) else repr(error)
                logger.error("cannot archive now", reason=self.problem, again_after_seconds=RETRY_SECONDS)
                self.parts.clear()
            metrics.show(self.parts.values(), self.problem, self.now())
            self.has_looked.set()
            await asyncio.sleep(RETRY_SECONDS)

    async def look(self, ends: AIOKafkaConsumer, ranges: AIOKafkaConsumer) -> bool:
        """Closes one range of each partition that is due. True: more is."""
        await self.observe(ends, ranges)
        for part in self.parts.values():
            if part.is_due(self.now(), self.range_seconds, self.range_bytes):
                await self.close(part, ranges, part.log_ends)
        metrics.show(self.parts.values(), None, self.now())
        self.has_looked.set()
        return any(p.is_due(self.now(), self.range_seconds, self.range_bytes) for p in self.parts.values())

    async def flush(self, *, accept_gap: bool = False, closed: Callable[[Manifest], None] = lambda _: None) -> Mapping[TP, int]:
        """Closes everything up to where the log ends now; where each partition's archive ends then.

        `accept_gap`: what the log deleted before it was archived is written down as lost, and the archive goes on behind it.
        Raises ArchiveError with the first partition's problem when there is one; the others are archived all the same.
        """
        async with self._consumers() as (ends, ranges):
            await self.observe(ends, ranges)
            until = {tp: part.log_ends for tp, part in self.parts.items()}
            for tp, part in self.parts.items():
                if part.lost_records and accept_gap:
                    await accept_loss(self.objects, part.chain, part.log_begins)
                    part.problem = None
                while part.problem is None and part.chain.end < until[tp]:
                    if manifest := await self.close(part, ranges, until[tp]):
                        closed(manifest)
        if problems := [part.problem for part in self.parts.values() if part.problem]:
            raise ArchiveError("\n".join(problems))
        return {tp: part.chain.end for tp, part in self.parts.items()}

    async def seen(self) -> Sequence[Part]:
        """Every partition as it is now; nothing is closed."""
        async with self._consumers() as (ends, ranges):
            await self.observe(ends, ranges)
        return [*self.parts.values()]

    async def observe(self, ends: AIOKafkaConsumer, ranges: AIOKafkaConsumer) -> None:
        """Where log and archive begin and end now, and what that means."""
        if not self.parts:
            await self._load()
        tps = [TopicPartition(*tp) for tp in self.parts]
        begins, finishes = await asyncio.gather(ends.beginning_offsets(tps), ends.end_offsets(tps))
        for tp, part in self.parts.items():
            part.log_begins, part.log_ends = begins[TopicPartition(*tp)], finishes[TopicPartition(*tp)]
            if not part.chain.firsts:
                part.chain.end = max(part.chain.end, part.log_begins)
            if self.now() < part.stuck_until:
                continue
            said, part.problem = part.problem, what_is_wrong(part)
            if part.problem and part.problem != said:
                logger.error("a partition is not archived", topic=tp.topic, partition=tp.partition, reason=part.problem)
            if not part.open_records:
                part.oldest_ms = None
            elif part.oldest_ms is None and part.problem is None:
                await self._peek(part, ranges)

    async def close(self, part: Part, ranges: AIOKafkaConsumer, end: int) -> Manifest | None:
        """Closes one range of a partition, up to `end` at most. None: another worker did, or there is a problem now."""
        ranges.assign([TopicPartition(*part.chain.tp)])
        try:
            with metrics.RANGE_SECONDS.time():
                manifest = await close_range(self.objects, ranges, part.chain, end, self.range_bytes)
        except LogMovedOn:
            return None  # the next look sees what is lost
        except ArchiveUnreachable:
            raise
        except ArchiveError as error:
            part.problem, part.stuck_until = str(error), self.now() + STUCK_SECONDS
            logger.error(
                "a range cannot be archived", topic=part.topic.name, partition=part.chain.tp.partition, reason=str(error)
            )
            return None
        finally:
            ranges.pause(TopicPartition(*part.chain.tp))  # `unsubscribe` would make stopping take half a minute
        part.oldest_ms = None
        if manifest is not None:
            part.record_bytes = manifest.raw_bytes / max(1, manifest.records)
            metrics.count(manifest)
            logger.info(
                "range archived",
                topic=manifest.topic,
                partition=manifest.partition,
                first=manifest.first,
                end=manifest.end,
                records=manifest.records,
                bytes=manifest.object_bytes,
            )
        return manifest

    async def _load(self) -> None:
        for topic in self.topics:
            chains = await load_chains(self.objects, topic.name)
            for partition in range(topic.partitions):
                tp = TP(topic.name, partition)
                self.parts[tp] = Part(topic, chains.get(partition) or Chain(self.objects, tp))

    async def _peek(self, part: Part, ranges: AIOKafkaConsumer) -> None:
        """Finds out when the first open record was appended, and how large records are."""
        tp = TopicPartition(*part.chain.tp)
        ranges.assign([tp])
        try:
            ranges.seek(tp, part.chain.end)
            while await ranges.position(tp) < part.log_ends:
                fetched = await ranges.getmany(tp, timeout_ms=100, max_records=PEEK_RECORDS)
                if records := fetched.get(tp):
                    part.oldest_ms = records[0].timestamp
                    part.record_bytes = sum(len(r.value or b"") + 64 for r in records) / len(records)
                    return
            part.oldest_ms = int(self.now() * 1000)  # nothing but markers and aborted records
        except OffsetOutOfRangeError:
            return
        finally:
            ranges.pause(tp)

    @contextlib.asynccontextmanager
    async def _consumers(self) -> AsyncIterator[tuple[AIOKafkaConsumer, AIOKafkaConsumer]]:
        """One that tells offsets and never fetches, one that reads."""
        ends = reader(self.kafka, "archive-ends")
        ranges = reader(self.kafka, "archive-ranges")
        async with contextlib.AsyncExitStack() as stack:
            for consumer in (ends, ranges):
                stack.push_async_callback(consumer.stop)
                await consumer.start()
            every = [TopicPartition(topic.name, p) for topic in self.topics for p in range(topic.partitions)]
            ends.assign(every)  # so that the client keeps to these topics, and asks once for all of them
            for tp in every:
                ends.seek(tp, 0)
            ends.pause(*every)
            yield ends, ranges


def what_is_wrong(part: Part) -> str | None:
    """Why a partition cannot be archived, and what to do; None: it can."""
    name = f"{part.chain.tp.topic}/{part.chain.tp.partition}"
    if part.lost_records:
        return (
            f"{name}: the log deleted offsets {part.chain.end} to {part.log_begins} before they were archived. They are gone; "
            "`fw archive flush --accept-gap` writes that down and goes on behind them."
        )
    if part.chain.firsts and part.log_ends < part.chain.end:
        return str(
            ForeignArchive(
                f"{name}: the archive reaches to {part.chain.end}, and the log only to {part.log_ends}: the archive belongs to "
                "another log. Restore that log (`fw restore`), or name another archive in FW_ARCHIVE_URL."
            )
        )
    return None
