"""What a rebuild works with: the projection, where its builds live, and the history that fills them.

Invariant: a build is dropped in this order: it becomes scratch (nobody will ever show or resume it), its ClickHouse tables go,
then what Postgres knows of it. Killed in between, the next run finds a scratch build and goes on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg

from projections import builds
from projections.builds import Build, Projection, State
from projections.dead_letters import halt_if_never_buried
from projections.model import TP, ConsumerRecord, FactProjection, TableProjection
from projections.platform import connect
from projections.postgres_store import PostgresStore
from projections.rebuild.progress import Progress
from streams.archive.history import History, open_history
from streams.settings import Settings
from streams.topics import Topic

if TYPE_CHECKING:  # a client that half of the projections do not need
    from projections.clickhouse import AsyncClient
    from projections.clickhouse_store import ClickHouseStore

CONNECTIONS = 8


@dataclass(slots=True)
class Skipped:
    """What a build cannot read is among the dead letters already, or will be: the live worker buries it.

    What is never buried (decisions, billing facts) stops a rebuild as it stops a worker.
    """

    site: Site

    async def bury(self, tp: TP, letters: Sequence[tuple[ConsumerRecord, str]]) -> None:
        site = self.site
        await halt_if_never_buried(site.pool, site.projection.name, site.settings.topics, tp, letters)
        site.progress.skipped += len(letters)

    async def close(self) -> None: ...


@dataclass(slots=True)
class Site:
    projection: Projection
    settings: Settings
    pool: asyncpg.Pool[asyncpg.Record]
    history: History
    progress: Progress
    clickhouse: AsyncClient | None  # None: a Postgres projection
    topics: dict[str, Topic] = field(default_factory=dict)

    @property
    def tps(self) -> Sequence[TP]:
        """Every partition that the projection reads."""
        return [TP(topic.name, p) for topic in self.topics.values() for p in range(topic.partitions)]

    async def active(self) -> Build | None:
        await builds.migrated(self.pool)
        return await builds.active(self.pool, self.projection.name)

    async def begin(self, state: State) -> Build:
        async with self.pool.acquire() as db, db.transaction():
            return await builds.begin(db, self.projection, state)

    async def store(self, build: Build) -> PostgresStore | ClickHouseStore:
        """A store that writes to this build, whoever is active, positioned."""
        letters = Skipped(self)
        store: PostgresStore | ClickHouseStore
        if isinstance(self.projection, TableProjection):
            store = PostgresStore(self.projection, self.settings.topics, self.pool, letters, build)
        else:
            from projections.clickhouse_store import ClickHouseStore

            assert self.clickhouse is not None
            store = ClickHouseStore(self.projection, self.settings.topics, self.pool, letters, self.clickhouse, build)
        await store.prepare()
        await store.load_offsets(self.tps)
        return store

    async def show(self, build: Build) -> None:
        """ClickHouse: lets readers see the build that has become the active one (Postgres did it with the flip)."""
        if isinstance(self.projection, FactProjection):
            from projections.clickhouse_store import show

            assert self.clickhouse is not None
            await show(self.clickhouse, builds.tables(self.projection, build))

    async def discard(self, build: Build) -> None:
        async with self.pool.acquire() as db, db.transaction():
            await builds.abandon(db, build)
        if isinstance(self.projection, FactProjection):
            assert self.clickhouse is not None
            for table in builds.tables(self.projection, build):
                for statement in table.drop():
                    await self.clickhouse.command(statement)
        async with self.pool.acquire() as db, db.transaction():
            await builds.discard(db, build)

    async def discard_scratch(self) -> None:
        """What killed verifications and droppings left."""
        for build in await builds.builds(self.pool, self.projection.name):
            if build.state == "scratch":
                await self.discard(build)


@asynccontextmanager
async def open_site(projection: Projection, settings: Settings, progress: Progress) -> AsyncIterator[Site]:
    async with AsyncExitStack() as closing:
        pool = await connect(settings.postgres_url, max_size=CONNECTIONS)
        closing.push_async_callback(pool.close)
        clickhouse = None
        if isinstance(projection, FactProjection):
            from projections.clickhouse import connect as connect_clickhouse

            clickhouse = await connect_clickhouse(settings.clickhouse_url)
            closing.push_async_callback(clickhouse.close)
        history = await closing.enter_async_context(open_history(settings))
        named: list[Topic] = [getattr(settings.topics, name) for name in projection.topics]
        yield Site(projection, settings, pool, history, progress, clickhouse, {topic.name: topic for topic in named})
