"""The policy's publisher on a Kafka that loses answers, in processes that are killed and that wake as zombies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka import TopicPartition

from projections.policy import Policies
from streams.codec import decode, decode_policy, encode
from streams.errors import Superseded
from streams.generated import (
    Decision,
    Policy,
    PolicyConfirmed,
    StreamCreated,
    StreamDisabled,
    StreamEnabled,
    TenantRegistered,
)
from streams.ids import NAMESPACE, derive
from streams.kafka import Cluster
from streams.policies import CONFIRMED
from streams.policy_confirmations import CONFIRM_SECONDS, PARTITION
from streams.policy_publisher import SIGNATURE, PolicyPublisher
from streams.policy_signing import Signer
from streams.topics import Topics, partition_of
from tests.ingress import SECRET_KEY, meta
from tests.sim.cluster import SimCluster
from tests.sim.loop import BEGINNING, Process, SimLoop

TENANTS = [derive(NAMESPACE, "tenant of the policy", n) for n in range(3)]
STREAMS = [(tenant, derive(tenant, n)) for tenant in TENANTS for n in range(3)]
TOPICS = Topics()


class World:
    """A cluster, publishers that come and go, and what is decided meanwhile."""

    def __init__(self, seed: int) -> None:
        self.loop = SimLoop(seed)
        self.cluster = SimCluster(self.loop)
        self.cluster.create_topics(TOPICS)
        self.count = 0
        self.current: list[PolicyPublisher] = []

    def start(self) -> Process:
        self.count += 1
        process = self.loop.process(f"publisher {self.count}")

        async def run() -> None:
            publisher = PolicyPublisher(cast(Cluster, self.cluster), TOPICS, SECRET_KEY, Policies, self.now)
            self.current.append(publisher)
            with contextlib.suppress(Superseded):
                await publisher.run()

        process.start(run())
        return process

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.loop.time())

    def decide(self, tenant_id: UUID, aggregate_id: UUID, event: Decision) -> None:
        value = encode(event, meta(tenant_id, aggregate_id, version=1))
        at = TopicPartition(TOPICS.decisions.name, partition_of(tenant_id))
        self.cluster.broker.append(at.topic, at.partition, value, tenant_id.bytes, ())

    def read(self, topic: str, partition: int) -> Sequence[Any]:
        return [entry for entry in self.cluster.broker.log(topic, partition).read(committed=True) if entry.value is not None]

    def folded(self, before: datetime | None = None) -> Policies:
        """What was decided, before a time if one is given."""
        clean = Policies()
        for n in range(TOPICS.decisions.partitions):
            for entry in self.read(TOPICS.decisions.name, n):
                if before is None or entry.timestamp_ms < before.timestamp() * 1000:
                    clean.apply(*decode(entry.value))
        return clean

    def confirmed(self) -> Sequence[tuple[int, PolicyConfirmed]]:
        """Confirmations on the topic, each with when it got there, in Unix milliseconds."""
        found = [(entry.timestamp_ms, decode_policy(entry.value)) for entry in self.read(TOPICS.policy.name, PARTITION)]
        return [(at_ms, policy) for at_ms, policy in found if isinstance(policy, PolicyConfirmed)]

    def check(self) -> None:
        """The topic equals a clean fold; of each key versions rise; every record is signed; what is confirmed is true."""
        newest: dict[UUID, list[Policy]] = {}
        written: list[tuple[int, UUID, int]] = []
        for n in range(TOPICS.policy.partitions):
            for entry in self.read(TOPICS.policy.name, n):
                assert dict(entry.headers)[SIGNATURE] == Signer(SECRET_KEY).sign(entry.value)
                key, policy = UUID(bytes=entry.key), decode_policy(entry.value)
                newest.setdefault(key, []).append(policy)
                written.append((entry.timestamp_ms, key, policy.version))
        clean = self.folded()
        assert newest.pop(CONFIRMED)
        assert {key: told[-1] for key, told in newest.items()} == {key: clean[key] for key in clean}
        for told in newest.values():
            assert all(one.version < two.version for one, two in pairwise(told))
        for at_ms, confirmed in self.confirmed():
            known = {key: version for written_ms, key, version in written if written_ms <= at_ms}
            decided = self.folded(confirmed.confirmed_at)
            assert all(known.get(key, 0) >= decided[key].version for key in decided), confirmed


@pytest.mark.parametrize("seed", range(25))
def test_the_topic_says_what_was_decided_each_thing_once(seed: int) -> None:
    world = World(seed)
    loop, faults, draw = world.loop, world.cluster.network.faults, world.loop.random
    try:
        for tenant in TENANTS:
            world.decide(tenant, tenant, TenantRegistered("x"))
        for tenant, stream in STREAMS:
            world.decide(tenant, stream, StreamCreated("x", "x", "x", "x", "x", b"x"))
        faults.lose_answer = faults.lose_request = 0.05
        alive = world.start()
        asleep: list[Process] = []
        for _ in range(30):
            loop.run_for(draw.random() * 0.4)
            tenant, stream = draw.choice(STREAMS)
            switches: list[Decision] = [StreamDisabled(), StreamEnabled()]
            world.decide(tenant, stream, draw.choice(switches))
            match draw.randrange(8):
                case 0:
                    alive.kill()
                    alive = world.start()
                case 1:
                    alive.freeze()
                    asleep.append(alive)
                    alive = world.start()
                case 2 if asleep:
                    asleep.pop().wake()
                case 3:
                    world.cluster.network.restart(seconds=1)
        for zombie in asleep:
            zombie.wake()
        faults.lose_answer = faults.lose_request = 0.0
        loop.run_for(60)
        last = world.start()
        loop.run_until(lambda: world.current[-1].is_current, 120)
        loop.run_for(20)
        world.check()
        last.kill()
    finally:
        loop.end()


def test_a_writer_that_stands_still_confirms_nothing() -> None:
    world = World(1)
    try:
        world.decide(TENANTS[0], TENANTS[0], TenantRegistered("x"))
        process = world.start()
        world.loop.run_until(lambda: len(world.confirmed()) == 3, 60)
        first, *_, last = [confirmed for _, confirmed in world.confirmed()]
        assert [c.version for _, c in world.confirmed()] == [1, 2, 3]
        assert (last.confirmed_at - first.confirmed_at).total_seconds() >= 2 * CONFIRM_SECONDS
        process.freeze()
        world.loop.run_for(10 * CONFIRM_SECONDS)
        assert len(world.confirmed()) == 3
        process.kill()
        world.start()
        world.loop.run_until(lambda: len(world.confirmed()) == 4, 60)
        newest = world.confirmed()[-1][1]
        assert newest.version == 4
        assert (newest.confirmed_at - last.confirmed_at).total_seconds() > 10 * CONFIRM_SECONDS
    finally:
        world.loop.end()


def test_behind_an_open_transaction_nothing_is_confirmed() -> None:
    """What it decides may lie before the time that would be confirmed."""
    world = World(2)
    try:
        process = world.start()
        world.loop.run_until(lambda: len(world.confirmed()) == 1, 60)
        commands = world.loop.process("commands")
        is_open, may_commit = asyncio.Event(), asyncio.Event()

        async def decide() -> None:
            producer = world.cluster.transactional_producer("commands")
            await producer.start()
            await producer.begin_transaction()
            value = encode(TenantRegistered("x"), meta(TENANTS[0], TENANTS[0], version=1))
            await producer.send(TOPICS.decisions.name, value, partition=partition_of(TENANTS[0]))
            is_open.set()
            await may_commit.wait()
            await producer.commit_transaction()

        commands.start(decide())
        world.loop.run_until(is_open.is_set, 60)
        opened = world.now()
        world.loop.run_for(2 * CONFIRM_SECONDS)
        assert all(confirmed.confirmed_at <= opened for _, confirmed in world.confirmed())
        may_commit.set()
        world.loop.run_until(lambda: world.confirmed()[-1][1].confirmed_at > opened, 60)
        assert TENANTS[0] in world.folded()
        process.kill()
    finally:
        world.loop.end()
