"""Against a real MistServer: everything that is read of it, and the set-up, which is taken back afterwards.

FW_MIST_API is the address of its API; FW_MIST_USER and FW_MIST_PASSWORD_FILE its login, where it asks for one. Without it a
MistController on the PATH is started, on a port of its own and with an empty configuration.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.mist import load, sight
from edge_agent.mist.api import MistApi
from edge_agent.mist.keeper import Keeper
from edge_agent.mist.plan import Desired, plan
from edge_agent.mist.server import Reader
from edge_agent.turn import Turn
from infra.embedded.ports import free_ports
from streams.errors import Transient
from streams.generated import NodeConfigured
from tests.edge_node import AgentUnderTest

CONTROLLER = shutil.which("MistController")
pytestmark = pytest.mark.skipif(
    not os.environ.get("FW_MIST_API") and CONTROLLER is None,
    reason="FW_MIST_API names no real MistServer, as http://127.0.0.1:4242 does, and no MistController is on the PATH",
)
DESIRED = Desired("http://127.0.0.1:18007", wildcard="live", counts_private=True)
WRITTEN = ("triggers", "prometheus", "sessionViewerMode", "sessionInputMode", "sessionOutputMode", "sessionUnspecifiedMode",
           "sessionStreamInfoMode", "tknMode")  # fmt: skip


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    if named := os.environ.get("FW_MIST_API"):
        yield named
        return
    assert CONTROLLER
    port = free_ports(1)[0]
    file = tmp_path / "mist.json"
    file.write_text(json.dumps({"config": {"controller": {"interface": "127.0.0.1", "port": port}, "protocols": []}}))
    with (tmp_path / "log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(CONTROLLER, "-c", str(file), stdout=log, stderr=log)
    try:
        async with asyncio.timeout(60), MistApi(f"http://127.0.0.1:{port}") as api:
            while True:
                try:
                    await api.call({"config": True})
                    break
                except Transient:
                    assert server.returncode is None, (tmp_path / "log").read_text()[-3000:]
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        if server.returncode is None:
            server.terminate()
            await asyncio.wait_for(server.wait(), 60)


@pytest.fixture
async def api(url: str) -> AsyncIterator[MistApi]:
    password = os.environ.get("FW_MIST_PASSWORD_FILE")
    read: Callable[[], str] = (lambda: Path(password).read_text().strip()) if password else str
    async with MistApi(url, os.environ.get("FW_MIST_USER", ""), read) as api:
        before: Any = await api.call({"config": True, "streams": True, "bandwidth": True})
        try:
            yield api
        finally:
            config = {name: before["config"][name] for name in WRITTEN if name in before["config"]}
            await api.call({"config": config, "bandwidth": before.get("bandwidth") or {}, "save": True})
            if "live" not in (before["streams"] or {}):  # null where there is none
                await api.call({"deletestream": "live"})


async def test_it_is_read_set_up_and_read_again(api: MistApi) -> None:
    agent = AgentUnderTest()

    def observe(work: Callable[[Turn], None]) -> None:
        agent.take(agent.agent.observe(work, agent.now_ms, uuid=f"o{len(agent.facts)}"))

    keeper = Keeper(api, DESIRED, observe, lambda _url: None)
    assert await keeper.round()
    assert keeper.unmended == []
    told = [fact for fact in agent.said(NodeConfigured) if isinstance(fact, NodeConfigured)]
    assert all(fact.applied for fact in told), [fact.sentence for fact in told if not fact.applied]
    server, observed = await Reader(api).read()
    assert plan(DESIRED, observed) == []
    assert server.instance
    assert server.connectors
    seen = sight.read(await api.call(sight.COMMANDS), 0, 0)
    assert seen.instance == server.instance
    figures = load.read(await api.document(f"/{seen.prometheus}.json"))
    assert figures.memory_total_bytes > figures.memory_used_bytes > 0
