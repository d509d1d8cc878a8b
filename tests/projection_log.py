"""A log in memory for tests of projections: histories as records of partitions, as Kafka would hand them over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from aiokafka.structs import ConsumerRecord as KafkaRecord

from streams.codec import encode, headers
from streams.faust_batches.fetched import TP, ConsumerRecord
from streams.generated import (
    Event,
    IngestEnded,
    IngestStarted,
    Meta,
    StreamCreated,
    StreamWentLive,
    StreamWentOffline,
)
from streams.ids import derive, new_id

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def meta(tenant_id: UUID, aggregate_id: UUID, *, version: int = 0, occurred_at: datetime = NOON, actor: str = "tenant") -> Meta:
    return Meta(
        event_id=derive(aggregate_id, version, occurred_at),
        tenant_id=tenant_id,
        aggregate_id=aggregate_id,
        version=version,
        causation_id=new_id(),
        correlation_id=new_id(),
        occurred_at=occurred_at,
        actor=actor,
    )


def created(title: str = "Lobby", slug: str = "lobby") -> StreamCreated:
    return StreamCreated(
        title=title, slug=slug, playback_id=f"pb-{slug}", internal_name=f"in-{slug}", key_prefix="sk_live_ab", key_hash=b"h" * 32
    )


def went_live(node_id: str = "node-1") -> StreamWentLive:
    return StreamWentLive(node_id=node_id, internal_name="in")


def went_offline(node_id: str = "node-1") -> StreamWentOffline:
    return StreamWentOffline(node_id=node_id, internal_name="in")


def ingest_started(node_id: str = "node-1") -> IngestStarted:
    return IngestStarted(node_id=node_id, ingest_id=new_id(), internal_name="in", protocol="RTMP")


def ingest_ended(node_id: str = "node-1") -> IngestEnded:
    return IngestEnded(node_id=node_id, ingest_id=new_id(), internal_name="in", protocol="RTMP", end_reason="CLOSED")


@dataclass
class Log:
    """Appends to partitions of one topic."""

    topic: str
    records: dict[TP, list[ConsumerRecord]] = field(default_factory=dict)

    def append(self, partition: int, event: Event, about: Meta) -> ConsumerRecord:
        return self.append_bytes(partition, encode(event, about), headers(event, about))

    def append_bytes(self, partition: int, value: bytes | None, with_headers: Sequence[tuple[str, bytes]] = ()) -> ConsumerRecord:
        of = self.records.setdefault(TP(self.topic, partition), [])
        record: ConsumerRecord = KafkaRecord(
            topic=self.topic,
            partition=partition,
            offset=len(of),
            timestamp=int(NOON.timestamp() * 1000),
            timestamp_type=0,
            key=None,
            value=value,
            checksum=None,
            serialized_key_size=-1,
            serialized_value_size=len(value or b""),
            headers=tuple(with_headers),
        )
        of.append(record)
        return record


def cut(records: Sequence[ConsumerRecord], lengths: Iterable[int]) -> Iterator[Sequence[ConsumerRecord]]:
    """The records in batches of these lengths; what is left comes as one batch."""
    start = 0
    for length in lengths:
        if start < len(records):
            yield records[start : start + length]
        start += length
    if start < len(records):
        yield records[start:]
