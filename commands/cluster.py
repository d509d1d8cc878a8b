"""Whether the cluster is as the worker needs it."""

from __future__ import annotations

from streams.errors import Transient
from streams.kafka import Cluster
from streams.topics import Topics


class WrongPartitionCount(Exception):
    """A topic was made with another number of partitions: every tenant would be looked for in the wrong one."""


async def require_topics(cluster: Cluster, topics: Topics) -> None:
    """Raises Transient while a topic or a leader is missing, WrongPartitionCount when a topic can never be used.

    A member that joins before its topic is known gets no partitions, and nobody tells it when the topic appears.
    """
    leaders = await cluster.leaders()
    for topic in (topics.commands, topics.decisions, topics.dead_letters):
        partitions = leaders.get(topic.name)
        if not partitions:
            raise Transient(f"topic {topic.name} does not exist: make it with `fw topics apply`")
        if len(partitions) != topic.partitions:
            raise WrongPartitionCount(f"topic {topic.name} has {len(partitions)} partitions, not {topic.partitions}")
        if leaderless := [number for number, leader in enumerate(partitions) if leader < 0]:
            raise Transient(f"topic {topic.name}: partitions {leaderless} have no leader")
