"""The log as it is: every committed record of every topic, in order, as data that can be compared."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final
from uuid import UUID

from aiokafka import TopicPartition

from streams.codec import decode
from streams.kafka import reader
from streams.topics import Topics

READ_SECONDS: Final = 300.0
FACTS: Final = frozenset({"facts", "nodes", "samples"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A record. `fields` are the event's own, as JSON has them."""

    topic: str  # attribute of Topics
    partition: int
    offset: int
    type: str
    event_id: str
    tenant_id: str
    aggregate_id: str
    version: int
    causation_id: str
    occurred_at: datetime
    fields: Mapping[str, object]

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition} at {self.offset}"


def plain(value: object) -> object:
    """A value as JSON has it: ids and times as text, bytes as hexadecimal digits, records as lists of their values."""
    match value:
        case Enum():
            return str(value.value)
        case UUID():
            return str(value)
        case datetime():
            return instant(value)
        case bytes():
            return value.hex()
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return [plain(item) for item in value.values()]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return [plain(getattr(value, field.name)) for field in fields(value)]
        case _:
            return value


def instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds")


async def read_log(kafka: str, prefix: str = "") -> list[Entry]:
    """Everything below the present ends, topic after topic and partition after partition."""
    topics = Topics(prefix)
    of_topic = {
        topics.decisions.name: "decisions",
        topics.facts.name: "facts",
        topics.nodes.name: "nodes",
        topics.samples.name: "samples",
    }
    found: list[Entry] = []
    consumer = reader(kafka, "chaos-checker")
    async with asyncio.timeout(READ_SECONDS):
        await consumer.start()
        try:
            for topic in (topics.decisions, topics.facts, topics.nodes, topics.samples):
                places = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
                consumer.assign(places)
                ends = await consumer.end_offsets(places)
                await consumer.seek_to_beginning(*places)
                while any([await consumer.position(tp) < ends[tp] for tp in places]):
                    for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                        found += [
                            _entry(of_topic[tp.topic], tp.partition, r.offset, r.value or b"")
                            for r in records
                            if r.offset < ends[tp]
                        ]
        finally:
            await consumer.stop()
    return sorted(found, key=lambda e: (e.topic, e.partition, e.offset))


def _entry(topic: str, partition: int, offset: int, value: bytes) -> Entry:
    event, meta = decode(value)
    return Entry(
        topic=topic,
        partition=partition,
        offset=offset,
        type=type(event).__name__,
        event_id=str(meta.event_id),
        tenant_id=str(meta.tenant_id),
        aggregate_id=str(meta.aggregate_id),
        version=meta.version,
        causation_id=str(meta.causation_id),
        occurred_at=meta.occurred_at,
        fields={field.name: plain(getattr(event, field.name)) for field in fields(event)},
    )


def once(entries: Sequence[Entry]) -> list[Entry]:
    """The first record of each event: an edge that had no answer sends its facts again, under their ids."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        seen.setdefault(entry.event_id, entry)
    return list(seen.values())
