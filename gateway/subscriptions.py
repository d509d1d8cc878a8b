"""streamEvents: a snapshot, then everything that happens to a stream, with a cursor on every message.

Invariants: nothing is missing and nothing comes twice between the log and the live tail (gateway/fanout.py says why); a fact
that an edge sent twice is shown once; what could not be delivered is said by EventsSkipped, never left out in silence.

1. listen: from now on the tail queues
2. where to begin: the cursor, else the positions that the snapshot includes
3. the log from there to where listening began
4. the queue; when it overflowed while the log was read, once more from 3; when the client was slow, a gap marker
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from gateway.cursors import LogCursor, event_cursor
from gateway.fanout import Delivered, Fanout, Gap, Listener
from gateway.history import Forgotten, History, Range
from gateway.send import issued_at
from streams import ids

REMEMBERED_EVENTS: Final = 2048
CATCH_UP_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Shown:
    """A message of the subscription; `event` has the fields of its type."""

    cursor: str
    event_id: UUID
    occurred_at: datetime
    typename: str
    event: object


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a stream is, including everything below `upto`."""

    state: str
    viewers_now: int
    stream: object
    upto: LogCursor


@dataclass(frozen=True, slots=True)
class Skipped:
    skip_reason: str
    resume_from: str | None


class Feed:
    """One subscription to one stream."""

    def __init__(self, fanout: Fanout, history: History, tenant_id: UUID, stream_id: UUID) -> None:
        self._fanout, self._history = fanout, history
        self._tenant_id, self._stream_id = tenant_id, stream_id
        self._at = LogCursor(0, 0)
        self._seen: OrderedDict[UUID, None] = OrderedDict()

    async def events(self, after: LogCursor | None, snapshot: Callable[[], Awaitable[Snapshot]]) -> AsyncIterator[Shown]:
        """Runs until the client leaves."""
        listener = self._fanout.listen(self._tenant_id, self._stream_id)
        try:
            if after is None:
                now = await snapshot()
                self._at = LogCursor(min(now.upto.facts, listener.start.facts), min(now.upto.decisions, listener.start.decisions))
                yield self._own("StreamSnapshot", now)
            elif after.facts > listener.start.facts or after.decisions > listener.start.decisions:
                self._at = listener.start
                yield self._skipped("UNKNOWN_CURSOR", None)
            else:
                self._at = after
            async for shown in self._until_live(listener):
                yield shown
            while True:
                match await listener.next():
                    case Gap(reason=reason, upto=upto):
                        before = event_cursor(self._stream_id, self._at)
                        self._at = upto
                        yield self._skipped(reason, before if reason == "SLOW_READER" else None)
                    case item:
                        shown_or_none = self._shown(item, listener.drained())
                        if shown_or_none is not None:
                            yield shown_or_none
        finally:
            self._fanout.leave(listener)

    async def _until_live(self, listener: Listener) -> AsyncIterator[Shown]:
        """Everything from the log up to where the queue begins."""
        for last_round in (*[False] * (CATCH_UP_ROUNDS - 1), True):
            async for shown in self._from_log(listener.start):
                yield shown
            if last_round or not listener.overflowed:
                return
            listener.restart()

    async def _from_log(self, end: LogCursor) -> AsyncIterator[Shown]:
        facts, decisions = self._fanout.partitions(self._tenant_id, self._stream_id)
        facts_topic, decisions_topic = self._fanout.facts.topic.name, self._fanout.decisions.topic.name
        while True:
            ranges = [
                Range(facts_topic, facts, self._at.facts, end.facts),
                Range(decisions_topic, decisions, self._at.decisions, end.decisions),
            ]
            try:
                async for topic, record in self._history.read(ranges):
                    is_fact = topic == facts_topic
                    item = self._fanout.read(record, self._tenant_id, self._stream_id, is_fact=is_fact)
                    if item is not None and (shown := self._shown(item, None)) is not None:
                        yield shown
            except Forgotten as gone:
                at = self._at
                self._at = LogCursor(gone.first, at.decisions) if gone.topic == facts_topic else LogCursor(at.facts, gone.first)
                yield self._skipped("RETENTION", None)
                continue
            self._at = LogCursor(max(self._at.facts, end.facts), max(self._at.decisions, end.decisions))
            return

    def _shown(self, item: Delivered, drained: LogCursor | None) -> Shown | None:
        """The event with its cursor; None when it was shown already."""
        if drained is not None:
            self._at = drained
        elif item.is_fact:
            self._at = LogCursor(item.next_offset, self._at.decisions)
        else:
            self._at = LogCursor(self._at.facts, item.next_offset)
        if item.meta.event_id in self._seen:
            return None
        self._seen[item.meta.event_id] = None
        if len(self._seen) > REMEMBERED_EVENTS:
            self._seen.popitem(last=False)
        cursor = event_cursor(self._stream_id, self._at)
        return Shown(cursor, item.meta.event_id, item.meta.occurred_at, type(item.event).__name__, item.event)

    def _skipped(self, reason: str, resume_from: str | None) -> Shown:
        return self._own("EventsSkipped", Skipped(reason, resume_from))

    def _own(self, typename: str, event: Snapshot | Skipped) -> Shown:
        """A message that stands on no log."""
        cursor = event_cursor(self._stream_id, self._at)
        return Shown(cursor, ids.derive(self._stream_id, typename, cursor), issued_at(), typename, event)
