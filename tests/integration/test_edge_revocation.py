"""From a decision on the log to a media server that drops who may not any more, and back as a fact: every process is real but
MistServer, which is the model of it; the agent sets it up by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from infra.embedded.stack import Stack
from infra.processes.ingress import running
from projections.platform import migrate
from streams.codec import encode
from streams.generated import (
    Decision,
    EdgeAction,
    EdgeActionReported,
    EdgeActionStatus,
    IngestEnded,
    IngestLease,
    IngestStarted,
    PlaybackKind,
    PlaybackPolicy,
    PlaybackPolicySet,
    StreamCreated,
    StreamDeleted,
    StreamKeyRotated,
    SuspensionReason,
    TenantRegistered,
    TenantSuspended,
    ViewerRejected,
    ViewerRejection,
)
from streams.kafka import idempotent_producer
from streams.topics import Topics, partition_of
from tests.edge_node import KEY, STREAM, TENANT
from tests.edge_process import EdgeProcess, facts_on_log
from tests.ingress import ingress_settings, meta
from tests.mist.model import MistServer
from tests.policy_log import publishing

NEW_KEY = "sk_newnewne_0123456789abcdefghijkl"


@dataclass
class World:
    stack: Stack
    topics: Topics
    edge: EdgeProcess
    mist: MistServer
    version: int = 1

    async def decided(self, event: Decision) -> None:
        self.version += 1
        about = TENANT if isinstance(event, TenantRegistered | TenantSuspended) else STREAM
        async with idempotent_producer(self.stack.kafka, "test") as producer:
            value = encode(event, meta(TENANT, about, version=self.version))
            await producer.send_and_wait(self.topics.decisions.name, value, TENANT.bytes, partition_of(TENANT))

    async def until_nobody_publishes(self) -> float:
        """Seconds that it took."""
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(180):
            while self.mist.publishing():
                await asyncio.sleep(0.005)
        return asyncio.get_running_loop().time() - began

    async def said(self) -> list[object]:
        await self.edge.drained()
        return [event for event, _ in await facts_on_log(self.stack.kafka, self.topics)]


@asynccontextmanager
async def world(stack: Stack, topics: Topics, database: str, directory: Path) -> AsyncIterator[World]:
    await migrate(database)
    settings = replace(ingress_settings(stack.kafka, topics), postgres_url=database)
    created = StreamCreated("Lobby", "lobby", "pblobby", "lobby", KEY.rpartition("_")[0], sha256(KEY.encode()).digest())
    mist = MistServer()
    try:
        async with publishing(stack.kafka, topics), running(settings) as ingress:
            more = {"FW_EDGE_MIST_API": mist.listen()}
            async with EdgeProcess(directory, f"127.0.0.1:{ingress.port}", more_env=more) as edge:
                it = World(stack, topics, edge, mist, version=0)
                await it.decided(TenantRegistered(name="Acme"))
                await it.decided(created)
                await edge.ready()
                async with asyncio.timeout(180):
                    while "USER_NEW" not in str(await asyncio.to_thread(mist.call, {"config": True})):
                        await asyncio.sleep(0.05)
                yield it
    finally:
        mist.close()


@pytest.fixture
async def it(stack: Stack, topics: Topics, database: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(stack, topics, database, tmp_path / "edge") as found:
        yield found


async def publish(it: World, key: str = KEY) -> None:
    async with asyncio.timeout(180):
        while (await asyncio.to_thread(it.mist.publish, key)).refusal is not None:
            await asyncio.sleep(0.05)  # the policy is on its way


async def test_revocations_act_on_what_runs_and_are_reported(it: World) -> None:
    await publish(it)
    assert (await asyncio.to_thread(it.mist.watch, "live+lobby", "203.0.113.5")).refusal is None

    await it.decided(StreamKeyRotated(NEW_KEY.rpartition("_")[0], sha256(NEW_KEY.encode()).digest()))
    took = [await it.until_nobody_publishes()]
    await publish(it, NEW_KEY)

    await it.decided(PlaybackPolicySet(PlaybackPolicy(kind=PlaybackKind.JWT)))
    async with asyncio.timeout(180):
        while ViewerRejection.TOKEN_MISSING not in [e.reason for e in await it.said() if isinstance(e, ViewerRejected)]:
            await asyncio.sleep(0.05)

    await it.decided(StreamDeleted("lobby"))
    took.append(await it.until_nobody_publishes())
    assert min(took) < 5  # a second on a quiet machine; a busy one may be late with one of them

    async with asyncio.timeout(180):
        while len(done := [e for e in await it.said() if isinstance(e, EdgeActionReported)]) < 3:
            await asyncio.sleep(0.05)
    assert [(e.action, e.status) for e in done] == [
        (EdgeAction.DROP_PUBLISHER, EdgeActionStatus.DONE),
        (EdgeAction.RECHECK_VIEWERS, EdgeActionStatus.DONE),
        (EdgeAction.STOP_STREAM, EdgeActionStatus.DONE),
    ]
    started = [e for e in await it.said() if isinstance(e, IngestStarted)]
    ended = [e for e in await it.said() if isinstance(e, IngestEnded)]
    assert [e.lease for e in started] == [IngestLease.GRANTED] * 2
    assert {e.ingest_id for e in started} == {e.ingest_id for e in ended}
    assert all(e.policy_version for e in started)


async def test_an_edge_that_was_away_converges_when_it_comes_back(it: World) -> None:
    await publish(it)
    await it.edge.kill()
    await it.decided(TenantSuspended(SuspensionReason.SUSPENDED))
    assert len(it.mist.publishing()) == 1
    await it.edge.start()
    await it.until_nobody_publishes()
    async with asyncio.timeout(180):
        while not (done := [e for e in await it.said() if isinstance(e, EdgeActionReported)]):
            await asyncio.sleep(0.05)
    assert [(e.action, e.status) for e in done] == [(EdgeAction.STOP_STREAM, EdgeActionStatus.DONE)]
