"""Rows as asyncpg hands them out."""

from __future__ import annotations

from typing import Any


class Record(tuple[object, ...]):
    """By position and by name."""

    _names: tuple[str, ...]

    @classmethod
    def of(cls, **columns: object) -> Record:
        made = cls(columns.values())
        made._names = tuple(columns)
        return made

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(self._names.index(at) if isinstance(at, str) else at)
