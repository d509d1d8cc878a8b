"""Builds of projections: every build has tables of its own, readers see the active one through views.

Invariants
* At most one build of a projection is active, and it is the only one that live workers move: the positions of every other
  are retired, so that a worker that has not heard of a flip is refused (`platform.advance`) and looks here again.
* The tables of a build are what its definition said when they were made. Whoever changes a table or the meaning of a fold bumps
  the version of the projection.
* A number is never given twice: whoever still writes to a build that is gone finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal, NamedTuple, assert_never

import asyncpg

from projections.clickhouse_tables import FactTable
from projections.model import Database, FactProjection, TableProjection
from projections.platform import schema
from streams.faust_batches.fetched import Halted

State = Literal["building", "active", "kept", "scratch", "dropped"]
"""building: being filled, to become active; scratch: being filled for a comparison, and then dropped."""
Projection = TableProjection | FactProjection

_FIELDS = "projection, build, version, definition, state, created_at, activated_at"
_ACTIVE = f"SELECT {_FIELDS} FROM platform.projection_build WHERE projection = $1 AND state = 'active'"  # noqa: S608
_ALL = f"SELECT {_FIELDS} FROM platform.projection_build WHERE projection = $1 AND state <> 'dropped' ORDER BY build"  # noqa: S608
_BEGIN = f"""
INSERT INTO platform.projection_build (projection, build, version, definition, state, activated_at)
SELECT $1, coalesce(max(build), 0) + 1, $2, $3, $4, CASE WHEN $4 = 'active' THEN now() END
FROM platform.projection_build WHERE projection = $1 RETURNING {_FIELDS}"""  # noqa: S608
_ADOPT = "UPDATE platform.projection_build SET definition = $3 WHERE projection = $1 AND build = $2 AND definition = ''"
_LOCK = "SELECT pg_advisory_xact_lock(7170102, hashtext($1))"
_DURABLE = "SET LOCAL synchronous_commit = on"
"""Rows and positions may be lost in a crash, together (`platform.connect`). What builds there are may not: ClickHouse and live
workers go by it, and would keep a build that nobody knows of."""
_SEES_TABLE = "SELECT to_regclass('platform.projection_build')"


class Build(NamedTuple):
    projection: str
    number: int
    version: int
    definition: str
    state: State
    created_at: datetime
    activated_at: datetime | None

    @property
    def schema(self) -> str:
        return schema(self.projection, self.number)


def definition(projection: Projection) -> str:
    """What the tables are, without what may grow by itself (ClickHouse's columns are the schema's)."""
    match projection:
        case TableProjection():
            return ";\n".join(table.ddl() for table in projection.tables)
        case FactProjection():
            return ";\n".join(
                f"{table.name} ENGINE = {statement.rpartition(' ENGINE = ')[2]}"
                for table in projection.tables
                for statement in table.create()
                if " ENGINE = " in statement
            )
        case _:
            assert_never(projection)


def tables(projection: FactProjection, build: Build) -> Sequence[FactTable]:
    """ClickHouse tables of a build."""
    return [replace(table, build=build.number) for table in projection.tables]


def is_made_by(build: Build, projection: Projection) -> bool:
    """Whether this code can go on with the build. Raises Halted where its version says so and its tables do not."""
    if build.version != projection.version:
        return False
    if build.definition not in ("", definition(projection)):
        raise Halted(
            f"the tables of {projection.name} v{projection.version} (build {build.number}) were made by another definition: bump "
            "its version"
        )
    return True


async def active(db: Database, projection: str) -> Build | None:
    """The build that readers see and workers move; None: there is none yet."""
    row = await db.fetchrow(_ACTIVE, projection)
    return Build(*row) if row else None


async def builds(db: Database, projection: str) -> Sequence[Build]:
    """Every build that has tables, the oldest first."""
    return [Build(*row) for row in await db.fetch(_ALL, projection)]


async def migrated(db: Database) -> None:
    """Raises Halted where the schema `platform` is not there."""
    row = await db.fetchrow(_SEES_TABLE)
    if row is None or row[0] is None:
        raise Halted("the schema `platform` is missing: run `python -m projections migrate` first")


async def serving(pool: asyncpg.Pool[asyncpg.Record], projection: Projection) -> Build:
    """The active build, for a worker of this code; the first build of a projection becomes it. Raises Halted."""
    await migrated(pool)
    found = await active(pool, projection.name)
    if found is not None and found.definition and is_made_by(found, projection):
        return found  # as at most starts: nobody has to wait for a lock, nor can be held up by it
    async with pool.acquire() as db, db.transaction():
        await db.execute(_LOCK, projection.name)
        found = await active(db, projection.name)
        if found is None:
            found = await begin(db, projection, "active")
            await show(db, projection, found)
        elif not is_made_by(found, projection):
            raise Halted(
                f"build {found.number} of {projection.name}, which readers see, is of version {found.version}; this is version "
                f"{projection.version}: run a version of the platform that made it, or `fw rebuild {projection.name} "
                "--accept-new-definition`"
            )
        await db.execute(_ADOPT, projection.name, found.number, definition(projection))
        return found


async def begin(db: Database, projection: Projection, state: State) -> Build:
    """A new build; in Postgres with its tables. Call it in a transaction."""
    await db.execute(_DURABLE)
    row = await db.fetchrow(_BEGIN, projection.name, projection.version, definition(projection), state)
    assert row is not None
    build = Build(*row)
    if isinstance(projection, TableProjection):
        await db.execute(f"CREATE SCHEMA {build.schema}; SET LOCAL search_path = {build.schema}; {build.definition}")
        await db.execute("SET LOCAL search_path TO DEFAULT")
    return build


async def flip(db: Database, projection: Projection, old: Build | None, new: Build) -> None:
    """Readers see `new` from the commit on, all its tables at once, and workers go on with it. Call it in a transaction.

    Whoever calls it has seen to it that `new` has passed every position of `old`, and holds the locks of those.
    """
    await db.execute(_DURABLE)
    await db.execute(_LOCK, projection.name)
    if old is not None:
        await _become(db, old, "kept", ("active",))
        await db.execute(
            "UPDATE platform.projection_offset SET retired = true WHERE projection = $1 AND build = $2",
            old.projection,
            old.number,
        )
    await _become(db, new, "active", ("building", "kept"))
    await db.execute(
        "UPDATE platform.projection_offset SET retired = false WHERE projection = $1 AND build = $2", new.projection, new.number
    )
    await show(db, projection, new)


async def _become(db: Database, build: Build, state: State, before: Sequence[State]) -> None:
    done = await db.execute(
        "UPDATE platform.projection_build SET state = $3, activated_at = CASE WHEN $3 = 'active' THEN now() ELSE activated_at END"
        " WHERE projection = $1 AND build = $2 AND state = ANY($4::text[])",
        build.projection,
        build.number,
        state,
        list(before),
    )
    if done != "UPDATE 1":
        raise Halted(f"build {build.number} of {build.projection} is not {' or '.join(before)} any more: look at `--list`")


async def show(db: Database, projection: Projection, build: Build) -> None:
    """Postgres: readers see this build and nothing that it lacks. ClickHouse has no transactions: see `clickhouse_store.show`."""
    if isinstance(projection, FactProjection):
        return
    for (stale,) in await db.fetch(
        "SELECT DISTINCT view_name FROM information_schema.view_table_usage WHERE view_schema = 'public'"
        " AND table_schema LIKE $1 AND table_schema <> $2",
        f"projection\\_{projection.name}\\_b%",
        build.schema,
    ):
        await db.execute(f"DROP VIEW public.{stale}")
    for table in projection.tables:
        await db.execute(f"CREATE OR REPLACE VIEW public.{table.name} AS SELECT * FROM {build.schema}.{table.name}")  # noqa: S608


async def abandon(db: Database, build: Build) -> None:
    """Nobody shows or resumes it any more. Call it in a transaction."""
    await db.execute(_DURABLE)
    await _become(db, build, "scratch", ("building", "kept", "scratch"))


async def discard(db: Database, build: Build) -> None:
    """Drops what Postgres has of an abandoned build, and forgets its positions. Call it in a transaction."""
    await db.execute(_DURABLE)
    await _become(db, build, "dropped", ("scratch",))
    await db.execute(f"DROP SCHEMA IF EXISTS {build.schema} CASCADE")
    await db.execute(
        "DELETE FROM platform.projection_offset WHERE projection = $1 AND build = $2", build.projection, build.number
    )
