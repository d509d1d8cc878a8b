"""Finds and ends what a killed supervisor left behind.

Invariant: every process of an installation carries FW_STACK=<data directory> in the environment it was started with, and
nothing else does. The kernel remembers that without a file of ours, so nothing can be forgotten between a start and its note.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil

MARK = "FW_STACK"
PART = "FW_STACK_PART"
PATIENCE_SECONDS = 10.0


def marked(root: Path) -> list[tuple[psutil.Process, str]]:
    """Processes of this installation and the part that each belongs to; not the calling one."""
    found = []
    for process in psutil.process_iter():
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            continue  # another user's, or gone
        if env.get(MARK) == str(root) and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            found.append((process, env.get(PART, "?")))
    return found


def end_leftovers(root: Path, say: Callable[[str], None]) -> None:
    """Ends every process of this installation; the caller holds its lock, so none of them has a supervisor."""
    left = marked(root)
    if not left:
        return
    say(f"a former run was killed and left {len(left)} processes, ending them")
    pids = {process.pid for process, _ in left}
    for process, part in left:
        try:
            if process.ppid() not in pids or part != "postgres":  # the postmaster ends its own children
                process.send_signal(signal.SIGINT if part == "postgres" else signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs([process for process, _ in left], PATIENCE_SECONDS)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, PATIENCE_SECONDS)
