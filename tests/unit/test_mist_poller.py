"""Looking every few seconds: samples as arrays, a budget for the processor, and silence that is believed only after a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from edge_agent.mist import poller as module
from edge_agent.mist.api import MistApi
from edge_agent.mist.poller import LONGEST_SECONDS, SHORTEST_SECONDS, Poller
from edge_agent.mist.samples import RECORD_ROWS, WINDOW_ROWS
from edge_agent.turn import Turn
from streams.generated import ClientSamples, NodeSamples, ViewerEnd, ViewerLeft
from tests.edge_node import KEY, STREAM, TENANT, AgentUnderTest
from tests.mist.direct import Direct
from tests.mist.model import MistServer


@dataclass
class Polled:
    mist: MistServer
    agent: AgentUnderTest
    poller: Poller

    async def look(self, seconds: int = 3) -> bool:
        self.mist.advance(seconds)
        self.agent.now_ms = self.mist.clock.wall_ms
        return await self.poller.look()


@pytest.fixture
async def polled(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Polled]:
    agent = AgentUnderTest()
    agent.agent.is_verified = True
    mist = MistServer(Direct(agent))
    mist.configure("http://agent/trigger")
    mist.call({"config": {"prometheus": "metrics"}, "save": True})
    monkeypatch.setattr(module, "now_ms", lambda: mist.clock.wall_ms)

    def observe(work: Callable[[Turn], None]) -> None:
        agent.take(agent.agent.observe(work, mist.clock.wall_ms, uuid=f"o{len(agent.facts)} {mist.clock.boot_ms}"))

    async with MistApi(await asyncio.to_thread(mist.listen)) as api:
        yield Polled(mist, agent, Poller(api, agent.agent.state, observe, lambda: mist.clock.boot_ms / 1000))
    await asyncio.to_thread(mist.close)


async def test_samples_come_as_arrays_a_window_at_a_time(polled: Polled) -> None:
    polled.mist.publish(KEY)
    polled.mist.watch("live+lobby")
    for _ in range(11):
        assert await polled.look()
    nodes = [f for f in polled.agent.said() if isinstance(f, NodeSamples)]
    assert all(len(n.sampled_at) == len(n.viewers) for n in nodes)
    sampled = [at for n in nodes for at in n.sampled_at]
    assert sampled == sorted(set(sampled)), "each look once"
    last = nodes[-1]
    assert (last.viewers[-1], last.inputs[-1], last.memory_total_bytes[0]) == (1, 1, 24683520 << 10)
    [(sessions, meta)] = [(f, m) for f, m in polled.agent.facts if isinstance(f, ClientSamples)]
    assert (meta.tenant_id, meta.aggregate_id) == (TENANT, STREAM)
    assert set(sessions.connectors) == {"HLS", "INPUT:RTMP"}
    lengths = {len(getattr(sessions, name)) for name in ("session_ids", "sampled_at", "up_bytes", "packets_lost")}
    assert len(lengths) == 1
    assert lengths.pop() <= RECORD_ROWS < WINDOW_ROWS


async def test_the_interval_widens_with_what_a_look_costs_and_comes_back(polled: Polled) -> None:
    assert await polled.look()
    assert polled.poller.interval_seconds == SHORTEST_SECONDS
    for _ in range(20):
        polled.poller._spent(0.5)
    assert polled.poller.interval_seconds == LONGEST_SECONDS
    for _ in range(30):
        polled.poller._spent(0.001)
    assert polled.poller.interval_seconds == SHORTEST_SECONDS


async def test_an_unreachable_server_is_a_problem_and_ends_nothing_until_it_started_anew_long_ago(polled: Polled) -> None:
    polled.mist.publish(KEY)
    polled.mist.watch("live+lobby")
    for _ in range(5):
        assert await polled.look()
    polled.mist.state.controller, controller = None, polled.mist.state.controller
    for _ in range(60):
        assert not await polled.look()
    assert "not reachable" in (polled.poller.problem or "")
    assert not polled.agent.said(ViewerLeft)
    polled.mist.state.controller = controller
    polled.mist.kill_everything()
    polled.mist.start()
    polled.mist.state.controller = None  # it said that it started, and its API never answered
    for _ in range(60):
        await polled.look()
    [left] = [f for f in polled.agent.said() if isinstance(f, ViewerLeft)]
    assert left.end_reason is ViewerEnd.NODE_RESTARTED
    assert left.seconds > 0
