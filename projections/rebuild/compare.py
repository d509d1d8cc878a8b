"""Whether two builds hold the same: row counts and a checksum of each table, and where those differ, the rows that do.

Invariant: both builds are compared at the same positions: here in one snapshot in which their positions are equal, in ClickHouse,
which has no snapshots, by leaving out what lies behind them (`compare_clickhouse.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from projections.builds import Build
from projections.tables import Table


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that only one of the builds has, or both have with other values. Only what differs is named."""

    table: str
    key: str
    live: Mapping[str, object] | None
    rebuilt: Mapping[str, object] | None

    def __str__(self) -> str:
        if self.live is None:
            return f"{self.table} {self.key}: the live build lacks it"
        if self.rebuilt is None:
            return f"{self.table} {self.key}: only the live build has it"
        named = (f"{c} is {self.live[c]!r}, should be {self.rebuilt[c]!r}" for c in self.live if self.live[c] != self.rebuilt[c])
        return f"{self.table} {self.key}: {', '.join(named)}"


@dataclass(frozen=True, slots=True)
class Compared:
    """One table. `differences` is cut off at the limit that was asked for."""

    table: str
    live_rows: int
    rebuilt_rows: int
    differences: Sequence[Difference] = field(default=())


async def compare_postgres(
    snapshot: asyncpg.Connection[asyncpg.Record], tables: Sequence[Table], live: Build, rebuilt: Build, limit: int
) -> list[Compared]:
    """`snapshot`: a connection inside of the transaction whose snapshot has both builds at the same positions."""
    found = []
    for table in tables:
        one, other = f"{live.schema}.{table.name}", f"{rebuilt.schema}.{table.name}"
        sums = [
            tuple(await snapshot.fetchrow(f"SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {name} t") or ())  # noqa: S608
            for name in (one, other)
        ]
        differences = [] if sums[0] == sums[1] else await _postgres_rows(snapshot, table, one, other, limit)
        found.append(Compared(table.name, sums[0][0], sums[1][0], differences))
    return found


async def _postgres_rows(
    db: asyncpg.Connection[asyncpg.Record], table: Table, live: str, rebuilt: str, limit: int
) -> list[Difference]:
    there = table.key[0]
    sql = f"""
        SELECT CASE WHEN a.{there} IS NOT NULL THEN to_jsonb(a) END, CASE WHEN b.{there} IS NOT NULL THEN to_jsonb(b) END
        FROM {live} a FULL JOIN {rebuilt} b USING ({", ".join(table.key)})
        WHERE a.{there} IS NULL OR b.{there} IS NULL OR a.*::text <> b.*::text LIMIT $1"""  # noqa: S608 - names from our own code
    pairs = [(row[0] and json.loads(row[0]), row[1] and json.loads(row[1])) for row in await db.fetch(sql, limit)]
    return [difference_of(table.name, table.key, a, b) for a, b in pairs]


def difference_of(
    table: str, key: Sequence[str], live: Mapping[str, object] | None, rebuilt: Mapping[str, object] | None
) -> Difference:
    row = live or rebuilt or {}
    if live and rebuilt:
        changed = [c for c in live if live[c] != rebuilt[c]]
        live, rebuilt = {c: live[c] for c in changed}, {c: rebuilt[c] for c in changed}
    return Difference(table, " ".join(f"{name}={row[name]}" for name in key), live, rebuilt)
