"""Rows of Postgres tables, with what a transaction promises: all or nothing, row locks to its end, read committed.

Invariant: what a transaction wrote is in its overlay and nowhere else until it commits. Whoever wrote a key holds its lock, so
two overlays never have one key. A writer that waited reads the row again, as it is then.

Simpler than the real thing: a statement has no snapshot of its own (ours read and write a row at a time), and FOR SHARE waits
for writers but holds nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

Key = tuple[Any, ...]
Row = dict[str, Any]
Place = tuple[str, Key]
"""A table (or an index, or the advisory locks) and a key in it."""


@dataclass(slots=True, eq=False)
class Transaction:
    writes: dict[Place, Row | None] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    locks: set[Place] = field(default_factory=set)
    waits_for: Transaction | None = None
    search_path: str | None = None
    has_failed: bool = False
    is_durable: bool = False
    is_over: bool = False


@dataclass(slots=True)
class Heap:
    """Every table's committed rows, by name."""

    tables: dict[str, dict[Key, Row]] = field(default_factory=dict)
    before: deque[dict[str, dict[Key, Row]]] = field(default_factory=lambda: deque(maxlen=4))
    """As it was before each of the last commits: what a crash goes back to while nobody waits for the disk."""
    _owners: dict[Place, Transaction] = field(default_factory=dict)
    _waiting: dict[Place, list[asyncio.Future[None]]] = field(default_factory=dict)

    def get(self, tx: Transaction, table: str, key: Key) -> Row | None:
        """The row as the transaction sees it."""
        if (table, key) in tx.writes:
            return tx.writes[table, key]
        return self._table(table).get(key)

    def rows(self, tx: Transaction, table: str) -> Iterator[Row]:
        seen = dict(self._table(table))
        seen.update({key: row for (of, key), row in tx.writes.items() if of == table})
        return (row for row in seen.values() if row is not None)

    def put(self, tx: Transaction, table: str, key: Key, row: Row | None) -> None:
        """Writes a row, or deletes it. Its lock is held."""
        assert (table, key) in tx.locks, f"{table} {key} is written without its lock"
        self._table(table)
        tx.writes[table, key] = row

    async def lock(self, tx: Transaction, table: str, key: Key, *, hold: bool = True) -> None:
        """Waits until nobody else holds it; it is held to the end of the transaction. Raises DeadlockDetectedError."""
        place = (table, key)
        while (owner := self._owners.get(place)) is not None and owner is not tx:
            tx.waits_for = owner
            if self._is_circle(tx):
                tx.waits_for = None
                raise asyncpg.DeadlockDetectedError("deadlock detected")
            free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(place, []).append(free)
            await free
            tx.waits_for = None
        if tx.is_over:  # it was ended while it waited
            raise asyncpg.InterfaceError("connection is closed")
        if hold:
            self._owners[place] = tx
            tx.locks.add(place)

    def end(self, tx: Transaction, *, commit: bool) -> None:
        tx.is_over = True
        if commit and tx.writes:
            self.before.append({name: dict(rows) for name, rows in self.tables.items()})
            for (table, key), row in tx.writes.items():
                if row is None:
                    self.tables[table].pop(key, None)
                else:
                    self.tables[table][key] = row
            if tx.is_durable:  # it waits for the disk, and with it for everything before
                self.before.clear()
        for place in tx.locks:
            del self._owners[place]
            for free in self._waiting.pop(place, ()):
                if not free.done():
                    free.set_result(None)

    def crash(self, commits: int) -> int:
        """The last commits were not on the disk; how many they were. Nobody is connected any more."""
        lost = 0
        while lost < commits and self.before:
            self.tables, lost = self.before.pop(), lost + 1
        return lost

    def make(self, table: str, rows: Mapping[Key, Row] | None = None) -> None:
        """A table that is there from the beginning, or from now on."""
        self.tables.setdefault(table, dict(rows or {}))

    def _table(self, table: str) -> dict[Key, Row]:
        if table not in self.tables:
            raise asyncpg.UndefinedTableError(f'relation "{table}" does not exist')
        return self.tables[table]

    @staticmethod
    def _is_circle(tx: Transaction) -> bool:
        at = tx.waits_for
        while at is not None and at is not tx:
            at = at.waits_for
        return at is tx
