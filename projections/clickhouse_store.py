"""ClickHouse projections: the bytes of facts into tables, the position behind them in Postgres.

The order is the correctness:

1. group the batch by schema id; that of a newer platform stops the line, a value without one is buried
2. insert one block a schema id. A block that the engine cannot read is halved until only what is unreadable is left of it,
   and that is buried
3. move the position by compare-and-set

All of it happens under a lock that a flip excludes: rows of a batch whose position is not moved yet would be seen in the build
that readers leave, and be missing in the one that they come to. A flip that has waited long ends the session that has the lock:
whoever was frozen with it finds it closed, and exits (`rebuild/in_flight.py`). Before 1 the store asks which build is active.

A crash before 3 inserts the same rows again, and the tables' sort keys make them one (no deduplication tokens: the engine
writes them before the part that they stand for). So a worker that is superseded does no harm either.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
from aiohttp import ClientError
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from projections import builds
from projections.avro_blocks import block, header
from projections.builds import Build
from projections.clickhouse import AsyncClient, connect, rows
from projections.clickhouse_tables import FactTable, create
from projections.dead_letters import halt_if_newer, homes, why_unreadable
from projections.model import TP, ConsumerRecord, FactProjection, Letters
from projections.served import Served
from streams.codec import MAGIC, PREFIX
from streams.errors import Transient
from streams.registry import by_id
from streams.settings import Settings
from streams.telemetry import log
from streams.topics import Topics

LONGEST_RETRY_SECONDS: Final = 30.0
# What the engine says of a block that it read and will not have: arrays of different lengths, a row without the seal.
REFUSED: Final = frozenset({190, 469})
# And where it says that it could not even read it; the code is that of whatever it stumbled over first.
READING: Final = ("AvroRowInputFormat", "avro::")
# What passes by itself: timeouts, too many queries, out of memory, too many parts, read-only for now, network.
PASSING: Final = frozenset({159, 202, 203, 209, 210, 241, 242, 252, 319, 425, 999})
SHARED: Final = "SELECT pg_advisory_lock_shared(7170104, hashtext($1))"
UNSHARED: Final = "SELECT pg_advisory_unlock_shared(7170104, hashtext($1))"
EXCLUDING: Final = "SELECT pg_advisory_xact_lock(7170104, hashtext($1))"
"""Of a session and not of a transaction: a worker that is frozen holds up a flip, but not the worker that takes its place."""
_INSERT: Final = {
    "input_format_avro_allow_missing_fields": 1,  # older records: the column's default
    "input_format_defaults_for_omitted_fields": 1,
    "input_format_null_as_default": 0,
    "optimize_on_insert": 0,  # what stands twice in a block is merged later, like all else that stands twice
    "async_insert": 0,
}
Unreadable = list[tuple[ConsumerRecord, str]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where bodies of one schema id go."""

    table: str
    head: bytes


async def open_store(
    projection: FactProjection, settings: Settings, pool: asyncpg.Pool[asyncpg.Record], letters: Letters
) -> ClickHouseStore:
    """A store whose tables exist."""
    store = ClickHouseStore(projection, settings.topics, pool, letters, await connect(settings.clickhouse_url))
    await store.prepare()
    return store


async def show(clickhouse: AsyncClient, tables: Sequence[FactTable]) -> None:
    """Readers see these tables from now on: one view after another, for the engine has no transactions."""
    for table in tables:
        await clickhouse.command(table.show())


async def make(clickhouse: AsyncClient, tables: Sequence[FactTable], *, is_active: bool) -> None:
    """Makes the tables of a build, and adds the columns that they lack."""
    columns: dict[str, set[str]] = {}
    for table, column in await rows(clickhouse, "SELECT table, name FROM system.columns WHERE database = currentDatabase()", {}):
        columns.setdefault(table, set()).add(column)
    existing = {table: frozenset(names) for table, names in columns.items()}
    views = await rows(
        clickhouse,
        "SELECT name, as_select FROM system.tables WHERE database = currentDatabase() AND engine = 'View'",
        {},
    )
    for statement in create(tables, existing, dict(views), is_active=is_active):  # type: ignore[arg-type]  # rows of two
        await clickhouse.command(statement)


