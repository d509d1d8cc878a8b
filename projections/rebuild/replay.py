"""Applies a part of history to the live build again: for rows that an accident took, or that an earlier fold left out.

Invariant: a position is not moved, so live workers notice nothing; and only what may be applied twice is applied. Facts in
ClickHouse are: their sort key makes them one row. In Postgres a projection names the events whose columns commute (`replayable`);
its other events are left out, for an old decision that is applied after a new one would undo it.

A partition's place is remembered behind every batch under what was asked for, so the same call goes on where a killed one was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from projections import builds
from projections.model import TP, ConsumerRecord, TableProjection
from projections.postgres_store import read_batch
from projections.rebuild.errors import CannotRebuild
from projections.rebuild.fill import PARTITIONS_AT_ONCE, ahead, gathered
from projections.rebuild.lag import Lag
from projections.rebuild.run import positions
from projections.rebuild.site import Site, Skipped
from streams.codec import MAGIC, PREFIX
from streams.registry import registered
from streams.topics import partition_of

BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
END: Final = datetime(9999, 12, 31, tzinfo=UTC)
_BEGIN = """
INSERT INTO platform.projection_replay (projection, tenant_id, from_at, to_at, topic, partition, next_offset, end_offset)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING"""
_LEFT = """
SELECT topic, partition, next_offset, end_offset FROM platform.projection_replay
WHERE projection = $1 AND tenant_id = $2 AND from_at = $3 AND to_at = $4 ORDER BY topic, partition"""
_MOVE = """
UPDATE platform.projection_replay SET next_offset = $7
WHERE projection = $1 AND tenant_id = $2 AND from_at = $3 AND to_at = $4 AND topic = $5 AND partition = $6"""
_DONE = "DELETE FROM platform.projection_replay WHERE projection = $1 AND tenant_id = $2 AND from_at = $3 AND to_at = $4"


@dataclass(frozen=True, slots=True)
class Part:
    """What of history: appended in [start, end), of one tenant or of all."""

    start: datetime = BEGINNING
    end: datetime = END
    tenant_id: UUID | None = None

    @property
    def tenant(self) -> str:
        return str(self.tenant_id) if self.tenant_id else ""

    def has(self, record: ConsumerRecord) -> bool:
        return not self.tenant or any(name == "tenant_id" and self.tenant.encode() == value for name, value in record.headers)


async def replay(site: Site, part: Part, max_lag_seconds: float) -> int:
    """Applies it; how many records that were. The caller holds the lock. Raises CannotRebuild: a time outside of history, too."""
    if part.start > (now := datetime.now(UTC)):
        raise CannotRebuild(f"{part.start.isoformat()} lies outside of history: it ends now, which is {now.isoformat()} here")
    live = await site.active()
    if live is None or not builds.is_made_by(live, site.projection):
        raise CannotRebuild(f"{site.projection.name} has no build that this version can write to: `fw rebuild` makes one")
    apply = await _applier(site, live)
    left = await _begun(site, part, live)
    site.progress.start("replaying", sum(max(0, end - start) for start, end in left.values()))
    lag, at_once, applied = Lag(site, max_lag_seconds), asyncio.Semaphore(PARTITIONS_AT_ONCE), 0

    async def one(tp: TP, start: int, end: int) -> None:
        nonlocal applied
        async with at_once:
            async with aclosing(ahead(gathered(site.history.read(site.topics[tp.topic], tp.partition, start, end)))) as batches:
                async for batch in batches:
                    await lag.open.wait()
                    wanted = [record for record in batch if part.has(record)]
                    if wanted:
                        count = await apply(tp, wanted)
                        applied += count  # in a statement of its own: `+=` with an await in it forgets what others added
                    await _move(site, part, tp, batch[-1].offset + 1)
                    site.progress.moved(batch[-1].offset + 1 - start, len(batch))
                    start = batch[-1].offset + 1
            await _move(site, part, tp, end)

    watching = asyncio.create_task(lag.watch())
    replaying = [asyncio.create_task(one(tp, *bounds)) for tp, bounds in left.items() if bounds[0] < bounds[1]]
    everything = asyncio.create_task(_all(replaying))
    try:
        await asyncio.wait({watching, everything}, return_when=asyncio.FIRST_COMPLETED)
        await (watching if watching.done() else everything)  # the watch ends only by failing
    finally:
        for task in (watching, everything, *replaying):
            task.cancel()
        await asyncio.gather(watching, everything, *replaying, return_exceptions=True)
    await site.pool.execute(_DONE, site.projection.name, part.tenant, part.start, part.end)
    return applied


async def _all(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks)


async def _begun(site: Site, part: Part, live: builds.Build) -> Mapping[TP, tuple[int, int]]:
    """What is left of it, by partition. Up to where the live build is: the rest its worker applies anyway."""
    name, asked = site.projection.name, (part.tenant, part.start, part.end)
    if not await site.pool.fetch(_LEFT, name, *asked):
        at = await positions(site.pool, live)
        async with site.pool.acquire() as db, db.transaction():
            reaches_history = part.end == END
            for tp in _partitions(site, part):
                topic = site.topics[tp.topic]
                first = (await site.history.ranges(topic))[tp.partition].first
                end = at.get(tp, first)
                start = first if part.start == BEGINNING else await site.history.offset_at(topic, tp.partition, part.start)
                if part.end != END:
                    until = await site.history.offset_at(topic, tp.partition, part.end)
                    reaches_history = reaches_history or until > first
                    end = min(end, until)
                await db.execute(_BEGIN, name, *asked, tp.topic, tp.partition, start, max(start, end))
            if not reaches_history:  # raised in here, so that nothing of it is remembered
                raise CannotRebuild(f"{part.end.isoformat()} lies outside of history: nothing was appended before then")
    else:
        site.progress.say("goes on where an earlier run of the same replay was")
    rows = await site.pool.fetch(_LEFT, name, *asked)
    return {TP(r["topic"], r["partition"]): (r["next_offset"], r["end_offset"]) for r in rows}


def _partitions(site: Site, part: Part) -> Sequence[TP]:
    """Where what was asked for can lie."""
    tps = list(site.tps)
    if isinstance(site.projection, TableProjection):
        topics = {site.settings.topics.of(kind.__name__).name for kind in site.projection.replayable}
        tps = [tp for tp in tps if tp.topic in topics]
    if part.tenant_id is not None:
        own = TP(site.settings.topics.decisions.name, partition_of(part.tenant_id))  # decisions are keyed by tenant
        tps = [tp for tp in tps if tp.topic != own.topic or tp == own]
    return tps


Apply = Callable[[TP, Sequence[ConsumerRecord]], Awaitable[int]]


async def _applier(site: Site, live: builds.Build) -> Apply:
    """What applies records of a partition to the live build, and says how many mattered. Raises CannotRebuild."""
    projection = site.projection
    if isinstance(projection, TableProjection):
        return _postgres(site, projection, live)
    from projections.clickhouse_store import ClickHouseStore

    assert site.clickhouse is not None
    store = ClickHouseStore(projection, site.settings.topics, site.pool, Skipped(site), site.clickhouse)
    await store.prepare()

    async def insert(tp: TP, records: Sequence[ConsumerRecord]) -> int:
        await store.insert(tp, records)
        return len(records)

    return insert


def _postgres(site: Site, projection: TableProjection, live: builds.Build) -> Apply:
    if not projection.replayable:
        raise CannotRebuild(
            f"{projection.name} cannot be replayed in part: its rows hang on the order of decisions. `fw rebuild "
            f"{projection.name}` makes it anew beside the live one, `fw verify {projection.name}` says whether that is needed."
        )
    if left_out := sorted(kind.__name__ for kind in projection.handles - projection.replayable):
        site.progress.say(f"left out, for their order matters (fw rebuild applies them): {', '.join(left_out)}")
    names = {kind.__name__ for kind in projection.replayable}
    framings = {PREFIX.pack(MAGIC, r.id): r.name in names for r in registered()}

    async def apply(_: TP, records: Sequence[ConsumerRecord]) -> int:
        batch, unreadable = read_batch(records, framings)
        site.progress.skipped += len(unreadable)
        if batch:
            async with site.pool.acquire() as db, db.transaction():
                await db.execute(f"SET LOCAL search_path = {live.schema}")
                await projection.apply(batch, db)
        return len(batch)

    return apply


async def _move(site: Site, part: Part, tp: TP, new: int) -> None:
    await site.pool.execute(_MOVE, site.projection.name, part.tenant, part.start, part.end, *tp, new)
