"""A ClickHouse in memory: what `raw_insert` of our blocks leads to, and the statements that make tables.

Invariant: a block is in the table as a whole or not at all, and a row is replaced by one of its sort key by the rules of
`ReplacingMergeTree(_survivor)`: the lowest offset stays, among equals the latest insert.

A deduplication token is honoured as the engine does on unreplicated tables: it is remembered before the part is written, so a
kill in between leaves a token that stands for nothing. Nobody of ours may use one; a mutant does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Final, cast

from aiohttp import ServerDisconnectedError
from clickhouse_connect.driver.exceptions import DatabaseError

from projections import PROJECTIONS
from projections.clickhouse import AsyncClient
from projections.clickhouse_tables import ArrayTable, Column, FactTable, _columns
from projections.model import FactProjection
from tests.sim.stores.avro_rows import Unreadable, rows, sealed
from tests.sim.stores.wire import Wire

BUILDS_KNOWN: Final = 3
_COLUMNS: Final = "SELECT table, name FROM system.columns WHERE database = currentDatabase()"
_VIEWS: Final = "SELECT name, as_select FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
_ORDER: Final = re.compile(r"ORDER BY \(([^)]*)\)")
_ZERO: Final = {"String": b"", "Int32": 0, "Int64": 0, "Bool": False}
Key = tuple[Any, ...]
Row = Mapping[str, Any]


def fact_projections() -> Sequence[FactProjection]:
    modules = [import_module(f"projections.{name}").PROJECTION for name in PROJECTIONS]
    return [found for found in modules if isinstance(found, FactProjection)]


@dataclass(slots=True)
class Stored:
    """A table: rows by sort key, as FINAL shows them."""

    table: FactTable
    key: tuple[str, ...]
    rows: dict[Key, Row] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Column]] = field(init=False)
    """Of the table and of what its blocks go through."""

    def __post_init__(self) -> None:
        table = self.table
        self.columns = {table.target: _columns(table.record), table.physical: table.columns}

    def add(self, row: Row) -> None:
        key = tuple(row[c] for c in self.key)
        before = self.rows.get(key)
        if before is None or row["_offset"] <= before["_offset"]:
            self.rows[key] = row


@dataclass(slots=True)
class ClickHouseServer:
    wire: Wire
    projections: Sequence[FactProjection] = field(default_factory=fact_projections)
    tables: dict[str, Stored] = field(default_factory=dict)
    views: dict[str, str] = field(default_factory=dict)
    tokens: set[tuple[str, str]] = field(default_factory=set)
    is_about_to_die: bool = False
    """Killed at the next insert, before its part is written, and started again."""
    _made_by: dict[str, tuple[FactTable, str]] = field(init=False)
    _targets: dict[str, FactTable] = field(init=False)

    def __post_init__(self) -> None:
        """Statements by their text, taken from what makes them."""
        self._made_by, self._targets = {}, {}
        for projection in self.projections:
            statements, targets = _known(projection)
            self._made_by.update(statements)
            self._targets.update(targets)

    def client(self) -> AsyncClient:
        """What `projections.clickhouse.connect` gives."""
        return cast(AsyncClient, Client(self))

    def command(self, statement: str) -> None:
        if statement not in self._made_by:
            raise AssertionError(f"the simulated ClickHouse does not know this statement: {statement}")
        table, what = self._made_by[statement]
        if what == "show":
            self.views[table.view] = f"SELECT * FROM {table.physical} FINAL"
        elif table.physical not in self.tables and (order := _ORDER.search(statement)):
            self.tables[table.physical] = Stored(table, tuple(order[1].split(", ")))

    def query(self, statement: str) -> list[tuple[str, str]]:
        if statement == _VIEWS:
            return list(self.views.items())
        if statement == _COLUMNS:
            return [
                (name, c.name) for stored in self.tables.values() for name, columns in stored.columns.items() for c in columns
            ]
        raise AssertionError(f"the simulated ClickHouse does not know this query: {statement}")

    def insert(self, target: str, block: bytes, settings: Mapping[str, Any]) -> None:
        table = self._targets.get(target)
        if table is None or table.physical not in self.tables:
            raise _refusal(f"Unknown table {target}", 60)
        try:
            _, found = rows(block)
            sealed(found, settings)
            unfolded = [made for row in found for made in _unfold(table, _with_defaults(table, row))]
        except Unreadable as error:
            raise _refusal(str(error), error.code) from None
        if token := settings.get("insert_deduplication_token"):
            if (target, token) in self.tokens:
                return
            self.tokens.add((target, token))
        if self.is_about_to_die:
            self.is_about_to_die = False
            raise ServerDisconnectedError
        stored = self.tables[table.physical]
        for row in unfolded:
            stored.add(row)


_KNOWN: Final[dict[int, tuple[FactProjection, dict[str, tuple[FactTable, str]], dict[str, FactTable]]]] = {}


def _known(projection: FactProjection) -> tuple[dict[str, tuple[FactTable, str]], dict[str, FactTable]]:
    """Statements and insert targets of its builds. Kept: making the texts takes longer than a run."""
    if id(projection) not in _KNOWN:
        statements: dict[str, tuple[FactTable, str]] = {}
        targets: dict[str, FactTable] = {}
        for number in range(1, BUILDS_KNOWN):
            for table in (replace(t, build=number) for t in projection.tables):
                targets[table.target] = table
                statements.update(dict.fromkeys(table.create(), (table, "create")))
                statements[table.show()] = (table, "show")
        _KNOWN[id(projection)] = projection, statements, targets
    return _KNOWN[id(projection)][1:]


def _refusal(reason: str, code: int) -> DatabaseError:
    error = DatabaseError(
        f"HTTPDriver received ClickHouse error code {code}: server response: Code: {code}. DB::Exception: {reason}"
    )
    error.code = code
    return error


def _with_defaults(table: FactTable, row: dict[str, Any]) -> dict[str, Any]:
    """Fields that an older writer did not know have their column's default."""
    if isinstance(table, ArrayTable):
        row = {**{name: [] for name in table._arrays}, **row}
    for column in table.columns:
        if column.name not in row:
            row[column.name] = _default(column)
    return row


