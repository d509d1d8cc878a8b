"""What must change on a cluster so that its topics are as the code says. Pure.

Invariant: nothing is changed that keys depend on. The partition count decides who owns a key, and the replica count is moved
by an operator with the cluster's own tools; both are refused, with a sentence, before anything is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from streams.topics import Topic

FOR_EVER: Final = "-1"


class Refused(Exception):
    """The cluster cannot be brought to what the code says without losing something. One line for every reason."""


@dataclass(frozen=True, slots=True)
class Replication:
    """Copies of every partition, and how many must have a record before it counts as written."""

    factor: int = 1

    @property
    def min_insync(self) -> int:
        """One copy may be away without stopping writes: 2 of 3, 1 of 2; with one copy it is that one."""
        return max(1, self.factor - 1)


@dataclass(frozen=True, slots=True)
class Found:
    """A topic as the cluster has it."""

    partitions: int
    replication_factor: int
    config: Mapping[str, str]  # effective values, defaults included
    overrides: Mapping[str, str]  # those that were set on the topic


@dataclass(frozen=True, slots=True)
class TopicCreated:
    topic: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]

    def __str__(self) -> str:
        config = " ".join(f"{key}={value}" for key, value in self.config.items())
        return f"+ {self.topic} partitions={self.partitions} replication.factor={self.replication_factor} {config}"


@dataclass(frozen=True, slots=True)
class ConfigChanged:
    """New values of a topic's settings, each with the one before it."""

    topic: str
    values: Mapping[str, tuple[str | None, str]]  # key: (before, after)

    def __str__(self) -> str:
        return f"~ {self.topic} " + " ".join(f"{key}: {before} -> {after}" for key, (before, after) in self.values.items())


Change = TopicCreated | ConfigChanged


def config_of(topic: Topic, replication: Replication) -> Mapping[str, str]:
    """Settings that the code owns; all others are the operator's, and stay as they are."""
    return {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(topic.retention_ms),
        "min.insync.replicas": str(replication.min_insync),
        "max.message.bytes": str(topic.max_message_bytes),
        # An acknowledged decision may not vanish because a replica that lagged was elected.
        "unclean.leader.election.enable": "false",
    }


def diff(wanted: Sequence[Topic], found: Mapping[str, Found], replication: Replication) -> Sequence[Change]:
    """Changes in the order of the topics; none when all is as it should be. Raises Refused."""
    refusals, changes = list[str](), list[Change]()
    for topic in wanted:
        config = config_of(topic, replication)
        there = found.get(topic.name)
        if there is None:
            changes.append(TopicCreated(topic.name, topic.partitions, replication.factor, config))
            continue
        refusals += refused(topic, there, replication)
        values = {k: (there.config.get(k), v) for k, v in config.items() if there.config.get(k) != v}
        if values:
            changes.append(ConfigChanged(topic.name, values))
    if refusals:
        raise Refused("\n".join(refusals))
    return changes


def refused(topic: Topic, there: Found, replication: Replication) -> Sequence[str]:
    sentences = []
    if there.partitions != topic.partitions:
        sentences.append(
            f"{topic.name} has {there.partitions} partitions and should have {topic.partitions}: the count is never changed,"
            " since it decides which partition a key lies in. Copy the topic's records into a new one instead."
        )
    if there.replication_factor != replication.factor:
        sentences.append(
            f"{topic.name} has replication factor {there.replication_factor} and should have {replication.factor}: move the"
            " replicas with kafka-reassign-partitions.sh, or set FW_KAFKA_REPLICATION_FACTOR to what the cluster has."
        )
    return sentences
