"""Shelves: dictionaries that tell the journal what changed on them.

Invariant: what a trigger changed here is written in the same transaction as the facts that it led to, so that after a kill
the shelves are as the journal left them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class Change:
    """A value put (bytes) or taken away (None)."""

    shelf: str
    key: str
    value: bytes | None


class Changes:
    """What changed since it was last asked; the last change of a key counts."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str], Callable[[], bytes] | None] = {}
        self.noted_total = 0

    def note(self, shelf: str, key: str, value: Callable[[], bytes] | None) -> None:
        self._changes[shelf, key] = value
        self.noted_total += 1

    def take(self) -> tuple[Change, ...]:
        if not self._changes:
            return ()
        taken = tuple(Change(shelf, key, value() if value else None) for (shelf, key), value in self._changes.items())
        self._changes.clear()
        return taken


class Shelf(Generic[T]):
    """Values of one kind by key, in the order in which they were first put. `group_of`: what they can also be found by."""

    def __init__(self, name: str, kind: type[T], changes: Changes, group_of: Callable[[T], Hashable] | None = None) -> None:
        self.name, self._kind, self._changes, self._group_of = name, kind, changes, group_of
        self._values: dict[str, T] = {}
        self._groups: dict[Hashable, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[T]:
        return iter(tuple(self._values.values()))

    def items(self) -> Iterable[tuple[str, T]]:
        return tuple(self._values.items())

    def get(self, key: str) -> T | None:
        return self._values.get(key)

    def of_group(self, group: Hashable) -> Sequence[tuple[str, T]]:
        return [(key, self._values[key]) for key in self._groups.get(group, ())]

    def put(self, key: str, value: T) -> None:
        self._keep(key, value)
        self._changes.note(self.name, key, lambda: msgspec.json.encode(value))

    def drop(self, key: str) -> T | None:
        value = self._values.pop(key, None)
        if value is not None:
            self._ungroup(key, value)
            self._changes.note(self.name, key, None)
        return value

    def drop_where(self, is_past: Callable[[T], bool]) -> None:
        for key, value in self.items():
            if is_past(value):
                self.drop(key)

    def clear(self) -> None:
        for key in tuple(self._values):
            self.drop(key)

    def load(self, key: str, value: bytes) -> None:
        """Puts back what the journal kept."""
        self._keep(key, msgspec.json.decode(value, type=self._kind))

    def _keep(self, key: str, value: T) -> None:
        if self._group_of is not None:
            if (former := self._values.get(key)) is not None:
                self._ungroup(key, former)
            self._groups.setdefault(self._group_of(value), {})[key] = None
        self._values[key] = value

    def _ungroup(self, key: str, value: T) -> None:
        if self._group_of is None:
            return
        group = self._group_of(value)
        self._groups[group].pop(key, None)
        if not self._groups[group]:
            del self._groups[group]
