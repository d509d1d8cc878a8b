"""A media server and the agent's core in one process, without sockets: triggers arrive at once, or as a fault would have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from edge_agent.agent import Outcome
from edge_agent.mist import sight
from edge_agent.mist.truth import Truth
from edge_agent.redact import redacted_target as shown
from edge_agent.shelf import Change
from edge_agent.trigger import Trigger
from edge_agent.turn import Site
from streams.errors import Transient
from streams.generated import Fact, IngestEnded, IngestStarted, PushEnded, PushStarted, ViewerJoined, ViewerLeft
from tests.edge_node import NOON_MS, AgentUnderTest
from tests.mist.model import MistServer
from tests.mist.state import Flavour
from tests.mist.wire import Answer, Failed, Post

Fault = Callable[[Post], str]  # "" (none), "lost", "twice", "late" or "unheard" (handled, but the answer does not get back)
F = TypeVar("F", bound=Fact)
LOOK_SECONDS = 3


class Direct:
    """The wire of a MistServer to an agent; `fault` decides what becomes of each post."""

    def __init__(self, agent: AgentUnderTest) -> None:
        self.agent = agent
        self.fault: Fault = lambda _post: ""
        self.is_up = True
        self.late: list[tuple[int, Trigger]] = []  # (when, what), by the agent's clock

    def post(self, post: Post) -> Answer | None:
        if not self.is_up:
            raise Failed(is_refused=True)
        trigger = Trigger(post.name, post.body, post.uuid, post.instance, post.pid, post.unix_ms, post.attempt)
        self.agent.now_ms = max(self.agent.now_ms, post.unix_ms)
        match self.fault(post):
            case "lost" | "unheard" as fault:
                if fault == "unheard":
                    self.agent.handle(trigger)
                if post.is_sync:
                    raise Failed(is_refused=False)
                return None
            case "late" if not post.is_sync:
                self.late.append((post.unix_ms + 8_000, trigger))
                return None
            case "twice":
                self.agent.handle(trigger)
        answer = self.agent.handle(trigger).answer
        return Answer(200, answer) if post.is_sync else None

    def deliver(self, now_ms: int, *, everything: bool = False) -> None:
        due = [entry for entry in self.late if everything or entry[0] <= now_ms]
        self.late = [entry for entry in self.late if entry not in due]
        for _, trigger in due:
            self.agent.handle(trigger)


class Node:
    """One machine: MistServer, agent, and the agent's looks at it every three seconds."""

    def __init__(self, *, flavour: Flavour = "stock", seed: int = 7, site: Site | None = None) -> None:
        self.agent = AgentUnderTest(site=site or Site())
        self.agent.agent.is_verified = True
        self.wire = Direct(self.agent)
        self.mist = MistServer(self.wire, flavour=flavour, seed=seed)
        self.mist.clock.jump((NOON_MS - self.mist.clock.wall_ms) / 1000)
        self.truth = Truth()
        self.is_looking = True
        self.living: set[str] = set()  # processes that a look sees run
        self.looks = 0
        self._since_look = 0
        self.mist.configure("http://agent/trigger")

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            self.mist.advance(1)
            self.agent.now_ms = self.mist.clock.wall_ms
            self.wire.deliver(self.mist.clock.wall_ms)
            if self.mist.clock.boot_seconds % 5 == 0:
                self._take_changes(self.agent.agent.sweep(self.agent.now_ms))
            self._since_look += 1
            if self._since_look >= LOOK_SECONDS:
                self._since_look = 0
                self.look()

    def _take_changes(self, changes: tuple[Change, ...]) -> None:
        self.agent.take(Outcome("", changes=changes))

    def look(self) -> bool:
        """Whether there was something to see."""
        answer = self.mist.call(sight.COMMANDS) if self.is_looking and self.wire.is_up else None
        if answer is None:
            return False
        try:
            seen = sight.read(answer, self.mist.clock.boot_ms, self.mist.clock.wall_ms)
        except Transient:
            return False
        seen = replace(seen, living=frozenset(self.living))
        self.looks += 1
        outcome = self.agent.agent.observe(
            lambda turn: self.truth.compare(turn, seen, gap_ms=30_000), self.mist.clock.wall_ms, uuid=f"look {self.looks}"
        )
        self.agent.take(outcome)
        for fact, _ in outcome.facts:
            self._check(fact)
        return True

    def _check(self, fact: Fact) -> None:
        """Nothing is concluded of what goes on, nothing found that is not there."""
        match fact:
            case ViewerLeft(session_id=sessid):
                assert sessid not in self.mist.viewings(), f"ended by mistake: {fact.evidence}"
            case ViewerJoined(session_id=sessid):
                assert sessid in self.mist.viewings(), f"found by mistake: {fact.evidence}"
            case IngestEnded(internal_name=name):
                is_less = self.open_publishers()[f"live+{name}"] >= self.mist.publishing().get(f"live+{name}", 0)
                assert is_less, f"ended by mistake: {fact.evidence}"
            case IngestStarted(internal_name=name):
                assert f"live+{name}" in self.mist.publishing(), f"found by mistake: {fact.evidence}"
            case PushStarted(target=target):
                assert target in {shown(t) for _, t in self.mist.pushing()}, f"found by mistake: {fact.evidence}"
            case PushEnded(target=target):
                still = [shown(t) for _, t in self.mist.pushing()].count(target)
                mine = sum(p.target == target and p.concluded_ms is None for p in self.agent.agent.state.pushes)
                assert mine >= still, f"ended by mistake: {fact.evidence}"
            case _:
                pass

    def kill_agent(self) -> None:
        """As after kill -9 and a start: only what the journal has is there."""
        known = self.agent.agent._answers
        self.agent.restart()
        self.agent.agent._answers.update(known)  # the journal has them, too
        self.agent.agent.is_verified = True
        self.truth = Truth()

    # What is open, by what the agent believes.

    def open_sessions(self) -> Counter[str]:
        return Counter(v.session_id for v in self.agent.agent.state.viewings if v.is_open)

    def open_publishers(self) -> Counter[str]:
        return Counter(f"live+{i.internal_name}" for i in self.agent.agent.state.ingests if i.concluded_ms is None)

    def open_pushes(self) -> list[str]:
        return [p.stream for p in self.agent.agent.state.pushes if p.concluded_ms is None]

    # What was said.

    def _said(self, kind: type[F]) -> list[F]:
        return [fact for fact in self.agent.said() if isinstance(fact, kind)]

    def left(self) -> dict[UUID, list[ViewerLeft]]:
        return _by(self._said(ViewerLeft), "viewing_id")

    def joined(self) -> dict[UUID, list[ViewerJoined]]:
        return _by(self._said(ViewerJoined), "viewing_id")

    def started(self) -> dict[UUID, list[IngestStarted]]:
        return _by(self._said(IngestStarted), "ingest_id")

    def ended(self) -> dict[UUID, list[IngestEnded]]:
        return _by(self._said(IngestEnded), "ingest_id")

    def pushed(self) -> dict[UUID, list[PushStarted]]:
        return _by(self._said(PushStarted), "push_id")

    def push_ends(self) -> dict[UUID, list[PushEnded]]:
        return _by(self._said(PushEnded), "push_id")


def _by(facts: Iterable[F], name: str) -> dict[UUID, list[F]]:
    """Facts of one kind by one of their fields."""
    found: dict[UUID, list[F]] = {}
    for fact in facts:
        found.setdefault(getattr(fact, name), []).append(fact)
    return found
