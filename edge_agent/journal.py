"""The journal: what must not be lost, on disk before it is promised.

Invariants:
* `write` calls back once its rows are on stable storage (WAL, synchronous=FULL) and not before; what one trigger led to is in
  one transaction, so that a kill leaves facts, state and remembered answers agreeing with each other.
* Writers are served in groups: all that waits shares the next transaction and its fsync. One thread owns the connection.
* While the disk refuses (full, read-only) callers are told that their rows are not durable; the rows are carried over into
  later transactions, in order, facts up to a limit, so that memory and disk agree again once the disk takes them.
* Facts have a byte budget. Beyond it the least worth keeping is given up, on disk and in memory, never an end, a total or an
  admission (`journal_budget.py`); where only those are left the journal goes on growing and says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

from edge_agent.journal_budget import CHANGE, FINAL, SAMPLE, SLACK, Dropped, Growth, give_up, priority_of
from edge_agent.journal_file import TriggerRows, Upkeep, Write, commit, connect, prepare
from edge_agent.journal_state import StateRows
from streams.telemetry import log

CARRIED_BYTES: Final = 32 << 20
RETRY_SECONDS: Final = 1.0
BUDGET_BYTES: Final = 4 << 30
ROOMY: Final = 0.9  # of the budget: below it nothing is given up any more
COUNTED_AT_ONCE: Final = 200_000  # rows; more are counted while the agent works already

logger = log(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact that waits for the platform."""

    seq: int
    value: bytes
    traceparent: str | None
    at_ms: int


