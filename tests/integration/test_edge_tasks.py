"""Push targets from a decision to a media server's process and back as facts; kills of the agent let nothing be done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from infra.embedded.stack import Stack
from infra.processes.ingress import running
from streams.generated import (
    Decision,
    EdgeActionReported,
    Event,
    IngestEnded,
    Meta,
    PushTargetCreated,
    PushTargetDisabled,
    PushTargetState,
    PushTargetStateChanged,
    RecordingRequested,
    StreamCreated,
    StreamStopRequested,
)
from streams.kafka import idempotent_producer
from streams.sealed_secret import seal
from streams.topics import Topics
from tests.edge_node import KEY, STREAM, TENANT
from tests.edge_process import EdgeProcess, facts_on_log
from tests.ingress import SECRET_KEY, ingress_settings
from tests.mist.model import MistServer
from tests.policy_log import Decisions, publishing

URL = "rtmp://live.example.org/app/live_1_secret"
LIVE = "live+lobby"
WAIT_SECONDS = 180


@dataclass
class Site:
    """A platform with a stream, and a node of it."""

    stack: Stack
    topics: Topics
    decisions: Decisions
    mist: MistServer
    edge: EdgeProcess

    async def decide(self, *events: Decision) -> None:
        await self.decisions.decide(TENANT, STREAM, *events)

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not is_so():
                await asyncio.sleep(0.01)

    async def publish(self) -> None:
        """Once the agent has set the media server up, and knows the stream."""
        assert self.mist.state.controller
        config = self.mist.state.controller.config
        await self.until(lambda: "PUSH_REWRITE" in config["triggers"] and "live" in self.mist.state.streams)
        await self.edge.ready()
        assert (await asyncio.to_thread(self.mist.publish, KEY)).refusal is None

    def asked(self, command: str) -> list[object]:
        return [request[command] for request in self.mist.requests if command in request]

    async def facts(self) -> list[tuple[Event, Meta]]:
        """In the order of their times; one that was sent again after a kill is one."""
        found = {m.event_id: (e, m) for e, m in await facts_on_log(self.stack.kafka, self.topics)}
        return sorted(found.values(), key=lambda f: f[1].occurred_at)

    async def states(self, target_id: UUID) -> list[PushTargetState]:
        told = [e for e, _ in await self.facts() if isinstance(e, PushTargetStateChanged)]
        return [e.state for e in told if e.target_id == target_id]

    async def until_state(self, target_id: UUID, state: PushTargetState) -> list[PushTargetState]:
        async with asyncio.timeout(WAIT_SECONDS):
            while (found := await self.states(target_id))[-1:] != [state]:
                await asyncio.sleep(0.2)
        return found


@asynccontextmanager
async def ticking(mist: MistServer) -> AsyncIterator[None]:
    """Its time goes by."""

    async def tick() -> None:
        while True:
            await asyncio.to_thread(mist.advance, 1)
            await asyncio.sleep(0.2)

    clock = asyncio.create_task(tick())
    try:
        yield
    finally:
        clock.cancel()
        with suppress(asyncio.CancelledError):
            await clock


@pytest.fixture
async def site(stack: Stack, topics: Topics, tmp_path: Path) -> AsyncIterator[Site]:
    created = StreamCreated("Lobby", "lobby", "pblobby", "lobby", KEY.rpartition("_")[0], sha256(KEY.encode()).digest())
    mist = MistServer()
    try:
        async with idempotent_producer(stack.kafka, "test") as producer:
            decisions = Decisions(producer, topics)
            await decisions.decide(TENANT, STREAM, created)
            async with publishing(stack.kafka, topics), running(ingress_settings(stack.kafka, topics)) as ingress:
                variables = {
                    "FW_EDGE_MIST_API": mist.listen(),
                    "FW_EDGE_PRIVATE_PUSH_TARGETS": "1",  # nobody is asked where example.org is
                    "FW_EDGE_RECORDINGS_DIR": "/rec",
                }
                edge = EdgeProcess(tmp_path / "edge", f"127.0.0.1:{ingress.port}", more_env=variables)
                async with edge, ticking(mist):
                    yield Site(stack, topics, decisions, mist, edge)
    finally:
        mist.close()


def target(target_id: UUID, url: str = URL) -> PushTargetCreated:
    sealed = seal(SECRET_KEY, TENANT, target_id, url)
    return PushTargetCreated(target_id, "Second site", "rtmp://live.example.org/app/…", b"d", sealed, True, "lobby")


async def test_a_push_survives_kills_of_the_agent_and_is_started_and_ended_once(site: Site) -> None:
    target_id = uuid4()
    await site.publish()
    await site.decide(target(target_id))
    await site.until(lambda: site.asked("push_start"))
    await site.edge.kill()  # while the media server asks it where to, or after that
    await site.edge.start()
    found = await site.until_state(target_id, PushTargetState.ACTIVE)
    assert site.mist.pushing() == [(LIVE, URL)]
    was_begun_anew = PushTargetState.BACKING_OFF in found
    assert site.asked("push_start") == [{"stream": LIVE, "target": URL}] * (2 if was_begun_anew else 1)

    await site.edge.kill()
    await site.decide(PushTargetDisabled(target_id))
    await site.edge.start()
    await site.until(lambda: not site.mist.pushing())
    assert (await site.until_state(target_id, PushTargetState.STOPPED))[-2:] == [PushTargetState.ACTIVE, PushTargetState.STOPPED]
    assert len(site.asked("push_stop")) == 1
    await site.edge.drained()
    facts = [event for event, _ in await site.facts()]
    reports = [(f.action.value, f.status.value) for f in facts if isinstance(f, EdgeActionReported)]
    assert sorted(reports) == [("START_PUSH", "ACKNOWLEDGED"), ("START_PUSH", "DONE"), ("STOP_PUSH", "DONE")]
    assert not any("live_1_secret" in repr(fact) for fact in facts)
    assert "live_1_secret" not in (site.edge.state_dir / "log").read_text()


async def test_a_stream_is_recorded_and_then_stopped_once(site: Site) -> None:
    recording_id = uuid4()
    await site.publish()
    await site.decide(RecordingRequested(recording_id, "mkv", "lobby"))
    await site.until_state(recording_id, PushTargetState.ACTIVE)
    assert site.mist.pushing() == [(LIVE, f"/rec/$stream-$datetime-{recording_id}.mkv")]
    await site.decide(StreamStopRequested(datetime.now(UTC) + timedelta(seconds=60), "lobby"))
    await site.until(lambda: not site.mist.publishing())
    await site.until_state(recording_id, PushTargetState.WAITING)
    await site.publish()
    found = await site.until_state(recording_id, PushTargetState.ACTIVE)
    assert found.count(PushTargetState.ACTIVE) >= 2, "the next broadcast is recorded, too"
    assert site.asked("nuke_stream") == [LIVE], "who publishes again is let in"
    await site.edge.drained()
    facts = [event for event, _ in await site.facts()]
    assert ("STOP_STREAM", "DONE") in [(f.action.value, f.status.value) for f in facts if isinstance(f, EdgeActionReported)]
    assert len([f for f in facts if isinstance(f, IngestEnded)]) == 1
