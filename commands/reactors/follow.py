"""A reactor follows the decisions topic from its own position, and does what each decision asks for.

Invariant, per partition: react, then advance, no further than the reactor allows. A crash in between reacts again, so `react` is
idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from streams.codec import decode, name_of
from streams.errors import Transient
from streams.generated import Event
from streams.kafka import Cluster, stopped
from streams.privacy.key_store import KeyStore
from streams.recorded import Recorded
from streams.telemetry import log
from streams.topics import Topics

BACKOFF_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
REACTIONS = Counter("fw_reactor_decisions_total", "Decisions that a reactor has handled", ["reactor"])
RETRIES = Counter("fw_reactor_retries_total", "Times that something did not work and was tried again", ["reactor"])

logger = log(__name__)


@dataclass(frozen=True, slots=True)
class Reactor:
    """`react` raises Transient for what may work later, and is called again then. `holds`: an offset of a partition that its
    position must not pass yet."""

    name: str
    handles: frozenset[type]
    react: Callable[[Recorded[Event]], Awaitable[None]]
    holds: Callable[[int], int | None]


class Follower:
    """One reactor on the whole decisions topic."""

    def __init__(self, reactor: Reactor, cluster: Cluster, topics: Topics, store: KeyStore) -> None:
        self._reactor, self._cluster, self._topic, self._store = reactor, cluster, topics.decisions, store
        self._handles = {kind.__name__ for kind in reactor.handles}
        self.is_ready = False

    async def run(self) -> None:
        """Until cancelled. Raises Invalid: a decision that cannot be read, and must not be passed over."""
        failures = 0
        while True:
            try:
                await self._live()
            except (KafkaError, OSError, Transient) as error:
                self.is_ready = False
                RETRIES.labels(self._reactor.name).inc()
                pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
                failures += 1
                logger.warning("begins again", reactor=self._reactor.name, reason=repr(error), pause_seconds=pause)
                await asyncio.sleep(pause)

    async def _live(self) -> None:
        consumer = self._cluster.reader(f"reactor-{self._reactor.name}")
        try:
            await consumer.start()
            partitions = [TopicPartition(self._topic.name, n) for n in range(self._topic.partitions)]
            consumer.assign(partitions)
            begins = await consumer.beginning_offsets(partitions)
            for tp in partitions:
                position = await self._store.position(self._reactor.name, tp.topic, tp.partition)
                consumer.seek(tp, max(position, begins[tp]))
            self.is_ready = True
            await self._follow(consumer)
        finally:
            await stopped(consumer)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            batches = await consumer.getmany(timeout_ms=200, max_records=5_000)
            for tp, records in batches.items():
                await self._handle(tp, records)

    async def _handle(self, tp: TopicPartition, records: Sequence[ConsumerRecord[bytes, bytes]]) -> None:
        for record in records:
            if name_of(record.value) in self._handles:
                event, meta = decode(record.value)
                await self._reactor.react(Recorded(event, meta, tp.topic, tp.partition, record.offset))
                REACTIONS.labels(self._reactor.name).inc()
        held, end = self._reactor.holds(tp.partition), records[-1].offset + 1
        await self._store.advance(self._reactor.name, tp.topic, tp.partition, end if held is None else min(held, end))
