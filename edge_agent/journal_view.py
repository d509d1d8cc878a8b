"""A look into a node's journal from outside, while its agent runs or not.

Invariant: nothing is changed here but a mark on what somebody wants to be sent again; the agent itself moves it, so that its
counts stay true and one process alone gives out numbers.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_agent.journal_budget import Dropped

FILE_NAME: Final = "journal.db"
BUSY_SECONDS: Final = 10.0


class NoJournal(Exception):
    """A sentence that says what is wrong with the file."""


@dataclass(frozen=True, slots=True)
class Held:
    """A fact that the journal holds. `code` and `reason`: why it is in quarantine; None: it waits for the platform."""

    seq: int
    at_ms: int
    value: bytes
    code: str | None = None
    reason: str | None = None
    is_wanted: int = 0

    @property
    def state(self) -> str:
        return "waiting" if self.code is None else "to be sent again" if self.is_wanted else "quarantined"


@dataclass(frozen=True, slots=True)
class Summary:
    waiting: int
    waiting_bytes: int
    quarantined: int
    dropped: Sequence[Dropped]  # what no fact says yet


class JournalView:
    """`with JournalView.opened(directory) as view`. Every call may raise NoJournal."""

    def __init__(self, connection: sqlite3.Connection, file: Path) -> None:
        self._connection, self._file = connection, file

    @classmethod
    @contextlib.contextmanager
    def opened(cls, state_dir: Path) -> Iterator[JournalView]:
        file = state_dir / FILE_NAME
        if not file.is_file():
            raise NoJournal(f"there is no journal at {file}: name the agent's directory with --state-dir")
        try:
            connection = sqlite3.connect(f"file:{file}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_SECONDS)
        except sqlite3.Error as error:
            raise NoJournal(f"{file} cannot be opened: {error}") from None
        with contextlib.closing(connection):
            yield cls(connection, file)

    def summary(self) -> Summary:
        [(rows, size)] = self._rows("SELECT count(*), coalesce(sum(length(value)), 0) FROM journal")
        [(quarantined,)] = self._rows("SELECT count(*) FROM quarantine")
        return Summary(rows, size, quarantined, [Dropped(*row) for row in self._rows("SELECT * FROM dropped ORDER BY record")])

    def waiting(self, at_most: int) -> Sequence[Held]:
        """Oldest first."""
        return [Held(*row) for row in self._rows("SELECT seq, at_ms, value FROM journal ORDER BY seq LIMIT ?", at_most)]

    def quarantined(self, at_most: int) -> Sequence[Held]:
        """Oldest first."""
        return self._held("ORDER BY seq LIMIT ?", at_most)

    def find(self, seqs: Sequence[int]) -> Sequence[Held]:
        """Those of these numbers that the journal still has, in quarantine or not."""
        marks = ", ".join("?" * len(seqs))
        waiting = self._rows(f"SELECT seq, at_ms, value FROM journal WHERE seq IN ({marks})", *seqs)  # noqa: S608 - only marks
        found = [*self._held(f"WHERE seq IN ({marks}) ORDER BY seq", *seqs), *(Held(*row) for row in waiting)]
        return sorted(found, key=lambda held: held.seq)

    def want_again(self, seqs: Sequence[int] | None, code: str | None) -> int:
        """Marks what is in quarantine for being sent again: these numbers (None: all), of this code (None: any). How many."""
        found = self._held("WHERE is_wanted = 0")
        wanted = [held.seq for held in found if (seqs is None or held.seq in seqs) and (code is None or held.code == code)]
        with self._sentences():
            self._connection.executemany("UPDATE quarantine SET is_wanted = 1 WHERE seq = ?", [(seq,) for seq in wanted])
        return len(wanted)

    def _held(self, which: str, *values: object) -> list[Held]:
        statement = f"SELECT seq, at_ms, value, code, reason, is_wanted FROM quarantine {which}"  # noqa: S608 - our own text
        return [Held(*row) for row in self._rows(statement, *values)]

    def _rows(self, statement: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]  # as wide as the statement says
        with self._sentences():
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            advice = "; a file of an older agent is brought up to date by starting the agent" if "no such" in str(error) else ""
            raise NoJournal(f"{self._file}: {error}{advice}") from None
