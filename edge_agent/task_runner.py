"""Does what is to be done about pushes, recordings and the node's mode (`tasks.py`, `node_mode.py`), one step at a time.

Invariants
* What is asked of the media server is on the disk before: after a kill it is known what was begun.
* While the media server does not answer nothing is concluded, and nothing is asked twice in one round.
* Nothing is asked, and the API is left alone, while there is nothing to do here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from edge_agent.agent import Agent
from edge_agent.journal_file import Upkeep
from edge_agent.metrics import now_ms
from edge_agent.mist import active_streams, push_list
from edge_agent.mist.poller import Observe
from edge_agent.node_mode import NODE, ModeStep, plan_mode, running_streams
from edge_agent.node_state import Task
from edge_agent.redact import digest, redacted_target
from edge_agent.task_settings import TaskSettings
from edge_agent.tasks import Seen, Step, Wish, failed, plan_tasks
from edge_agent.turn import Turn
from edge_agent.wishes import wishes
from streams.errors import Rejected, Transient
from streams.generated import EdgeAction, EdgeActionReported, EdgeActionStatus, PushKind, PushTargetState, PushTargetStateChanged
from streams.public_addresses import is_public, resolve
from streams.telemetry import log

LOOK: Final[Mapping[str, object]] = {
    **push_list.COMMAND,
    "active_streams": {"longform": True, "fields": ["status"]},
}
TICK_SECONDS: Final = 1.0  # how often is looked here whether there is anything to do, and there while something moves
STEADY_SECONDS: Final = 5.0  # how often the media server is looked at while all goes on as it should
RESOLVE_SECONDS: Final = 3.0
NO_API: Final = "the agent does not know the media server's API: set FW_EDGE_MIST_API"
_STEADY: Final = (PushTargetState.ACTIVE, PushTargetState.FAILED)

logger = log(__name__)


class Api(Protocol):
    """MistServer's API."""

    async def call(self, commands: Mapping[str, object]) -> Mapping[str, object]:
        """Transient: not reachable. Rejected: the login is refused."""


class Disk(Protocol):
    """The journal."""

    async def kept(self, upkeep: Upkeep) -> bool:
        """Whether everything that was written so far is durable."""


