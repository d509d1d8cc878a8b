"""What a process is set to that handles records by the ten thousand: workers of projections, and what fills their builds."""

from __future__ import annotations

import asyncio
import gc


def tune() -> None:
    """Call it once, before the event loop, in a process that does nothing else."""
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # A batch is thousands of objects without cycles that die together: looking for cycles every 700 of them halves the speed.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)
