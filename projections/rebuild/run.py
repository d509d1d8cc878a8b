"""Rebuild beside the live build, compare, flip; roll back; drop.

The order is the correctness:

1. take the projection's lock; drop what killed runs left; take up the build that a killed run was filling, or begin one
2. fill it from archive and log up to the positions of the active build, again and again until few are left
3. hold the active build's positions (its workers wait, readers do not), go the last step, and take a snapshot: both builds
   stand at the same positions in it. Let go. Compare
4. hold the positions again, go the last step (ClickHouse: and insert what lies right behind it, `in_flight.py`), and in that same
   transaction: the new build is active, the positions of the old one are retired, Postgres' views show the new one. Commit
5. ClickHouse: the views, one after another. A worker that is refused by 4 does the same before it writes, so whoever dies here
   leaves nothing behind: until then the old build lacks nothing that the new one has

Killed anywhere before the commit of 4, readers and workers go on with the old build; after it, with the new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg

from projections import builds
from projections.builds import Build
from projections.model import TP, Database, TableProjection
from projections.postgres_store import PostgresStore
from projections.rebuild.compare import Compared, compare_postgres
from projections.rebuild.errors import CannotRebuild
from projections.rebuild.fill import Tail, behind, fill
from projections.rebuild.site import Site

if TYPE_CHECKING:
    from projections.clickhouse_store import ClickHouseStore

    Store = PostgresStore | ClickHouseStore

NEAR_OFFSETS: Final = 2_000
"""So near to the active build, the rest is read while its worker waits."""
HOLD_SECONDS: Final = 15
ATTEMPTS: Final = 20
_POSITIONS = """
SELECT topic, partition, next_offset FROM platform.projection_offset
WHERE projection = $1 AND build = $2 AND next_offset IS NOT NULL ORDER BY topic, partition"""


class Differences(CannotRebuild):
    """The new build does not hold what the live one does."""

    def __init__(self, projection: str, build: Build, compared: Sequence[Compared]) -> None:
        super().__init__(
            f"build {build.number} of {projection} differs from the live one, which readers keep. If the new one is right, "
            f"run `fw rebuild {projection} --accept-differences`: it goes on from here. `--drop` removes it."
        )
        self.compared = compared


async def rebuild(
    site: Site, *, accept_new_definition: bool = False, accept_differences: bool = False, limit: int = 20
) -> tuple[Build, Sequence[Compared]]:
    """Makes the projection anew and lets readers see it. The caller holds the lock. Raises CannotRebuild, Differences."""
    await site.discard_scratch()
    old = await site.active()
    comparable = old is not None and _is_same(site, old)
    if old is not None and not comparable and not accept_new_definition:
        raise CannotRebuild(
            f"build {old.number} of {site.projection.name}, which readers see, is of version {old.version}, and this is version "
            f"{site.projection.version}: the two cannot be compared. Run this again with --accept-new-definition to flip without."
        )
    new = await _taken_up(site)
    store = await site.store(new)
    tail = Tail(site, store)
    try:
        await _catch_up(site, store, tail, old)
        compared = await _compare(site, store, tail, old, limit) if old is not None and comparable else []
        if any(c.differences for c in compared) and not accept_differences:
            raise Differences(site.projection.name, new, compared)
        await _flip(site, store, tail, old, new)
    finally:
        await tail.close()
    return new, compared


def _is_same(site: Site, build: Build) -> bool:
    return build.version == site.projection.version and build.definition in ("", builds.definition(site.projection))


async def _taken_up(site: Site) -> Build:
    """The build that a killed run was filling, else a new one."""
    found = None
    for build in await builds.builds(site.pool, site.projection.name):
        if build.state == "building":
            if _is_same(site, build):
                found = build
            else:
                await site.discard(build)
    if found is not None:
        site.progress.say(f"goes on with build {found.number}, which an earlier run began")
        return found
    found = await site.begin("building")
    site.progress.say(f"build {found.number} begins")
    return found


async def positions(db: Database, build: Build, *, hold: bool = False) -> dict[TP, int]:
    """Where a build is; `hold`: until the transaction ends nobody moves it."""
    if hold:
        await db.execute(
            "SELECT 1 FROM platform.projection_offset WHERE projection = $1 AND build = $2 ORDER BY topic, partition FOR UPDATE",
            build.projection,
            build.number,
        )
    found = await db.fetch(_POSITIONS, build.projection, build.number)
    return {TP(row["topic"], row["partition"]): row["next_offset"] for row in found}


async def _targets(site: Site, old: Build | None) -> dict[TP, int]:
    """Where the active build is; without one, where the log ends."""
    if old is not None:
        found = await positions(site.pool, old)
        return {tp: found[tp] for tp in site.tps if tp in found}
    ends = {name: await site.history.ranges(topic) for name, topic in site.topics.items()}
    return {tp: ends[tp.topic][tp.partition].end for tp in site.tps if ends[tp.topic][tp.partition].end}


async def _catch_up(site: Site, store: Store, tail: Tail, old: Build | None) -> None:
    """Until only what has come in the meantime is missing."""
    at = store.served.next
    targets = await _targets(site, old)
    left = _left(at, targets)
    site.progress.start("replaying", left)
    await fill(site, store, targets)
    site.progress.say(f"replayed {site.progress.events:,} records at {site.progress.events_per_second:,.0f} a second")
    while (left := _left(at, targets := await _targets(site, old))) > NEAR_OFFSETS:
        site.progress.start("catching up", left)
        await fill(site, store, targets)
    await tail.fill(targets)


def _left(at: Mapping[TP, int | None], targets: Mapping[TP, int]) -> int:
    return sum(target - (at[tp] or 0) for tp, target in behind(at, targets).items())


@asynccontextmanager
async def _held(site: Site, store: Store, tail: Tail, old: Build) -> AsyncIterator[tuple[Database, Mapping[TP, int]]]:
    """The active build stands still and the new one is where it is, until the block ends. Readers do not notice."""
    for _ in range(ATTEMPTS):
        await tail.fill(await _targets(site, old))
        async with site.pool.acquire() as db, db.transaction():
            await db.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{HOLD_SECONDS}s'")
            if not isinstance(store, PostgresStore):
                from projections.rebuild.in_flight import exclude_batches

                await exclude_batches(site, db)  # first: a batch that is under way wants to move its position
            at = await positions(db, old, hold=True)
            targets = {tp: at[tp] for tp in site.tps if tp in at}
            if _left(store.served.next, targets) <= 10 * NEAR_OFFSETS:
                await tail.fill(targets)
                if all((store.served.next[tp] or 0) == target for tp, target in targets.items()):
                    yield db, targets
                    return
        # Either much came in, or the active build lost its last commits in a crash and has to come here again.
        site.progress.say("the live build moved on: trying again")
        await asyncio.sleep(0.5)
    raise CannotRebuild(f"{site.projection.name} did not stand still long enough: is its worker running, and is it not behind?")


async def _compare(site: Site, store: Store, tail: Tail, old: Build, limit: int) -> list[Compared]:
    """Both builds at the same positions; the live one's worker waits for the last step only."""
    new, projection = store.served.build, site.projection
    if isinstance(projection, TableProjection):
        snapshot = await asyncpg.connect(site.settings.postgres_url, server_settings={"jit": "off"})
        try:
            async with _held(site, store, tail, old):
                await snapshot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")
            site.progress.start("comparing", 0)
            return await compare_postgres(snapshot, projection.tables, old, new, limit)
        finally:
            await snapshot.close()
    async with _held(site, store, tail, old) as (_, at):
        pass
    site.progress.start("comparing", 0)
    assert site.clickhouse is not None
    from projections.clickhouse_store import make
    from projections.rebuild.compare_clickhouse import compare_clickhouse

    live = builds.tables(projection, old)
    await make(site.clickhouse, live, is_active=True)  # columns that a schema has got since
    tables = list(zip(live, builds.tables(projection, new), strict=True))
    return await compare_clickhouse(site.clickhouse, tables, at, site.settings.topics, limit)


