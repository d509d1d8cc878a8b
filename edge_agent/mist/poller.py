"""Looks at the media server every few seconds: compares, samples, and keeps what that costs within a budget.

Invariant: one look's work is one transaction. While looking fails nothing is concluded; how long it failed counts for nobody's
absence. The share of a processor that looking takes stays at about one hundredth: the interval widens with what a look costs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from edge_agent.metrics import now_ms
from edge_agent.mist import load, sight
from edge_agent.mist.api import MistApi
from edge_agent.mist.living import lives
from edge_agent.mist.load import Load
from edge_agent.mist.presence import GAP_MS
from edge_agent.mist.samples import Samples
from edge_agent.mist.sight import Sight
from edge_agent.mist.truth import UNVERIFIED_MS, Truth, believe_silence
from edge_agent.node_state import CONTROLLER, NodeState
from edge_agent.turn import Turn
from streams.errors import Rejected, Transient
from streams.telemetry import log

SHORTEST_SECONDS: Final = 3.0
LONGEST_SECONDS: Final = 30.0
CPU_SHARE: Final = 0.01
HTTP_SECONDS: Final = 0.003  # CPU of one look's two requests, on this side; measured in `bench`
SMOOTHING: Final = 0.3

Observe = Callable[[Callable[[Turn], None]], None]  # lets work take a turn, and writes what comes of it

logger = log(__name__)


class Poller:
    """Run it; it goes on for ever."""

    def __init__(self, api: MistApi, state: NodeState, observe: Observe, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._state, self._observe, self._clock = api, state, observe, clock
        self.truth, self.samples = Truth(), Samples()
        self.problem: str | None = "nobody has looked yet"
        self.looks_total = self.failed_total = 0
        self.interval_seconds = SHORTEST_SECONDS
        self.cost_seconds = 0.0  # CPU of a look, smoothed
        self.seen_ms: int | None = None  # when the last look succeeded
        self._believed_ms = 0  # the start of the server after which silence was believed

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self.interval_seconds)

    async def look(self) -> bool:
        """One look. Whether it succeeded."""
        reading = self._api.reading_seconds
        try:
            answer = await self._api.call(sight.COMMANDS)
            seen = sight.read(answer, self._elapsed_ms(), now_ms())
            seen = replace(seen, living=self._living(seen))
            figures = await self._load(seen)
        except (Transient, Rejected) as problem:
            self._failed(problem)
            return False
        began = time.thread_time()
        self._observe(lambda turn: self._take(turn, seen, figures))
        self._spent(time.thread_time() - began + self._api.reading_seconds - reading + HTTP_SECONDS)
        if self.problem:
            logger.info("the media server's API is looked at", instance=seen.instance, sessions=len(seen.clients))
        self.problem, self.seen_ms = None, seen.at_ms
        self.looks_total += 1
        return True

    def _take(self, turn: Turn, seen: Sight, figures: Load | None) -> None:
        self.truth.compare(turn, seen, gap_ms=max(GAP_MS, round(3000 * self.interval_seconds)))
        self.samples.take(turn, seen, figures)

    async def _load(self, seen: Sight) -> Load | None:
        return load.read(await self._api.document(f"/{seen.prometheus}.json")) if seen.prometheus else None

    def _living(self, seen: Sight) -> frozenset[str]:
        """Of the publishers that no stream names as its source, which are few."""
        sources = {str(pid) for stream in seen.streams.values() for pid in stream.sourcepids or ()}
        unnamed = ((pid, i) for pid, i in self._state.ingests.items() if i.concluded_ms is None and pid not in sources)
        return frozenset(pid for pid, ingest in unnamed if lives(pid, ingest.started_ms))

    def _elapsed_ms(self) -> int:
        return round(1000 * self._clock())

    def _spent(self, seconds: float) -> None:
        self.cost_seconds += SMOOTHING * (seconds - self.cost_seconds)
        self.interval_seconds = min(max(self.cost_seconds / CPU_SHARE, SHORTEST_SECONDS), LONGEST_SECONDS)

    def _failed(self, problem: Transient | Rejected) -> None:
        self.failed_total += 1
        sentence = problem.message if isinstance(problem, Rejected) else str(problem)
        if sentence != self.problem:
            logger.warning("the media server's API cannot be looked at", problem=sentence)
        self.problem = sentence
        started = self._state.server_starts.get(CONTROLLER)
        if started and self._believed_ms < started.at_ms < now_ms() - UNVERIFIED_MS and (self.seen_ms or 0) < started.at_ms:
            self._believed_ms = started.at_ms
            logger.warning("the media server started anew and cannot be looked at: what was open before is ended")
            self._observe(believe_silence)