class TaskRunner:
    """Run it; it goes on for ever. `api` None: there is no media server to ask; that is said."""

    def __init__(
        self,
        agent: Agent,
        journal: Disk,
        observe: Observe,
        api: Api | None,
        settings: TaskSettings,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._now_ms = clock_ms
        self._agent, self._journal, self._observe, self._api, self._settings = agent, journal, observe, api, settings
        self._state, self._policy = agent.state, agent.policy
        self._wake = asyncio.Event()
        self.problem: str | None = None  # why the media server cannot be asked

    async def run(self) -> None:
        while True:
            await self._woken(await self.round())

    def wake(self) -> None:
        """The policy has changed."""
        self._wake.set()

    async def round(self) -> float:
        """Does what can be done now; gives the seconds until it is worth looking again."""
        await self._mode()
        wanted = self._wishes()
        if not wanted and not len(self._state.tasks):
            return TICK_SECONDS
        seen = await self._look()
        if seen is None:
            return STEADY_SECONDS
        for step in plan_tasks(wanted, seen, {task.target_id: task for task in self._state.tasks}, self._now_ms()):
            if not await self._carry_out(step):
                return STEADY_SECONDS
        is_steady = all(t.state in _STEADY and not t.is_ending and t.missed_ms is None for t in self._state.tasks)
        return STEADY_SECONDS if is_steady and len(self._state.tasks) >= len(wanted) else TICK_SECONDS

    def _wishes(self) -> Mapping[UUID, Wish]:
        return wishes(self._policy, self._state, self._settings, self._now_ms(), obstacle=None if self._api else NO_API)

    async def _look(self) -> Seen | None:
        if self._api is None:
            return Seen((), frozenset(f"live+{ingest.internal_name}" for ingest in self._state.ingests))
        answer = await self._call(LOOK)
        try:
            if answer is None:
                return None
            online = frozenset(name for name, stream in active_streams.read(answer).items() if stream.is_online)
            return Seen(push_list.read(answer), online)
        except Transient as problem:
            self._failed(problem)
            return None

    async def _carry_out(self, step: Step) -> bool:
        """Whether the media server could be asked, where it was to be."""
        if step.target is not None and step.task.kind is PushKind.TARGET and (refusal := await self._refusal(step.target)):
            step = failed(step.task, refusal, self._now_ms())
        if step.is_told or step.commands:
            where = redacted_target(step.target) if step.target else None
            logger.info(step.why, stream=step.task.stream, target_id=str(step.task.target_id), target=where)
        self._observe(lambda turn: _take(turn, step))
        if step.commands is None:
            return True
        await self._journal.kept(Upkeep())  # while the disk refuses, a push is worth more than the record of it
        answer = await self._call(step.commands)
        if answer is None:
            return False
        if step.target is not None:
            self._note_process(step.task, answer)
        return True

    def _note_process(self, asked: Task, answer: Mapping[str, object]) -> None:
        """The process of a push that just started, so that its end is told from others'."""
        try:
            started = [p for p in push_list.read(answer) if p.stream == asked.stream and digest(p.target) == asked.digest]
        except Transient:
            return  # the next look tells
        known = self._state.tasks.get(str(asked.target_id))
        if started and known is not None and known.pid is None and known.ended_ms is None:
            self._observe(lambda turn: turn.state.tasks.put(str(known.target_id), replace(known, pid=started[0].pid)))

    async def _refusal(self, url: str) -> str | None:
        """Why a target that is named by a host may not be pushed to: the name points into a private network."""
        if self._settings.allows_private_pushes:
            return None
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                addresses = await resolve(urlsplit(url).hostname or "")
        except TimeoutError:
            return None  # the media server asks for it, too, and says what is wrong
        return "its host has an address in a private network" if not all(map(is_public, addresses)) else None

    async def _mode(self) -> None:
        node = self._policy.node(self._agent.node.node_id)
        if node is None:
            return
        known = self._state.modes.get(NODE)
        running: Sequence[str] = ()
        if known is None or not known.is_done or known.request_id != node.mode_request_id:
            running = running_streams(self._state, self._policy)
        step = plan_mode(node, known, running, self._now_ms(), 1000 * self._settings.maintenance_grace_seconds)
        if step is None:
            return
        logger.info(step.why)
        self._observe(lambda turn: _take_mode(turn, step))
        for commands in step.commands if self._api else ():
            if await self._call(commands) is None:
                return

    async def _call(self, commands: Mapping[str, object]) -> Mapping[str, object] | None:
        if self._api is None:
            return None
        try:
            answer = await self._api.call(commands)
        except (Transient, Rejected) as problem:
            self._failed(problem)
            return None
        self.problem = None
        return answer

    def _failed(self, problem: Transient | Rejected) -> None:
        sentence = problem.message if isinstance(problem, Rejected) else str(problem)
        if sentence != self.problem:
            logger.warning("the media server cannot be asked", problem=sentence)
        self.problem = sentence

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()


def _take(turn: Turn, step: Step) -> None:
    """Takes a step into the state, and says what there is to say of it."""
    task, key = step.task, str(step.task.target_id)
    if step.is_told:
        task = replace(task, said_ms=max(turn.now_ms, task.said_ms + 1))  # of two facts about it the later is the newer
        told = PushTargetStateChanged(
            node_id=turn.node.node_id,
            target_id=task.target_id,
            kind=task.kind,
            request_id=task.request_id,
            state=task.state,
            since=turn.moment(task.since_ms),
            reason=task.reason,
            attempt=task.attempt,
            retry_at=turn.moment(task.retry_ms) if task.retry_ms is not None else None,
            sent_bytes=task.sent_bytes,
            policy_version=task.policy_version,
        )
        turn.about(f"task {key}", at_ms=task.said_ms).say(told, task.subject)
    if step.report is not None:
        action, status, detail = step.report
        _report(turn, action, task, status, detail)
    if step.is_over:
        turn.state.tasks.drop(key)
    else:
        turn.state.tasks.put(key, task)


def _report(turn: Turn, action: EdgeAction, task: Task, status: EdgeActionStatus, detail: str | None) -> None:
    """The same action of a request in the same status is the same fact."""
    fact = EdgeActionReported(turn.node.node_id, action, task.request_id, status, detail, task.policy_version)
    parts = (action.value, task.request_id, status.value)
    turn.facts.append((fact, turn.node.meta("EdgeActionReported", parts, task.subject, turn.now_ms)))


def _take_mode(turn: Turn, step: ModeStep) -> None:
    turn.state.modes.put(NODE, step.change)
    if step.report is not None:
        status, detail = step.report
        fact = EdgeActionReported(turn.node.node_id, EdgeAction.SET_NODE_MODE, step.change.request_id, status, detail)
        parts = (EdgeAction.SET_NODE_MODE.value, step.change.request_id, status.value)
        turn.facts.append((fact, turn.node.meta("EdgeActionReported", parts, turn.node.subject, turn.now_ms)))