class ClickHouseStore:
    def __init__(
        self,
        projection: FactProjection,
        topics: Topics,
        pool: asyncpg.Pool[asyncpg.Record],
        letters: Letters,
        clickhouse: AsyncClient,
        build: Build | None = None,
    ) -> None:
        """`build`: the one to fill, whoever is active; None: the active one."""
        self.projection, self.topics, self.pool, self.letters, self.clickhouse = projection, topics, pool, letters, clickhouse
        self.served = Served(pool, projection, build)
        self.targets: dict[bytes, Target | None] = {}

    async def prepare(self) -> None:
        await self.served.prepare()
        await self._use_build()

    async def _use_build(self) -> None:
        """Makes its tables what they should be; the views show it where it is the active one."""
        tables = builds.tables(self.projection, self.served.build)
        await make(self.clickhouse, tables, is_active=self.served.fixed is None)
        of = {table.record.__name__: table for table in tables}
        self.targets = {
            PREFIX.pack(MAGIC, number): Target(of[r.name].target, header(r)) if r.name in of else None
            for number, r in by_id().items()
        }

    async def load_offsets(self, tps: Collection[TP]) -> Mapping[TP, int | None]:
        await self._moved_on()
        return await self.served.load(tps)

    async def _moved_on(self) -> bool:
        if not await self.served.moved_on():
            return False
        await self._use_build()  # whoever flipped may have died before the views: then it is us who let readers see
        return True

    async def apply(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        if self.served.fixed is not None:
            await self._apply(tp, records)
            return
        async with self.pool.acquire() as guard:
            await guard.execute(SHARED, self.projection.name)
            try:
                await self._moved_on()
                await self._apply(tp, records)
            finally:
                await guard.execute(UNSHARED, self.projection.name)

    async def insert(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        """Inserts records of one partition and moves nothing: rows that are there already stay one row."""
        blocks, unreadable = self._blocks(tp, records)
        inserted = [self._insert(target, part) for target, part in blocks]
        for more in await asyncio.gather(*inserted):
            unreadable += more
        await self.letters.bury(tp, unreadable)

    async def skip(self, tp: TP, new: int) -> None:
        """Moves the position over offsets where no record is left."""
        await self.served.advance(self.pool, tp, self.served.next[tp], new)
        self.served.next[tp] = new

    async def _apply(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        expected, new = self.served.next[tp], records[-1].offset + 1
        if expected is not None and records[0].offset < expected:
            records = [r for r in records if r.offset >= expected]
            if not records:
                return
        await self.insert(tp, records)
        await self.served.advance(self.pool, tp, expected, new)
        self.served.next[tp] = new

    def _blocks(
        self, tp: TP, records: Sequence[ConsumerRecord]
    ) -> tuple[list[tuple[Target, Sequence[ConsumerRecord]]], Unreadable]:
        """Records by where they go, and those that have no schema id. Raises Halted: a newer platform's."""
        groups: dict[bytes, list[ConsumerRecord]] = {}
        for record in records:
            framing = (record.value or b"")[: PREFIX.size]
            group = groups.get(framing)
            if group is None:
                group = groups[framing] = []
            group.append(record)
        blocks: list[tuple[Target, Sequence[ConsumerRecord]]] = []
        letters: Unreadable = []
        home = tp.topic.removeprefix(self.topics.prefix)
        for framing, group in groups.items():
            if framing not in self.targets or homes().get(framing, home) != home:
                unreadable = [(record, why_unreadable(record.value or b"")) for record in group]
                halt_if_newer(tp, unreadable)
                letters += [(record, str(reason)) for record, reason in unreadable]
            elif target := self.targets[framing]:
                blocks.append((target, group))
        return blocks, letters

    async def _insert(self, target: Target, records: Sequence[ConsumerRecord]) -> Unreadable:
        """Inserts records of one partition; gives those that the engine cannot read, with its reason."""
        reason = await self._insert_whole(target, records)
        if reason is None:
            return []
        if len(records) == 1:
            return [(records[0], reason)]
        middle = len(records) // 2
        return await self._insert(target, records[:middle]) + await self._insert(target, records[middle:])

    async def _insert_whole(self, target: Target, records: Sequence[ConsumerRecord]) -> str | None:
        """Inserts all or nothing; why it cannot be read, or None. Retries what passes by itself, then raises Transient."""
        seal = secrets.randbits(62) + 1  # never 0, which is what the tables take for an insert without a seal
        body = block(target.head, seal, records)
        give_up_at, pause_seconds = time.monotonic() + LONGEST_RETRY_SECONDS, 0.05
        while True:
            try:
                await self.clickhouse.raw_insert(
                    target.table, insert_block=body, fmt="Avro", settings={**_INSERT, "log_comment": str(seal)}
                )
                return None
            except (DatabaseError, ClientError, OSError) as error:
                if not _passes(error):  # asked first: memory may run out while a good block is read
                    if _is_unreadable(error):
                        return _first_line(error)
                    raise
                if time.monotonic() > give_up_at:
                    raise Transient(f"ClickHouse did not take a block of {target.table}: {_first_line(error)}") from error
                log(__name__).warning("ClickHouse did not take a block: trying again", reason=_first_line(error))
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(1.0, 2 * pause_seconds)

    async def close(self) -> None:
        await self.letters.close()
        await self.clickhouse.close()
        await self.pool.close()


def _passes(error: Exception) -> bool:
    """Connection errors carry no code of the engine."""
    code = getattr(error, "code", None)
    return code in PASSING or (code is None and isinstance(error, OperationalError | ClientError | OSError))


def _is_unreadable(error: Exception) -> bool:
    return getattr(error, "code", None) in REFUSED or any(word in str(error) for word in READING)


def _first_line(error: Exception) -> str:
    return str(error).partition("server response: ")[2].partition("\n")[0][:500] or repr(error)[:500]
