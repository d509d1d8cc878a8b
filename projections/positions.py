"""Read your writes: wait until a projection has passed what a mutation said."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from projections.model import Database
from streams.recorded import Position

# A database holds one installation, so the topic's prefix does not matter here. A projection that no worker ever ran has no
# row, and one whose partition nobody moved has NULL: neither has passed anything.
_PASSED = """
SELECT 1 FROM platform.projection_offset o
JOIN platform.projection_build b ON b.projection = o.projection AND b.build = o.build AND b.state = 'active'
WHERE o.projection = $1 AND o.topic LIKE '%fw.decisions' AND o.partition = $2 AND o.next_offset > $3"""
_FIRST_PAUSE_SECONDS: Final = 0.001
_LONGEST_PAUSE_SECONDS: Final = 0.010


async def passed(db: Database, projection: str, position: Position, timeout_seconds: float) -> bool:
    """True as soon as the projection's rows contain the decision at this position; False after `timeout_seconds`.

    Asks again after 1 to 10 ms: a batch of one is in the table about 5 ms after Kafka has it.
    """
    give_up_at, pause_seconds = time.monotonic() + timeout_seconds, _FIRST_PAUSE_SECONDS
    while True:
        if await db.fetchrow(_PASSED, projection, position.partition, position.offset):
            return True
        if time.monotonic() >= give_up_at:
            return False
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(_LONGEST_PAUSE_SECONDS, 1.3 * pause_seconds)
