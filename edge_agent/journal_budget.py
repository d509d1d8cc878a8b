"""What the journal keeps when it cannot keep everything.

Invariants
* Ends, totals and decisions about admission are never given up: whatever is not named here counts as one of them.
* Samples go first, oldest first, then changes of buffers, tracks and the like. What was handed to the uplink stays: nothing is
  both sent and counted as dropped.
* What was given up is counted in the transaction that gives it up, until a fact that says so is written in its place.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from edge_agent.turn import Node, moment
from streams.codec import PREFIX, name_of
from streams.errors import Invalid
from streams.generated import FactsDropped, Meta
from streams.registry import by_name

FINAL: Final = 0
CHANGE: Final = 1
SAMPLE: Final = 2
SAMPLES: Final = frozenset(("BandwidthMeasured", "ConnectionsCounted"))  # beside all that lies on fw.samples
CHANGES: Final = frozenset(
    (
        "BufferChanged",
        "InputAborted",
        "ListenerStarted",
        "ListenerStopped",
        "NodeConfigured",
        "NodeObserved",
        "StreamConfigured",
        "StreamNotFound",
        "ThumbnailsUpdated",
        "TracksChanged",
        "TriggerInvalid",
    )
)
AT_ONCE: Final = 2000  # rows given up in one transaction: triggers wait for it
SLACK: Final = 0.02  # of the budget, given up beyond what has to be


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much something grew; negative: shrank."""

    rows: int = 0
    size_bytes: int = 0

    def __add__(self, other: Growth) -> Growth:
        return Growth(self.rows + other.rows, self.size_bytes + other.size_bytes)


@dataclass(frozen=True, slots=True)
class Dropped:
    """Facts of one kind that were given up."""

    record: str
    rows: int
    size_bytes: int
    from_ms: int
    until_ms: int


def priority_of(value: bytes) -> int:
    """FINAL, CHANGE or SAMPLE, of a framed fact. What cannot be read is nobody's to give up."""
    return _priority(value[: PREFIX.size])


@cache
def _priority(prefix: bytes) -> int:
    name = _record(prefix)
    if name in SAMPLES or (name in by_name() and by_name()[name].schema.get("topic") == "fw.samples"):
        return SAMPLE
    return CHANGE if name in CHANGES else FINAL


def give_up(connection: sqlite3.Connection, excess_bytes: int, behind_seq: int) -> Growth:
    """Within a transaction: deletes what is least worth keeping until `excess_bytes` are won, or so many rows are gone that
    the rest is for the next transaction. Gives by how much the journal shrank; nothing, where all that is left is final."""
    growth = Growth()
    for priority in (SAMPLE, CHANGE):
        left = AT_ONCE + growth.rows
        if growth.size_bytes + excess_bytes <= 0 or left <= 0:
            break
        growth += _give_up_of(connection, priority, excess_bytes + growth.size_bytes, behind_seq, left)
    return growth


def _give_up_of(connection: sqlite3.Connection, priority: int, excess_bytes: int, behind_seq: int, at_most: int) -> Growth:
    found = connection.execute(
        "SELECT seq, length(value), substr(value, 1, 5), at_ms FROM journal WHERE priority = ? AND seq > ? ORDER BY seq LIMIT ?",
        (priority, behind_seq, at_most),
    )
    rows: list[tuple[int, int, bytes, int]] = []
    won = 0
    for row in found:
        rows.append(row)
        won += row[1]
        if won >= excess_bytes:
            break
    found.close()
    if not rows:
        return Growth()
    span = (priority, rows[0][0], rows[-1][0])
    connection.execute("DELETE FROM journal WHERE priority = ? AND seq BETWEEN ? AND ?", span)
    _count(connection, rows)
    return Growth(-len(rows), -won)


def _count(connection: sqlite3.Connection, rows: Iterable[tuple[int, int, bytes, int]]) -> None:
    by_record: dict[str, Dropped] = {}
    for _, size, prefix, at_ms in rows:
        name = _record(bytes(prefix))
        known = by_record.get(name) or Dropped(name, 0, 0, at_ms, at_ms)
        span = (min(known.from_ms, at_ms), max(known.until_ms, at_ms))
        by_record[name] = Dropped(name, known.rows + 1, known.size_bytes + size, *span)
    connection.executemany(
        "INSERT INTO dropped VALUES (?, ?, ?, ?, ?) ON CONFLICT (record) DO UPDATE SET rows = rows + excluded.rows,"
        " size_bytes = size_bytes + excluded.size_bytes, from_ms = min(from_ms, excluded.from_ms),"
        " until_ms = max(until_ms, excluded.until_ms)",
        [(d.record, d.rows, d.size_bytes, d.from_ms, d.until_ms) for d in by_record.values()],
    )


def dropped_fact(node: Node, dropped: Sequence[Dropped], now_ms: int) -> tuple[FactsDropped, Meta]:
    """What is said of it."""
    from_ms, until_ms = min(d.from_ms for d in dropped), max(d.until_ms for d in dropped)
    fact = FactsDropped(
        node_id=node.node_id,
        record_names=tuple(d.record for d in dropped),
        counts=tuple(d.rows for d in dropped),
        sizes_bytes=tuple(d.size_bytes for d in dropped),
        from_at=moment(from_ms),
        until_at=moment(until_ms),
    )
    return fact, node.meta("FactsDropped", (from_ms, until_ms, *fact.record_names, *fact.counts), node.subject, now_ms)


def forget_dropped(connection: sqlite3.Connection, said: Sequence[Dropped]) -> None:
    """Within the transaction of the fact that says them. What was given up since it was read stays counted."""
    connection.executemany(
        "UPDATE dropped SET rows = rows - ?, size_bytes = size_bytes - ? WHERE record = ?",
        [(d.rows, d.size_bytes, d.record) for d in said],
    )
    connection.execute("DELETE FROM dropped WHERE rows <= 0")


def _record(prefix: bytes) -> str:
    try:
        return name_of(prefix)
    except Invalid:
        return ""
