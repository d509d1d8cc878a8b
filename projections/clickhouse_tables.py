"""ClickHouse tables of facts as data: one table a record type, its columns taken from the record's schema.

Invariants
* `tenant_id` leads every sort key; the event id (and, in unfolded arrays, the element's place) ends it. The engine is a
  ReplacingMergeTree, so a record that is inserted twice, or stands at two offsets, is one row: always that of its first offset
  (`_survivor`). So what was known at a time never changes, and a rebuild gives the same rows.
* Rows may stand twice until the engine merges them. Everybody reads the view (`viewer_left_v`), which does not show that.
* A table belongs to one build of its projection (`viewer_left_1`) and only ever gets columns; a view shows one build.
* Texts are plain Strings, also those with few values: LowCardinality halves the speed of an insert (measured).
* A field that is added to a schema becomes a column by itself, with the schema's default for the records before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from projections.avro_blocks import PLACE, SEAL, flattened
from streams.registry import by_name

_LOGICAL: Final = {"uuid": "UUID", "timestamp-millis": "DateTime64(3, 'UTC')"}
_PLAIN: Final = {
    "string": "String",
    "bytes": "String",
    "int": "Int32",
    "long": "Int64",
    "boolean": "Bool",
    "double": "Float64",
    "float": "Float32",
}
_ACTIVE: Final = re.compile(r"\bFROM\s+(?:\S+\.)?`?(\w+?)`?\s+FINAL\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    default: str | None = None  # as an SQL literal

    def __str__(self) -> str:
        return f"{self.name} {self.type}" + (f" DEFAULT {self.default}" if self.default is not None else "")


@dataclass(frozen=True, slots=True)
class FactTable:
    """The rows of one record type. `key` stands in the sort key between tenant_id and event_id."""

    record: type
    build: int = 1
    key: tuple[str, ...] = ("aggregate_id", "occurred_at")

    @property
    def name(self) -> str:
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.record.__name__).lower()

    @property
    def physical(self) -> str:
        return f"{self.name}_{self.build}"

    @property
    def target(self) -> str:
        """The table that blocks are inserted into."""
        return self.physical

    @property
    def view(self) -> str:
        return f"{self.name}_v"

    @property
    def columns(self) -> tuple[Column, ...]:
        return _columns(self.record)

    def create(self) -> Sequence[str]:
        """Statements that make the table unless it exists."""
        return (_create(self.physical, self.columns, _SEALED, _replacing("tenant_id", *self.key, "event_id")),)

    def grow(self, existing: Mapping[str, frozenset[str]]) -> Sequence[str]:
        """Statements that add what the schema has got since; `existing` are the columns by table."""
        return _add_columns(self.physical, self.columns, existing)

    def show(self) -> str:
        """Statement that lets readers see this build."""
        hidden = ", ".join(self._hidden)
        return f"CREATE OR REPLACE VIEW {self.view} AS SELECT * EXCEPT ({hidden}) FROM {self.physical} FINAL"  # noqa: S608 - our names

    def drop(self) -> Sequence[str]:
        """Statements that remove the table, if it is there."""
        return (f"DROP TABLE IF EXISTS {self.physical} SYNC",)

    @property
    def _hidden(self) -> tuple[str, ...]:
        return ("_seal",)


@dataclass(frozen=True, slots=True)
class ArrayTable(FactTable):
    """A record type whose records are batches: parallel arrays, unfolded by the engine to one row an element.

    Blocks go into a Null table, whose materialized view fills the table. Arrays of different lengths fail the insert.
    `singular` renames array fields; `keep` are the other fields that every row gets.
    """

    keep: tuple[str, ...] = ("tenant_id", "aggregate_id", "event_id", "node_id", "_partition", "_offset", "_appended_at")
    singular: Mapping[str, str] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"{self.name}_in_{self.build}"

    @property
    def _unfolding(self) -> str:
        return f"{self.name}_unfold_{self.build}"

    @property
    def _arrays(self) -> Mapping[str, Column]:
        """Array fields and what a row has of them."""
        arrays = [c for c in _columns(self.record) if c.type.startswith("Array(")]
        return {c.name: Column(self.singular.get(c.name, c.name), c.type.removeprefix("Array(")[:-1]) for c in arrays}

    @property
    def columns(self) -> tuple[Column, ...]:
        kept = tuple(c for c in _columns(self.record) if c.name in self.keep)
        return (*kept, Column("position", "UInt32"), *self._arrays.values())

    def create(self) -> Sequence[str]:
        return (
            _create(self.target, _columns(self.record), _SEALED, "Null"),
            _create(self.physical, self.columns, None, _replacing("tenant_id", *self.key, "event_id", "position")),
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {self._unfolding} TO {self.physical} AS {self._select}",
        )

    def grow(self, existing: Mapping[str, frozenset[str]]) -> Sequence[str]:
        added = [
            *_add_columns(self.target, _columns(self.record), existing),
            *_add_columns(self.physical, self.columns, existing),
        ]
        if added and self._unfolding in existing:
            # Changed in place, never dropped: what is inserted while a view is missing would be lost.
            added.append(f"ALTER TABLE {self._unfolding} MODIFY QUERY {self._select}")
        return added

    def drop(self) -> Sequence[str]:
        return tuple(f"DROP TABLE IF EXISTS {name} SYNC" for name in (self._unfolding, self.target, self.physical))

    @property
    def _select(self) -> str:
        rows = ", ".join(f"{a} AS {c.name}" for a, c in self._arrays.items())
        first = next(iter(self._arrays))
        names = ", ".join(c.name for c in self.columns)
        return f"SELECT {names} FROM {self.target} ARRAY JOIN {rows}, arrayEnumerate({first}) AS position"  # noqa: S608 - our names

    @property
    def _hidden(self) -> tuple[str, ...]:
        return ("position",)


# The engine keeps the row with the greatest version. MATERIALIZED: computed at the insert, and no part of `SELECT *`.
_SURVIVOR: Final = "_survivor UInt64 MATERIALIZED bitNot(toUInt64(_offset))"
_SEALED: Final = "CONSTRAINT sealed CHECK _seal = toInt64OrZero(getSetting('log_comment'))"
"""See avro_blocks. The setting is a free text that travels with an insert; here it says the seal of its block."""


def create(
    tables: Sequence[FactTable], existing: Mapping[str, frozenset[str]], shown: Mapping[str, str], *, is_active: bool = True
) -> list[str]:
    """Statements that bring the tables of a build up to date; they may be run again, and by many at once.

    `existing`: columns by table. `shown`: what each view selects, as the engine tells it. Views show the build that is
    active; that of another build leaves them alone.
    """
    statements: list[str] = []
    for table in tables:
        grown = table.grow(existing) if table.physical in existing else []
        statements += [*grown, *table.create()]
        active = _ACTIVE.search(shown.get(table.view, ""))
        if is_active and (active is None or grown or active[1] != table.physical):
            statements.append(table.show())
    return statements


def _replacing(*key: str) -> str:
    # A fact that is shown at once is a part of its own; merged ones go after a minute instead of eight, or there are thousands.
    return f"ReplacingMergeTree(_survivor) ORDER BY ({', '.join(key)}) SETTINGS old_parts_lifetime = 60"


def _create(name: str, columns: Sequence[Column], constraint: str | None, engine: str) -> str:
    survivor = [_SURVIVOR] if engine.startswith("Replacing") else []
    lines = [str(c) for c in columns] + survivor + ([constraint] if constraint else [])
    return f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(lines)}) ENGINE = {engine}"


def _add_columns(table: str, columns: Sequence[Column], existing: Mapping[str, frozenset[str]]) -> list[str]:
    new = [c for c in columns if c.name not in existing.get(table, frozenset())]
    return [f"ALTER TABLE {table} {', '.join(f'ADD COLUMN IF NOT EXISTS {c}' for c in new)}"] if new else []


def _columns(record: type) -> tuple[Column, ...]:
    flat = flattened(by_name()[record.__name__].schema)
    return (
        *(Column(name, _type(kind)) for name, kind in (*PLACE, SEAL)),
        *(Column(f["name"], _type(f["type"]), _default(f)) for f in flat),
    )


def _type(kind: Any) -> str:
    """ClickHouse type of an Avro type. ValueError: there is none."""
    match kind:
        case {"logicalType": logical} if logical in _LOGICAL:
            return _LOGICAL[logical]
        case {"type": "enum"}:
            return "String"
        case {"type": "array", "items": items}:
            return f"Array({_type(items)})"
        case {"type": "record", "fields": fields}:  # inside of an array
            elements = ", ".join(f["name"] + " " + _type(f["type"]) for f in fields)
            return f"Tuple({elements})"
        case {"type": str(plain)}:
            return _type(plain)
        case ["null", inner]:
            return f"Nullable({_type(inner)})"
        case str(plain) if plain in _PLAIN:
            return _PLAIN[plain]
    raise ValueError(f"no column type for the Avro type {kind!r}")


def _default(avro_field: Mapping[str, Any]) -> str | None:
    match avro_field.get("default"):
        case bool(flag):
            return "true" if flag else "false"
        case int() | float() as number:
            return str(number)
        case str(text):
            escaped = text.replace("\\", "\\\\").replace("'", "\\'")
            return f"'{escaped}'"
        case list():
            return "[]"
    return None
