"""The journal's tables, and how rows get into them. One SQLite file per node.

Invariant: a group of writes is one transaction. Facts keep the order in which they were written, and a number is never given
out twice, not even after everything was acknowledged and deleted.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from edge_agent.journal_budget import Dropped, Growth, forget_dropped, priority_of
from edge_agent.journal_state import StateRows, insert
from edge_agent.shelf import Change

__all__ = ["Answer", "Growth", "PolicyRow", "TriggerRows", "Upkeep", "Write", "commit", "connect", "prepare"]
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, value BLOB NOT NULL, traceparent TEXT,
    at_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS quarantine (seq INTEGER PRIMARY KEY, value BLOB NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
    at_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS dropped (record TEXT PRIMARY KEY, rows INTEGER NOT NULL, size_bytes INTEGER NOT NULL,
    from_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (identity BLOB NOT NULL, answer TEXT NOT NULL, at_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS state (shelf TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS policy (stream_id BLOB PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS secret (id BLOB PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS known (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# columns that came later: (table, column, type)
ADDED: Final = (
    ("policy", "signature", "BLOB"),
    ("policy", "kept", "BLOB"),
    ("journal", "priority", "INTEGER NOT NULL DEFAULT 0"),
    ("quarantine", "priority", "INTEGER NOT NULL DEFAULT 0"),
    ("quarantine", "traceparent", "TEXT"),
    ("quarantine", "is_wanted", "INTEGER NOT NULL DEFAULT 0"),  # somebody asked for it to be sent again
)
# Rows of answers and state are only ever appended, and found again in memory: an index would dirty a page for each.
INDEXES: Final = """
DROP INDEX IF EXISTS answers_by_time;
CREATE INDEX IF NOT EXISTS journal_expendable ON journal (priority, seq) WHERE priority > 0;
CREATE INDEX IF NOT EXISTS quarantine_wanted ON quarantine (seq) WHERE is_wanted = 1;
"""
FUTURE_MS: Final = 2 * 3_600_000
FORGOTTEN_AT_ONCE: Final = 10_000  # answers: triggers wait for the transaction
Done = Callable[[bool], None]


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class Answer:
    """What a trigger was answered, for its retries."""

    identity: bytes
    answer: str
    at_ms: int


@dataclass(slots=True)  # a value, but made for every trigger: frozen ones cost twice as much
class TriggerRows:
    """What one trigger led to; without an answer, what the agent found out or did by itself."""

    facts: tuple[tuple[bytes, str | None], ...]  # framed Avro, traceparent
    changes: tuple[Change, ...]
    answer: Answer | None
    done: Done | None = None
    at_ms: int = 0  # of the facts, where there is no answer

    @property
    def said_ms(self) -> int:
        return self.answer.at_ms if self.answer else self.at_ms

    @property
    def size_bytes(self) -> int:
        return sum(len(value) for value, _ in self.facts)


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """A record of the policy as it was signed; and `kept`, where the node knows more than it says (keys of before)."""

    key: UUID
    value: bytes
    signature: bytes
    kept: bytes | None = None


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What no trigger led to: acknowledgements, policy, forgetting."""

    forget_through: int | None = None  # facts up to this number are on the platform's log, or quarantined
    quarantined: tuple[tuple[int, str, str], ...] = ()  # (seq, code, reason) of facts that the ingress refused
    answers_before_ms: int | None = None
    policies: tuple[PolicyRow, ...] = ()
    policies_gone: tuple[UUID, ...] = ()
    secrets: tuple[tuple[UUID, bytes], ...] = ()
    secrets_gone: tuple[UUID, ...] = ()
    known: tuple[tuple[str, str], ...] = ()
    changes: tuple[Change, ...] = ()
    facts: tuple[tuple[bytes, str | None], ...] = ()  # as of TriggerRows: what the agent says of itself
    at_ms: int = 0  # of the facts
    dropped_said: tuple[Dropped, ...] = ()  # what the facts say of what was given up
    does_retry: bool = False  # what somebody asked for is taken out of quarantine
    done: Done | None = None


Write = TriggerRows | Upkeep


def connect(file: Path) -> sqlite3.Connection:
    """A connection whose commits are on stable storage when they return."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=4000")
    connection.execute("PRAGMA secure_delete=ON")  # an envelope that was handed over leaves no trace in a free page
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables, and the columns that a file of an older agent lacks."""
    connection.executescript(SCHEMA)
    for table, column, kind in ADDED:
        if column not in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
    connection.executescript(INDEXES)


Shrink = Callable[[Growth], Growth]


