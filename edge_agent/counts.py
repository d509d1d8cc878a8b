"""What comes too often to be a fact each time: counted in memory, said once a window.

Invariant: whatever is left out of the log is in a number that is on it. A crash loses at most one window of such numbers, and
no fact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from edge_agent.shelf import Shelf

S = TypeVar("S")

WINDOW_MS: Final = 60_000
CLOCKS_APART_MS: Final = 600_000  # the media server's clock may be ahead of ours
KEPT_UNREADABLE: Final = 100  # bodies of one trigger a minute that are kept as they came
MAX_CONNECTORS: Final = 100
MAX_SUBJECTS: Final = 20_000
OPENED, CLOSED, PLAYED, STOPPED = range(4)


@dataclass(frozen=True, slots=True)
class Said:
    """When something was last said that comes too often. By what it is about; on disk, so that a kill changes nothing."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Window:
    """Connections of a window by connector: opened, closed, played, stopped."""

    started_ms: int
    ended_ms: int
    connections: tuple[tuple[str, tuple[int, int, int, int]], ...]


class Counts:
    """Counters of one agent."""

    def __init__(self, said: Shelf[Said]) -> None:
        self._started_ms: int | None = None
        self._connections: dict[str, list[int]] = {}
        self._said = said
        self._unsaid: dict[str, tuple[object, int]] = {}
        self._unreadable: dict[str, list[int]] = {}  # begin of the minute, kept in it, not kept since the last kept one

    def connection(self, connector: str, what: int, now_ms: int) -> None:
        """`what`: OPENED, CLOSED, PLAYED or STOPPED."""
        if self._started_ms is None:
            self._started_ms = now_ms
        row = self._connections.get(connector)
        if row is None:
            if len(self._connections) >= MAX_CONNECTORS:
                connector = "OTHER"
            row = self._connections.setdefault(connector, [0, 0, 0, 0])
        row[what] += 1

    def times(self, key: str, subject: object, at_ms: int, every_ms: int) -> int:
        """How often it came since it was last said, this time included; 0: it was said a moment ago and is only counted.

        By the media server's clock: the same triggers say the same facts, however late they come.
        """
        known = self._said.get(key)
        if known and known.at_ms <= at_ms < known.at_ms + every_ms:
            if key in self._unsaid or len(self._unsaid) < MAX_SUBJECTS:
                self._unsaid[key] = subject, 1 + self._unsaid.get(key, (None, 0))[1]
            return 0
        self._said.put(key, Said(at_ms))
        return 1 + self._unsaid.pop(key, (None, 0))[1]

    def overdue(self, kind: type[S], now_ms: int, every_ms: int) -> Iterable[tuple[S, int]]:
        """(subject, how often) of subjects of a kind that were counted and not said since. They count as said now."""
        for key, (subject, times) in tuple(self._unsaid.items()):
            known = self._said.get(key)
            if isinstance(subject, kind) and not (known and now_ms < known.at_ms + every_ms):
                self._said.put(key, Said(now_ms))
                del self._unsaid[key]
                yield subject, times

    def unreadable(self, trigger: str, now_ms: int) -> int | None:
        """How many bodies of the trigger were not kept since the last one that was; None: this one is not kept either."""
        row = self._unreadable.setdefault(trigger, [now_ms, 0, 0])
        if not row[0] <= now_ms < row[0] + WINDOW_MS:
            row[0], row[1] = now_ms, 0
        if row[1] >= KEPT_UNREADABLE:
            row[2] += 1
            return None
        row[1] += 1
        unkept, row[2] = row[2], 0
        return unkept

    def window(self, now_ms: int, *, at_once: bool = False) -> Window | None:
        """The connections of a window that is over (or, `at_once`, of what there is of it), and a new one begins."""
        started_ms = self._started_ms
        if started_ms is None or (started_ms <= now_ms < started_ms + WINDOW_MS and not at_once):
            return None
        taken = tuple((name, (row[0], row[1], row[2], row[3])) for name, row in sorted(self._connections.items()))
        self._started_ms, self._connections = None, {}
        return Window(started_ms, max(started_ms, now_ms), taken)

    def sweep(self, now_ms: int) -> None:
        """Who was said long ago is forgotten."""
        self._said.drop_where(lambda said: not now_ms - WINDOW_MS < said.at_ms < now_ms + CLOCKS_APART_MS)
