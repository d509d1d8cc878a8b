"""A node learns all that it may know, then every change in less than a second; after a reconnection what changed since."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from uuid import uuid4

import pytest

from infra.embedded.stack import Stack
from infra.processes.ingress import Running, running
from projections.policy import AT_ONCE
from streams.codec import decode_policy, encode_policy
from streams.generated import (
    NodeMode,
    NodePolicy,
    PolicyConfirmed,
    StreamDeleted,
    StreamDisabled,
    StreamKey,
    StreamKeyRotated,
    StreamPolicy,
    StreamRenamed,
    TenantRegistered,
)
from streams.ids import OPERATOR_TENANT
from streams.ingress.credentials import issue, read
from streams.ingress.line import Line
from streams.ingress.policy_client import watch_policy
from streams.ingress.policy_feed import PolicyFeed
from streams.ingress.policy_news import Known, PolicyNews, Signed
from streams.ingress.policy_updates import POLICIES_PER_UPDATE
from streams.kafka import idempotent_producer, reader, transactional_producer
from streams.policies import policy_key
from streams.policy_publisher import SIGNATURE, PolicyPublisher, header
from streams.policy_signing import Signer, Verifier, public_key, webhook_secret
from streams.topics import Topics, partition_of
from tests.cut import Cut
from tests.ingress import NOON, SECRET_KEY, ingress_settings
from tests.policy_log import (
    Decisions,
    created,
    next_policies,
    of_kind,
    policies_of,
    policy,
    publishing,
    until,
    until_told,
    written,
)

A, B = uuid4(), uuid4()


@pytest.fixture
async def decisions(stack: Stack, topics: Topics) -> AsyncIterator[Decisions]:
    async with idempotent_producer(stack.kafka, "test") as producer:
        yield Decisions(producer, topics)


@pytest.fixture
async def publisher(stack: Stack, topics: Topics) -> AsyncIterator[PolicyPublisher]:
    async with publishing(stack.kafka, topics) as publisher:
        yield publisher


@pytest.fixture
async def ingress(stack: Stack, topics: Topics, publisher: PolicyPublisher) -> AsyncIterator[Running]:
    async with running(ingress_settings(stack.kafka, topics)) as ingress:
        await ingress.ready()
        yield ingress


def confirmed(signed: Signed) -> PolicyConfirmed:
    assert Verifier(public_key(SECRET_KEY)).is_good(signed.value, signed.signature)
    policy = decode_policy(signed.value)
    assert isinstance(policy, PolicyConfirmed)
    return policy


async def whole(news: AsyncIterator[PolicyNews]) -> list[PolicyNews]:
    """The parts of a snapshot."""
    parts = [await anext(news)]
    assert parts[0].of_snapshot
    while not parts[-1].is_complete:
        parts.append(await anext(news))
    return parts


async def test_snapshot_of_the_nodes_tenants_then_changes_within_a_second(decisions: Decisions, ingress: Running) -> None:
    lobby, stage, foreign = uuid4(), uuid4(), uuid4()
    await decisions.decide(A, lobby, created("lobby"), StreamRenamed("Lobby"))
    await decisions.decide(B, foreign, created("foreign"))
    await until(lambda: ingress.policy.owner(lobby) == A and ingress.policy.owner(foreign) == B)
    line = Line()
    bound, of_operator = issue(SECRET_KEY, "edge-1", [A]), issue(SECRET_KEY, "edge-2", None)
    address = f"127.0.0.1:{ingress.port}"
    async with aclosing(watch_policy(address, lambda: bound, line)) as news, asyncio.timeout(180):
        [first] = await whole(news)
        assert line.is_up
        assert policies_of(first) == [policy(A, lobby, "lobby")]
        await decisions.decide(B, uuid4(), created("other"))
        clock = asyncio.get_running_loop().time
        moments = [clock()]
        await decisions.decide(A, stage, created("stage"))
        assert await next_policies(news) == [policy(A, stage, "stage")]
        moments.append(clock())
        soon = NOON + timedelta(minutes=5)
        await decisions.decide(A, stage, StreamKeyRotated("sk_new", b"new", soon))
        old = StreamKey("sk_stage", b"stage", soon)
        rotated = replace(policy(A, stage, "stage"), keys=(StreamKey("sk_new", b"new"), old), version=2)
        assert await next_policies(news) == [rotated]
        moments.append(clock())
        await decisions.decide(A, stage, StreamKeyRotated("sk_3", b"3", None))
        [revoked] = of_kind(StreamPolicy, await next_policies(news))
        assert revoked.keys == (StreamKey("sk_3", b"3"), StreamKey("sk_new", b"new", AT_ONCE), old)
        moments.append(clock())
        await decisions.decide(A, stage, StreamDeleted("stage"))
        assert await next_policies(news) == [replace(revoked, deleted=True, version=4)]
        moments.append(clock())
        assert min(after - before for before, after in pairwise(moments)) < 1  # a busy machine may be late with some
    async with aclosing(watch_policy(address, lambda: of_operator, Line())) as news, asyncio.timeout(180):
        [everything] = await whole(news)
        assert {lobby, stage, foreign} <= {policy_key(p) for p in policies_of(everything)}


async def test_every_record_comes_with_the_platforms_signature_and_its_secrets(decisions: Decisions, ingress: Running) -> None:
    await decisions.decide(A, A, TenantRegistered("Acme"))
    await until(lambda: ingress.policy.tenant(A) is not None)
    credential = issue(SECRET_KEY, "edge-1", [A])
    async with aclosing(watch_policy(f"127.0.0.1:{ingress.port}", lambda: credential, Line())) as news, asyncio.timeout(180):
        [told] = await whole(news)
    key = read(credential).policy_key
    assert key == told.public_key == public_key(SECRET_KEY)
    assert all(Verifier(key).is_good(r.value, r.signature) for r in told.records)
    assert told.secrets == ((A, webhook_secret(SECRET_KEY, A.bytes)),)


async def test_that_the_policy_is_current_is_told_as_it_is_confirmed_and_once(ingress: Running) -> None:
    address, credential = f"127.0.0.1:{ingress.port}", issue(SECRET_KEY, "edge-1", [A])
    told: list[PolicyConfirmed] = []
    known: Known | None = None
    async with aclosing(watch_policy(address, lambda: credential, Line())) as news, asyncio.timeout(180):
        while len(told) < 2:
            one = await anext(news)
            told += [confirmed(one.confirmed)] if one.confirmed else []
            known = one.known
    assert (told[1].version, told[1].tenant_id) == (told[0].version + 1, OPERATOR_TENANT)
    assert told[0].confirmed_at < told[1].confirmed_at

    async def first(upto: Known | None) -> PolicyNews:
        async with aclosing(watch_policy(address, lambda: credential, Line(), lambda: upto)) as news, asyncio.timeout(180):
            return await anext(news)

    for begins in (await first(None), await first(known)):  # one that knows nothing, and one that goes on
        assert begins.confirmed is not None
        assert confirmed(begins.confirmed).version >= told[1].version


async def test_after_a_cut_only_what_changed_is_told(decisions: Decisions, ingress: Running) -> None:
    kept, lobby, stage, foreign = uuid4(), uuid4(), uuid4(), uuid4()
    await decisions.decide(A, kept, created("kept"))
    await decisions.decide(A, lobby, created("lobby"))
    await until(lambda: ingress.policy.owner(lobby) == A)
    line, credential = Line(), issue(SECRET_KEY, "edge-1", [A])
    upto: Known | None = None
    async with Cut(ingress.port) as wire:
        watching = watch_policy(f"127.0.0.1:{wire.port}", lambda: credential, line, lambda: upto)
        async with aclosing(watching) as news, asyncio.timeout(180):
            [first] = await whole(news)
            upto = first.known
            assert {policy_key(p) for p in policies_of(first)} == {kept, lobby}
            await wire.cut()
            await decisions.decide(A, lobby, StreamDeleted("lobby"))
            await decisions.decide(A, stage, created("stage"))
            await decisions.decide(B, foreign, created("foreign"))
            known = await until_told(news, {lobby, stage})
            assert known == {
                lobby: replace(policy(A, lobby, "lobby"), deleted=True, version=2),
                stage: policy(A, stage, "stage"),
            }
            assert line.lost_total == 1


async def test_what_a_node_says_that_it_knows_is_believed_only_of_its_own_tenants_and_of_this_topic(
    decisions: Decisions, ingress: Running
) -> None:
    lobby = uuid4()
    await decisions.decide(A, lobby, created("lobby"))
    await until(lambda: ingress.policy.owner(lobby) == A)
    address, of_a = f"127.0.0.1:{ingress.port}", issue(SECRET_KEY, "edge-1", [A])

    async def first(credential: str, known: Known | None) -> PolicyNews:
        watching = watch_policy(address, lambda: credential, Line(), lambda: known)
        async with aclosing(watching) as news, asyncio.timeout(180):
            return await anext(news)

    known = (await first(of_a, None)).known
    assert known is not None
    again = await first(of_a, known)
    assert (again.of_snapshot, again.records) == (False, ())
    far = Known(known.snapshot, tuple(offset + 1000 for offset in known.offsets))
    for wrong in (far, Known(b"another", known.offsets), Known(known.snapshot, known.offsets[:3])):
        assert (await first(of_a, wrong)).of_snapshot
    both = await first(issue(SECRET_KEY, "edge-1", [A, B]), known)  # it serves more tenants now
    assert both.of_snapshot
    other = await first(issue(SECRET_KEY, "edge-1", [B]), known)
    assert (other.of_snapshot, other.records) == (True, ())


async def test_a_long_snapshot_comes_in_parts(decisions: Decisions, ingress: Running) -> None:
    ids = [uuid4() for _ in range(POLICIES_PER_UPDATE * 2 + 1)]
    await asyncio.gather(*(decisions.decide(A, i, created(f"s{n}")) for n, i in enumerate(ids)))
    await until(lambda: all(ingress.policy.owner(i) for i in ids))
    credential = issue(SECRET_KEY, "edge-1", [A])
    async with aclosing(watch_policy(f"127.0.0.1:{ingress.port}", lambda: credential, Line())) as news, asyncio.timeout(180):
        parts = await whole(news)
    assert [len(p.records) for p in parts] == [POLICIES_PER_UPDATE, POLICIES_PER_UPDATE, 1]
    assert [p.known is None for p in parts] == [True, True, False]
    assert {policy_key(p) for part in parts for p in policies_of(part)} == set(ids)


async def test_a_forged_record_changes_nothing(stack: Stack, topics: Topics, decisions: Decisions, ingress: Running) -> None:
    lobby, stage = uuid4(), uuid4()
    await decisions.decide(A, lobby, created("lobby"))
    await decisions.decide(A, stage, created("stage"))
    await until(lambda: ingress.policy.owner(stage) == A)
    credential = issue(SECRET_KEY, "edge-1", [A])
    async with aclosing(watch_policy(f"127.0.0.1:{ingress.port}", lambda: credential, Line())) as news, asyncio.timeout(180):
        await whole(news)
        good = {r.key: r for r in await written(stack.kafka, topics)}
        evil = encode_policy(policy(A, lobby, "evil"))
        async with idempotent_producer(stack.kafka, "test") as producer:
            for value, signature, key in (
                (evil, header(good[lobby.bytes], SIGNATURE), lobby),  # the signature of another
                (evil, Signer(bytes(32)).sign(evil), lobby),  # of another installation
                (evil, b"", lobby),
                (b"noise", b"", lobby),
                (None, b"", lobby),
                (good[stage.bytes].value, header(good[stage.bytes], SIGNATURE), lobby),  # a good one under another's key
            ):
                headers = [(SIGNATURE, signature or b"")]
                await producer.send_and_wait(topics.policy.name, value, key.bytes, partition_of(A), headers=headers)
        await decisions.decide(A, lobby, StreamDisabled())
        assert await next_policies(news) == [replace(policy(A, lobby, "lobby"), disabled=True, version=2)]


async def test_a_node_is_told_of_itself_and_of_no_other_node(stack: Stack, topics: Topics, ingress: Running) -> None:
    mine, other = (NodePolicy(OPERATOR_TENANT, name, 1, NodeMode.DRAINING) for name in ("edge-1", "edge-2"))
    async with idempotent_producer(stack.kafka, "test") as producer:
        for each in (other, mine):
            value = encode_policy(each)
            headers = [(SIGNATURE, Signer(SECRET_KEY).sign(value))]
            key = policy_key(each).bytes
            await producer.send_and_wait(topics.policy.name, value, key, partition_of(OPERATOR_TENANT), headers=headers)
    await until(lambda: ingress.policy.owner(policy_key(mine)) is not None)
    for tenants in (None, [A]):  # also of a node that serves everybody, and of one that serves a tenant
        credential = issue(SECRET_KEY, "edge-1", tenants)
        watching = watch_policy(f"127.0.0.1:{ingress.port}", lambda credential=credential: credential, Line())  # type: ignore[misc]
        async with aclosing(watching) as news, asyncio.timeout(180):
            [first] = await whole(news)
            assert policies_of(first) == [mine]


async def test_a_log_that_ends_in_an_aborted_transaction_is_read_to_its_end(stack: Stack, topics: Topics) -> None:
    kept, aborted = uuid4(), uuid4()
    async with transactional_producer(stack.kafka, f"{topics.prefix}test") as producer:
        for stream_id in (kept, aborted):
            await producer.begin_transaction()
            value = encode_policy(policy(A, stream_id, "x"))
            headers = [(SIGNATURE, Signer(SECRET_KEY).sign(value))]
            await producer.send_and_wait(topics.policy.name, value, stream_id.bytes, partition_of(A), headers=headers)
            await (producer.commit_transaction() if stream_id is kept else producer.abort_transaction())
    feed = PolicyFeed(lambda: reader(stack.kafka, "test"), topics, public_key(SECRET_KEY))
    following = asyncio.create_task(feed.run())
    node = read(issue(SECRET_KEY, "edge-1", None))
    async with asyncio.timeout(180), aclosing(feed.news(node, None)) as news:
        snapshot = await anext(news)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    assert [policy_key(p) for p in policies_of(snapshot)] == [kept]


async def test_what_is_no_policy_is_no_news(decisions: Decisions, ingress: Running) -> None:
    lobby = uuid4()
    await decisions.decide(A, lobby, created("lobby"), StreamRenamed("x"), StreamRenamed("y"))
    await until(lambda: ingress.policy.owner(lobby) == A)
    async with aclosing(ingress.policy.news(read(issue(SECRET_KEY, "n", [A])), None)) as news, asyncio.timeout(180):
        assert policies_of(await anext(news)) == [policy(A, lobby, "lobby")]
