"""The dead-letter topic as a person sees it: what lies there, why, and what became of it.

Invariants
* A letter is known by where its record stood: projection, topic, partition, offset. One that was buried twice is one letter.
* `retry` appends the same bytes under the same key to the topic that they came from. The event id is in the bytes and folds are
  keyed by it, so whoever has the event already is not changed by it; and the record passes every projection the ordinary way,
  in order, with the position moving behind it. Writing it into the store past the worker would need a second way to be exact.
* What cannot be read today is not retried: it would come back as a letter.
* Settling is remembered with who and why, and never undone by burying the record again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition

from projections.dead_letters import PREFIX_OF_HEADERS, billing, homes, why_unreadable
from projections.halts import halts
from projections.model import ConsumerRecord, Database
from streams.codec import PREFIX, decode, name_of
from streams.errors import Invalid
from streams.generated import Meta
from streams.ingress.well_formed import Malformed, checker
from streams.kafka import idempotent_producer, reader, stopped
from streams.meta_bytes import read_meta
from streams.topics import Topic, Topics

COMMANDS: Final = "commands"
"""What stands for the projection in letters of the command worker, which is none."""
State = Literal["buried", "retried", "dropped"]

_STATES: Final = """
SELECT projection, topic, partition, "offset", state, settled_at, settled_by, settled_reason FROM platform.dead_letter"""
_SETTLE: Final = """
INSERT INTO platform.dead_letter
    (projection, topic, partition, "offset", reason, state, settled_at, settled_by, settled_reason)
