"""Topics by name, and which partition a key belongs to.

Invariant: the partition count of a topic never changes: ownership and order hang on it. A decision lies in the partition of
its command, so the two topics have the same count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from aiokafka.partitioner import murmur2

from streams.registry import by_name

PARTITIONS: Final = 12
DAY_MS: Final = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic is; `infra/kafka` makes it so."""

    name: str
    key: str  # what the key is, for people
    retention_ms: int  # -1: for ever
    partitions: int = PARTITIONS
    cleanup: str = "delete"
    max_message_bytes: int = 2 << 20


@dataclass(frozen=True, slots=True)
class Topics:
    """Every topic. `prefix` (FW_TOPIC_PREFIX) lets installations share a cluster."""

    prefix: str = ""

    def _topic(self, name: str, key: str, retention_ms: int) -> Topic:
        return Topic(self.prefix + name, key, retention_ms)

    @property
    def commands(self) -> Topic:
        return self._topic("fw.commands", "tenant_id", 7 * DAY_MS)

    @property
    def decisions(self) -> Topic:
        """Decisions and the outcomes of commands. The truth: kept for ever."""
        return self._topic("fw.decisions", "tenant_id", -1)

    @property
    def facts(self) -> Topic:
        return self._topic("fw.facts", "stream id (node where there is none)", 30 * DAY_MS)

    @property
    def nodes(self) -> Topic:
        return self._topic("fw.nodes", "node", 30 * DAY_MS)

    @property
    def samples(self) -> Topic:
        return self._topic("fw.samples", "stream id or node", 7 * DAY_MS)

    @property
    def dead_letters(self) -> Topic:
        return self._topic("fw.dead-letters", "projection", 30 * DAY_MS)

    @property
    def policy(self) -> Topic:
        """What edges must know, signed: of each key the newest record. A record lies where its tenant's decisions lie."""
        return Topic(self.prefix + "fw.policy", "policy key (streams/policies.py)", -1, cleanup="compact")

    def all(self) -> tuple[Topic, ...]:
        return (self.commands, self.decisions, self.policy, self.facts, self.nodes, self.samples, self.dead_letters)

    def of(self, record_name: str) -> Topic:
        """The topic that a record lies on, as its schema says. KeyError: it lies on none."""
        name = by_name()[record_name].schema["topic"]
        return next(t for t in self.all() if t.name == f"{self.prefix}{name}")


def partition_of(key: UUID, partitions: int = PARTITIONS) -> int:
    """Partition of a key: Kafka's own murmur2 over the UUID's 16 bytes, so any client finds the same."""
    return int(murmur2(key.bytes) & 0x7FFFFFFF) % partitions
