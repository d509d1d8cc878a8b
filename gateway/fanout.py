"""From the two tails to everybody who listens to a stream.

Invariants: a record is decoded once, and only when somebody wants it. A listener's memory is bounded: when its queue is full,
what comes is not kept but counted as a gap, and the listener is told before anything newer. Positions are those of the stream's
own two partitions, and everything below `Listener.start` comes from the log, everything from there on through the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Gauge

from gateway.cursors import LogCursor
from gateway.send import Outcomes
from gateway.tail import Record, Tail
from streams.codec import decode, name_of
from streams.errors import Invalid
from streams.generated import CommandHandled, Event, Meta
from streams.recorded import Position
from streams.telemetry import log
from streams.topics import Topics, partition_of

QUEUE_LENGTH: Final = 512
logger = log(__name__)
listeners = Gauge("fw_gateway_listeners", "Subscriptions that are open")
delivered = Counter("fw_gateway_events_delivered_total", "Events put into listeners' queues")
gaps = Counter("fw_gateway_gaps_total", "Gaps that listeners were told of", ["reason"])
unreadable = Counter("fw_gateway_unreadable_total", "Records that could not be decoded", ["topic"])


@dataclass(frozen=True, slots=True)
class Delivered:
    """An event of a stream and the place behind it: what a cursor says once it was delivered."""

    event: Event
    meta: Meta
    is_fact: bool
    next_offset: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Something is missing between what came before and what comes next."""

    reason: str
    upto: LogCursor


class Listener:
    """One subscription's end of the fan-out: a bounded queue of events of one stream."""

    def __init__(self, tenant_id: UUID, stream_id: UUID, positions: Callable[[], LogCursor]) -> None:
        self.tenant_id, self.stream_id = tenant_id, stream_id
        self._positions = positions
        self._queue: deque[Delivered] = deque()
        self._lost: str | None = None
        self._arrived = asyncio.Event()
        self.start = positions()

    def restart(self) -> None:
        """Forgets what is queued and lost, and listens from the tails' present positions on."""
        self._queue.clear()
        self._lost = None
        self.start = self._positions()

    @property
    def overflowed(self) -> bool:
        return self._lost is not None

    def offer(self, item: Delivered) -> None:
        if self._lost is None and len(self._queue) < QUEUE_LENGTH:
            self._queue.append(item)
            delivered.inc()
        else:
            self._lost = self._lost or "SLOW_READER"
        self._arrived.set()

    def lose(self, reason: str) -> None:
        """The log itself has a gap here."""
        self._lost = self._lost or reason
        self._arrived.set()

    async def next(self) -> Delivered | Gap:
        """The next event; a gap only when everything before it was taken."""
        while not self._queue:
            if self._lost is not None:
                reason, self._lost = self._lost, None
                gaps.labels(reason).inc()
                return Gap(reason, self._positions())
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    def drained(self) -> LogCursor | None:
        """Where the tails stand when nothing is queued or lost: the listener has seen everything below. Else None."""
        return None if self._queue or self._lost is not None else self._positions()


