"""The simulator's `streams.kafka.Cluster`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.topics import Topics
from tests.sim.broker import Broker
from tests.sim.consumer import SimConsumer
from tests.sim.loop import SimLoop
from tests.sim.membership import Membership
from tests.sim.network import Connection, Network
from tests.sim.producer import SimProducer

REBALANCE_MS = 10_000


class SimCluster:
    def __init__(self, loop: SimLoop, session_floor_ms: int = 1000) -> None:
        self.loop = loop
        self.network = Network(loop)
        self.broker = Broker(loop, self.network, session_floor_ms)

    def create_topics(self, topics: Topics) -> None:
        for topic in topics.all():
            self.broker.create_topic(topic.name, topic.partitions, topic.max_message_bytes)

    def idempotent_producer(self, client_id: str) -> SimProducer:
        return SimProducer(self.network, self.broker)

    def transactional_producer(self, transactional_id: str) -> SimProducer:
        return SimProducer(self.network, self.broker, transactional_id)

    def reader(self, client_id: str, *, committed: bool = True) -> SimConsumer:
        return SimConsumer(self.network, self.broker, committed=committed)

    def member(self, group_id: str, session_ms: int) -> SimConsumer:
        membership = Membership(self.network, self.broker, group_id, group_id, session_ms, REBALANCE_MS)
        return SimConsumer(
            self.network, self.broker, committed=False, membership=membership, group_id=group_id, from_earliest=True
        )

    async def leaders(self) -> Mapping[str, Sequence[int]]:
        told: Mapping[str, Sequence[int]] = await self.network.request(
            Connection(), "Metadata", lambda: {name: [0] * len(logs) for name, logs in self.broker.topics.items()}
        )
        return told
