"""Against a real MistServer: everything that is read of it, the set-up, which is taken back afterwards, and a broadcast.

FW_MIST_API is the address of its API; FW_MIST_USER and FW_MIST_PASSWORD_FILE its login, where it asks for one. Without it a
MistController on the PATH is started, on ports of its own and with an empty configuration; that one is also killed. The
broadcast needs ffmpeg on the PATH.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from edge_agent.mist import load, sight
from edge_agent.mist.api import MistApi
from edge_agent.mist.keeper import Keeper
from edge_agent.mist.plan import Desired, plan
from edge_agent.mist.server import Reader
from edge_agent.turn import Turn
from infra.embedded.ports import free_ports
from streams.errors import Transient
from streams.generated import IngestEnded, NodeConfigured, ViewerLeft
from tests import edge_beside
from tests.edge_node import KEY, AgentUnderTest

CONTROLLER = shutil.which("MistController")
pytestmark = pytest.mark.skipif(
    not os.environ.get("FW_MIST_API") and CONTROLLER is None,
    reason="FW_MIST_API names no real MistServer, as http://127.0.0.1:4242 does, and no MistController is on the PATH",
)
FFMPEG = shutil.which("ffmpeg")
PICTURE = ("-re", "-f", "lavfi", "-i", "testsrc=size=320x180:rate=25", "-c:v", "libx264", "-preset", "ultrafast", "-g", "50")
DESIRED = Desired("http://127.0.0.1:18007", wildcard="live", counts_private=True)
WRITTEN = ("triggers", "prometheus", "sessionViewerMode", "sessionInputMode", "sessionOutputMode", "sessionUnspecifiedMode",
           "sessionStreamInfoMode", "tknMode")  # fmt: skip


class Real:
    """A MistServer of our own: started, killed with all its processes, started again."""

    def __init__(self, directory: Path) -> None:
        self.api_port, self.rtmp_port, self.http_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.api_port}"
        self._file, self._log = directory / "mist.json", directory / "mist.log"
        listeners = [
            {"connector": "RTMP", "interface": "127.0.0.1", "port": self.rtmp_port},
            {"connector": "HTTP", "interface": "127.0.0.1", "port": self.http_port},
            {"connector": "HLS"},
        ]
        config = {"controller": {"interface": "127.0.0.1", "port": self.api_port}, "protocols": listeners}
        self._file.write_text(json.dumps({"config": config}))

    async def __aenter__(self) -> Real:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """In order, and whatever does not go within a while."""
        if self._server.returncode is None:
            self._server.terminate()
            await asyncio.wait({asyncio.ensure_future(self._server.wait())}, timeout=20)
        await self.kill()

    async def start(self) -> None:
        assert CONTROLLER
        with self._log.open("ab") as log:
            self._server = await asyncio.create_subprocess_exec(CONTROLLER, "-c", str(self._file), stdout=log, stderr=log)
        async with asyncio.timeout(60), MistApi(self.url) as api:
            while True:
                try:
                    await api.call({"config": True})
                    return
                except Transient:
                    assert self._server.returncode is None, self._log.read_text()[-3000:]
                    await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """SIGKILL to every process of it, also of those that left their parents."""
        home = str(Path(CONTROLLER or "").resolve().parent)
        for process in psutil.process_iter(["exe"]):
            if (process.info["exe"] or "").startswith(f"{home}/Mist"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        await self._server.wait()


@contextlib.asynccontextmanager
async def publishing(to: str) -> AsyncIterator[None]:
    """Somebody who tries again and again, as OBS does."""

    async def on_and_on() -> None:
        while True:
            async with ffmpeg(*PICTURE, "-f", "flv", to) as process:
                await process.wait()
            await asyncio.sleep(1)

    trying = asyncio.create_task(on_and_on())
    try:
        yield
    finally:
        trying.cancel()
        await asyncio.wait({trying})


@contextlib.asynccontextmanager
async def ffmpeg(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    assert FFMPEG
    process = await asyncio.create_subprocess_exec(FFMPEG, "-v", "error", *arguments, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    if named := os.environ.get("FW_MIST_API"):
        yield named
        return
    async with Real(tmp_path) as real:
        yield real.url


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


@pytest.mark.skipif(CONTROLLER is None or FFMPEG is None, reason="no MistController and ffmpeg on the PATH")
async def test_a_broadcast_over_a_server_that_dies_is_told_as_it_was(tmp_path: Path) -> None:
    """Two publishings, for between them all of the server is killed; one viewer; one publisher with a wrong key."""
    state_dir = tmp_path / "edge"
    await edge_beside.with_a_policy(state_dir)
    async with Real(tmp_path) as real:
        agent = edge_beside.Beside(state_dir, real.url, free_ports(1)[0])
        await agent.start()
        try:
            await agent.set_up()
            to = f"rtmp://127.0.0.1:{real.rtmp_port}/live"
            async with publishing(f"{to}/{KEY}"):  # the API answers seconds before the listeners do
                await agent.until(lambda f: f.get("fw_edge_open_ingests") == 1)
                async with ffmpeg(*PICTURE, "-f", "flv", f"{to}/sk_wrong") as refused:
                    assert await asyncio.wait_for(refused.wait(), edge_beside.PATIENCE_SECONDS) != 0
                async with ffmpeg("-i", f"http://127.0.0.1:{real.http_port}/hls/pblobby/index.m3u8", "-f", "null", "-"):
                    await agent.until(lambda f: f.get("fw_edge_open_viewings") == 1)
                await agent.until(lambda f: f.get("fw_edge_open_viewings") == 0)
                await real.kill()
            await real.start()
            async with publishing(f"{to}/{KEY}"):  # also where it hangs on what the kill left
                await agent.until(lambda f: f.get('fw_edge_facts_total{event="IngestStarted"}') == 2)
                await agent.until(lambda f: f.get("fw_edge_open_ingests") == 1)
            await agent.until(lambda f: f.get("fw_edge_open_ingests") == 0)
        finally:
            await agent.kill()
    facts = agent.facts()
    told = Counter(type(fact).__name__ for fact in facts)
    assert (told["IngestStarted"], told["IngestEnded"], told["IngestRejected"]) == (2, 2, 1)
    assert (told["ViewerJoined"], told["ViewerLeft"], told["TriggerInvalid"]) == (1, 1, 0)
    first_end = next(fact for fact in facts if isinstance(fact, IngestEnded))
    assert (first_end.end_reason, first_end.synthesized) == ("SOURCE_LOST", True)
    assert [fact.synthesized for fact in facts if isinstance(fact, ViewerLeft)] == [False]
