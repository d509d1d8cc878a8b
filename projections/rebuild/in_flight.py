"""ClickHouse: what a flip does about batches whose rows readers see and whose position is not moved yet.

Invariant: at a flip no batch is between its rows and its position, and every row that a worker may have left there is in the new
build too. Batches that are under way are waited for. A worker that does not go on is cut off: it loses its connection, so that
it ends when it wakes, and until then its rows are those of a worker that was killed. Those lie right behind the position; they
are inserted into the new build, and no position is moved for them: whoever reads them next applies, and buries, as ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import asyncpg

from projections.clickhouse_store import EXCLUDING, ClickHouseStore
from projections.model import TP
from projections.rebuild.errors import CannotRebuild
from projections.rebuild.fill import gathered
from projections.rebuild.site import Site

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

PATIENCE_SECONDS: Final = 5
"""So long a batch may hold up a flip. Other workers wait behind the flip meanwhile."""
ATTEMPTS: Final = 3
BATCH_RECORDS: Final = 50_000
"""No batch of a worker is larger (`projections.worker`)."""
_CUT_OFF = """
SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ShareLock' AND l.classid = 7170104::oid AND l.objsubid = 2
    AND l.objid = (hashtext($1)::bigint & 4294967295)::oid
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND a.state_change < clock_timestamp() - make_interval(secs => $2)"""  # who has just come waited behind us


async def exclude_batches(site: Site, db: Connection) -> None:
    """No batch is under way until the transaction of `db` ends. Raises CannotRebuild."""
    for _ in range(ATTEMPTS):
        try:
            async with db.transaction():
                await db.execute(f"SET LOCAL lock_timeout = '{PATIENCE_SECONDS}s'")
                await db.execute(EXCLUDING, site.projection.name)
                await db.execute("SET LOCAL lock_timeout TO DEFAULT")
                return
        except asyncpg.LockNotAvailableError:
            cut_off = await site.pool.fetch(_CUT_OFF, site.projection.name, PATIENCE_SECONDS / 2)
            site.progress.say(f"{len(cut_off)} workers held a batch for more than {PATIENCE_SECONDS} s and were cut off")
    raise CannotRebuild(
        f"batches of {site.projection.name} take more than {PATIENCE_SECONDS} s: is ClickHouse slow? Run this later."
    )


async def insert_in_flight(site: Site, store: ClickHouseStore, at: Mapping[TP, int], done: dict[TP, int]) -> None:
    """Inserts what any batch behind these positions may hold; `done` says up to where that has happened."""
    for name, topic in site.topics.items():
        for partition, (first, end) in (await site.history.ranges(topic)).items():
            tp = TP(name, partition)
            position = at.get(tp, first)
            start, until = max(position, done.get(tp, 0)), min(end, position + BATCH_RECORDS)
            if start >= until:
                continue
            async with aclosing(gathered(site.history.read(topic, partition, start, until))) as batches:
                async for records in batches:
                    await store.insert(tp, records)
            done[tp] = until
