"""Carries out at the media server what a change of the policy wants (`enforcement.py`), until it is done.

Invariants
* What is to be done is on its way to the disk before the policy that wants it (both go through the journal, in that order), and
  is taken off in the transaction of the fact that reports its end: a kill in between loses nothing.
* While the media server does not answer, it is asked again; that it waits is reported once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol
from uuid import UUID

from edge_agent.agent import Agent
from edge_agent.enforcement import Over, Send, actions, next_step
from edge_agent.journal import Journal
from edge_agent.journal_file import TriggerRows, Upkeep
from edge_agent.metrics import now_ms
from edge_agent.mist import clients
from edge_agent.node_state import Action
from streams.codec import encode
from streams.errors import Rejected, Transient
from streams.generated import EdgeAction, EdgeActionReported, EdgeActionStatus, Fact, Meta, Policy
from streams.telemetry import log

LOOK_SECONDS: Final = 1.0  # how often is looked whether others put something on the list (`viewers.appear`)
WATCH_SECONDS: Final = 0.2  # how often is looked whether something has ended
PAUSES_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # between attempts while the media server does not answer
STREAMS_A_CALL: Final = 200

logger = log(__name__)


class Api(Protocol):
    """MistServer's API."""

    async def call(self, commands: Mapping[str, object]) -> Mapping[str, object]:
        """Transient: not reachable. Rejected: the login is refused."""


class Enforcer:
    """`learn` each change of the policy; `run` goes on for ever. `api` None: there is no media server to ask; that is said."""

    def __init__(self, agent: Agent, journal: Journal, api: Api | None) -> None:
        self._agent, self._journal, self._api = agent, journal, api
        self._state, self._policy = agent.state, agent.policy
        self._wake = asyncio.Event()

    def learn(self, old: Policy | None, new: Policy | None) -> None:
        """Takes note of what follows from a change, before anything of the change is written."""
        found = actions(old, new, self._state, self._policy.stream, now_ms())
        for action in found:
            if self._state.actions.get(str(action.request_id)) is None:
                self._state.actions.put(str(action.request_id), action)
        if found:
            self._journal.write(Upkeep(changes=self._state.changes.take()))
            self._wake.set()

    async def run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            if not len(self._state.actions):
                await self._woken(LOOK_SECONDS)
                continue
            problem = await self._round()
            failures = failures + 1 if problem else 0
            pause = PAUSES_SECONDS[min(failures, len(PAUSES_SECONDS)) - 1] if failures else WATCH_SECONDS
            await self._woken(pause)

    async def _woken(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _round(self) -> str | None:
        """Does what can be done now; gives why the media server could not be asked."""
        to_send: list[tuple[Action, Send]] = []
        for action in self._state.actions:
            match next_step(action, self._state, self._policy, now_ms()):
                case Over(status=status, detail=detail):
                    self._end(action, status, detail)
                case Send() if self._api is None:
                    self._end(action, EdgeActionStatus.FAILED, "the media server's API is not known: set FW_EDGE_MIST_API")
                case Send() as send:
                    to_send.append((action, send))
        for together, send in _calls(to_send):
            problem = await self._call(send)
            if problem is not None:
                for waiting, _ in to_send:
                    self._acknowledge(waiting, problem)
                return problem
            for action in together:
                self._sent(action)
        return None

    async def _call(self, send: Send) -> str | None:
        """Why the media server could not be asked."""
        try:
            if self._api is not None:
                listed = clients.read(await self._api.call(clients.COMMAND)).rows if send.publisher_of else ()
                sessions = [client.sessid for client in listed if client.is_input and client.stream == send.publisher_of]
                await self._api.call({"stop_sessid": sessions} if sessions else send.commands)
        except (Transient, Rejected) as error:
            return str(error.args[1] if isinstance(error, Rejected) else error)
        return None

    def _sent(self, action: Action) -> None:
        known = self._state.actions.get(str(action.request_id))
        if known is None:
            return
        logger.info("the media server was asked", action=action.action.value, stream=action.stream)
        self._state.actions.put(str(action.request_id), replace(known, sent_ms=now_ms(), tries=known.tries + 1))
        if action.action is EdgeAction.RECHECK_VIEWERS:  # it takes effect in the questions that follow
            self._end(action, EdgeActionStatus.DONE, None)
        else:
            self._journal.write(Upkeep(changes=self._state.changes.take()))

    def _acknowledge(self, action: Action, problem: str) -> None:
        known = self._state.actions.get(str(action.request_id))
        if known is None or known.is_acknowledged:
            return
        logger.warning("the media server cannot be asked yet", action=action.action.value, problem=problem)
        self._state.actions.put(str(action.request_id), replace(known, is_acknowledged=True))
        self._report(action, EdgeActionStatus.ACKNOWLEDGED, problem)

    def _end(self, action: Action, status: EdgeActionStatus, detail: str | None) -> None:
        self._state.actions.drop(str(action.request_id))
        self._report(action, status, detail)

    def _report(self, action: Action, status: EdgeActionStatus, detail: str | None) -> None:
        fact, meta = reported(self._agent, action, status, detail, now_ms())
        rows = TriggerRows(((encode(fact, meta), None),), self._state.changes.take(), None, at_ms=now_ms())
        self._journal.write(rows)


def reported(agent: Agent, action: Action, status: EdgeActionStatus, detail: str | None, at_ms: int) -> tuple[Fact, Meta]:
    """The same action in the same status is the same fact."""
    fact = EdgeActionReported(
        node_id=agent.node.node_id,
        action=action.action,
        request_id=action.request_id,
        status=status,
        detail=detail,
        policy_version=action.policy_version,
        session_id=action.session_id,
    )
    parts: Sequence[UUID | str] = (action.request_id, status.value)
    return fact, agent.node.meta("EdgeActionReported", parts, action.subject, at_ms)


def _calls(
    to_send: Sequence[tuple[Action, Send]],
) -> Iterator[tuple[Sequence[Action], Send]]:
    """Streams whose viewers are asked again go into one call; all else is a call of its own."""
    rechecks = [action for action, _ in to_send if action.action is EdgeAction.RECHECK_VIEWERS]
    for action, send in to_send:
        if action.action is not EdgeAction.RECHECK_VIEWERS:
            yield [action], send
    for first in range(0, len(rechecks), STREAMS_A_CALL):
        some = rechecks[first : first + STREAMS_A_CALL]
        yield some, Send({"invalidate_sessions": [action.stream for action in some]})
