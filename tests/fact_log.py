"""A log of facts without a broker: events at partitions and offsets, as a Kafka client would hand them over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from projections.model import TP, ConsumerRecord
from streams import ids
from streams.codec import encode
from streams.generated import Event, Meta

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
APPENDED_AT_MS = 1_795_000_000_000


def at(seconds: float) -> datetime:
    """Noon and so many seconds."""
    return NOON + timedelta(milliseconds=round(seconds * 1000))


@dataclass(frozen=True, slots=True)
class Raw:
    """What stands at one offset."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def fact_meta(tenant_id: UUID, aggregate_id: UUID, occurred_at: datetime, event_id: UUID | None = None) -> Meta:
    event_id = event_id or uuid4()
    return Meta(event_id, tenant_id, aggregate_id, 0, event_id, event_id, occurred_at, "node:n1")


@dataclass(slots=True)
class FactLog:
    """One partition that grows."""

    tp: TP = field(default_factory=lambda: TP("fw.facts", 3))
    records: list[ConsumerRecord] = field(default_factory=list)

    def append(self, value: bytes | None) -> None:
        offset = len(self.records)
        self.records.append(Raw(self.tp.topic, self.tp.partition, offset, APPENDED_AT_MS + offset // 3, value))

    def say(self, event: Event, tenant_id: UUID, stream_id: UUID, occurred_at: datetime, event_id: UUID | None = None) -> None:
        self.append(encode(event, fact_meta(tenant_id, stream_id, occurred_at, event_id)))


def fresh() -> tuple[UUID, UUID]:
    """A tenant and a stream that nobody else has."""
    return ids.new_id(), ids.new_id()
