"""The values of the shelves in the journal's file: appended, so that a trigger dirties no page at a random place.

Invariant: this map says where each value lies as of the last commit; what a transaction changes is taken in when it is durable.
An update keeps the row's place: things are read back in the order in which they began.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

Key = tuple[str, str]  # shelf, key
SIZES: Final = (64, 16, 4, 1)  # rows of one statement: few statements, each prepared once


class StateRows:
    """Belongs to the writing thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("SELECT shelf, key, rowid FROM state")
        self._rows: dict[Key, int] = {(shelf, key): row for shelf, key, row in found}
        self._last = max(self._rows.values(), default=0)
        self._changed: dict[Key, int | None] = {}

    def write(self, connection: sqlite3.Connection, changes: Mapping[Key, bytes | None]) -> None:
        """Within a transaction. Then `committed` or `rolled_back`."""
        added: list[tuple[int, str, str, bytes]] = []
        updated: list[tuple[bytes, int]] = []
        gone: list[tuple[int]] = []
        last = self._last
        for key, value in changes.items():
            row = self._rows.get(key)
            if value is None:
                if row is not None:
                    gone.append((row,))
                    self._changed[key] = None
            elif row is not None:
                updated.append((value, row))
            else:
                last += 1
                added.append((last, *key, value))
                self._changed[key] = last
        insert(connection, "state (rowid, shelf, key, value)", added)
        if updated:
            connection.executemany("UPDATE state SET value = ? WHERE rowid = ?", updated)
        if gone:
            connection.executemany("DELETE FROM state WHERE rowid = ?", gone)

    def committed(self) -> None:
        for key, row in self._changed.items():
            if row is None:
                del self._rows[key]
            else:
                self._rows[key] = row
                self._last = max(self._last, row)
        self._changed = {}

    def rolled_back(self) -> None:
        self._changed = {}


def insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Many rows in few statements: each statement gives the interpreter's lock away and has to wait for it."""
    at = 0
    while at < len(rows):
        size = next(size for size in SIZES if size <= len(rows) - at)
        values = [value for row in rows[at : at + size] for value in row]
        connection.execute(_statement(into, len(rows[at]), size), values)
        at += size


@cache
def _statement(into: str, width: int, rows: int) -> str:
    one = f"({', '.join('?' * width)})"
    return f"INSERT INTO {into} VALUES {', '.join([one] * rows)}"  # noqa: S608 - our own names
