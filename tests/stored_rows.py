"""Every row of every projection, as a value that two installations can be compared by."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import clickhouse_connect

from projections import PROJECTIONS
from projections.model import FactProjection, TableProjection
from projections.worker import projection_of

Rows = Mapping[str, list[str]]


async def rows_of(postgres: str, clickhouse: str) -> Rows:
    """By projection and table, what readers see. Rows of fact tables come with their partition, offset and append time."""
    found: dict[str, list[str]] = {}
    connection = await asyncpg.connect(postgres)
    with clickhouse_connect.get_client(dsn=clickhouse) as client:
        for name in PROJECTIONS:
            match projection_of(name):
                case TableProjection(tables=tables):
                    for table in tables:
                        rows = await connection.fetch(f"SELECT t::text FROM {table.name} t")
                        found[f"{name}.{table.name}"] = sorted(row[0] for row in rows)
                case FactProjection(tables=facts):
                    for fact in facts:
                        result = client.query(f"SELECT * FROM {fact.name}_v")
                        found[f"{name}.{fact.name}"] = sorted(map(repr, result.result_rows))
    await connection.close()
    return found
