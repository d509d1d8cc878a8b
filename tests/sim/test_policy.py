"""The policy's publisher on a Kafka that loses answers, in processes that are killed and that wake as zombies."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka import TopicPartition

from projections.policy import Policies
from streams.codec import decode, decode_policy, encode
from streams.errors import Superseded
from streams.generated import Decision, Policy, StreamCreated, StreamDisabled, StreamEnabled, TenantRegistered
from streams.ids import NAMESPACE, derive
from streams.kafka import Cluster
from streams.policy_publisher import SIGNATURE, PolicyPublisher
from streams.policy_signing import Signer
from streams.topics import Topics, partition_of
from tests.ingress import SECRET_KEY, meta
from tests.sim.cluster import SimCluster
from tests.sim.loop import Process, SimLoop

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
            publisher = PolicyPublisher(cast(Cluster, self.cluster), TOPICS, SECRET_KEY, Policies)
            self.current.append(publisher)
            with contextlib.suppress(Superseded):
                await publisher.run()

        process.start(run())
        return process

    def decide(self, tenant_id: UUID, aggregate_id: UUID, event: Decision) -> None:
        value = encode(event, meta(tenant_id, aggregate_id, version=1))
        at = TopicPartition(TOPICS.decisions.name, partition_of(tenant_id))
        self.cluster.broker.append(at.topic, at.partition, value, tenant_id.bytes, ())

    def read(self, topic: str, partition: int) -> Sequence[Any]:
        return [entry for entry in self.cluster.broker.log(topic, partition).read(committed=True) if entry.value is not None]

    def folded(self) -> Policies:
        clean = Policies()
        for n in range(TOPICS.decisions.partitions):
            for entry in self.read(TOPICS.decisions.name, n):
                clean.apply(*decode(entry.value))
        return clean

    def check(self) -> None:
        """The topic equals a clean fold; of each key versions rise; every record is signed."""
        newest: dict[UUID, list[Policy]] = {}
        for n in range(TOPICS.policy.partitions):
            for entry in self.read(TOPICS.policy.name, n):
                assert dict(entry.headers)[SIGNATURE] == Signer(SECRET_KEY).sign(entry.value)
                newest.setdefault(UUID(bytes=entry.key), []).append(decode_policy(entry.value))
        clean = self.folded()
        assert {key: told[-1] for key, told in newest.items()} == {key: clean[key] for key in clean}
        for told in newest.values():
            assert all(one.version < two.version for one, two in pairwise(told))


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
