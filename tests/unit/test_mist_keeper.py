"""The loop that keeps a MistServer set up, over real sockets to the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge_agent.mist.api import MistApi
from edge_agent.mist.keeper import Keeper
from edge_agent.mist.plan import Desired
from edge_agent.turn import Turn
from streams.generated import Fact, MediaServerFlavour, NodeConfigured, NodeObserved
from tests.edge_node import AgentUnderTest
from tests.mist.model import MistServer

DESIRED = Desired("http://127.0.0.1:18007")


@dataclass
class Kept:
    mist: MistServer
    keeper: Keeper
    agent: AgentUnderTest
    remembered: list[str] = field(default_factory=list)

    def said(self, kind: type) -> list[Fact]:
        return self.agent.said(kind)


@pytest.fixture
async def kept(request: Any) -> AsyncIterator[Kept]:
    mist = MistServer(flavour=getattr(request, "param", "stock"))
    agent, remembered = AgentUnderTest(), []  # type: ignore[var-annotated]

    def observe(work: Callable[[Turn], None]) -> None:
        agent.take(agent.agent.observe(work, agent.now_ms, uuid=f"o{len(agent.facts)}"))

    async with MistApi(await asyncio.to_thread(mist.listen)) as api:
        yield Kept(mist, Keeper(api, DESIRED, observe, remembered.append), agent, remembered)
    await asyncio.to_thread(mist.close)


@pytest.mark.parametrize("kept", ["stock", "fork"], indirect=True)
async def test_a_fresh_server_is_set_up_step_by_step_and_each_is_a_fact(kept: Kept) -> None:
    assert await kept.keeper.round()
    [found] = kept.said(NodeObserved)
    assert isinstance(found, NodeObserved)
    is_fork = kept.mist.state.flavour == "fork"
    assert found.flavour is (MediaServerFlavour.FORK if is_fork else MediaServerFlavour.STOCK)
    steps = kept.said(NodeConfigured)
    assert len(steps) == found.drift == kept.keeper.steps_total
    assert all(isinstance(step, NodeConfigured) and step.applied and step.sentence for step in steps)
    assert kept.remembered == [DESIRED.trigger_url]
    assert kept.keeper.missing == 0
    before = len(kept.agent.facts)
    assert await kept.keeper.round()
    assert len(kept.agent.facts) == before
    assert kept.keeper.drift_total == 0


async def test_drift_is_repaired_and_capabilities_are_read_once_for_each_start(kept: Kept) -> None:
    await kept.keeper.round()
    kept.mist.call({"config": {"triggers": {}}})
    steps = kept.keeper.steps_total
    await kept.keeper.round()
    assert kept.keeper.missing == 0
    assert kept.keeper.drift_total == kept.keeper.steps_total - steps > 20
    assert sum("capabilities" in request for request in kept.mist.requests) == 1
    kept.mist.kill_controller()
    await kept.keeper.round()
    assert sum("capabilities" in request for request in kept.mist.requests) == 2
    assert len(kept.said(NodeObserved)) == 2


async def test_a_change_that_the_server_does_not_take_is_said_and_the_others_are_done(kept: Kept) -> None:
    class No:
        def post(self, post: Any) -> Any:
            from tests.mist.wire import Answer

            return Answer(200, "false") if post.is_sync else None

    kept.mist.state.wire = No()
    kept.mist.call({"config": {"triggers": {"STREAM_ADD": [{"handler": "http://other/x", "sync": True}]}}})
    await kept.keeper.round()
    refused = [f for f in kept.said(NodeConfigured) if isinstance(f, NodeConfigured) and not f.applied]
    assert [f.step for f in refused] == ["stream live"]
    assert (kept.keeper.missing, kept.keeper.refused_total) == (1, 1)


async def test_a_server_that_is_away_is_a_problem_until_it_is_back(kept: Kept) -> None:
    kept.mist.kill_everything()
    assert not await kept.keeper.round()
    assert "not reachable" in (kept.keeper.problem or "")
    loop = asyncio.create_task(kept.keeper.run())
    kept.mist.start()
    kept.keeper.wake()
    async with asyncio.timeout(30):
        while kept.keeper.problem or kept.keeper.missing:
            await asyncio.sleep(0.02)
    loop.cancel()