class Journal:
    """The file of one node. `open` it first, inside the loop; `close` writes what waits."""

    def __init__(self, file: Path, budget_bytes: int = BUDGET_BYTES) -> None:
        self.file, self.budget_bytes = file, budget_bytes
        self.problem: str | None = None  # why nothing can be written at the moment
        self.depth = Growth()  # facts that wait for the platform
        self.lost_total = 0  # facts that did not even fit into memory while the disk refused
        self.dropped_total = 0  # facts that were given up for the budget
        self.transactions_total = 0
        self.grown = asyncio.Event()  # facts were added since the uplink last looked
        self._waiting: list[Write] = []
        self._carried: list[Write] = []
        self._wake = threading.Condition(threading.Lock())
        self._is_waking = False  # the writing thread is about to be woken
        self._is_closing = False
        self._handed_seq = 0  # facts up to this number may be on their way: they are not given up
        self._counted_bytes = 0  # of the facts that waited when the file was opened
        self._written_bytes = 0  # by how much they grew since, as the writing thread knows it
        self.is_giving_up = False  # at the budget: what is least worth keeping is given up

    def open(self) -> None:
        """Creates or recovers the file. sqlite3.Error, OSError: it cannot be used."""
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file.touch(mode=0o600)
        self._connection, self._reader = self._connect(), self._connect()
        prepare(self._connection)
        self._state = StateRows(self._connection)
        self._reading = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._count_what_waits()
        self._begin_writing()

    def _count_what_waits(self) -> None:
        [(first, last)] = self._read("SELECT min(seq), max(seq) FROM journal")
        if first is None:
            return
        self.grown.set()
        counting = self._connect()
        counting.execute("BEGIN")
        rows = counting.execute("SELECT count(*), coalesce(sum(length(value)), 0) FROM journal")  # as it is at this moment
        if last - first < COUNTED_AT_ONCE:
            self._found(_counted(counting, rows))
        else:  # gigabytes after a day without the platform: nobody waits for that
            threading.Thread(target=self._count_beside, args=(counting, rows), name="journal count", daemon=True).start()

    def _count_beside(self, counting: sqlite3.Connection, rows: sqlite3.Cursor) -> None:
        with contextlib.suppress(RuntimeError, sqlite3.Error):
            found = _counted(counting, rows)
            self._loop.call_soon_threadsafe(self._found, found)

    def _found(self, found: Growth) -> None:
        self.depth += found
        self._counted_bytes = found.size_bytes

    @property
    def is_over_budget(self) -> bool:
        return self.depth.size_bytes > self.budget_bytes

    # What the simulator replaces: the disk, and the thread.

    def _connect(self) -> sqlite3.Connection:
        return connect(self.file)

    def _begin_writing(self) -> None:
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        self._thread.join()
        self._reader.close()
        self._connection.close()

    def write(self, write: Write) -> None:
        """Queues rows for the next transaction; `write.done(is_durable)` is called on the loop when that is known."""
        with self._wake:
            self._waiting.append(write)
        if not self._is_waking:  # once for all that comes in this turn of the loop: they share a transaction
            self._is_waking = True
            self._loop.call_soon(self._wake_writer)

    def _wake_writer(self) -> None:
        self._is_waking = False
        with self._wake:
            self._wake.notify()

    async def kept(self, upkeep: Upkeep) -> bool:
        """Writes and waits. Whether it is durable."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.write(replace(upkeep, done=lambda durable: None if future.done() else future.set_result(durable)))
        return await future

    # Reading: at start, and by the uplink.

    def state(self) -> Sequence[tuple[str, str, bytes]]:
        return self._read("SELECT shelf, key, value FROM state ORDER BY rowid")

    def answers(self, since_ms: int) -> Sequence[tuple[bytes, str, int]]:
        return self._read("SELECT identity, answer, at_ms FROM answers WHERE at_ms >= ? ORDER BY at_ms", since_ms)

    def policies(self) -> Sequence[bytes]:
        return [value for (value,) in self._read("SELECT coalesce(kept, value) FROM policy")]

    def secrets(self) -> dict[UUID, bytes]:
        return {UUID(bytes=of): value for of, value in self._read("SELECT id, value FROM secret")}

    def known(self) -> dict[str, str]:
        return dict(self._read("SELECT name, value FROM known"))

    def quarantine(self) -> Sequence[tuple[int, bytes, str, str]]:
        """(seq, value, code, reason) of facts that the ingress refused."""
        return self._read("SELECT seq, value, code, reason FROM quarantine ORDER BY seq")

    def is_any_wanted(self) -> bool:
        """Whether somebody asked for something in quarantine to be sent again (`fw edge journal retry`)."""
        return bool(self._read("SELECT 1 FROM quarantine WHERE is_wanted = 1 LIMIT 1"))

    def dropped(self) -> tuple[Dropped, ...]:
        """What was given up and no fact says yet."""
        return tuple(Dropped(*row) for row in self._read("SELECT * FROM dropped ORDER BY record"))

    def after(self, seq: int, rows: int, size_bytes: int, overhead_bytes: int) -> list[Entry]:
        """The facts behind a number, oldest first, up to so many rows and bytes; where there is any, at least one.

        They count as on their way from now on, and are not given up for the budget.
        """
        found: list[Entry] = []
        total = 0
        statement = "SELECT seq, value, traceparent, at_ms FROM journal WHERE seq > ? ORDER BY seq LIMIT ?"
        with self._reading, contextlib.closing(self._reader.execute(statement, (seq, rows))) as cursor:
            for row in cursor:
                total += len(row[1]) + overhead_bytes
                if found and total > size_bytes:
                    break
                found.append(Entry(*row))
            if found:
                self._handed_seq = max(self._handed_seq, found[-1].seq)
        return found

    def _read(self, statement: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]  # as wide as the statement says
        with self._reading:
            return self._reader.execute(statement, values).fetchall()

    # The writing thread.

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._waiting and not self._is_closing:
                    self._wake.wait(RETRY_SECONDS if self._carried else None)
                group, self._waiting = self._waiting, []
                is_closing = self._is_closing
            if group or self._carried:
                self._commit(group)
            if is_closing:
                return

    def _commit(self, group: list[Write]) -> None:
        every = [*self._carried, *group]
        with contextlib.ExitStack() as held:

            def within_budget(growth: Growth) -> Growth:
                excess = self._counted_bytes + self._written_bytes + growth.size_bytes - self.budget_bytes
                if excess <= 0:
                    return Growth()
                held.enter_context(self._reading)  # until it is committed: nothing of it is handed to the uplink meanwhile
                return give_up(self._connection, excess + int(SLACK * self.budget_bytes), self._handed_seq)

            try:
                growth, shrunk = commit(self._connection, every, self._state, within_budget)
            except sqlite3.Error as error:
                self._carry(every)
                self._tell(group, Growth(), Growth(), str(error))
            else:
                self._carried = []
                self.transactions_total += 1
                self._written_bytes += growth.size_bytes + shrunk.size_bytes
                self._tell(group, growth, shrunk, None)

    def _carry(self, every: list[Write]) -> None:
        """Keeps in memory what the disk refuses; beyond the limit samples go first, then changes, and only then the rest."""
        kept = [replace(write, done=None) for write in every]
        size = sum(write.size_bytes for write in kept if isinstance(write, TriggerRows))
        for priority in (SAMPLE, CHANGE, FINAL):
            for n, write in enumerate(kept):
                if size <= CARRIED_BYTES:
                    break
                if isinstance(write, TriggerRows) and write.facts:
                    facts = tuple(fact for fact in write.facts if priority_of(fact[0]) != priority)
                    self.lost_total += len(write.facts) - len(facts)
                    kept[n] = replace(write, facts=facts)  # what it changed is small, and memory believes in it
                    size -= write.size_bytes - sum(len(value) for value, _ in facts)
        self._carried = kept

    def _tell(self, group: list[Write], growth: Growth, shrunk: Growth, problem: str | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(self._told, group, growth, shrunk, problem)

    def _told(self, group: list[Write], growth: Growth, shrunk: Growth, problem: str | None) -> None:
        if problem and not self.problem:
            advice = "free space on the journal's disk; facts are kept in memory for now"
            logger.error("the journal cannot be written", file=str(self.file), problem=problem, advice=advice)
        elif self.problem and not problem:
            logger.info("the journal can be written again", file=str(self.file))
        self.problem = problem
        self.depth += growth + shrunk
        self._tell_budget(shrunk)
        if problem is None and growth != Growth():
            self.grown.set()
        for write in group:
            if write.done:
                write.done(problem is None)

    def _tell_budget(self, shrunk: Growth) -> None:
        self.dropped_total -= shrunk.rows
        was_giving_up, has_room = self.is_giving_up, self.depth.size_bytes < ROOMY * self.budget_bytes
        self.is_giving_up = self.is_over_budget or shrunk.rows < 0 or (was_giving_up and not has_room)
        if was_giving_up and has_room:
            logger.info("the journal has room again", facts_waiting=self.depth.rows, dropped_total=self.dropped_total)
        if self.is_giving_up and not was_giving_up:
            logger.error(
                "the journal is at its byte budget: samples are given up first, then changes; ends, totals and admissions stay",
                budget_bytes=self.budget_bytes,
                facts_waiting=self.depth.rows,
                advice="let the node reach the ingress again, or raise FW_EDGE_JOURNAL_BYTES",
            )


def _counted(connection: sqlite3.Connection, rows: sqlite3.Cursor) -> Growth:
    try:
        return Growth(*rows.fetchone())
    finally:
        rows.close()
        connection.close()
