"""How one server process is launched, probed and stopped.

Invariant: a server is ready when it answers, never when time has passed.

Every part of the stack, ours or not, is described by a `Server`; who runs it (the supervisor, the tests) is not its business.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from infra.embedded.errors import CannotStart

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything needed to start one process. `env` is complete: nothing is inherited beside it."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    cwd: Path | None = None
    user: int | None = None
    group: int | None = None


class Server(Protocol):
    """One part of the stack. `prepare` may take long (first start) and runs before every launch."""

    @property
    def name(self) -> str: ...
    @property
    def stop_signals(self) -> tuple[signal.Signals, ...]: ...
    def prepare(self, log: Path) -> Launch: ...
    def ready(self, pid: int) -> bool: ...


def spawn(launch: Launch, log: Path) -> subprocess.Popen[bytes]:
    """Starts the process with its output appended to `log`.

    In a session of its own: a Ctrl-C in the terminal reaches only the supervisor, which stops the parts in order.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(launch.env),
            cwd=launch.cwd,
            user=launch.user,
            group=launch.group,
            extra_groups=[] if launch.user is not None else None,
            start_new_session=True,
        )


def wait_ready(server: Server, process: subprocess.Popen[bytes], log: Path, timeout_seconds: float = 60.0) -> None:
    """Returns when the server answers; raises CannotStart when it exits first or takes too long."""
    end = time.monotonic() + timeout_seconds
    while not server.ready(process.pid):
        if process.poll() is not None:
            raise CannotStart(f"{server.name} ended with exit code {process.returncode} before it was ready: {last_words(log)}")
        if time.monotonic() > end:
            raise CannotStart(f"{server.name} was not ready after {timeout_seconds:.0f} seconds: {last_words(log)}")
        time.sleep(POLL_SECONDS)


def stop(process: subprocess.Popen[bytes], signals: tuple[signal.Signals, ...], timeout_seconds: float = 20.0) -> None:
    """Sends the signals one after the other, each with its own patience, and SIGKILL last."""
    for number in (*signals, signal.SIGKILL):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            continue


def last_words(log: Path, lines: int = 3) -> str:
    """The end of a log, for one-sentence errors."""
    if not log.exists():
        return "it wrote no log"
    with log.open("rb") as f:
        f.seek(max(0, log.stat().st_size - 8192))
        tail = [line.strip() for line in f.read().decode(errors="replace").splitlines() if line.strip()]
    return f"{log.name} ends with: " + " / ".join(tail[-lines:]) if tail else f"{log.name} is empty"
