"""What our statements do to the rows. A statement is known by its text, taken from the function or constant that makes it.

Invariant: a statement that is not here is an error, so whatever the code begins to say is imitated or the tests fail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib import import_module
from typing import Any, Final

import asyncpg

from projections import PROJECTIONS, builds, clickhouse_store, dead_letters, journal, platform
from projections.model import TableProjection
from projections.tables import Table, insert, upsert
from tests.sim.loop import BEGINNING
from tests.sim.stores.heap import Heap, Row, Transaction
from tests.sim.stores.merging import merged, refused, uniques
from tests.sim.stores.records import Record

OFFSETS, BUILDS, LETTERS = "platform.projection_offset", "platform.projection_build", "platform.dead_letter"
LOCKS: Final = "advisory locks"
BUILDS_KNOWN: Final = 6
Answer = tuple[str, list[Record]]
"""The command tag, and rows."""
Statement = Callable[[Heap, Transaction, Sequence[Any]], Awaitable[Answer]]


def now() -> datetime:
    return BEGINNING + timedelta(seconds=asyncio.get_running_loop().time())


def table_projections() -> Sequence[TableProjection]:
    modules = [import_module(f"projections.{name}").PROJECTION for name in PROJECTIONS]
    return [found for found in modules if isinstance(found, TableProjection)]


def qualified(tx: Transaction, table: Table) -> str:
    assert tx.search_path is not None, f"{table.name}: only a transaction that moved a position knows whose table is meant"
    return f"{tx.search_path}.{table.name}"


def writing(table: Table, *, merges: bool) -> Statement:
    """`insert(table)` or `upsert(table)`."""

    async def write(heap: Heap, tx: Transaction, arrays: Sequence[Any]) -> Answer:
        name, names = qualified(tx, table), [c.name for c in table.written]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*arrays, strict=True)]
        for row in rows:
            refused(table, row)
        touched: set[Any] = set()
        for row in rows:
            key = tuple(row[c] for c in table.key)
            await heap.lock(tx, name, key)
            old = heap.get(tx, name, key)
            if old is not None and not merges:
                raise asyncpg.UniqueViolationError(f'duplicate key value violates unique constraint "{table.name}_pkey"')
            if key in touched:
                raise asyncpg.CardinalityViolationError("ON CONFLICT DO UPDATE command cannot affect row a second time")
            touched.add(key)
            new = row if old is None else merged(table, old, row)
            await _keep_unique(heap, tx, name, table, key, new)
            heap.put(tx, name, key, new)
        return f"INSERT 0 {len(rows)}", []

    return write


async def _keep_unique(heap: Heap, tx: Transaction, name: str, table: Table, key: tuple[Any, ...], row: Row) -> None:
    for index, value_of in uniques(table):
        value = value_of(row)
        if value is None:
            continue
        await heap.lock(tx, f"{name}_{index}", value)
        for other in heap.rows(tx, name):
            if value_of(other) == value and tuple(other[c] for c in table.key) != key:
                raise asyncpg.UniqueViolationError(f'duplicate key value violates unique constraint "{table.name}_{index}"')


async def claim(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    projection, build, topics, partitions = args
    of = heap.get(tx, BUILDS, (projection, build))
    if of is None:
        return "INSERT 0 0", []
    await heap.lock(tx, BUILDS, (projection, build), hold=False)
    of = heap.get(tx, BUILDS, (projection, build))
    made = 0
    for topic, partition in zip(topics, partitions, strict=True):
        key = (projection, build, topic, partition)
        # Also where the row is there: ON CONFLICT DO NOTHING waits for whoever is changing it.
        await heap.lock(tx, OFFSETS, key, hold=heap.get(tx, OFFSETS, key) is None)
        if heap.get(tx, OFFSETS, key) is None:
            retired = of is not None and of["state"] in ("kept", "dropped")
            row = dict(zip(("projection", "build", "topic", "partition"), key, strict=True))
            heap.put(tx, OFFSETS, key, row | {"next_offset": None, "retired": retired})
            made += 1
    return f"INSERT 0 {made}", []


async def load(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    projection, build, topics, partitions = args
    asked = [(projection, build, t, p) for t, p in zip(topics, partitions, strict=True)]
    found = [row for key in dict.fromkeys(asked) if (row := heap.get(tx, OFFSETS, key)) is not None]
    return "SELECT", [Record.of(**{c: row[c] for c in ("topic", "partition", "next_offset")}) for row in found]


async def advance(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    projection, build, topic, partition, expected, new, schema, retired_too = args
    key = (projection, build, topic, partition)

    def matches() -> Row | None:
        row = heap.get(tx, OFFSETS, key)
        if row is None or row["next_offset"] != expected or (row["retired"] and not retired_too):
            return None
        return row

    if matches() is None:
        return "UPDATE 0", []
    await heap.lock(tx, OFFSETS, key)
    if (row := matches()) is None:
        return "UPDATE 0", []
    heap.put(tx, OFFSETS, key, row | {"next_offset": new})
    tx.search_path = schema
    return "UPDATE 1", [Record.of(set_config=schema)]


async def active(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    found = [row for row in heap.rows(tx, BUILDS) if row["projection"] == args[0] and row["state"] == "active"]
    return "SELECT", [Record.of(**row) for row in found]


async def begin(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    projection, version, definition, state = args
    number = max((row["build"] for row in heap.rows(tx, BUILDS) if row["projection"] == projection), default=0) + 1
    row = {
        "projection": projection,
        "build": number,
        "version": version,
        "definition": definition,
        "state": state,
        "created_at": now(),
        "activated_at": now() if state == "active" else None,
    }
    await heap.lock(tx, BUILDS, (projection, number))
    if heap.get(tx, BUILDS, (projection, number)) is not None:
        raise asyncpg.UniqueViolationError('duplicate key value violates unique constraint "projection_build_pkey"')
    heap.put(tx, BUILDS, (projection, number), row)
    return "INSERT 0 1", [Record.of(**row)]


async def adopt(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    row = heap.get(tx, BUILDS, (args[0], args[1]))
    if row is None or row["definition"] != "":
        return "UPDATE 0", []
    await heap.lock(tx, BUILDS, (args[0], args[1]))
    heap.put(tx, BUILDS, (args[0], args[1]), row | {"definition": args[2]})
    return "UPDATE 1", []


async def advisory_lock(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    await heap.lock(tx, LOCKS, tuple(args))
    return "SELECT 1", []


async def durable(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    tx.is_durable = True
    return "SET", []


async def sees_table(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    return "SELECT 1", [Record.of(to_regclass=BUILDS if BUILDS in heap.tables else None)]


async def nothing(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    """Views: nobody reads through them here."""
    return "DONE", []


async def bury(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    projection, topic, partition, offsets, reasons = args
    for offset, reason in zip(offsets, reasons, strict=True):
        key = (projection, topic, partition, offset)
        if heap.get(tx, LETTERS, key) is not None:
            continue
        await heap.lock(tx, LETTERS, key)
        if heap.get(tx, LETTERS, key) is None:
            row = {"place": key[:3], "offset": offset, "reason": reason, "buried_at": now(), "state": "buried"}
            heap.put(tx, LETTERS, key, row)
    return "INSERT", []


async def count_letters(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    since = now() - timedelta(days=1)
    found = [row for row in heap.rows(tx, LETTERS) if row["place"] == tuple(args) and row["buried_at"] > since]
    return "SELECT 1", [Record.of(count=sum(row["state"] == "buried" for row in found))]


async def known_letters(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    found = [row for row in heap.rows(tx, LETTERS) if row["place"] == tuple(args[:3]) and row["offset"] in args[3]]
    return "SELECT", [Record.of(offset=row["offset"]) for row in found]


async def dropped_letters(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    found = [row for row in heap.rows(tx, LETTERS) if row["place"] == tuple(args[:3]) and row["offset"] in args[3]]
    return "SELECT", [Record.of(offset=row["offset"]) for row in found if row["state"] == "dropped"]


async def newest_versions(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
    """The journal's question: the greatest version of each aggregate."""
    known: dict[Any, int | None] = dict.fromkeys(args[0])
    for row in heap.rows(tx, qualified(tx, journal.JOURNAL)):
        if row["version"] > 0 and row["aggregate_id"] in known:
            known[row["aggregate_id"]] = max(known[row["aggregate_id"]] or 0, row["version"])
    return "SELECT", [Record.of(aggregate_id=aggregate, version=version) for aggregate, version in known.items()]


