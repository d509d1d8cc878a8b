"""How one row becomes another in Postgres, written again from the meaning of `Merge`, not from its SQL.

The contract suite holds this against the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, assert_never

import asyncpg

from projections.tables import Column, Merge, Table
from tests.sim.stores.heap import Row

RANGES: Final = {"int": 2**31, "integer": 2**31, "bigint": 2**63}
_UNIQUE: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Row], bool]]]] = {
    "(aggregate_id, version) WHERE version > 0": (("aggregate_id", "version"), lambda row: (row["version"] or 0) > 0),
}
"""What unique indexes mean, by their text: columns (a NULL in one equals nothing), and which rows they hold for."""


def uniques(table: Table) -> Sequence[tuple[str, Callable[[Row], tuple[Any, ...] | None]]]:
    """Unique indexes: a name, and what of a row nobody else may have. KeyError: an index that is new to us."""

    def value_of(columns: tuple[str, ...], holds: Callable[[Row], bool]) -> Callable[[Row], tuple[Any, ...] | None]:
        def of_row(row: Row) -> tuple[Any, ...] | None:
            value = tuple(row[c] for c in columns)
            return value if holds(row) and None not in value else None

        return of_row

    return [(index.name, value_of(*_UNIQUE[index.on])) for index in table.indexes if index.unique]


def refused(table: Table, row: Row) -> None:
    """Raises what the client or the server does for a value that does not fit its column."""
    for column in table.written:
        value = row[column.name]
        if value is None:
            if column.name in table.key:
                raise asyncpg.NotNullViolationError(f'null value in column "{column.name}"')
        elif column.type == "text" and "\0" in value:
            raise asyncpg.CharacterNotInRepertoireError('invalid byte sequence for encoding "UTF8": 0x00')
        elif (limit := RANGES.get(column.type)) and not -limit <= value < limit:
            raise asyncpg.DataError(f"value out of range for {column.name}")


def merged(table: Table, old: Row, new: Row) -> Row:
    """The row that `upsert` makes of two."""
    return {c.name: old[c.name] if c.name in table.key else _merged(c, old, new) for c in table.written}


def _merged(column: Column, old: Row, new: Row) -> Any:
    before, after = old[column.name], new[column.name]
    match column.merge:
        case Merge.LAST:
            return before if after is None else after
        case Merge.FIRST:
            return after if before is None else before
        case Merge.GREATEST:
            return max((value for value in (before, after) if value is not None), default=None)
        case Merge.FOLLOW:
            led_before, led_after = old[column.follows], new[column.follows]
            if led_after is None:
                return before
            if led_before is None or led_after > led_before:
                return after
            if led_after < led_before or before is None or after is None:
                return before
            return max(before, after)
        case _:
            assert_never(column.merge)
