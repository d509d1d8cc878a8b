"""What waits for a person: projections that stand still, and dead letters that nobody has settled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path


def standing(data_dir: Path) -> tuple[Sequence[str], int]:
    """A sentence for each halt, and the number of letters that wait. Nothing where PostgreSQL does not answer: others say so."""
    import asyncpg

    from projections.halts import halts
    from streams.settings import stack_file

    async def ask(url: str) -> tuple[Sequence[str], int]:
        db = await asyncpg.connect(url, timeout=5)
        try:
            waiting = await db.fetchval("SELECT count(*) FROM platform.dead_letter WHERE state = 'buried'")
            return [f"{h.projection} stands still since {h.halted_at:%H:%M:%S}Z: {h.reason}" for h in await halts(db)], waiting
        finally:
            await db.close()

    url = stack_file(data_dir).get("postgres")
    try:
        return asyncio.run(ask(str(url))) if url else ((), 0)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return (), 0
