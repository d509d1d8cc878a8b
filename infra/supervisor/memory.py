"""Memory of processes, with what they share counted once (PSS)."""

from __future__ import annotations

import psutil


def proportional_bytes(pid: int) -> int:
    """Of the process and its descendants; resident size where the system does not tell the proportional one."""
    total = 0
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            info = each.memory_full_info()
            total += getattr(info, "pss", 0) or info.rss
    except psutil.Error:
        pass
    return total
