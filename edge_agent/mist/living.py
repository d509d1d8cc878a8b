"""Whether the process of a publisher runs, where the agent and the media server share a machine and its process numbers.

It is evidence of life and never of death: in a container of its own the agent sees no process of the media server, and what is
seen may be another that has the number now. So the name has to be MistServer's, and the process older than the publishing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

MAY_BE_LATE_MS: Final = 5_000  # triggers are stamped in time, but the start of a process is counted in ticks since the boot
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_START_TIME: Final = 19  # of the fields behind the name (proc(5): 22)


def lives(pid: str, since_ms: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process of MistServer's with this number runs that was there at this time (Unix)."""
    if not pid.isdecimal():
        return False
    try:
        stat = (proc / pid / "stat").read_text(errors="replace")
    except OSError:
        return False
    name, _, fields = stat.partition("(")[2].rpartition(")")
    values = fields.split()
    if not name.startswith("Mist") or len(values) <= _START_TIME or values[0] in "ZX":
        return False
    booted_ms = 1000 * (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))
    return booted_ms + 1000 * int(values[_START_TIME]) / _TICKS <= since_ms + MAY_BE_LATE_MS
