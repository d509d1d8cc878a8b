"""The client of MistServer's API, over real sockets to the model of a MistServer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from edge_agent.mist.api import MistApi
from streams.errors import Rejected, Transient
from tests.mist.model import MistServer
from tests.mist.recordings import exchanges

COMMANDS = {"version": True}


@pytest.fixture
def mist() -> Iterator[MistServer]:
    server = MistServer()
    yield server
    server.close()


async def test_a_local_caller_needs_no_login(mist: MistServer) -> None:
    async with MistApi(mist.listen()) as api:
        assert (await api.call(COMMANDS))["version"]
    assert mist.requests == [COMMANDS]


async def test_a_challenge_is_answered_once_for_a_connection(mist: MistServer) -> None:
    mist.state.account = ("drv", "drvpass")
    async with MistApi(mist.listen(is_local=False), "drv", lambda: "drvpass") as api:
        for _ in range(3):
            assert (await api.call(COMMANDS))["version"]
    assert [request.get("authorize", {}).get("username") for request in mist.requests] == [None, "drv", None, None]


def test_the_answer_to_a_challenge_is_the_recorded_one() -> None:
    recorded = next(e for e in exchanges("auth") if e["note"].startswith("not local: right answer"))
    login = MistApi("http://127.0.0.1:4242", "drv", lambda: "drvpass")._login("27a1ccb927c04d7f0dff19cb8fd90d28")
    assert login == recorded["request"]["authorize"]


async def test_what_stands_in_the_way_of_a_login_is_said_and_the_password_is_not(mist: MistServer) -> None:
    url = mist.listen(is_local=False)
    async with MistApi(url, "drv", lambda: "hunter2") as api:
        with pytest.raises(Rejected) as no_account:
            await api.call(COMMANDS)
        mist.state.account = ("drv", "drvpass")
        with pytest.raises(Rejected) as wrong:
            await api.call(COMMANDS)
    async with MistApi(url) as api:
        with pytest.raises(Rejected) as nobody:
            await api.call(COMMANDS)
    assert [e.value.code for e in (no_account, wrong, nobody)] == ["MIST_NO_ACCOUNT", "MIST_LOGIN_REFUSED", "MIST_LOGIN_NEEDED"]
    assert not any("hunter2" in str(e.value) for e in (no_account, wrong, nobody))


async def test_a_server_that_went_away_is_transient_and_its_return_is_noticed(mist: MistServer) -> None:
    async with MistApi(mist.listen()) as api:
        await api.call(COMMANDS)
        mist.kill_everything()
        with pytest.raises(Transient):
            await api.call(COMMANDS)
        mist.start()
        assert (await api.call(COMMANDS))["version"]
    async with MistApi("http://127.0.0.1:1") as api:
        with pytest.raises(Transient, match="not reachable"):
            await api.call(COMMANDS)


async def test_something_that_is_no_mistserver_is_told_apart() -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n<!DOCTYPE html>")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    async with server, MistApi(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as api:
        with pytest.raises(Transient, match="no API of a MistServer"):
            await api.call(COMMANDS)
        with pytest.raises(Transient, match="no JSON"):
            await api.document("/metrics.json")
