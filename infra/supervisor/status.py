"""What the supervisor knows about each part while it runs. Changed only by the supervisor; read by displays and `stack.json`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum


class Phase(StrEnum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DONE = "done"
    STOPPED = "stopped"


@dataclass(slots=True)
class PartStatus:
    name: str
    metrics_url: str | None = None
    phase: Phase = Phase.WAITING
    pid: int | None = None
    note: str = ""
    began_at: float = field(default_factory=time.monotonic)
    ready_seconds: float | None = None
    started_at: float | None = None  # wall clock, of the present process
    restarts: int = 0

    def starting(self) -> None:
        self.phase, self.began_at, self.ready_seconds, self.note = Phase.STARTING, time.monotonic(), None, ""

    def started(self, pid: int) -> None:
        self.pid, self.started_at, self.note = pid, time.time(), ""

    def finished(self, phase: Phase) -> None:
        self.phase, self.note = phase, ""
        self.ready_seconds = time.monotonic() - self.began_at
