"""Postgres projections: rows and position in one transaction.

The order is the correctness:

1. decode the batch; unreadable facts are buried, an unreadable decision stops the line
2. begin; move the position by compare-and-set, which takes the partition's row lock and ends a worker that is superseded
3. apply the fold; commit
4. only then remember the new position

A worker that is refused because readers see another build now goes on with that one (`served.py`): the batch comes again to it.
A batch that the database refuses for what is in it (a zero byte in a text) is halved until only the refused fact is left of it,
and that is buried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import asyncpg

from projections.builds import Build
from projections.dead_letters import halt_if_newer, homes, why_unreadable
from projections.model import TP, ConsumerRecord, Delivered, Letters, TableProjection
from projections.served import Served
from streams.codec import MAGIC, PREFIX, decode
from streams.errors import Invalid, Superseded
from streams.faust_batches.fetched import Halted
from streams.registry import registered
from streams.telemetry import log
from streams.topics import Topics

LONGEST_RETRY_SECONDS: Final = 30.0
TRANSIENT: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that was lost in between two statements
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    ConnectionError,
)
Batch = Sequence[Delivered]
Read = tuple[Batch, Sequence[tuple[ConsumerRecord, Invalid]]]
"""The events among records that are handled, and the records that cannot be read, with the reason."""


class PostgresStore:
    def __init__(
        self,
        projection: TableProjection,
        topics: Topics,
        pool: asyncpg.Pool[asyncpg.Record],
        letters: Letters,
        build: Build | None = None,
    ) -> None:
        """`build`: the one to fill, whoever is active; None: the active one."""
        self.projection, self.pool, self.letters = projection, pool, letters
        self.decisions = topics.decisions.name
        names = {kind.__name__ for kind in projection.handles}
        self.every_framing = {PREFIX.pack(MAGIC, r.id): r.name in names for r in registered()}
        self.framings: dict[str, dict[bytes, bool]] = {}  # by topic: a decision that lies on the facts is none
        for framing, home in homes().items():
            self.framings.setdefault(topics.prefix + home, {})[framing] = self.every_framing[framing]
        self.served = Served(pool, projection, build)

    async def prepare(self) -> None:
        await self.served.prepare()

    async def load_offsets(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        return await self.served.load(tps)

    def read(self, tp: TP, records: Sequence[ConsumerRecord]) -> Read:
        """The first half of `apply`, for whoever has the time while the database works on the records before these."""
        return read_batch(records, self.framings.get(tp.topic, self.every_framing))

    async def apply(self, tp: TP, records: Sequence[ConsumerRecord], read: Read | None = None) -> None:
        """`read`: what `read` made of the records."""
        try:
            await self._apply(tp, records, read)
        except Superseded:
            if not await self.served.moved_on():
                raise
            await self.apply(tp, records)

    async def skip(self, tp: TP, new: int) -> None:
        """Moves the position over offsets where no record is left."""
        await self._store(tp, self.served.next[tp], new, [])
        self.served.next[tp] = new

    async def _apply(self, tp: TP, records: Sequence[ConsumerRecord], read: Read | None = None) -> None:
        expected, new = self.served.next[tp], records[-1].offset + 1
        if expected is not None and records[0].offset < expected:
            records = [r for r in records if r.offset >= expected]
            if not records:
                return
            read = None
        batch, unreadable = read or self.read(tp, records)
        halt_if_newer(tp, unreadable)
        await self.letters.bury(tp, [(record, str(reason)) for record, reason in unreadable])
        try:
            await self._store(tp, expected, new, batch)
        except asyncpg.DataError as error:
            await self._without_refused(tp, records, error)
            return
        self.served.next[tp] = new

    async def _without_refused(self, tp: TP, records: Sequence[ConsumerRecord], error: asyncpg.DataError) -> None:
        """Stores a batch that the database refused, without what it refuses. Raises Halted for a decision."""
        if len(records) > 1:
            middle = len(records) // 2
            await self._apply(tp, records[:middle])
            await self._apply(tp, records[middle:])
            return
        record = records[0]
        if tp.topic == self.decisions:
            raise Halted(f"{tp.topic}/{tp.partition} at {record.offset}: the database refuses a decision: {error}") from error
        await self.letters.bury(tp, [(record, f"the database refuses it: {error}")])
        await self._store(tp, self.served.next[tp], record.offset + 1, [])
        self.served.next[tp] = record.offset + 1

    async def _store(self, tp: TP, expected: int | None, new: int, batch: Batch) -> None:
        """Retries what passes by itself. A commit whose answer was lost ends as Superseded: the restart finds the position."""
        give_up_at, pause_seconds = time.monotonic() + LONGEST_RETRY_SECONDS, 0.05
        while True:
            try:
                return await self._commit(tp, expected, new, batch)
            except TRANSIENT as error:
                if time.monotonic() > give_up_at:
                    raise
                log(__name__).warning(
                    "the database did not answer: trying again", reason=repr(error), pause_seconds=pause_seconds
                )
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(1.0, 2 * pause_seconds)

    async def _commit(self, tp: TP, expected: int | None, new: int, batch: Batch) -> None:
        if not batch:  # one statement is its own transaction
            await self.served.advance(self.pool, tp, expected, new)
            return
        async with self.pool.acquire() as db, db.transaction():
            await self.served.advance(db, tp, expected, new)
            await self.projection.apply(batch, db)

    async def close(self) -> None:
        await self.letters.close()
        await self.pool.close()


def read_batch(records: Sequence[ConsumerRecord], framings: Mapping[bytes, bool]) -> Read:
    """`framings`: the first bytes of the values of every schema whose records lie on the topic, and whether they are handled.
    Only what is handled is decoded; but that a value is framed, with a schema id that belongs here, is asked of all.
    """
    batch: list[Delivered] = []
    unreadable: list[tuple[ConsumerRecord, Invalid]] = []
    for record in records:
        value = record.value or b""
        try:
            handled = framings.get(value[: PREFIX.size])
            if handled is None:
                raise why_unreadable(value)
            if handled:
                event, meta = decode(value)
                place = record.topic, record.partition, record.offset
                batch.append(Delivered(event, meta, *place, value, record.timestamp, record.headers))
        except Invalid as error:
            unreadable.append((record, error))
    return batch, unreadable
