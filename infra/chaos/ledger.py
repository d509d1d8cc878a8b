"""The ground truth: everything that was sent, and what was said to it.

Invariant: an operation is on the disk before its first byte is sent, and its answer is there before anybody relies on it. So
whatever the platform did without being asked is not in here, and whatever it promised is.

An operation is `ANSWERED` (the platform said what became of it: its effects are owed), `UNKNOWN` (sent, and never answered: its
effects may be there, once, or not) or `LOST` (never reached the platform: it may have no effect at all).
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self

Fields = Mapping[str, object]  # of JSON

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS operation (
    id INTEGER PRIMARY KEY, kind TEXT, tenant TEXT, subject TEXT, request TEXT, owed TEXT, state TEXT, sent_at REAL);
CREATE TABLE IF NOT EXISTS answer (n INTEGER PRIMARY KEY, operation INTEGER, said TEXT);
CREATE TABLE IF NOT EXISTS heard (n INTEGER PRIMARY KEY, stream TEXT, typename TEXT, event TEXT, cursor TEXT);
CREATE TABLE IF NOT EXISTS fault (
    n INTEGER PRIMARY KEY, kind TEXT, part TEXT, at REAL, detail TEXT, ready_seconds REAL, caught_up_seconds REAL);
"""


class State(StrEnum):
    UNKNOWN = "unknown"
    ANSWERED = "answered"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Owed:
    """A record that an operation leads to: its type, and the values of some of its fields, as JSON has them."""

    type: str
    fields: Fields = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that was sent. `subject`: the command's id, the stream, or the event's id, by kind."""

    id: int
    kind: str  # command, trigger, sample
    tenant: str
    subject: str
    request: Fields
    owed: Sequence[Owed]
    state: State = State.UNKNOWN
    answers: Sequence[Fields] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """A message of a subscription, in the order of arrival."""

    stream: str
    typename: str
    event_id: str
    cursor: str


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    part: str
    at: float  # seconds since the load began
    detail: str = ""
    ready_seconds: float | None = None  # None: it was not meant to end
    caught_up_seconds: float | None = None


class Ledger:
    """One file. Writers share a transaction (group commit), so that the disk is waited for once for all who wait."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + _SCHEMA)
        self._rows: list[tuple[str, tuple[object, ...]]] = []
        self._written: asyncio.Future[None] | None = None
        self._committing = asyncio.Lock()
        self._in_use, self._is_closed = Lock(), False  # an interrupted run closes it while a thread may still write
        self._next: int = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM operation").fetchone()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._in_use:
            self._is_closed = True
            self._db.close()

    async def begin(self, kind: str, tenant: str, subject: str, request: Fields, owed: Sequence[Owed]) -> int:
        """Notes an operation that is about to be sent; it is on the disk when this returns."""
        number, self._next = self._next, self._next + 1
        effects = json.dumps(list(map(asdict, owed)))
        row = (number, kind, tenant, subject, json.dumps(request), effects, State.UNKNOWN, time.time())
        await self._write("INSERT INTO operation VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        return number

    async def answered(self, operation: int, said: Fields, owed: Sequence[Owed] | None = None) -> None:
        """Notes an answer; `owed` where only the answer tells what is owed."""
        await self._write("INSERT INTO answer (operation, said) VALUES (?, ?)", (operation, json.dumps(said)))
        if owed is None:
            await self._write("UPDATE operation SET state = ? WHERE id = ?", (State.ANSWERED, operation))
        else:
            row = (State.ANSWERED, json.dumps(list(map(asdict, owed))), operation)
            await self._write("UPDATE operation SET state = ?, owed = ? WHERE id = ?", row)

    async def lost(self, operation: int) -> None:
        """Notes that it never reached anybody."""
        await self._write("UPDATE operation SET state = ? WHERE id = ?", (State.LOST, operation))

    async def heard(self, message: Heard) -> None:
        row = (message.stream, message.typename, message.event_id, message.cursor)
        await self._write("INSERT INTO heard (stream, typename, event, cursor) VALUES (?, ?, ?, ?)", row)

    async def fault(self, fault: Fault) -> None:
        row = (fault.kind, fault.part, fault.at, fault.detail, fault.ready_seconds, fault.caught_up_seconds)
        await self._write(
            "INSERT INTO fault (kind, part, at, detail, ready_seconds, caught_up_seconds) VALUES (?, ?, ?, ?, ?, ?)", row
        )

    def operations(self) -> list[Operation]:
        said: dict[int, list[Fields]] = {}
        for operation, text in self._db.execute("SELECT operation, said FROM answer ORDER BY n"):
            said.setdefault(operation, []).append(json.loads(text))
        found = self._db.execute("SELECT id, kind, tenant, subject, request, owed, state FROM operation ORDER BY id")
        return [
            Operation(
                number, kind, tenant, subject, json.loads(request), [Owed(**o) for o in json.loads(owed)], State(state),
                tuple(said.get(number, ())),
            )
            for number, kind, tenant, subject, request, owed, state in found
        ]  # fmt: skip

    def messages(self) -> list[Heard]:
        return [Heard(*row) for row in self._db.execute("SELECT stream, typename, event, cursor FROM heard ORDER BY n")]

    def faults(self) -> list[Fault]:
        columns = "kind, part, at, detail, ready_seconds, caught_up_seconds"
        return [Fault(*row) for row in self._db.execute(f"SELECT {columns} FROM fault ORDER BY n")]  # noqa: S608 - our names

    async def _write(self, statement: str, row: tuple[object, ...]) -> None:
        self._rows.append((statement, row))
        if self._written is None:
            self._written = asyncio.ensure_future(self._commit())
        await asyncio.shield(self._written)

    async def _commit(self) -> None:
        async with self._committing:  # whoever writes meanwhile goes along with the next one
            rows, self._rows, self._written = self._rows, [], None
            await asyncio.to_thread(self._commit_rows, rows)

    def _commit_rows(self, rows: Sequence[tuple[str, tuple[object, ...]]]) -> None:
        with self._in_use:
            if self._is_closed:
                return
            self._db.execute("BEGIN IMMEDIATE")
            for statement, row in rows:
                self._db.execute(statement, row)
            self._db.execute("COMMIT")
