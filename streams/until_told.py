"""How a process ends: when it is told to, or when what it does fails."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine


async def until_told(*works: Coroutine[object, object, object]) -> None:
    """Runs work that never ends by itself until SIGTERM or SIGINT, then cancels it. Raises what the first to fail raises."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(work) for work in (*works, stop.wait())]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()
