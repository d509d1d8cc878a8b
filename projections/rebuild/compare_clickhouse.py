"""Whether two builds of a ClickHouse projection hold the same facts.

Invariant: what lies at or behind the positions of the live build is left out by partition and offset, for both builds have
everything before them. A row that is missing within those bounds counts as there when it is there beyond them: a fact that was
resent may be kept at its later place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from projections.clickhouse import AsyncClient, rows
from projections.clickhouse_tables import FactTable
from projections.model import TP
from projections.rebuild.compare import Compared, Difference, difference_of
from streams.topics import Topics

PLACE = frozenset({"_partition", "_offset", "_appended_at", "_seal"})
"""Columns that say where a row was read, not what it says: a resent fact has several places."""


async def compare_clickhouse(
    ch: AsyncClient,
    tables: Sequence[tuple[FactTable, FactTable]],
    positions: Mapping[TP, int],
    topics: Topics,
    limit: int,
) -> list[Compared]:
    """`tables`: of the live build and of the rebuilt one. Both have everything below the positions."""
    found = []
    for live, rebuilt in tables:
        topic = topics.of(live.record.__name__).name
        at = {tp.partition: offset for tp, offset in positions.items() if tp.topic == topic}
        bounds = {"partitions": list(at) or [-1], "ends": list(at.values()) or [0]}
        sums = [(await rows(ch, _sum(table), bounds))[0] for table in (live, rebuilt)]
        differences: list[Difference] = []
        if tuple(sums[0]) != tuple(sums[1]):
            only = [await _clickhouse_rows(ch, *pair, bounds, limit) for pair in ((live, rebuilt), (rebuilt, live))]
            differences = _paired(live, *only)[:limit]
        found.append(Compared(live.name, sums[0][0], sums[1][0], differences))
    return found


_WITHIN = "_offset < transform(_partition, {partitions:Array(Int32)}, {ends:Array(Int64)}, toInt64(0))"


def _content(table: FactTable) -> Sequence[str]:
    return [column.name for column in table.columns if column.name not in PLACE]


def _hashed(names: Sequence[str]) -> str:
    """Of a text, for a hash of columns is NULL as soon as one of them is."""
    return f"cityHash64(toString(tuple({', '.join(names)})))"


def _sum(table: FactTable) -> str:
    hashed = _hashed(_content(table))
    return f"SELECT count(), sum(h) FROM (SELECT DISTINCT {hashed} AS h FROM {table.physical} WHERE {_WITHIN})"  # noqa: S608


async def _clickhouse_rows(
    ch: AsyncClient, table: FactTable, other: FactTable, bounds: Mapping[str, object], limit: int
) -> list[dict[str, object]]:
    """Rows of a table within the bounds that the other one has nowhere."""
    names = _content(table)
    hashed = _hashed(names)
    sql = (
        f"SELECT DISTINCT {', '.join(names)} FROM {table.physical} WHERE {_WITHIN}"  # noqa: S608 - our own names
        f" AND {hashed} NOT IN (SELECT {hashed} FROM {other.physical}) LIMIT {limit}"
    )
    return [dict(zip(names, row, strict=True)) for row in await rows(ch, sql, bounds)]


def _paired(table: FactTable, live: Sequence[dict[str, object]], rebuilt: Sequence[dict[str, object]]) -> list[Difference]:
    key = ["tenant_id", *table.key, "event_id"] + (["position"] if "position" in _content(table) else [])
    ours = {tuple(row[name] for name in key): row for row in live}
    theirs = {tuple(row[name] for name in key): row for row in rebuilt}
    return [difference_of(table.name, key, ours.get(k), theirs.get(k)) for k in {**ours, **theirs}]
