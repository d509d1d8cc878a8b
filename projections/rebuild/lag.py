"""How far live workers are behind while a replay competes with them, and the gate that stops the replay."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from aiokafka import TopicPartition

from projections import builds
from projections.model import TP
from projections.rebuild.fill import gathered
from projections.rebuild.run import positions
from projections.rebuild.site import Site
from streams.kafka import reader

LOOK_SECONDS: Final = 0.25
"""How often is looked; a worker may be over the limit for so long before the replay stands still."""


@dataclass(slots=True)
class Passing:
    """Ends of a partition that were seen, and when: the oldest that the worker has not passed says how far it is behind."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def behind_seconds(self, now: float, end: int, position: int) -> float:
        if not self.seen or end > self.seen[-1][1]:
            self.seen.append((now, end))
        while self.seen and self.seen[0][1] <= position:
            self.seen.popleft()
        return now - self.seen[0][0] if self.seen else 0.0


@dataclass(slots=True)
class Lag:
    site: Site
    most_seconds: float
    open: asyncio.Event = field(default_factory=asyncio.Event)
    passing: dict[TP, Passing] = field(default_factory=dict)

    async def watch(self) -> None:
        """Holds the gate open while the live worker is less than `most_seconds` behind."""
        is_told = False
        ends = reader(self.site.settings.kafka, "replay-lag", fetch_bytes=64 << 10)
        await ends.start()
        try:
            while True:
                found = await ends.end_offsets([TopicPartition(*tp) for tp in self.site.tps])
                seconds = await self._behind({TP(*tp): end for tp, end in found.items()})
                if seconds <= self.most_seconds:
                    self.open.set()
                    is_told = False
                else:
                    self.open.clear()
                    if not is_told:
                        is_told = True
                        self.site.progress.say(f"the live worker is {seconds:.1f} s behind: waiting until it has caught up")
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await ends.stop()

    async def _behind(self, ends: dict[TP, int]) -> float:
        live = await builds.active(self.site.pool, self.site.projection.name)
        assert live is not None
        at, now = await positions(self.site.pool, live), time.monotonic()
        most = 0.0
        for tp, end in ends.items():
            position = at.get(tp, 0)
            is_new = tp not in self.passing
            passing = self.passing.setdefault(tp, Passing())
            seconds = passing.behind_seconds(now, end, position)
            if position < end and (is_new or seconds > self.most_seconds):
                age = await self._age_seconds(tp, position, end)
                passing.seen.clear()
                if age is not None:  # else: only what transactions leave on the log
                    passing.seen.append((now - age, end))
                seconds = age or 0.0
            most = max(most, seconds)
        return most

    async def _age_seconds(self, tp: TP, position: int, end: int) -> float | None:
        """How long the next record has been on the log; None: there is none."""
        topic = self.site.topics[tp.topic]
        start = max(position, (await self.site.history.ranges(topic))[tp.partition].first)
        if start >= end:
            return None
        async with aclosing(gathered(self.site.history.read(topic, tp.partition, start, end))) as batches:
            records = await anext(batches, None)
        return None if records is None else max(0.001, time.time() - records[0].timestamp / 1000)
