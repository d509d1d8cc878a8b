"""The policy topic says what was decided, signed, each thing once: over restarts, rivals and forgeries."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import pairwise
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord

from infra.embedded.stack import Stack
from projections.policy import Policies
from streams.codec import encode, encode_policy
from streams.errors import Superseded
from streams.generated import Policy, StreamDeleted, StreamDisabled, StreamEnabled, TenantPolicy, TenantRegistered, TenantStanding
from streams.kafka import Kafka, idempotent_producer
from streams.policies import policy_key
from streams.policy_publisher import SIGNATURE, BrokenDecisions, PolicyPublisher, header
from streams.policy_signing import Verifier, public_key
from streams.topics import Topics, partition_of
from tests.ingress import SECRET_KEY, meta
from tests.policy_log import Decisions, created, newest, policy, publishing, until, written

A, B = uuid4(), uuid4()


@pytest.fixture
async def decisions(stack: Stack, topics: Topics) -> AsyncIterator[Decisions]:
    async with idempotent_producer(stack.kafka, "test") as producer:
        yield Decisions(producer, topics)


def told_twice(found: Sequence[ConsumerRecord[bytes, bytes]]) -> Sequence[tuple[Policy, Policy]]:
    """Records whose version does not rise, each with the one before it."""
    by_key: dict[bytes | None, list[Policy]] = defaultdict(list)
    for record in found:
        by_key[record.key] += newest([record]).values()
    pairs = [pair for policies in by_key.values() for pair in pairwise(policies)]
    return [(one, two) for one, two in pairs if one.version >= two.version]


async def test_every_record_is_signed_named_and_lies_where_its_decisions_lie(
    stack: Stack, topics: Topics, decisions: Decisions
) -> None:
    lobby = uuid4()
    await decisions.decide(A, A, TenantRegistered("Acme"))
    await decisions.decide(A, lobby, created("lobby"))
    async with publishing(stack.kafka, topics):
        found = await written(stack.kafka, topics)
    assert newest(found) == {
        A: TenantPolicy(A, version=1, standing=TenantStanding.ACTIVE),
        lobby: policy(A, lobby, "lobby"),
    }
    verifier = Verifier(public_key(SECRET_KEY))
    for record in found:
        assert verifier.is_good(record.value or b"", header(record, SIGNATURE) or b"")
        assert header(record, "tenant_id") == str(A).encode()
        assert record.partition == partition_of(A)


async def test_a_restart_writes_only_what_is_new(stack: Stack, topics: Topics, decisions: Decisions) -> None:
    lobby, stage = uuid4(), uuid4()
    await decisions.decide(A, lobby, created("lobby"), StreamDisabled())
    async with publishing(stack.kafka, topics):
        first = await written(stack.kafka, topics)
    assert newest(first)[lobby].version == 2  # it counts decisions, not records
    async with publishing(stack.kafka, topics):
        assert await written(stack.kafka, topics) == first
    await decisions.decide(A, lobby, StreamEnabled(), StreamDeleted("lobby"))
    await decisions.decide(B, stage, created("stage"))
    async with publishing(stack.kafka, topics):
        later = await written(stack.kafka, topics)
    assert len(later) == len(first) + 2
    assert newest(later)[lobby] == replace(policy(A, lobby, "lobby"), deleted=True, version=4)
    assert not told_twice(later)


async def test_ends_amid_its_work_lose_nothing_and_repeat_nothing(stack: Stack, topics: Topics, decisions: Decisions) -> None:
    streams = [uuid4() for _ in range(40)]
    for n in range(6):
        async with asyncio.TaskGroup() as tasks:
            for stream_id in streams:
                if n == 0:
                    tasks.create_task(decisions.decide(A, stream_id, created("s")))
                else:
                    tasks.create_task(decisions.decide(A, stream_id, StreamDisabled(), StreamEnabled()))
            async with publishing(stack.kafka, topics):
                await asyncio.sleep(0.01 * n)  # ended wherever it is by then
    async with publishing(stack.kafka, topics):
        found = await written(stack.kafka, topics)
    assert {key: p.version for key, p in newest(found).items()} == dict.fromkeys(streams, 11)
    assert not told_twice(found)


async def test_of_two_publishers_the_older_gives_up(stack: Stack, topics: Topics, decisions: Decisions) -> None:
    lobby = uuid4()
    await decisions.decide(A, lobby, created("lobby"))
    older = PolicyPublisher(Kafka(stack.kafka), topics, SECRET_KEY, Policies)
    running = asyncio.create_task(older.run())
    await until(lambda: older.is_current)
    async with publishing(stack.kafka, topics):
        await decisions.decide(A, lobby, StreamDisabled())
        with pytest.raises(Superseded):
            await asyncio.wait_for(running, 180)
        async with asyncio.timeout(180):
            while len(found := await written(stack.kafka, topics)) < 2:
                await asyncio.sleep(0.05)
    assert [p.version for record in found for p in newest([record]).values()] == [1, 2]


async def test_what_another_wrote_is_put_right(stack: Stack, topics: Topics, decisions: Decisions) -> None:
    lobby = uuid4()
    await decisions.decide(A, lobby, created("lobby"))
    async with publishing(stack.kafka, topics):
        [record] = await written(stack.kafka, topics)
    forged = encode_policy(replace(policy(A, lobby, "evil"), version=7))
    async with idempotent_producer(stack.kafka, "test") as producer:
        signature = [(SIGNATURE, header(record, SIGNATURE) or b"")]
        await producer.send_and_wait(topics.policy.name, forged, lobby.bytes, record.partition, headers=signature)
    async with publishing(stack.kafka, topics):
        right = newest(await written(stack.kafka, topics))[lobby]
    assert right == replace(policy(A, lobby, "lobby"), version=8)


async def test_another_master_secret_signs_everything_anew(stack: Stack, topics: Topics, decisions: Decisions) -> None:
    lobby = uuid4()
    await decisions.decide(A, lobby, created("lobby"))
    async with publishing(stack.kafka, topics):
        pass
    other = bytes(reversed(SECRET_KEY))
    async with publishing(stack.kafka, topics, other):
        last = (await written(stack.kafka, topics))[-1]
    assert Verifier(public_key(other)).is_good(last.value or b"", header(last, SIGNATURE) or b"")
    assert policy_key(newest([last])[lobby]) == lobby


async def test_a_decision_that_cannot_be_read_stops_the_policy_and_says_which(
    stack: Stack, topics: Topics, decisions: Decisions
) -> None:
    lobby = uuid4()
    await decisions.decide(A, lobby, created("lobby"))
    publisher = PolicyPublisher(Kafka(stack.kafka), topics, SECRET_KEY, Policies)
    running = asyncio.create_task(publisher.run())
    await until(lambda: publisher.is_current)
    await decisions.decide_raw(A, encode(created("x"), meta(A, uuid4(), version=1))[:-1])
    with pytest.raises(BrokenDecisions, match=rf"{topics.decisions.name} {partition_of(A)}-1: .*stands still"):
        await asyncio.wait_for(running, 180)
    assert list(newest(await written(stack.kafka, topics))) == [lobby]
