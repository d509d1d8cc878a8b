"""How far a fill is: counted by whoever fills, looked at by whoever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Progress:
    """`done` of `total` offsets in this phase. `say` gets what happens once, as a sentence."""

    say: Callable[[str], None] = lambda _: None
    phase: str = "starting"
    done: int = 0
    total: int = 0
    events: int = 0  # records that were read, in all phases
    began: float = field(default_factory=time.monotonic)
    skipped: int = 0  # records that cannot be read: they are among the dead letters

    def start(self, phase: str, total: int) -> None:
        self.phase, self.done, self.total, self.events, self.began = phase, 0, total, 0, time.monotonic()

    def moved(self, offsets: int, events: int) -> None:
        self.done += offsets
        self.events += events

    @property
    def events_per_second(self) -> float:
        return self.events / max(1e-9, time.monotonic() - self.began)

    @property
    def left_seconds(self) -> float | None:
        """None: nobody can tell yet."""
        if not self.done:
            return None
        return (self.total - self.done) * (time.monotonic() - self.began) / self.done
