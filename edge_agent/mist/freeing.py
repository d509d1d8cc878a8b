"""Frees streams that nobody can publish any more.

What a killed buffer leaves in shared memory can let the next publisher pass its key and then hang, until somebody asks for
`nuke_stream` (CONTRACT section 5). The agent does.

Invariant: what lives is not touched. A publisher was let in and hangs before its STREAM_PUSH, for twenty times as long as that
takes; and meanwhile no look saw the media time of the stream move. Times are of a clock that never jumps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.mist import active_streams
from edge_agent.mist.active_streams import ActiveStream
from edge_agent.mist.api import MistApi
from edge_agent.mist.poller import Observe
from edge_agent.node_state import Admission, NodeState
from edge_agent.policy import LIVE
from edge_agent.turn import Turn
from streams.errors import Rejected, Transient
from streams.telemetry import log

LOOK_SECONDS: Final = 1.5
HANGING_SECONDS: Final = 8.0
STILL_LOOKS: Final = 3  # at which the stream did not move
AGAIN_SECONDS: Final = 15.0  # a nuke goes on for a second, and publishers come again every few seconds

logger = log(__name__)


@dataclass(slots=True)
class _Hanging:
    """A publisher on its way, and the media time of its stream as it was seen since."""

    admission: Admission
    since: float
    last_ms: int | None = None  # None: not listed
    still: int = 0


class Freer:
    """Run it; it goes on for ever. It asks the media server only while a publisher hangs."""

    def __init__(self, api: MistApi, state: NodeState, observe: Observe, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._state, self._observe, self._clock = api, state, observe, clock
        self._hanging: dict[str, _Hanging] = {}
        self._freed: dict[str, float] = {}
        self.freed_total = 0

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """One look at those that hang, and what has to be done about them."""
        self._notice()
        now = self._clock()
        hanging = {pid: one for pid, one in self._hanging.items() if now - one.since >= HANGING_SECONDS / 2}
        if not hanging:
            return
        try:
            listed = active_streams.read(await self._api.call(active_streams.COMMAND))
            for name, pid in _stuck(hanging, listed):
                if now - hanging[pid].since >= HANGING_SECONDS and self._may_free(name, pid, hanging[pid], now):
                    await self._free(name, pid, now)
        except (Transient, Rejected):  # the poller says so
            for one in hanging.values():
                one.still = 0

    def _notice(self) -> None:
        """Who is on the way in. One who was admitted anew begins anew; who went on the air or left is not there any more."""
        now, before = self._clock(), self._hanging
        self._hanging = {
            pid: before[pid] if pid in before and before[pid].admission == admission else _Hanging(admission, now)
            for pid, admission in self._state.admissions.items()
            if not any(not ingest.is_lost for _, ingest in self._state.open_ingests(admission.subject.aggregate_id))
        }

    def _may_free(self, name: str, pid: str, one: _Hanging, now: float) -> bool:
        """Whether it still hangs, for the server may have taken long to answer, and nobody freed its stream a moment ago."""
        still_hangs = self._state.admissions.get(pid) == one.admission
        return still_hangs and now - self._freed.get(name, -AGAIN_SECONDS) >= AGAIN_SECONDS

    async def _free(self, name: str, pid: str, now: float) -> None:
        logger.warning(
            "a publisher was let in and hangs, and nothing of its stream moves: the stream is freed of what a crash left",
            stream=name,
            pid=pid,
        )
        await self._api.call({"nuke_stream": name})
        self._freed = {stream: at for stream, at in self._freed.items() if now - at < AGAIN_SECONDS} | {name: now}
        self.freed_total += 1

        def forget(turn: Turn) -> None:
            """Its end may never be told. Until then it would stand in the way of the one who comes next."""
            turn.state.admissions.drop(pid)

        self._observe(forget)


def _stuck(hanging: Mapping[str, _Hanging], listed: Mapping[str, ActiveStream]) -> Iterator[tuple[str, str]]:
    """Names and process ids, of streams that did not move at several looks."""
    for pid, one in hanging.items():
        name = f"{LIVE}{one.admission.internal_name}"
        row = listed.get(name)
        if row is not None and row.lastms != one.last_ms:
            one.last_ms, one.still = row.lastms, 0
        else:
            one.still += 1
        if one.still >= STILL_LOOKS:
            yield name, pid
