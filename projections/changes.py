"""What a batch changes in one table, merged by key: one statement per table per batch, however many events touch a row.

Invariant: merging in memory and merging in the table follow the same rules (`Merge`), so any split of a batch gives equal rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.model import Database
from projections.tables import Table, upsert

Key = tuple[object, ...]


class Changes:
    """Rows to come, by key. A column that nobody set stays as it is in the table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows: dict[Key, dict[str, Any]] = {}

    def put(self, key: Key, **values: object) -> None:
        """The latest value wins: for columns that one partition's records write, in their order."""
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = values
        else:
            row.update(values)

    def first(self, key: Key, **values: object) -> None:
        """The earliest value wins."""
        row = self._rows.setdefault(key, {})
        for name, value in values.items():
            row.setdefault(name, value)

    def greatest(self, key: Key, column: str, value: Any, **followers: Any) -> None:
        """The greatest value wins, and takes its followers along; among equal values the greatest follower wins."""
        row = self._rows.setdefault(key, {})
        before = row.get(column)
        for name, follower in followers.items():
            if before is None or (value, follower) > (before, row[name]):
                row[name] = follower
        if before is None or value > before:
            row[column] = value

    async def upsert(self, db: Database) -> None:
        """Merges everything into the table. Keys are sorted: one order of row locks for every worker."""
        if self._rows:
            await db.execute(upsert(self.table), *self.arrays())

    def arrays(self) -> list[list[object]]:
        """The rows as arrays, one a written column."""
        width = len(self.table.key)
        rows = sorted(self._rows.items())
        arrays: list[list[object]] = [[key[n] for key, _ in rows] for n in range(width)]
        arrays += [[row.get(c.name) for _, row in rows] for c in self.table.written[width:]]
        return arrays

    @property
    def rows(self) -> Mapping[Key, Mapping[str, Any]]:
        """What was merged so far, by key; columns that nobody set are not there."""
        return self._rows
