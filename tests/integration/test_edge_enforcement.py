"""A change of the policy acts on what runs: the agent's loops against the model of MistServer, over its API and its triggers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from edge_agent.journal_file import Upkeep, Write
from edge_agent.mist.api import MistApi
from streams.generated import (
    EdgeAction,
    EdgeActionReported,
    EdgeActionStatus,
    IngestEnded,
    KickedSession,
    PlaybackKind,
    Policy,
    TenantStanding,
    ViewerEnd,
    ViewerJoined,
    ViewerLeft,
    ViewerRejected,
    ViewerRejection,
)
from tests.edge_node import KEY, NOON_MS, stream_key, stream_policy
from tests.edge_running import RunningEdge, running_edge
from tests.mist.model import MistServer
from tests.mist.viewers import session_id
from tests.playback import playback, signing_key, tenant_policy, token

Kind, Status = EdgeAction, EdgeActionStatus
LOBBY = stream_policy()
LATER = datetime(2100, 1, 1, tzinfo=UTC)
REVOKED = datetime.fromtimestamp(0, UTC)
NEW_KEY = "sk_newnewne_0123456789abcdefghijkl"


@asynccontextmanager
async def node(directory: Path, *policies: Policy) -> AsyncIterator[tuple[RunningEdge, MistServer]]:
    mist = MistServer()
    api = MistApi(mist.listen())
    try:
        async with running_edge(directory, policies or [LOBBY], api=api) as edge:
            await asyncio.to_thread(mist.configure, edge.trigger_url)
            yield edge, mist
    finally:
        await api.close()
        mist.close()


async def publish(mist: MistServer, key: str = KEY) -> Any:
    publisher = await asyncio.to_thread(mist.publish, key)
    assert publisher.refusal is None
    return publisher


async def watch(mist: MistServer, address: str, tkn: str = "4711") -> str | None:
    """Why it is shown nothing; None: it is."""
    connection = await asyncio.to_thread(mist.watch, "live+lobby", address, token=tkn)
    return connection.refusal


def reported(edge: RunningEdge) -> list[tuple[EdgeAction, EdgeActionStatus]]:
    return [(f.action, f.status) for f in edge.said(EdgeActionReported)]


@pytest.mark.parametrize(("seconds", "how"), [(10, "CLEAN_INTENDED_STOP"), (0, "CLEAN_SIGNAL")])
async def test_a_key_that_is_rotated_without_grace_drops_its_publisher_and_keeps_the_viewers(
    tmp_path: Path, seconds: int, how: str
) -> None:
    """Its session is stopped; it is nuked where the API does not list it yet."""
    async with node(tmp_path) as (edge, mist):
        await publish(mist)
        await asyncio.to_thread(mist.advance, seconds)
        assert await watch(mist, "203.0.113.5") is None
        edge.learn(replace(LOBBY, keys=(stream_key(NEW_KEY), stream_key(KEY, REVOKED)), version=2))
        await edge.until(lambda: reported(edge))
        assert reported(edge) == [(Kind.DROP_PUBLISHER, Status.DONE)]
        assert mist.publishing() == {}
        assert list(mist.viewings()) == [session_id("live+lobby", "203.0.113.5", "4711")]
        [ended] = edge.said(IngestEnded)
        assert (ended.end_reason, ended.synthesized) == (how, False)
        assert (await asyncio.to_thread(mist.publish, KEY)).refusal is not None
        await publish(mist, NEW_KEY)


async def test_a_deleted_stream_ends_for_everybody(tmp_path: Path) -> None:
    async with node(tmp_path) as (edge, mist):
        await publish(mist)
        for n in (5, 6, 7):
            assert await watch(mist, f"203.0.113.{n}") is None
        edge.learn(replace(LOBBY, deleted=True, version=2))
        await edge.until(lambda: reported(edge))
        assert reported(edge) == [(Kind.STOP_STREAM, Status.DONE)]
        assert (mist.publishing(), len(mist.viewings())) == ({}, 0)
        assert len(edge.said(IngestEnded)) == 1
        assert [(f.end_reason, f.synthesized) for f in edge.said(ViewerLeft)] == [(ViewerEnd.DISCONNECTED, False)] * 3
        assert await watch(mist, "203.0.113.8") is not None


async def test_a_suspended_tenant_is_off_the_air_and_comes_back(tmp_path: Path) -> None:
    async with node(tmp_path, LOBBY, tenant_policy()) as (edge, mist):
        await publish(mist)
        edge.learn(tenant_policy(standing=TenantStanding.SUSPENDED, version=2))
        await edge.until(lambda: reported(edge))
        assert mist.publishing() == {}
        edge.learn(tenant_policy(version=3))
        await publish(mist)
        assert reported(edge) == [(Kind.STOP_STREAM, Status.DONE)]


async def test_a_policy_that_becomes_stricter_judges_every_session_again(tmp_path: Path) -> None:
    good, bad = token(sub="pblobby", exp=NOON_MS // 1000 + 10**8), "4711"
    async with node(tmp_path, LOBBY, tenant_policy(signing_key())) as (edge, mist):
        await publish(mist)
        for n, tkn in ((5, good), (6, bad), (7, good), (8, bad)):
            assert await watch(mist, f"203.0.113.{n}", tkn) is None
        edge.learn(playback(PlaybackKind.JWT, version=2))
        await edge.until(lambda: len(edge.said(ViewerRejected)) == 2)
        assert reported(edge) == [(Kind.RECHECK_VIEWERS, Status.DONE)]
        assert {f.reason for f in edge.said(ViewerRejected)} == {ViewerRejection.TOKEN_MISSING}
        left = edge.said(ViewerLeft)
        assert [(f.end_reason, f.synthesized) for f in left] == [(ViewerEnd.REVOKED, True)] * 2
        assert {f.viewing_id for f in left} == {f.viewing_id for f in edge.said(ViewerRejected)}
        assert edge.agent.state.viewers(LOBBY.stream_id) == 2
        assert len(mist.publishing()) == 1
        edge.learn(tenant_policy(version=2))  # the key is taken away
        await edge.until(lambda: len(edge.said(ViewerRejected)) == 4)
        assert edge.agent.state.viewers(LOBBY.stream_id) == 0


async def test_a_kicked_viewer_goes_and_does_not_come_back_while_it_lasts(tmp_path: Path) -> None:
    async with node(tmp_path) as (edge, mist):
        await publish(mist)
        for n in (5, 6):
            assert await watch(mist, f"203.0.113.{n}") is None
        session = session_id("live+lobby", "203.0.113.5", "4711")
        edge.learn(replace(LOBBY, kicked=(KickedSession(session, LATER, UUID(int=7)),), version=2))
        await edge.until(lambda: reported(edge))
        [fact] = edge.said(EdgeActionReported)
        assert (fact.action, fact.status, fact.request_id, fact.session_id, fact.policy_version) == (
            Kind.STOP_VIEWER,
            Status.DONE,
            UUID(int=7),
            session,
            2,
        )
        [left] = edge.said(ViewerLeft)
        assert (left.session_id, left.synthesized) == (session, False)
        assert await watch(mist, "203.0.113.5") is not None
        assert [f.reason for f in edge.said(ViewerRejected)] == [ViewerRejection.KICKED]
        assert edge.agent.state.viewers(LOBBY.stream_id) == 1


async def test_a_media_server_that_does_not_answer_is_asked_again_also_by_the_agent_after_a_restart(tmp_path: Path) -> None:
    mist, dead = MistServer(), MistApi("http://127.0.0.1:9")
    mist.listen()
    try:
        async with running_edge(tmp_path, [LOBBY], api=dead) as edge:
            port = edge.port
            await asyncio.to_thread(mist.configure, edge.trigger_url)
            await publish(mist)
            edge.learn(LOBBY)  # as the first snapshot did
            edge.learn(replace(LOBBY, deleted=True, version=2))
            await edge.until(lambda: reported(edge))
            [fact] = edge.said(EdgeActionReported)
            assert fact.status is Status.ACKNOWLEDGED
            assert fact.detail
            assert "not reachable" in fact.detail
            assert len(mist.publishing()) == 1
        api = MistApi(f"http://127.0.0.1:{mist._door.port}")  # type: ignore[union-attr]
        async with running_edge(tmp_path, api=api, port=port) as edge:
            await edge.until(lambda: len(reported(edge)) == 2)
            assert reported(edge) == [(Kind.STOP_STREAM, Status.ACKNOWLEDGED), (Kind.STOP_STREAM, Status.DONE)]
            assert mist.publishing() == {}
        async with running_edge(tmp_path, api=api, port=port) as edge:
            await asyncio.sleep(0)
            assert len(reported(edge)) == 2
            assert not len(edge.agent.state.actions)
        await api.close()
    finally:
        await dead.close()
        mist.close()


async def test_a_login_that_is_refused_is_told(tmp_path: Path) -> None:
    mist = MistServer()
    mist.state.account = ("operator", "right")
    api = MistApi(mist.listen(is_local=False), "operator", lambda: "wrong")
    async with running_edge(tmp_path, [LOBBY], api=api) as edge:
        await asyncio.to_thread(mist.configure, edge.trigger_url)
        await publish(mist)
        edge.learn(replace(LOBBY, disabled=True, version=2))
        await edge.until(lambda: reported(edge))
        [fact] = edge.said(EdgeActionReported)
        assert fact.status is Status.ACKNOWLEDGED
        assert fact.detail
        assert "wrong" not in fact.detail.replace("is wrong", "")
    await api.close()
    mist.close()


async def test_without_an_api_it_fails_and_says_what_to_set(tmp_path: Path) -> None:
    mist = MistServer()
    async with running_edge(tmp_path, [LOBBY]) as edge:
        await asyncio.to_thread(mist.configure, edge.trigger_url)
        await publish(mist)
        edge.learn(replace(LOBBY, disabled=True, version=2))
        await edge.until(lambda: reported(edge))
        [fact] = edge.said(EdgeActionReported)
        assert fact.status is Status.FAILED
        assert fact.detail == "the media server's API is not known: set FW_EDGE_MIST_API"


async def test_what_the_policy_wants_is_on_the_disk_before_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a kill leaves of the two, it is not the policy without what follows from it."""
    async with node(tmp_path) as (edge, mist):
        await publish(mist)
        order: list[str] = []
        write = edge.journal.write

        def noted(rows: Write) -> None:
            order.extend(change.shelf for change in rows.changes if change.shelf == "actions")
            order.extend(["policy"] * (isinstance(rows, Upkeep) and bool(rows.policies)))
            write(rows)

        monkeypatch.setattr(edge.journal, "write", noted)
        edge.learn(replace(LOBBY, deleted=True, version=2))
        assert order == ["actions", "policy"]


async def test_many_streams_of_a_tenant_are_asked_about_in_few_calls(tmp_path: Path) -> None:
    many = [
        replace(playback(PlaybackKind.JWT), stream_id=UUID(int=n), internal_name=f"s{n}", playback_id=f"p{n}", keys=())
        for n in range(300)
    ]
    text = token(exp=NOON_MS // 1000 + 10**8)
    async with node(tmp_path, *many, tenant_policy(signing_key())) as (edge, mist):
        for n in range(300):
            body = f"live+s{n}\n127.0.1.1\n{text}\nHLS\nhttp://h/\n{n:064x}\nfalse"
            assert (await edge.post("USER_NEW", body, uuid=f"u{n}"))[1] == "true"
        assert len(edge.said(ViewerJoined)) == 300
        edge.learn(tenant_policy(version=2))
        await edge.until(lambda: len(reported(edge)) == 300)
        asked = [r for r in mist.requests if "invalidate_sessions" in r]
        assert sorted(len(r["invalidate_sessions"]) for r in asked) == [100, 200]