def _making(projection: TableProjection, schema: str) -> Statement:
    async def make(heap: Heap, tx: Transaction, args: Sequence[Any]) -> Answer:
        for table in projection.tables:  # outside of the transaction: a table that no build knows of is seen by nobody
            heap.make(f"{schema}.{table.name}")
        return "CREATE", []

    return make


@cache
def known() -> Mapping[str, Statement]:
    """Every statement by its text."""
    found: dict[str, Statement] = {
        platform._CLAIM: claim,
        platform._LOAD: load,
        platform._ADVANCE: advance,
        builds._ACTIVE: active,
        builds._BEGIN: begin,
        builds._ADOPT: adopt,
        builds._LOCK: advisory_lock,
        builds._DURABLE: durable,
        builds._SEES_TABLE: sees_table,
        dead_letters._BURY: bury,
        dead_letters._WAITING: count_letters,
        dead_letters._KNOWN: known_letters,
        dead_letters._DROPPED: dropped_letters,
        journal._KNOWN: newest_versions,
        clickhouse_store.SHARED: nothing,  # keeps flips away, and nobody flips here
        clickhouse_store.UNSHARED: nothing,
        "SET LOCAL search_path TO DEFAULT": nothing,
        "SELECT DISTINCT view_name FROM information_schema.view_table_usage WHERE view_schema = 'public'"
        " AND table_schema LIKE $1 AND table_schema <> $2": nothing,
    }
    for projection in table_projections():
        for table in projection.tables:
            found[insert(table)] = writing(table, merges=False)
            found[upsert(table)] = writing(table, merges=True)
        for number in range(1, BUILDS_KNOWN):
            home = platform.schema(projection.name, number)
            made = f"CREATE SCHEMA {home}; SET LOCAL search_path = {home}; {builds.definition(projection)}"
            found[made] = _making(projection, home)
            for table in projection.tables:
                found[f"CREATE OR REPLACE VIEW public.{table.name} AS SELECT * FROM {home}.{table.name}"] = nothing
    return found


def empty() -> Heap:
    """A database that was migrated and nothing more."""
    heap = Heap()
    for table in (OFFSETS, BUILDS, LETTERS):
        heap.make(table)
    return heap