class Fanout:
    """Knows who listens to what. The tails call it; it does not wait for anybody."""

    def __init__(self, bootstrap: str, topics: Topics, outcomes: Outcomes, published: frozenset[str]) -> None:
        self._outcomes, self._published = outcomes, published
        self._by_stream: dict[bytes, set[Listener]] = {}
        self._tenants: dict[bytes, int] = {}
        self.watchers: list[Callable[[Record], None]] = []  # who also gets every record of both tails, before anybody else
        self.facts = Tail(bootstrap, topics.facts, self.fact, self._facts_gap)
        self.decisions = Tail(bootstrap, topics.decisions, self.decision, self._decisions_gap)

    def partitions(self, tenant_id: UUID, stream_id: UUID) -> tuple[int, int]:
        """Where a stream's facts and its decisions lie."""
        return partition_of(stream_id, self.facts.topic.partitions), partition_of(tenant_id, self.decisions.topic.partitions)

    def listen(self, tenant_id: UUID, stream_id: UUID) -> Listener:
        """Every event of the stream from `Listener.start` on is queued from now on. End it with `leave`."""
        facts, decisions = self.partitions(tenant_id, stream_id)

        def positions() -> LogCursor:
            return LogCursor(self.facts.next_offset[facts], self.decisions.next_offset[decisions])

        listener = Listener(tenant_id, stream_id, positions)
        self._by_stream.setdefault(stream_id.bytes, set()).add(listener)
        self._tenants[tenant_id.bytes] = self._tenants.get(tenant_id.bytes, 0) + 1
        listeners.inc()
        return listener

    def leave(self, listener: Listener) -> None:
        listening = self._by_stream[listener.stream_id.bytes]
        listening.remove(listener)
        if not listening:
            del self._by_stream[listener.stream_id.bytes]
        self._tenants[listener.tenant_id.bytes] -= 1
        if not self._tenants[listener.tenant_id.bytes]:
            del self._tenants[listener.tenant_id.bytes]
        listeners.dec()

    def fact(self, record: Record) -> None:
        """A record of the facts topic. Its key tells the stream, so the others' facts are not even decoded."""
        for watcher in self.watchers:
            watcher(record)
        listening = self._by_stream.get(record.key or b"")
        if listening:
            self._offer(record, is_fact=True)

    def decision(self, record: Record) -> None:
        """A record of the decisions topic: an outcome that somebody waits for, or an event that somebody listens to."""
        for watcher in self.watchers:
            watcher(record)
        value = record.value or b""
        try:
            name = name_of(value)
            if name == CommandHandled.__name__:
                if self._outcomes:
                    outcome, _ = decode(value)
                    assert isinstance(outcome, CommandHandled)
                    self._outcomes.handled(outcome, Position(record.partition, record.offset))
                return
        except Invalid as error:
            self._poison(record, self.decisions.topic.name, error)
            return
        if self._tenants.get(record.key or b""):
            self._offer(record, is_fact=False)

    def read(self, record: Record, tenant_id: UUID, stream_id: UUID, *, is_fact: bool) -> Delivered | None:
        """The record as an event of the stream; None where it is none, or not for subscribers."""
        topic = (self.facts if is_fact else self.decisions).topic.name
        item = self._decoded(record, topic, is_fact=is_fact)
        if item is None or item.meta.aggregate_id != stream_id or item.meta.tenant_id != tenant_id:
            return None
        return item

    def _decoded(self, record: Record, topic: str, *, is_fact: bool) -> Delivered | None:
        try:
            if name_of(record.value or b"") not in self._published:
                return None
            event, meta = decode(record.value or b"")
        except Invalid as error:
            self._poison(record, topic, error)
            return None
        return Delivered(event, meta, is_fact, record.offset + 1)

    def _offer(self, record: Record, *, is_fact: bool) -> None:
        item = self._decoded(record, (self.facts if is_fact else self.decisions).topic.name, is_fact=is_fact)
        if item is None:
            return
        for listener in self._by_stream.get(item.meta.aggregate_id.bytes, ()):
            if listener.tenant_id == item.meta.tenant_id:
                listener.offer(item)

    def _facts_gap(self, partition: int) -> None:
        self._gap(partition, 0)

    def _decisions_gap(self, partition: int) -> None:
        self._gap(partition, 1)

    def _gap(self, partition: int, which: int) -> None:
        for listening in self._by_stream.values():
            for listener in listening:
                if self.partitions(listener.tenant_id, listener.stream_id)[which] == partition:
                    listener.lose("RETENTION")

    @staticmethod
    def _poison(record: Record, topic: str, error: Invalid) -> None:
        # Projections dead-letter it; here it is only not shown.
        unreadable.labels(topic).inc()
        logger.warning("unreadable record", topic=topic, partition=record.partition, offset=record.offset, error=str(error))
