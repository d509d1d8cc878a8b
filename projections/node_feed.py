"""Which nodes may speak, for whom: a fold of decisions, kept in memory by every ingress.

Invariant: what is known of a node is the fold of its decisions up to where the tail stands, milliseconds behind the log; whoever
watches a node is woken by every change of it. Before the tail has reached the log's end nothing is said: the caller waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.codec import decode, name_of
from streams.errors import Invalid, Transient
from streams.generated import Event, Meta, NodeChanged, NodeEnrolled, NodeRegistered, NodeRevoked
from streams.ingress.admission import Standing
from streams.kafka import connected, ends_of, stopped
from streams.telemetry import log
from streams.topics import Topics

HANDLES: Final = frozenset(k.__name__ for k in (NodeRegistered, NodeChanged, NodeEnrolled, NodeRevoked))
PATIENCE_SECONDS: Final = 10.0

logger = log(__name__)


def evolve(standing: Standing | None, event: Event, meta: Meta) -> Standing | None:
    """A node's standing after one more decision about it."""
    match event:
        case NodeRegistered(tenants=tenants):
            return Standing(meta.tenant_id, _served(tenants))
        case NodeChanged(tenants=tenants) if standing is not None:
            return replace(standing, tenants=_served(tenants))
        case NodeEnrolled(enrolment_id=enrolment_id) if standing is not None:
            return replace(standing, enrolment_id=enrolment_id, revoked=False)
        case NodeRevoked() if standing is not None:
            return replace(standing, enrolment_id=None, revoked=True)
        case _:
            return standing


def _served(tenants: tuple[UUID, ...] | None) -> frozenset[UUID] | None:
    return None if tenants is None else frozenset(tenants)


class NodeFeed:
    """The standing of all registered nodes, following the decisions topic."""

    def __init__(self, new_consumer: Callable[[], AIOKafkaConsumer], topics: Topics) -> None:
        self._new_consumer, self._topic = new_consumer, topics.decisions
        self._standings: dict[UUID, Standing] = {}
        self._watchers: dict[UUID, set[asyncio.Event]] = {}
        self.caught_up = asyncio.Event()
        self.problem: str | None = None

    async def known(self) -> None:
        """Until the fold has reached the log's end. Raises Transient when that takes long: Kafka does not answer."""
        if not self.caught_up.is_set():
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self.caught_up.wait()
            except TimeoutError:
                raise Transient("it is not known yet which nodes there are: try again in a second") from None

    def standing(self, node: UUID) -> Standing | None:
        """None: nobody registered it. Raises Transient where that is not known any more."""
        standing = self._standings.get(node)
        if self.problem is not None and standing is not None:
            raise Transient("it is not known any more which nodes there are: a decision cannot be read; the log says which")
        return standing

    @contextmanager
    def watched(self, node: UUID) -> Iterator[asyncio.Event]:
        """An event that every change of a node's standing sets."""
        event = asyncio.Event()
        self._watchers.setdefault(node, set()).add(event)
        try:
            yield event
        finally:
            watchers = self._watchers[node]
            watchers.discard(event)
            if not watchers:
                del self._watchers[node]

    async def run(self) -> None:
        """Follows the topic from its beginning until it is cancelled.

        A decision that cannot be read stops it: from then on no registered node is let in; those that are connected stay.
        `problem` says which record it is.
        """
        consumer = await connected(self._new_consumer)
        try:
            partitions = [TopicPartition(self._topic.name, n) for n in range(self._topic.partitions)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            ends = await ends_of(consumer, partitions)
            while self.problem is None:
                for tp, records in (await consumer.getmany(timeout_ms=200, max_records=5_000)).items():
                    for record in records:
                        self._take(tp, record.offset, record.value)
                if not self.caught_up.is_set() and all([await consumer.position(tp) >= ends[tp] for tp in partitions]):
                    logger.info("registered nodes are known", nodes=len(self._standings))
                    self.caught_up.set()
        finally:
            await stopped(consumer)

    def _take(self, tp: TopicPartition, offset: int, value: bytes) -> None:
        try:
            if name_of(value) not in HANDLES:
                return
            event, meta = decode(value)
        except Invalid as error:
            self.problem = f"{tp.topic} {tp.partition}-{offset}: {error}"
            logger.error("a decision cannot be read: nodes with certificates are not let in", problem=self.problem)
            return
        standing = evolve(self._standings.get(meta.aggregate_id), event, meta)
        if standing is not None:
            self._standings[meta.aggregate_id] = standing
            for watcher in self._watchers.get(meta.aggregate_id, ()):
                watcher.set()