VALUES ($1, $2, $3, $4, $5, $6, now(), $7, $8)
ON CONFLICT (projection, topic, partition, "offset") DO UPDATE
SET state = excluded.state, settled_at = excluded.settled_at, settled_by = excluded.settled_by,
    settled_reason = excluded.settled_reason"""


class NotPossible(Exception):
    """A sentence for the person who asked."""


@dataclass(frozen=True, slots=True, order=True)
class LetterId:
    """Where a record stood, and for whom it meant nothing. As text: `projection/topic/partition/offset`."""

    projection: str
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.projection}/{self.topic}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> LetterId:
        """Raises NotPossible on anything else than what `str` gives."""
        match text.split("/"):
            case [projection, topic, partition, offset] if partition.isdecimal() and offset.isdecimal():
                return cls(projection, topic, int(partition), int(offset))
        raise NotPossible(f"{text} names no letter: take its first column of `fw dlq list`, such as streams/fw.facts/3/1042")


@dataclass(frozen=True, slots=True)
class Letter:
    """`value` is None where the record had none, or where it was too large to be kept beside its headers."""

    id: LetterId
    reason: str
    buried_at: datetime
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]  # those that the record had
    state: State = "buried"
    settled_at: datetime | None = None
    settled_by: str | None = None
    settled_reason: str | None = None

    @property
    def record(self) -> str:
        """Name of the record that the bytes say they are; empty: they are not framed."""
        try:
            return name_of(self.value or b"")
        except Invalid:
            return ""

    @property
    def meta(self) -> Meta | None:
        """The Meta that the bytes begin with, where so much of them can be read."""
        if not self.record:
            return None
        try:
            return read_meta(self.value or b"", PREFIX.size)[0]
        except (IndexError, ValueError):
            return None

    def why_not(self, topics: Topics) -> str | None:
        """Why it cannot be read today either; None: it can."""
        value = self.value
        if value is None:
            return "its bytes were not kept, or there were none"
        if homes().get(value[: PREFIX.size]) != self.id.topic.removeprefix(topics.prefix):
            return str(why_unreadable(value))
        try:
            _, _ = decode(value)
            if self.id.projection != COMMANDS:
                checker(PREFIX.unpack_from(value)[1])(value, _actor_at(value))
        except (Invalid, Malformed, IndexError) as error:
            return str(error) or "bytes are missing at the end"
        return None


def _actor_at(value: bytes) -> int:
    """Where Meta's last field begins."""
    meta, end = read_meta(value, PREFIX.size)
    actor = len(meta.actor.encode())
    return end - actor - (1 if actor < 64 else 2 if actor < 8192 else 3)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters; what is None says nothing. `ids`: these."""

    projection: str | None = None
    topic: str | None = None  # with or without the installation's prefix
    partition: int | None = None
    since: datetime | None = None
    ids: frozenset[LetterId] = field(default=frozenset())

    @property
    def is_everything(self) -> bool:
        return self == Filter()

    def takes(self, letter: Letter, prefix: str) -> bool:
        i = letter.id
        return (
            self.projection in (None, i.projection)
            and (self.topic is None or self.topic in (i.topic, i.topic.removeprefix(prefix)))
            and self.partition in (None, i.partition)
            and (self.since is None or letter.buried_at >= self.since)
            and (not self.ids or i in self.ids)
        )


def read_letter(record: ConsumerRecord) -> Letter | None:
    """The letter that a record of the dead-letter topic is; None: it is none."""
    about: dict[str, str] = {}
    rest: list[tuple[str, bytes]] = []
    is_commands = record.key == COMMANDS.encode()
    for name, text in record.headers:
        if name.startswith(PREFIX_OF_HEADERS):
            about[name.removeprefix(PREFIX_OF_HEADERS)] = text.decode(errors="replace")
        elif is_commands:
            about[name] = text.decode(errors="replace")
        else:
            rest.append((name, text))
    try:
        where = LetterId(about.get("projection", COMMANDS), about["topic"], int(about["partition"]), int(about["offset"]))
    except (KeyError, ValueError):
        return None
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    key = None if is_commands else record.key or None
    return Letter(where, about.get("reason", ""), at, key, record.value, tuple(rest))


class LetterBox:
    """Reads letters and settles them."""

    def __init__(self, kafka: str, topics: Topics, db: Database) -> None:
        self.kafka, self.topics, self.db = kafka, topics, db

    async def letters(self, which: Filter) -> Sequence[Letter]:
        """In the order of their ids. Reads the whole dead-letter topic, from `since` on."""
        found: dict[LetterId, Letter] = {}
        async for record in self._records(self.topics.dead_letters, which.since):
            letter = read_letter(record)
            if letter is not None and which.takes(letter, self.topics.prefix):
                found.setdefault(letter.id, letter)
        for row in await self.db.fetch(_STATES):
            where = LetterId(*row[:4])
            if where in found:
                found[where] = replace(
                    found[where], state=row["state"], settled_at=row[5], settled_by=row[6], settled_reason=row[7]
                )
        return [found[where] for where in sorted(found)]

    async def retry(self, letters: Iterable[Letter], by: str) -> tuple[Sequence[Letter], Mapping[LetterId, str]]:
        """Appends what can be read now to its topic again: what was, and why the others were not.

        A record that several projections buried is appended once. A crash in between appends it again at the next try.
        """
        retried, refused = list[Letter](), dict[LetterId, str]()
        producer = idempotent_producer(self.kafka, "fw-dlq")
        appended = set[tuple[str, int, int]]()
        await producer.start()
        try:
            for letter in letters:
                i, why = letter.id, letter.why_not(self.topics)
                if why is not None:
                    refused[i] = why
                    continue
                if (place := (i.topic, i.partition, i.offset)) not in appended:
                    key = letter.key
                    if key is None and (meta := letter.meta) is not None:
                        key = meta.tenant_id.bytes if i.projection == COMMANDS else meta.aggregate_id.bytes
                    await producer.send_and_wait(i.topic, letter.value, key, i.partition, headers=list(letter.headers))
                    appended.add(place)
                await self._settle(letter, "retried", by, "")
                retried.append(letter)
        finally:
            await stopped(producer)
        return retried, refused

    async def drop(self, letters: Iterable[Letter], by: str, reason: str) -> Sequence[Letter]:
        """Nobody will look at them again; that, who and why stays. Their bytes stay on the topic as long as it keeps them."""
        dropped = list(letters)
        for letter in dropped:
            await self._settle(letter, "dropped", by, reason)
        return dropped

    async def open_halt(self, where: LetterId, by: str, reason: str) -> Letter:
        """Lets a projection pass the billing fact that it stands still at. Raises NotPossible where that is not what it is."""
        full = next((t for t in self.topics.all() if where.topic in (t.name, t.name.removeprefix(self.topics.prefix))), None)
        where = replace(where, topic=full.name if full else where.topic)
        at = (where.projection, where.topic, where.partition)
        standing = next((h.reason for h in await halts(self.db) if (h.projection, h.topic, h.partition) == at), "")
        record = await self._record(full, where.partition, where.offset) if full else None
        if record is None:
            raise NotPossible(f"there is no letter {where}, and no record either")
        letter = Letter(where, standing, datetime.now(UTC), record.key, record.value, ())
        if where.topic == self.topics.decisions.name:
            raise NotPossible("a decision is never dropped: everything after it would be wrong. Run a version that can read it")
        unreadable = letter.why_not(self.topics)
        if letter.record not in billing() or not (unreadable or f" at {where.offset}:" in standing):
            raise NotPossible(
                f"there is no letter {where}, and no projection stands still at it" + (f". {standing}" if standing else "")
            )
        letter = replace(letter, reason=standing or unreadable or "")
        await self._keep(letter, record)
        await self._settle(letter, "dropped", by, reason)
        return letter

    async def _keep(self, letter: Letter, record: ConsumerRecord) -> None:
        """Puts the bytes on the dead-letter topic, where those of every other letter are."""
        i, topic = letter.id, self.topics.dead_letters
        about = {
            "projection": i.projection,
            "topic": i.topic,
            "partition": i.partition,
            "offset": i.offset,
            "reason": letter.reason,
        }
        headers = [*record.headers, *((PREFIX_OF_HEADERS + name, str(text).encode()) for name, text in about.items())]
        producer = idempotent_producer(self.kafka, "fw-dlq")
        await producer.start()
        try:
            await producer.send_and_wait(
                topic.name, record.value, record.key or b"", i.partition % topic.partitions, headers=headers
            )
        finally:
            await stopped(producer)

    async def _settle(self, letter: Letter, state: State, by: str, reason: str) -> None:
        i = letter.id
        await self.db.execute(_SETTLE, i.projection, i.topic, i.partition, i.offset, letter.reason, state, by, reason)

    async def _record(self, topic: Topic, partition: int, offset: int) -> ConsumerRecord | None:
        """The record at an offset; None: there is none."""
        async with self._reader() as consumer:
            tp = TopicPartition(topic.name, partition)
            consumer.assign([tp])
            first, end = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
            if not first <= offset < end:
                return None
            consumer.seek(tp, offset)
            while await consumer.position(tp) <= offset:
                for record in (await consumer.getmany(tp, timeout_ms=1000, max_records=1)).get(tp, ()):
                    found: ConsumerRecord = record
                    return found if found.offset == offset else None
            return None

    async def _records(self, topic: Topic, since: datetime | None) -> AsyncIterator[ConsumerRecord]:
        """Everything that lies on a topic now, partition after partition, from a time on."""
        async with self._reader() as consumer:
            tps = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
            consumer.assign(tps)
            first, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            if since is not None:
                later = await consumer.offsets_for_times({tp: int(since.timestamp() * 1000) for tp in tps})
                first = {tp: later[tp].offset if later.get(tp) else ends[tp] for tp in tps}
            for tp in tps:
                consumer.seek(tp, first[tp])
            left = {tp for tp in tps if first[tp] < ends[tp]}
            while left:
                for tp, records in (await consumer.getmany(*left, timeout_ms=500)).items():
                    for record in records:
                        if record.offset < ends[tp]:
                            yield record
                left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
                await asyncio.sleep(0)

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = reader(self.kafka, "fw-dlq")
        await consumer.start()
        try:
            yield consumer
        finally:
            await stopped(consumer)
