"""Keeps a media server set up as it shall be: looks, does one step, looks again, and says each step in a sentence.

Invariant: a step is taken from a plan of what the server reports at that moment, so what an operator changed meanwhile stays. As
there is no channel for errors, only reading back tells whether a step took; one that did not is tried again at the next round.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from edge_agent.mist.api import MistApi
from edge_agent.mist.plan import Desired, Observed, Step, plan, problems
from edge_agent.mist.poller import Observe
from edge_agent.mist.server import Reader, Server
from edge_agent.turn import Turn
from streams.errors import Rejected, Transient
from streams.generated import MediaServerFlavour, NodeConfigured, NodeObserved
from streams.telemetry import log

ROUND_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0  # it says that it started before its API answers

logger = log(__name__)


class Keeper:
    """Run it; it goes on for ever. `wake` it when the server started."""

    def __init__(self, api: MistApi, desired: Desired, observe: Observe, remember: Callable[[str], None]) -> None:
        self._api, self.desired, self._observe, self._remember = api, desired, observe, remember
        self._reader = Reader(api)
        self._woken = asyncio.Event()
        self._said: Server | None = None
        self.server: Server | None = None
        self.problem: str | None = "nobody has looked yet"
        self.unmended: list[str] = []  # what no step can mend
        self.missing = 0  # steps that the configuration lacked when it was last read
        self.rounds_total = self.steps_total = self.refused_total = self.drift_total = 0

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        pauses = _pauses()
        while True:
            self._woken.clear()
            is_done = await self.round()
            pauses = _pauses() if is_done else pauses
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), ROUND_SECONDS if is_done else next(pauses))

    async def round(self) -> bool:
        """Looks and mends. Whether the server could be talked to."""
        try:
            await self._mend(*await self._reader.read())
        except (Transient, Rejected) as problem:
            sentence = problem.message if isinstance(problem, Rejected) else str(problem)
            if sentence != self.problem:
                logger.warning("the media server cannot be set up", problem=sentence)
            self.problem = sentence
            return False
        self.problem = None
        self.rounds_total += 1
        return True

    async def _mend(self, server: Server, observed: Observed) -> None:
        steps = plan(self.desired, observed)
        self._notice(server, observed, steps)
        tried: set[str] = set()
        while step := next((step for step in steps if step.name not in tried), None):
            if not tried:
                self._remember(self.desired.trigger_url)  # before the first handler is there: it is ours ever after
            tried.add(step.name)
            await self._api.call(step.commands)
            server, observed = await self._reader.read()
            steps = plan(self.desired, observed)
            self._told(server, step, is_applied=step.name not in {step.name for step in steps})
        self.missing = len(steps)

    def _notice(self, server: Server, observed: Observed, steps: list[Step]) -> None:
        self.server = server
        self.missing = len(steps)
        if self.rounds_total:
            self.drift_total += len(steps)
        unmended = problems(self.desired, observed)
        for sentence in unmended:
            if sentence not in self.unmended:
                logger.error(sentence)
        self.unmended = unmended
        if server == self._said:
            return
        self._said = server
        logger.info("found a media server", version=server.version, flavour=_flavour(server), missing=len(steps))
        fact = NodeObserved(
            node_id="",
            software_version=server.version,
            flavour=_flavour(server),
            instance=server.instance,
            server_name=server.name,
            connectors=tuple(server.connectors),
            processors=server.processors,
            drift=len(steps),
        )
        self._observe(lambda turn: _say(turn, fact))

    def _told(self, server: Server, step: Step, *, is_applied: bool) -> None:
        self.steps_total += 1
        if is_applied:
            logger.info(step.sentence, step=step.name)
        else:
            self.refused_total += 1
            logger.error("the media server did not take a change", step=step.name, wanted=step.sentence)
        fact = NodeConfigured("", step.name, step.sentence, is_applied, server.instance)
        self._observe(lambda turn: _say(turn, fact))


def _say(turn: Turn, fact: NodeObserved | NodeConfigured) -> None:
    turn.say(replace(fact, node_id=turn.node.node_id), turn.node.subject)


def _flavour(server: Server) -> MediaServerFlavour:
    return MediaServerFlavour.FORK if server.is_fork else MediaServerFlavour.STOCK


def _pauses() -> Iterator[float]:
    seconds = RETRY_SECONDS
    while True:
        yield seconds
        seconds = min(2 * seconds, ROUND_SECONDS)
