"""What the supervisor does now and then: keeps logs short, watches the disk, makes the next start faster."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from infra.embedded.aot import cache_file
from infra.embedded.server import Launch
from infra.supervisor import checks
from infra.supervisor.children import Spawned
from infra.supervisor.parts import Plan

EVERY_SECONDS = 10.0
TRAINING_AFTER_SECONDS = 60.0
LOG_BYTES = 20 << 20


async def upkeep(planned: Plan, say: Callable[[str], None]) -> None:
    """Runs until cancelled."""
    passed_seconds, disk_was_low = 0.0, False
    training: asyncio.Task[int] | None = None
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        passed_seconds += EVERY_SECONDS
        await asyncio.to_thread(shorten_logs, planned.directory.logs)
        root = planned.directory.root
        problem = checks.free_disk(root, shutil.disk_usage(root).free, checks.LOW_DISK_BYTES)
        if problem and not disk_was_low:
            say(problem)
        disk_was_low = problem is not None
        if (
            passed_seconds >= TRAINING_AFTER_SECONDS
            and training is None
            and not cache_file().exists()
            and "kafka" in {s.name for s in planned.servers}
        ):
            trainer = Spawned(Launch((sys.executable, "-m", "infra.embedded.aot")), planned.directory.log("aot"))
            training = asyncio.create_task(trainer.wait())


def shorten_logs(logs: Path) -> None:
    """Keeps one older copy of a log that grew too long. The writer appends, so it goes on in the emptied file."""
    for log in logs.glob("*.log"):
        if log.stat().st_size > LOG_BYTES:
            shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)
