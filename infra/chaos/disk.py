"""A disk that is full, and one that is slow, without being root.

What is real and what is imitated: the limit of a file's size (RLIMIT_FSIZE) of a running process and its children is lowered to
one page, so that the kernel refuses its writes beyond it with EFBIG, where a full disk says ENOSPC: the same calls fail at the
same places, but what lies below the limit can still be written, and others see a disk with room. A slow disk is the process
stopped and continued ten times a second: everything that it does is slow, not its writes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from typing import Final

import psutil

FULL_BYTES: Final = 4096
PERIOD_SECONDS: Final = 0.1
RUNNING_SHARE: Final = 0.2


def family(pid: int) -> list[int]:
    """The process and everything below it: a Postgres is many."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def can_fill() -> bool:
    """Whether this system can change a running process's limits."""
    return hasattr(resource, "prlimit")


@contextlib.contextmanager
def full(pid: int) -> Iterator[None]:
    """No file of the process can grow meanwhile. A successor of it finds room again, as after a clean-up."""
    for member in family(pid):
        _limit(member, FULL_BYTES)
    try:
        yield
    finally:
        for member in family(pid):  # also those that were forked meanwhile and have inherited the limit
            _limit(member, resource.RLIM_INFINITY)


def _limit(pid: int, soft: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


async def slow(pid: int, seconds: float) -> None:
    """The process runs a fifth of the time."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        send(pid, signal.SIGSTOP)
        await asyncio.sleep(PERIOD_SECONDS * (1 - RUNNING_SHARE))
        send(pid, signal.SIGCONT)
        await asyncio.sleep(PERIOD_SECONDS * RUNNING_SHARE)


def send(pid: int, number: signal.Signals) -> None:
    """To the process and everything below it; to nobody where it is gone."""
    for member in family(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)
