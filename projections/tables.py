"""Postgres tables of read models as data: their DDL, and how a batch of changes is merged into them.

Invariant: a table belongs to one build of one projection and is never altered. Statements name it plainly (`streams`); the
schema that the transaction looks into says whose build it is (`platform.advance`), and for readers it is the view of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any


class Merge(Enum):
    """What happens when a row gets a value for a column that has one already. NULL never replaces anything."""

    LAST = "coalesce(new.{c}, old.{c})"
    FIRST = "coalesce(old.{c}, new.{c})"
    GREATEST = "greatest(old.{c}, new.{c})"  # commutes: use it where several partitions write to one row
    FOLLOW = (  # belongs to the value of a GREATEST column: "a node, and when it went live"
        "CASE WHEN new.{f} IS NULL THEN old.{c}"
        " WHEN old.{f} IS NULL OR (new.{f}, new.{c}) > (old.{f}, old.{c}) THEN new.{c} ELSE old.{c} END"
    )


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str  # as Postgres calls it
    merge: Merge = Merge.LAST
    follows: str = ""  # the GREATEST column that a FOLLOW column belongs to
    generated: str | None = None  # expression of a stored column that nobody writes


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    on: str  # what stands behind the table's name: "(tenant_id, title) WHERE deleted_at IS NULL"
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`key` columns come first in `columns` and are the primary key."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    indexes: tuple[Index, ...] = field(default=())

    @property
    def written(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if c.generated is None)

    def ddl(self) -> str:
        """Statements that make the table and its indexes, in the schema that is looked into, unless they exist."""
        lines = [
            f"{c.name} {c.type}{' NOT NULL' if c.name in self.key else ''}"
            f"{f' GENERATED ALWAYS AS ({c.generated}) STORED' if c.generated else ''}"
            for c in self.columns
        ]
        made = [f"CREATE TABLE IF NOT EXISTS {self.name} ({', '.join(lines)}, PRIMARY KEY ({', '.join(self.key)}))"]
        made += [
            f"CREATE {'UNIQUE ' if i.unique else ''}INDEX IF NOT EXISTS {self.name}_{i.name} ON {self.name} {i.on}"
            for i in self.indexes
        ]
        return ";\n".join(made)


@cache
def insert(table: Table) -> str:
    """One statement that appends arrays, one a written column. A key that is there is an error."""
    names = ", ".join(c.name for c in table.written)
    arrays = ", ".join(f"${n}::{c.type}[]" for n, c in enumerate(table.written, 1))
    rows = f"SELECT * FROM unnest({arrays})"  # noqa: S608 - names from our own code
    return f"INSERT INTO {table.name} AS old ({names}) {rows}"


@cache
def upsert(table: Table) -> str:
    """One statement that merges arrays, one a written column, into the table."""
    rest = [c for c in table.written if c.name not in table.key]
    merged = ", ".join(f"{c.name} = " + c.merge.value.format(c=c.name, f=c.follows).replace("new.", "excluded.") for c in rest)
    then = f"UPDATE SET {merged}" if rest else "NOTHING"
    return f"{insert(table)} ON CONFLICT ({', '.join(table.key)}) DO {then}"


def merged(table: Table, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What `upsert` makes of two rows of one key, for whoever keeps rows in memory. Columns that nobody set are not there."""
    out = {name: value for name, value in old.items() if value is not None}
    for column in table.written:
        value = new.get(column.name)
        match column.merge:
            case Merge.FOLLOW:
                leads, led = new.get(column.follows), old.get(column.follows)
                if leads is None or (led is not None and (leads, value) <= (led, old.get(column.name))):
                    continue
            case Merge.FIRST if column.name in out:
                continue
            case Merge.GREATEST if column.name in out and (value is None or value <= out[column.name]):
                continue
            case _:
                pass
        if value is not None:
            out[column.name] = value
    return out