def commit(
    connection: sqlite3.Connection, group: Iterable[Write], state: StateRows, shrink: Shrink | None = None
) -> tuple[Growth, Growth]:
    """All of the group in one transaction, or nothing of it. sqlite3.Error: nothing. Gives by how much the journal grew, and by
    how much `shrink`, which is asked inside the transaction, made it smaller."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        growth = _insert(connection, group, state)
        shrunk = shrink(growth) if shrink else Growth()
        connection.execute("COMMIT")
    except BaseException:
        state.rolled_back()
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    state.committed()
    return growth, shrunk


def _insert(connection: sqlite3.Connection, group: Iterable[Write], state: StateRows) -> Growth:
    facts: list[tuple[bytes, str | None, int, int]] = []
    answers: list[tuple[bytes, str, int]] = []
    changes: dict[tuple[str, str], bytes | None] = {}
    growth = Growth()
    for write in group:
        for change in write.changes:
            changes[change.shelf, change.key] = change.value
        match write:
            case TriggerRows(answer=answer):
                for value, trace in write.facts:
                    facts.append((value, trace, write.said_ms, priority_of(value)))
                if answer is not None:
                    answers.append((answer.identity, answer.answer, answer.at_ms))
            case Upkeep():
                facts.extend((value, trace, write.at_ms, priority_of(value)) for value, trace in write.facts)
                growth += _upkeep(connection, write)
    insert(connection, "journal (value, traceparent, at_ms, priority)", facts)
    insert(connection, "answers (identity, answer, at_ms)", answers)
    state.write(connection, changes)
    return growth + Growth(len(facts), sum([len(fact[0]) for fact in facts]))


def _upkeep(connection: sqlite3.Connection, write: Upkeep) -> Growth:
    growth = Growth()
    connection.executemany(
        "INSERT OR REPLACE INTO quarantine (seq, value, code, reason, at_ms, priority, traceparent)"
        " SELECT seq, value, ?, ?, at_ms, priority, traceparent FROM journal WHERE seq = ?",
        [(code, reason, seq) for seq, code, reason in write.quarantined],
    )
    if write.forget_through is not None:
        through = (write.forget_through,)
        sizes = connection.execute("SELECT count(*), coalesce(sum(length(value)), 0) FROM journal WHERE seq <= ?", through)
        rows, size = sizes.fetchone()
        connection.execute("DELETE FROM journal WHERE seq <= ?", through)
        growth = Growth(-rows, -size)
    if write.does_retry:
        growth += _release(connection)
    if write.dropped_said:
        forget_dropped(connection, write.dropped_said)
    if write.answers_before_ms is not None:
        _forget_answers(connection, write.answers_before_ms)
    connection.executemany("DELETE FROM policy WHERE stream_id = ?", [(i.bytes,) for i in write.policies_gone])
    connection.executemany(
        "INSERT OR REPLACE INTO policy (stream_id, value, signature, kept) VALUES (?, ?, ?, ?)",
        [(p.key.bytes, p.value, p.signature, p.kept) for p in write.policies],
    )
    connection.executemany("DELETE FROM secret WHERE id = ?", [(i.bytes,) for i in write.secrets_gone])
    connection.executemany("INSERT OR REPLACE INTO secret VALUES (?, ?)", [(i.bytes, v) for i, v in write.secrets])
    connection.executemany("INSERT OR REPLACE INTO known VALUES (?, ?)", write.known)
    return growth


def _forget_answers(connection: sqlite3.Connection, before_ms: int) -> None:
    """They lie in the order of their time: looked at from the oldest up to the first that stays, so many at once. A clock that
    was set back leaves some from the future in front: those are forgotten, too, or they would keep all others."""
    [(first, last)] = connection.execute("SELECT min(rowid), max(rowid) FROM answers").fetchall()
    if first is None:
        return
    stays = (before_ms, before_ms + FUTURE_MS, first + FORGOTTEN_AT_ONCE)
    found = connection.execute(
        "SELECT rowid FROM answers WHERE at_ms BETWEEN ? AND ? AND rowid < ? ORDER BY rowid LIMIT 1", stays
    ).fetchone()
    end = found[0] if found else min(last + 1, first + FORGOTTEN_AT_ONCE)
    connection.execute("DELETE FROM answers WHERE rowid < ?", (end,))


def _release(connection: sqlite3.Connection) -> Growth:
    """Out of quarantine what somebody wants to be sent again: the same bytes, so the same event ids, behind all that waits."""
    sizes = connection.execute("SELECT count(*), coalesce(sum(length(value)), 0) FROM quarantine WHERE is_wanted = 1")
    rows, size = sizes.fetchone()
    if rows:
        connection.execute(
            "INSERT INTO journal (value, traceparent, at_ms, priority)"
            " SELECT value, traceparent, at_ms, priority FROM quarantine WHERE is_wanted = 1 ORDER BY seq"
        )
        connection.execute("DELETE FROM quarantine WHERE is_wanted = 1")
    return Growth(rows, size)