async def _flip(site: Site, store: Store, tail: Tail, old: Build | None, new: Build) -> None:
    site.progress.start("flipping", 0)
    if old is None:
        async with site.pool.acquire() as connection, connection.transaction():
            await builds.flip(connection, site.projection, None, new)
    else:
        done: dict[TP, int] = {}
        await _insert_in_flight(site, store, await positions(site.pool, old), done)  # the most of it before anybody waits
        async with _held(site, store, tail, old) as (db, at):
            await _insert_in_flight(site, store, at, done)
            await builds.flip(db, site.projection, old, new)
    await site.show(new)
    site.progress.say(f"readers see build {new.number} now")


async def _insert_in_flight(site: Site, store: Store, at: Mapping[TP, int], done: dict[TP, int]) -> None:
    if not isinstance(store, PostgresStore):
        from projections.rebuild.in_flight import insert_in_flight

        await insert_in_flight(site, store, at, done)


async def roll_back(site: Site) -> tuple[Build, Build]:
    """Readers see the build of before again, as far on as the one that they leave. The caller holds the lock."""
    await site.discard_scratch()
    old = await site.active()
    kept = [b for b in await builds.builds(site.pool, site.projection.name) if b.state == "kept"]
    if old is None or not kept:
        raise CannotRebuild(f"{site.projection.name} has no kept build to go back to: `fw rebuild {site.projection.name} --list`")
    new = max(kept, key=lambda build: (build.activated_at is not None, build.activated_at))
    if not _is_same(site, new):
        raise CannotRebuild(
            f"build {new.number} of {site.projection.name} is of version {new.version}, and this is version "
            f"{site.projection.version}: run `--rollback` with the version of the platform that made it"
        )
    store = await site.store(new)
    tail = Tail(site, store)
    try:
        await _catch_up(site, store, tail, old)
        await _flip(site, store, tail, old, new)
    finally:
        await tail.close()
    return old, new


async def drop(site: Site) -> list[Build]:
    """Drops every build that nobody sees. The caller holds the lock."""
    await builds.migrated(site.pool)
    await site.discard_scratch()
    unseen = [b for b in await builds.builds(site.pool, site.projection.name) if b.state in ("building", "kept")]
    for build in unseen:
        await site.discard(build)
    return unseen


async def verify(site: Site, limit: int = 20) -> list[Compared]:
    """The live build against a clean fold of the whole history, which is gone afterwards. The caller holds the lock."""
    await site.discard_scratch()
    live = await site.active()
    if live is None:
        raise CannotRebuild(f"{site.projection.name} has no build yet: start its worker, or `fw rebuild {site.projection.name}`")
    if not _is_same(site, live):
        raise CannotRebuild(
            f"build {live.number} of {site.projection.name} is of version {live.version}, and this is version "
            f"{site.projection.version}: the two cannot be compared. Run the version of the platform that made it."
        )
    scratch = await site.begin("scratch")
    try:
        store = await site.store(scratch)
        tail = Tail(site, store)
        try:
            await _catch_up(site, store, tail, live)
            return await _compare(site, store, tail, live, limit)
        finally:
            await tail.close()
    finally:
        await site.discard(scratch)
