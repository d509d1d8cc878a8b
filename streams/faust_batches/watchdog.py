"""Ends a worker that stands still. On a thread of its own, so that a blocked event loop is seen too.

Invariant: what is compared is the fetch position with the last stable offset, and what was handled with what was delivered;
never the handled position with the end: commit markers and aborted records occupy offsets that nobody handles.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from streams.faust_batches.fetched import TP


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a worker stands; `ends` and `fetched` lack a partition whose broker did not answer."""

    assigned: Collection[TP]
    ends: Mapping[TP, int]
    fetched: Mapping[TP, int]
    handled: Mapping[TP, int]
    delivered: Mapping[TP, int]

    def mark(self, tp: TP) -> tuple[int | None, int | None]:
        """Changes whenever anything moves."""
        return self.handled.get(tp), self.fetched.get(tp)

    def is_behind(self, tp: TP) -> bool:
        waiting = self.handled.get(tp, 0) < self.delivered.get(tp, 0)
        return waiting or tp not in self.ends or self.fetched.get(tp, 0) < self.ends[tp]


@dataclass(frozen=True, slots=True)
class Since:
    mark: tuple[int | None, int | None]
    at_seconds: float


def standing(progress: Progress, since: Mapping[TP, Since], now_seconds: float) -> Mapping[TP, Since]:
    """Since when each partition has stood where it stands; one that is not behind begins anew."""
    out = {}
    for tp in progress.assigned:
        mark, before = progress.mark(tp), since.get(tp)
        if before is not None and tp not in progress.fetched:
            mark = (mark[0], before.mark[1])  # a silent broker is no movement
        still = before is not None and before.mark == mark and progress.is_behind(tp)
        out[tp] = before if still and before is not None else Since(mark, now_seconds)
    return out


def watch(progress: Callable[[], Progress | None], stall_seconds: float, exit_code: int) -> None:
    """Asks once a second, and exits the process when a partition is behind and has not moved for `stall_seconds`."""
    since: Mapping[TP, Since] = {}
    while True:
        time.sleep(1.0)
        seen = progress()
        since = standing(seen, since, time.monotonic()) if seen else {}
        for tp, stood in since.items():
            if time.monotonic() - stood.at_seconds > stall_seconds:
                print(
                    f"stalled: {tp.topic}/{tp.partition} stands at {stood.mark} for {stall_seconds:g} s, exit {exit_code}",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(exit_code)
