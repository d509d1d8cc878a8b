"""Time as a media server has it: a clock on the wall that may jump, and seconds since boot that never do. The test moves both."""

from __future__ import annotations

START_MS = 1_795_262_400_000


class Clock:
    def __init__(self, wall_ms: int = START_MS) -> None:
        self.boot_ms = 1_000_000_000
        self._offset_ms = wall_ms - self.boot_ms

    @property
    def wall_ms(self) -> int:
        return self.boot_ms + self._offset_ms

    @property
    def boot_seconds(self) -> int:
        return self.boot_ms // 1000

    @property
    def unix(self) -> int:
        return self.wall_ms // 1000

    def jump(self, seconds: float) -> None:
        """Somebody set the clock."""
        self._offset_ms += round(seconds * 1000)
