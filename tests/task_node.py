"""A media server, the agent's core and what does the platform's tasks, in one process and on one clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from edge_agent.journal_file import Upkeep
from edge_agent.node_state import Task
from edge_agent.task_runner import TaskRunner
from edge_agent.task_settings import TaskSettings
from edge_agent.turn import Turn
from streams.errors import Transient
from streams.generated import EdgeActionReported, PushTargetStateChanged, StreamTasks, WantedPush, WantedRecording, WantedStop
from tests.edge_node import KEY, STREAM, TENANT
from tests.mist.direct import Node
from tests.mist.pushes import finish
from tests.mist.state import Connection, Flavour, Push

URL = "rtmp://live.example.org/app/live_1_secret"
ONE, TWO = UUID(int=1), UUID(int=2)
LIVE = "live+lobby"


class Api:
    """The API, and every object of commands that changes something."""

    def __init__(self, node: TaskNode) -> None:
        self._node = node
        self.asked: list[Mapping[str, object]] = []
        self.is_up = True
        self.dies_after_push_start: Callable[[], None] | None = None

    async def call(self, commands: Mapping[str, object]) -> Mapping[str, object]:
        if {"push_start", "push_stop", "nuke_stream"} & commands.keys():
            self.asked.append(commands)
        answer = self._node.mist.call(commands) if self.is_up else None
        if "push_start" in commands and self.dies_after_push_start:
            self.dies_after_push_start()
        if answer is None:
            raise Transient("nobody is there")
        return answer


class Disk:
    async def kept(self, upkeep: Upkeep) -> bool:
        return True


class TaskNode(Node):
    """A round of the runner comes every second; what it says is in `agent.facts`."""

    def __init__(self, *, flavour: Flavour = "stock", settings: TaskSettings | None = None) -> None:
        super().__init__(flavour=flavour)
        self.settings = settings or TaskSettings(recordings_dir="/rec", allows_private_pushes=True)
        self.api = Api(self)
        self.observed = 0
        self.tasks = StreamTasks(TENANT, STREAM, "lobby", version=0)
        self.begin()

    def begin(self) -> None:
        """The agent's task runner starts."""
        self.runner = TaskRunner(self.agent.agent, Disk(), self.observe, self.api, self.settings, lambda: self.agent.now_ms)

    def observe(self, work: Callable[[Turn], None]) -> None:
        self.observed += 1
        self.agent.take(self.agent.agent.observe(work, self.agent.now_ms, uuid=f"task {self.observed}"))

    def want(
        self,
        *pushes: WantedPush,
        recordings: Sequence[WantedRecording] = (),
        stops: Sequence[WantedStop] = (),
        urls: Mapping[UUID, str] | None = None,
    ) -> None:
        """The platform's newest word on the stream."""
        self.tasks = replace(
            self.tasks, version=self.tasks.version + 1, pushes=pushes, recordings=tuple(recordings), stops=tuple(stops)
        )
        self.agent.policy.secrets.update({push.target_id: URL.encode() for push in pushes})
        self.agent.policy.secrets.update({target_id: url.encode() for target_id, url in (urls or {}).items()})
        self.agent.policy.update([self.tasks], self.agent.now_ms)

    def advance(self, seconds: int) -> None:
        for _ in range(seconds):
            super().advance(1)
            asyncio.run(self.runner.round())

    def kill_agent(self) -> None:
        super().kill_agent()
        self.begin()

    def on_air(self) -> Connection:
        publisher = self.mist.publish(KEY)
        assert publisher.refusal is None
        return publisher

    def end_push(self, code: str, text: str) -> None:
        """The process of the first push ends by itself."""
        self.end_push_of(self.mist.state.pushes[0], code, text)

    def end_push_of(self, running: Push, code: str, text: str) -> None:
        with self.mist.state.lock:
            finish(self.mist.state, running, code, text)

    # What was said.

    def task(self, target_id: UUID = ONE) -> Task | None:
        return self.agent.agent.state.tasks.get(str(target_id))

    def story(self, target_id: UUID = ONE) -> list[str]:
        """States that were told of a target, one after the other; the same state twice in a row is once."""
        told = [f.state.value for f in self.agent.said(PushTargetStateChanged) if f.target_id == target_id]  # type: ignore[union-attr]
        return [state for n, state in enumerate(told) if n == 0 or told[n - 1] != state]

    def states(self) -> list[PushTargetStateChanged]:
        return [f for f in self.agent.said() if isinstance(f, PushTargetStateChanged)]

    def reports(self) -> list[tuple[str, str]]:
        return [(f.action.value, f.status.value) for f in self.agent.said() if isinstance(f, EdgeActionReported)]


def push(target_id: UUID = ONE, request: int = 11) -> WantedPush:
    return WantedPush(UUID(int=request), target_id, b"sealed")


def recording(recording_id: UUID = TWO, container: str = "mkv", request: int = 21) -> WantedRecording:
    return WantedRecording(UUID(int=request), recording_id, container)
