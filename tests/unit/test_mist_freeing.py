"""Streams that a crash left locked are freed, those that live are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

import pytest

from edge_agent.mist.api import MistApi
from edge_agent.mist.freeing import LOOK_SECONDS, Freer
from edge_agent.turn import Turn
from tests.edge_node import KEY, AgentUnderTest
from tests.mist.direct import Direct
from tests.mist.model import MistServer

NAME = "live+lobby"


@dataclass
class Beside:
    mist: MistServer
    agent: AgentUnderTest
    freer: Freer
    wire: Direct

    async def wait(self, seconds: int) -> None:
        """Time goes by, in turns of one and two seconds: a look at each end."""
        for n in range(round(seconds / LOOK_SECONDS)):
            self.mist.advance(1 + n % 2)
            self.agent.now_ms = self.mist.clock.wall_ms
            await self.freer.look()


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    agent = AgentUnderTest()
    agent.agent.is_verified = True
    wire = Direct(agent)
    mist = MistServer(wire)
    mist.configure("http://agent/trigger")

    def observe(work: Callable[[Turn], None]) -> None:
        agent.take(agent.agent.observe(work, mist.clock.wall_ms, uuid=f"o{mist.clock.boot_ms}"))

    async with MistApi(await asyncio.to_thread(mist.listen)) as api:
        yield Beside(mist, agent, Freer(api, agent.agent.state, observe, lambda: mist.clock.boot_ms / 1000), wire)
    await asyncio.to_thread(mist.close)


def leave_a_lock(mist: MistServer) -> None:
    first = mist.publish(KEY)
    mist.advance(5)
    mist.kill_guard(NAME)
    mist.unpublish(first)


async def test_a_stream_whose_lock_stayed_is_freed_for_the_next_publisher(beside: Beside) -> None:
    leave_a_lock(beside.mist)
    second = beside.mist.publish(KEY)
    assert second.is_hanging
    await beside.wait(7)
    assert beside.freer.freed_total == 0, "its buffer may only be slow"
    await beside.wait(6)
    assert beside.freer.freed_total == 1
    assert not second.is_open
    third = beside.mist.publish(KEY)
    assert third.refusal is None, "and is no duplicate of the one that hung"
    await beside.wait(30)
    assert beside.mist.publishing() == {NAME: 1}
    assert beside.freer.freed_total == 1


async def test_one_that_comes_back_at_once_is_waited_for(beside: Beside) -> None:
    """Whoever hangs again after a nuke gets another one, but not while the first goes on."""
    leave_a_lock(beside.mist)
    beside.mist.publish(KEY)
    await beside.wait(12)
    assert beside.freer.freed_total == 1
    beside.mist.state.locks.add(NAME)
    beside.mist.publish(KEY)
    await beside.wait(12)
    assert beside.freer.freed_total == 1
    await beside.wait(6)
    assert beside.freer.freed_total == 2


async def test_a_publisher_on_the_air_whose_last_trigger_was_not_heard_lives_on(beside: Beside) -> None:
    beside.wire.fault = lambda post: "lost" if post.name == "STREAM_PUSH" else ""
    publisher = beside.mist.publish(KEY)
    beside.wire.fault = lambda _: ""
    assert publisher.refusal is None
    assert len(beside.agent.agent.state.admissions) == 1
    await beside.wait(25)
    assert beside.freer.freed_total == 0
    assert beside.mist.publishing() == {NAME: 1}


async def test_one_who_hangs_and_leaves_is_no_reason(beside: Beside) -> None:
    leave_a_lock(beside.mist)
    second = beside.mist.publish(KEY)
    await beside.wait(6)
    beside.mist.unpublish(second)
    await beside.wait(20)
    assert beside.freer.freed_total == 0


async def test_one_who_goes_on_the_air_while_the_api_takes_its_time_lives_on(beside: Beside) -> None:
    leave_a_lock(beside.mist)
    second = beside.mist.publish(KEY)
    await beside.wait(9)
    heard: list[Mapping[str, object]] = []

    class Slow(MistApi):
        async def call(self, commands: Mapping[str, object]) -> Mapping[str, object]:
            heard.append(commands)
            answer = await super().call(commands)
            beside.agent.send("STREAM_PUSH", f"{NAME}\n{second.host}\nRTMP\n{second.url}", pid=second.pid)
            return answer

    async with Slow(beside.freer._api.url) as slow:
        beside.freer._api = slow
        beside.mist.advance(2)
        await beside.freer.look()
    assert len(heard) == 1
    assert beside.freer.freed_total == 0


async def test_an_api_that_fails_meanwhile_begins_the_count_anew(beside: Beside) -> None:
    leave_a_lock(beside.mist)
    beside.mist.publish(KEY)
    await beside.wait(7)
    controller, beside.mist.state.controller = beside.mist.state.controller, None
    await beside.wait(2)
    beside.mist.state.controller = controller
    await beside.wait(3)
    assert beside.freer.freed_total == 0
    await beside.wait(5)
    assert beside.freer.freed_total == 1
