"""The agent as a process beside a MistServer that it sets up, hears, looks at and outlives, all over HTTP and in real time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.embedded.ports import free_ports
from streams.generated import IngestEnded, IngestStarted, NodeConfigured, NodeObserved, ViewerJoined, ViewerLeft
from tests import edge_beside
from tests.edge_node import KEY
from tests.mist.model import MistServer

NAME = "live+lobby"


@dataclass
class Beside(edge_beside.Beside):
    """Beside the model of a MistServer."""

    mist: MistServer = field(default_factory=MistServer)

    async def agrees(self) -> dict[str, float]:
        """Returns when the agent has as much open as the media server."""
        return await self.until(
            lambda f: (
                f.get("fw_edge_open_viewings") == len(self.mist.viewings())
                and f["fw_edge_open_ingests"] == sum(self.mist.publishing().values())
                and f["fw_edge_open_pushes"] == len(self.mist.pushing())
            )
        )


@pytest.fixture
async def beside(tmp_path: Path) -> AsyncIterator[Beside]:
    state_dir = tmp_path / "edge"
    await edge_beside.with_a_policy(state_dir)
    mist = MistServer()
    found = Beside(state_dir, mist.listen(), free_ports(1)[0], mist=mist)
    try:
        yield found
    finally:
        await found.kill()
        await asyncio.to_thread(mist.close)


@contextlib.asynccontextmanager
async def in_real_time(mist: MistServer) -> AsyncIterator[None]:
    async def tick() -> None:
        while True:
            began = asyncio.get_running_loop().time()
            await asyncio.to_thread(mist.advance, 1)
            await asyncio.sleep(max(0.0, began + 1 - asyncio.get_running_loop().time()))

    mist.clock.jump(time.time() - mist.clock.wall_ms / 1000)
    ticking = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking


async def do(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return await asyncio.to_thread(work, *arguments, **named)


async def test_the_media_server_is_set_up_and_a_broadcast_goes_through(beside: Beside) -> None:
    await beside.start()
    await beside.set_up()
    assert "live" in beside.mist.state.streams
    async with in_real_time(beside.mist):
        publisher = await do(beside.mist.publish, KEY)
        assert (publisher.refusal, publisher.stream) == (None, NAME)
        assert (await do(beside.mist.publish, "sk_wrong")).refusal is not None
        viewer = await do(beside.mist.watch, NAME)
        assert viewer.refusal is None
        await beside.agrees()
        await do(beside.mist.leave, viewer)
        await do(beside.mist.unpublish, publisher)
        await beside.until(lambda f: f.get("fw_edge_open_viewings") == 0)  # 15 seconds later
        await beside.agrees()
    facts = Counter(type(fact).__name__ for fact in beside.facts())
    assert facts["NodeObserved"] == 1
    assert facts["NodeConfigured"] > 30
    assert (facts["IngestStarted"], facts["IngestEnded"], facts["ViewerJoined"], facts["ViewerLeft"]) == (1, 1, 1, 1)
    assert not any(getattr(fact, "synthesized", False) for fact in beside.facts())
    assert not beside.mist.state.controller or beside.mist.state.controller.config["prometheus"] == "metrics"


async def test_people_see_what_would_be_done_and_what_is_missing(beside: Beside, tmp_path: Path) -> None:
    status, out, err = await beside.fw("plan")
    assert (status, err) == (0, "")
    assert "MistServer 3.10 Generic_x86_64, stock" in out
    assert "send us PUSH_REWRITE, which shall wait for our answer and opens nothing while we are away" in out
    assert beside.mist.state.controller
    assert beside.mist.state.controller.config["triggers"] == {}  # it changed nothing
    status, out, _ = await beside.fw("plan", "--json")
    planned = json.loads(out)
    assert (planned["flavour"], len(planned["steps"]) > 30) == ("stock", True)
    status, out, _ = await beside.fw("doctor", "--json")
    wrong = {finding["what"] for finding in json.loads(out) if finding["problem"]}
    assert (status, wrong) == (1, {"trigger URL", "set-up", "uplink", "clock"})
    status, out, _ = await beside.fw("doctor", "--mist-api", "http://127.0.0.1:1", "--mist-user", "fw")
    assert status == 1
    assert "FW_EDGE_MIST_PASSWORD_FILE" in out
    beside.mist.state.account = ("fw", "secret")
    (tmp_path / "password").write_text("wrong\n")
    (tmp_path / "edge.toml").write_text(f'[mist]\nuser = "fw"\npassword_file = "{tmp_path / "password"}"\n')
    url = beside.mist.listen(is_local=False)
    status, out, _ = await beside.fw("doctor", "--mist-api", url, "--config", str(tmp_path / "edge.toml"))
    assert status == 1
    assert "✗ login" in out
    assert "wrong" not in out.replace("user name or password is wrong", "")
    (tmp_path / "password").write_text("secret\n")
    status, out, _ = await beside.fw("plan", "--mist-api", url, "--config", str(tmp_path / "edge.toml"))
    assert status == 0
    status, _, err = await beside.fw("plan", "--mist-api", "http://127.0.0.1:1")
    assert status == 1
    assert "not reachable" in err
    await beside.start()
    await beside.set_up()
    status, out, _ = await beside.fw("plan")
    assert "Nothing is to be done" in out


async def test_whatever_happens_to_either_both_agree_in_the_end_and_every_viewing_ends_once(beside: Beside) -> None:
    """A short run of the adversary, over HTTP: kills of the agent, crashes and restarts of the server, viewers throughout."""
    dice, mist = random.Random(11), beside.mist
    await beside.start()
    await beside.set_up()
    watching: list[Any] = []
    publisher: Any = None
    async with in_real_time(mist):
        for step in range(40):
            match dice.choice(["watch", "watch", "leave", "publish", "unpublish", "push", "kill_agent", "controller", "restart"]):
                case "watch":
                    viewer = await do(mist.watch, NAME, f"203.0.113.{dice.randint(1, 5)}", token=f"t{dice.randint(1, 5)}")
                    watching += [viewer] if viewer.refusal is None else []
                case "leave" if watching:
                    await do(mist.leave, watching.pop(dice.randrange(len(watching))))
                case "publish" if publisher is None:
                    publisher = await do(mist.publish, KEY)
                    publisher = publisher if publisher.refusal is None else None
                case "unpublish" if publisher is not None:
                    await do(mist.unpublish, publisher, dice.choice(["stop", "close", "kill"]))
                    publisher = None
                case "push":
                    await do(mist.call, {"push_start": [NAME, f"/rec/{step}.mkv"]})
                case "kill_agent":
                    await beside.kill()
                    if watching and dice.random() < 0.7:
                        await do(mist.leave, watching.pop())
                    await asyncio.sleep(dice.random())
                    await beside.start()
                case "controller":
                    await do(mist.kill_controller)
                case "restart" if dice.random() < 0.5:
                    await do(mist.kill_everything)
                    watching, publisher = [], None
                    await do(mist.start)
                case _:
                    pass
            await asyncio.sleep(dice.random() * 0.5)
        await beside.agrees()
        await do(mist.kill_everything)
        await do(mist.start)
        await beside.agrees()
    facts = beside.facts()
    joined = {fact.viewing_id for fact in facts if isinstance(fact, ViewerJoined)}
    said = Counter(fact.viewing_id for fact in facts if isinstance(fact, ViewerLeft) and not fact.synthesized)
    assert set(said.values()) <= {1}
    assert joined <= {fact.viewing_id for fact in facts if isinstance(fact, ViewerLeft)}
    started = {fact.ingest_id for fact in facts if isinstance(fact, IngestStarted)}
    assert started <= {fact.ingest_id for fact in facts if isinstance(fact, IngestEnded)}
    assert any(isinstance(fact, NodeObserved) for fact in facts)
    assert all(fact.applied for fact in facts if isinstance(fact, NodeConfigured))