def _default(column: Column) -> Any:
    match column.default:
        case None:
            return None if column.type.startswith("Nullable") else _ZERO.get(column.type)
        case "true" | "false" as flag:
            return flag == "true"
        case text if text.startswith("'"):
            return text[1:-1].replace("\\'", "'").replace("\\\\", "\\").encode()
        case "[]":
            return []
        case number:
            return int(number)


def _unfold(table: FactTable, row: dict[str, Any]) -> list[Row]:
    if not isinstance(table, ArrayTable):
        return [row]
    arrays = {column.name: row[name] for name, column in table._arrays.items()}
    if len({len(values) for values in arrays.values()}) > 1:
        raise Unreadable("Sizes of ARRAY-JOIN-ed arrays do not match", 190)
    kept = {name: row[name] for name in table.keep}
    elements = zip(*arrays.values(), strict=True)
    return [
        {**kept, "position": position, **dict(zip(arrays, element, strict=True))} for position, element in enumerate(elements, 1)
    ]


class _Result:
    def __init__(self, result_rows: list[tuple[str, str]]) -> None:
        self.result_rows = result_rows


class Client:
    def __init__(self, server: ClickHouseServer) -> None:
        self._server = server

    async def command(self, cmd: str) -> None:
        async def serve() -> None:
            self._server.command(cmd)

        await self._server.wire.request(cmd[:40], serve, ServerDisconnectedError, _nothing)

    async def query(self, query: str, parameters: Mapping[str, object]) -> _Result:
        async def serve() -> _Result:
            return _Result(self._server.query(query))

        return await self._server.wire.request(query[:40], serve, ServerDisconnectedError, _nothing)

    async def raw_insert(self, table: str, *, insert_block: bytes, fmt: str, settings: Mapping[str, Any]) -> None:
        assert fmt == "Avro"

        async def serve() -> None:
            self._server.insert(table, insert_block, settings)

        await self._server.wire.request(f"INSERT INTO {table}", serve, ServerDisconnectedError, _nothing)

    async def close(self) -> None: ...


def _nothing() -> None:
    """An HTTP connection has no state that its end could undo."""
