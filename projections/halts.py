"""Which projections stand still until a person acts, and why.

Invariant: a row is written before the worker that halts exits, and removed when a successor has passed the partition's next
batch. So what is listed stands still, or was passed a moment ago; it outlives the process, which a metric does not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from projections.model import TP, Database

_REMEMBER: Final = """
INSERT INTO platform.projection_halt (projection, topic, partition, reason) VALUES ($1, $2, $3, $4)
ON CONFLICT (projection, topic, partition) DO UPDATE SET reason = excluded.reason"""
_FORGET: Final = "DELETE FROM platform.projection_halt WHERE projection = $1 AND topic = $2 AND partition = $3"
_ALL: Final = (
    "SELECT projection, topic, partition, reason, halted_at FROM platform.projection_halt ORDER BY projection, topic, partition"
)


START: Final = TP("", 0)
"""Stands for no partition: the projection halts before it reads."""


class Halt(NamedTuple):
    projection: str
    topic: str
    partition: int
    reason: str
    halted_at: datetime  # when it was first met


async def remember(db: Database, projection: str, tp: TP, reason: str) -> None:
    await db.execute(_REMEMBER, projection, tp.topic, tp.partition, reason.replace("\0", "\\0"))


async def forget(db: Database, projection: str, tp: TP) -> None:
    await db.execute(_FORGET, projection, tp.topic, tp.partition)


async def remember_start(postgres_url: str, projection: str, reason: str) -> None:
    """That a projection cannot even start, so that it has no pool of its own."""
    db = await asyncpg.connect(postgres_url)
    try:
        await remember(db, projection, START, reason)
    finally:
        await db.close()


async def left_behind(db: Database, projection: str) -> Collection[TP]:
    """Where a worker before this one stood still. That it could not start is forgotten: it did."""
    await forget(db, projection, START)
    return [TP(h.topic, h.partition) for h in await halts(db) if h.projection == projection]


async def halts(db: Database) -> Sequence[Halt]:
    """Everything that stands still."""
    return [Halt(*row) for row in await db.fetch(_ALL)]
