"""One node at a time publishes a stream, and a tenant has no more live streams than it may, over all nodes and ingresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from uuid import UUID, uuid4

import asyncpg
import pytest

from infra.embedded.stack import Stack
from infra.processes.ingress import Running, running
from projections.platform import migrate
from streams.codec import encode
from streams.generated import IngestEnded, IngestStarted, TenantLimitsSet, TenantRegistered
from streams.ids import new_id
from streams.ingress.client import Outgoing, Publisher
from streams.ingress.credentials import issue
from streams.ingress.lease import LeaseAnswer, LeaseOutcome
from streams.ingress.lease_client import LeaseClient
from streams.ingress.leases import LEASE_SECONDS
from streams.ingress.line import Line
from streams.ingress.policy_client import watch_policy
from streams.kafka import idempotent_producer
from streams.settings import Settings
from streams.topics import Topics
from tests.cut import Cut
from tests.ingress import SECRET_KEY, meta
from tests.policy_log import Decisions, created, publishing, until
from tests.privacy import settings_of

A, B = uuid4(), uuid4()
GRANTED = LeaseAnswer(LeaseOutcome.GRANTED)
PATIENT = 60.0  # the machine is slow; how long an answer may take is a test of its own


def denied(by: str | None) -> LeaseAnswer:
    return LeaseAnswer(LeaseOutcome.DENIED, by)


class Node:
    """What of a node a lease is about: it asks, and says what it publishes."""

    def __init__(self, name: str, address: str, tenants: list[UUID] | None = None) -> None:
        self.name, self.address = name, address
        credential = issue(SECRET_KEY, name, tenants)
        self.credential: Callable[[], str] = lambda: credential
        self.leases = LeaseClient(address, self.credential)

    async def ask(self, stream_id: UUID, ingest_id: UUID | None = None) -> LeaseAnswer:
        return await self.leases.ask(stream_id, self.name, ingest_id or new_id(), PATIENT)

    async def say(self, stream_id: UUID, *facts: IngestStarted | IngestEnded, tenant_id: UUID = A) -> None:
        items = [Outgoing(encode(fact, meta(tenant_id, stream_id))) for fact in facts]
        async with Publisher(self.address, self.credential) as publisher, asyncio.timeout(180):
            assert await (await publisher.publish(items)) == ()

    def started(self, ingest_id: UUID) -> IngestStarted:
        return IngestStarted(self.name, ingest_id, "x", "RTMP")

    def ended(self, ingest_id: UUID) -> IngestEnded:
        return IngestEnded(self.name, ingest_id, "x", "RTMP", "CLEAN")


@pytest.fixture
async def clean() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as clean:
        yield clean


@pytest.fixture
async def settings(stack: Stack, topics: Topics, database: str, tmp_path: Path) -> Settings:
    await migrate(database)
    return settings_of(database, tmp_path, stack.kafka, topics)


@pytest.fixture
async def decisions(stack: Stack, topics: Topics) -> AsyncIterator[Decisions]:
    async with publishing(stack.kafka, topics), idempotent_producer(stack.kafka, "test") as producer:
        yield Decisions(producer, topics)


async def streams(decisions: Decisions, ingress: Running, count: int = 1, tenant_id: UUID = A) -> list[UUID]:
    """New streams that the ingress knows."""
    made = [uuid4() for _ in range(count)]
    for stream_id in made:
        await decisions.decide(tenant_id, stream_id, created("x"))
    await until(lambda: all(ingress.policy.owner(stream_id) for stream_id in made))
    return made


@pytest.fixture
async def ingress(settings: Settings, decisions: Decisions) -> AsyncIterator[Running]:
    async with running(settings) as ingress:
        await ingress.ready()
        yield ingress


@pytest.fixture
async def nodes(ingress: Running, clean: AsyncExitStack) -> tuple[Node, Node]:
    made = Node("edge-1", f"127.0.0.1:{ingress.port}"), Node("edge-2", f"127.0.0.1:{ingress.port}")
    for node in made:
        clean.push_async_callback(node.leases.close)
    return made


async def until_answer(node: Node, stream_id: UUID, answer: LeaseAnswer) -> None:
    """Facts reach the leases behind their acknowledgement."""
    async with asyncio.timeout(180):
        while await node.ask(stream_id) != answer:
            await asyncio.sleep(0.02)


async def expire(database: str) -> None:
    """As when time passes."""
    db = await asyncpg.connect(database)
    await db.execute("UPDATE platform.ingest_lease SET expires_at = now() - interval '1 second'")
    await db.close()


async def test_of_two_nodes_that_race_one_gets_each_stream(
    decisions: Decisions, ingress: Running, nodes: tuple[Node, Node]
) -> None:
    made = await streams(decisions, ingress, 20)
    one, two = nodes
    answers = await asyncio.gather(*(asyncio.gather(one.ask(s), two.ask(s)) for s in made))
    assert all(sorted(pair, key=str) in ([denied("edge-1"), GRANTED], [denied("edge-2"), GRANTED]) for pair in answers)
    for stream_id, (first, _) in zip(made, answers, strict=True):
        winner, loser = (one, two) if first == GRANTED else (two, one)
        assert await winner.ask(stream_id) == GRANTED  # again, also for another publisher: the node knows its own
        assert await loser.ask(stream_id) == denied(winner.name)


async def test_a_lease_ends_with_its_publisher(decisions: Decisions, ingress: Running, nodes: tuple[Node, Node]) -> None:
    [lobby] = await streams(decisions, ingress)
    one, two = nodes
    ingest, other = new_id(), new_id()
    assert await one.ask(lobby, ingest) == GRANTED
    await one.say(lobby, one.started(ingest), one.ended(other))  # the end of another publisher is not its end
    assert await two.ask(lobby) == denied("edge-1")
    await one.say(lobby, one.ended(ingest))
    await until_answer(two, lobby, GRANTED)
    assert await one.ask(lobby) == denied("edge-2")


async def test_what_was_never_published_is_free_after_a_while_and_what_is_published_stays(
    decisions: Decisions, ingress: Running, nodes: tuple[Node, Node], database: str
) -> None:
    reserved, live = await streams(decisions, ingress, 2)
    one, two = nodes
    ingest = new_id()
    assert await one.ask(reserved) == GRANTED
    await one.say(live, one.started(ingest))  # it could ask nobody, and let its publisher in
    await until_answer(two, live, denied("edge-1"))
    db = await asyncpg.connect(database)
    rows = await db.fetch("SELECT stream_id, is_publishing, expires_at - now() AS left FROM platform.ingest_lease")
    await db.close()
    left = {r["stream_id"]: (r["is_publishing"], r["left"].total_seconds()) for r in rows}
    assert left[reserved][0] is False
    assert left[reserved][1] < 31
    assert left[live][0] is True
    assert 31 < left[live][1] <= LEASE_SECONDS
    await expire(database)
    assert await two.ask(reserved) == GRANTED


async def test_a_node_that_is_connected_keeps_what_it_publishes_also_over_a_restart_of_the_ingress(
    settings: Settings, decisions: Decisions, database: str, clean: AsyncExitStack
) -> None:
    ingest = new_id()
    async with running(settings) as first:
        await first.ready()
        [lobby] = await streams(decisions, first)
        one = Node("edge-1", f"127.0.0.1:{first.port}")
        await one.say(lobby, one.started(ingest))
        two = Node("edge-2", f"127.0.0.1:{first.port}")
        await until_answer(two, lobby, denied("edge-1"))
        await one.leases.close()
        await two.leases.close()
    await expire(database)  # nobody was there to renew it
    async with running(settings) as second:
        await second.ready()
        watching = asyncio.create_task(_watch(f"127.0.0.1:{second.port}", one.credential))
        await until(lambda: "edge-1" in list(second.policy.nodes()))
        await second.leases.renew()  # as it does every 15 s
        two = Node("edge-2", f"127.0.0.1:{second.port}")
        clean.push_async_callback(two.leases.close)
        assert await two.ask(lobby) == denied("edge-1")
        watching.cancel()
        await asyncio.wait([watching])
        await until(lambda: "edge-1" not in list(second.policy.nodes()))
        await expire(database)
        await second.leases.renew()  # it went away: somebody else may take its place
        assert await two.ask(lobby) == GRANTED


async def _watch(address: str, credential: Callable[[], str]) -> None:
    async for _ in watch_policy(address, credential, Line()):
        pass


async def test_a_limit_holds_over_all_nodes(decisions: Decisions, ingress: Running, nodes: tuple[Node, Node]) -> None:
    await decisions.decide(A, A, TenantRegistered("Acme"), TenantLimitsSet(2))
    await until(lambda: (t := ingress.policy.tenant(A)) is not None and t.max_live_streams == 2)
    made = await streams(decisions, ingress, 8)
    [foreign] = await streams(decisions, ingress, 1, B)
    asked = await asyncio.gather(*(nodes[n % 2].ask(stream_id) for n, stream_id in enumerate(made)))
    assert sorted(a.outcome.value for a in asked) == ["DENIED"] * 6 + ["GRANTED"] * 2
    assert {a.held_by for a in asked} == {None}
    assert await nodes[0].ask(foreign) == GRANTED  # of another tenant
    held = made[[a.outcome for a in asked].index(LeaseOutcome.GRANTED)]
    holder = nodes[made.index(held) % 2]
    assert await holder.ask(held) == GRANTED  # at the limit, what is live goes on
    ingest = new_id()
    assert await holder.ask(held, ingest) == GRANTED
    await holder.say(held, holder.started(ingest), holder.ended(ingest))
    free = next(s for s, a in zip(made, asked, strict=True) if a.outcome is LeaseOutcome.DENIED)
    await until_answer(nodes[0], free, GRANTED)


async def test_two_ingresses_agree(
    settings: Settings, decisions: Decisions, ingress: Running, nodes: tuple[Node, Node], clean: AsyncExitStack
) -> None:
    [lobby] = await streams(decisions, ingress)
    async with running(settings) as second:
        await second.ready()
        other = Node("edge-3", f"127.0.0.1:{second.port}")
        clean.push_async_callback(other.leases.close)
        assert await nodes[0].ask(lobby) == GRANTED
        assert await other.ask(lobby) == denied("edge-1")


async def test_nobody_leases_what_it_does_not_serve(decisions: Decisions, ingress: Running, clean: AsyncExitStack) -> None:
    [lobby] = await streams(decisions, ingress)
    foreign = Node("edge-9", f"127.0.0.1:{ingress.port}", [B])
    clean.push_async_callback(foreign.leases.close)
    unreachable = LeaseAnswer(LeaseOutcome.UNREACHABLE)
    assert await foreign.ask(lobby) == unreachable
    assert await foreign.ask(uuid4()) == unreachable
    stranger = LeaseClient(f"127.0.0.1:{ingress.port}", lambda: "nobody")
    clean.push_async_callback(stranger.close)
    assert await stranger.ask(lobby, "edge-1", new_id(), PATIENT) == unreachable


async def test_an_answer_comes_in_time_whatever_is_away(ingress: Running, clean: AsyncExitStack) -> None:
    credential = issue(SECRET_KEY, "edge-1", None)
    async with Cut(ingress.port) as wire:
        for address in ("127.0.0.1:1", f"127.0.0.1:{wire.port}"):
            client = LeaseClient(address, lambda: credential)
            clean.push_async_callback(client.close)
            began = monotonic()
            answer = await client.ask(uuid4(), "edge-1", new_id(), 0.2)
            assert answer == LeaseAnswer(LeaseOutcome.UNREACHABLE)
            assert monotonic() - began < 30
