"""Triggers that wait for somebody's reply: over real HTTP, with a real journal, and everybody else answered meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from edge_agent.lease import Lease
from edge_agent.webhook import Webhooks
from streams.generated import (
    AdmissionBasis,
    IngestLease,
    IngestRejected,
    IngestRejection,
    IngestStarted,
    PlaybackKind,
    Policy,
    ViewerJoined,
    ViewerRejected,
    ViewerRejection,
)
from streams.ingress.lease import LeaseAnswer, LeaseOutcome
from tests.edge_node import KEY, SESSION, TENANT, stream_policy
from tests.edge_process import request
from tests.edge_running import RunningEdge, running_edge
from tests.playback import playback
from tests.webhook_server import NO, YES, Asked, answering, silent, tenant_server

URL = "http://127.0.0.1:18080/hls/live%2blobby/index.m3u8"
SECRETS = {TENANT: b"s" * 32}


def user_new(session: str = SESSION) -> str:
    return f"live+lobby\n127.0.1.1\n4711\nHLS\n{URL}\n{session}\nfalse"


def rewrite() -> str:
    return f"rtmp://127.0.0.1/live/{KEY}\n10.0.0.1\n{KEY}"


def push() -> str:
    return f"live+lobby\n10.0.0.1\nRTMP\nrtmp://127.0.0.1/live/{KEY}"


def asking(url: str, *, is_open: bool = False) -> list[Policy]:
    return [playback(PlaybackKind.WEBHOOK, webhook_url=url, open_when_unavailable=is_open)]


@dataclass
class Platform:
    """Answers when it is told to, and says how often it was asked."""

    answer: LeaseAnswer | Exception
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[UUID, UUID]] = field(default_factory=list)

    async def ask(self, stream_id: UUID, node_id: str, ingest_id: UUID, deadline_seconds: float = 1.0) -> LeaseAnswer:
        assert (node_id, deadline_seconds) == ("edge-1", 1.0)
        self.asked.append((stream_id, ingest_id))
        await self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def metric(edge: RunningEdge, name: str) -> float:
    _, body = await request(edge.port, "GET", "/metrics")
    found = [line.rpartition(" ")[2] for line in body.decode().splitlines() if line.startswith(f"{name} ")]
    return float(found[0]) if found else 0.0


@pytest.mark.parametrize(("answer", "expected"), [(YES, "true"), (NO, "false")])
async def test_a_viewer_is_let_in_by_the_tenants_server(tmp_path: Path, answer: bytes, expected: str) -> None:
    async with (
        tenant_server(answering(answer)) as server,
        running_edge(tmp_path, asking(server.url), secrets=SECRETS) as edge,
    ):
        assert await edge.post("USER_NEW", user_new(), uuid="u1") == (200, expected)
        assert await edge.post("USER_NEW", user_new(), uuid="u1") == (200, expected)  # a retry: remembered, not asked again
        assert len(server.asked) == 1
        joined, rejected = edge.said(ViewerJoined), edge.said(ViewerRejected)
        assert [f.basis for f in joined] == ([AdmissionBasis.WEBHOOK] if expected == "true" else [])
        assert [f.reason for f in rejected] == ([] if expected == "true" else [ViewerRejection.WEBHOOK_DENIED])
        asked = "allowed" if expected == "true" else "denied"
        assert await metric(edge, f'fw_edge_inquiries_total{{asked="webhook",outcome="{asked}"}}') == 1


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_slow_server_holds_up_nobody_else_and_its_silence_decides_by_the_policy(tmp_path: Path, is_open: bool) -> None:
    async with (
        tenant_server(silent) as server,
        running_edge(
            tmp_path,
            asking(server.url, is_open=is_open),
            secrets=SECRETS,
            webhooks=Webhooks(allows_private=True, deadline_seconds=3.0),
        ) as edge,
    ):
        waiting = asyncio.create_task(edge.post("USER_NEW", user_new(), uuid="u1"))
        await edge.until(lambda: server.asked)
        for number in range(50):
            assert (await edge.post("PLAY_REWRITE", f"pblobby\n127.0.1.1\nHLS\n{URL}", uuid=f"p{number}"))[1] == "live+lobby"
        assert not waiting.done()
        assert await waiting == (200, "true" if is_open else "false")
        if is_open:
            assert [f.basis for f in edge.said(ViewerJoined)] == [AdmissionBasis.OPEN_WHEN_UNAVAILABLE]
        else:
            [rejected] = edge.said(ViewerRejected)
            assert rejected.reason is ViewerRejection.WEBHOOK_UNAVAILABLE
            assert rejected.detail
            assert "3 s" in rejected.detail


async def test_retries_wait_for_the_same_reply(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def held(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        await answering(YES)(asked, writer)

    webhooks = Webhooks(allows_private=True, deadline_seconds=120)
    async with (
        tenant_server(held) as server,
        running_edge(tmp_path, asking(server.url), secrets=SECRETS, webhooks=webhooks) as edge,
    ):
        first = asyncio.create_task(edge.post("USER_NEW", user_new(), uuid="u1"))
        await edge.until(lambda: server.asked)
        again = [asyncio.create_task(edge.post("USER_NEW", user_new(), uuid="u1")) for _ in range(3)]
        other = asyncio.create_task(edge.post("USER_NEW", user_new("f" * 64), uuid="u2"))
        await edge.until(lambda: len(server.asked) == 2)
        go.set()
        assert set(await asyncio.gather(first, *again, other)) == {(200, "true")}
        assert len(server.asked) == 2
        assert len(edge.said(ViewerJoined)) == 2


async def test_a_tenant_whose_secret_is_not_here_is_not_asked(tmp_path: Path) -> None:
    async with tenant_server(answering(YES)) as server, running_edge(tmp_path, asking(server.url)) as edge:
        assert await edge.post("USER_NEW", user_new(), uuid="u1") == (200, "false")
        assert server.asked == []
        [rejected] = edge.said(ViewerRejected)
        assert rejected.detail == "the node does not have the tenant's webhook secret yet"


async def publish(edge: RunningEdge) -> tuple[str, str]:
    return (await edge.post("PUSH_REWRITE", rewrite(), uuid="r"))[1], (await edge.post("STREAM_PUSH", push(), uuid="s"))[1]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (LeaseAnswer(LeaseOutcome.GRANTED), IngestLease.GRANTED),
        (LeaseAnswer(LeaseOutcome.UNREACHABLE), IngestLease.UNREACHABLE),
        (LeaseAnswer(LeaseOutcome.DENIED, "edge-1"), IngestLease.HELD_HERE),
    ],
)
async def test_the_platform_is_asked_before_a_publisher_is_admitted(
    tmp_path: Path, answer: LeaseAnswer, expected: IngestLease
) -> None:
    platform = Platform(answer)
    async with running_edge(tmp_path, [stream_policy()], lease=platform) as edge:
        waiting = asyncio.create_task(publish(edge))
        await edge.until(lambda: platform.asked)
        platform.may_answer.set()
        assert await waiting == ("live+lobby", "true")
        [started] = edge.said(IngestStarted)
        assert started.lease is expected
        assert platform.asked == [(stream_policy().stream_id, started.ingest_id)]


async def test_a_publisher_of_another_node_is_in_the_way(tmp_path: Path) -> None:
    platform: Lease = Platform(LeaseAnswer(LeaseOutcome.DENIED, "edge-2"))
    platform.may_answer.set()  # type: ignore[attr-defined]
    async with running_edge(tmp_path, [stream_policy()], lease=platform) as edge:
        assert await publish(edge) == ("", "false")
        [rejected] = edge.said(IngestRejected)
        assert (rejected.reason, rejected.held_by) == (IngestRejection.DUPLICATE_INGEST, "edge-2")


async def test_a_platform_that_never_answers_does_not_keep_a_publisher_out(tmp_path: Path) -> None:
    platform = Platform(LeaseAnswer(LeaseOutcome.GRANTED))
    async with running_edge(tmp_path, [stream_policy()], lease=platform) as edge:
        assert await publish(edge) == ("live+lobby", "true")
        [started] = edge.said(IngestStarted)
        assert started.lease is IngestLease.UNREACHABLE


async def test_a_bug_in_asking_is_a_500_for_all_who_wait_and_the_next_is_asked_afresh(tmp_path: Path) -> None:
    platform = Platform(ZeroDivisionError())
    async with running_edge(tmp_path, [stream_policy()], lease=platform) as edge:
        two = [asyncio.create_task(edge.post("PUSH_REWRITE", rewrite(), uuid="r")) for _ in range(2)]
        await edge.until(lambda: platform.asked)
        platform.may_answer.set()
        assert [status for status, _ in await asyncio.gather(*two)] == [500, 500]
        platform.answer = LeaseAnswer(LeaseOutcome.GRANTED)
        assert await edge.post("PUSH_REWRITE", rewrite(), uuid="r") == (200, "live+lobby")


async def test_who_waits_when_the_agent_ends_is_still_answered_and_what_was_admitted_is_on_the_disk(tmp_path: Path) -> None:
    platform = Platform(LeaseAnswer(LeaseOutcome.GRANTED))
    async with running_edge(tmp_path, [stream_policy()], lease=platform) as edge:
        waiting = asyncio.create_task(edge.post("PUSH_REWRITE", rewrite(), uuid="r"))
        await edge.until(lambda: platform.asked)
    assert await waiting == (200, "live+lobby")
    async with running_edge(tmp_path, [stream_policy()], lease=platform) as edge:
        assert await edge.post("STREAM_PUSH", push(), uuid="s") == (200, "true")
        [started] = edge.said(IngestStarted)
        assert (started.lease, len(platform.asked)) == (IngestLease.UNREACHABLE, 1)


async def test_an_agent_that_ends_before_the_reply_comes_has_said_nothing_and_asks_again(tmp_path: Path) -> None:
    webhooks = Webhooks(allows_private=True, deadline_seconds=120)
    async with tenant_server(silent) as server:
        async with running_edge(tmp_path, asking(server.url), secrets=SECRETS, webhooks=webhooks) as edge:
            waiting = asyncio.create_task(edge.post("USER_NEW", user_new(), uuid="u1"))
            await edge.until(lambda: server.asked)
        async with tenant_server(answering(YES)) as honest, running_edge(tmp_path, asking(honest.url), secrets=SECRETS) as edge:
            assert edge.said(ViewerJoined) == []
            assert await edge.post("USER_NEW", user_new(), uuid="u1") == (200, "true")
            assert len(edge.said(ViewerJoined)) == 1
        waiting.cancel()
