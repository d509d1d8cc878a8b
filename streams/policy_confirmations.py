"""That the policy is current: said by its writer, behind everything that was decided before.

Invariant: what is confirmed of a time is true. The decisions' ends were asked for after that time (read_uncommitted, so that a
transaction under way counts), and the writer has followed them up to there. Behind a transaction that never ends nothing is
confirmed, and neither is by a writer that stands still: nodes then find their policy growing old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.generated import PolicyConfirmed
from streams.ids import OPERATOR_TENANT
from streams.telemetry import log
from streams.topics import Topic, partition_of

CONFIRM_SECONDS: Final = 10.0
PARTITION: Final = partition_of(OPERATOR_TENANT)  # of the policy topic

Clock = Callable[[], datetime]

logger = log(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Asked:
    at: datetime
    ends: Mapping[TopicPartition, int]


class Confirmations:
    """Of one life of the writer, whose reader `consumer` follows the decisions; `whole` is read_uncommitted."""

    def __init__(self, consumer: AIOKafkaConsumer, whole: AIOKafkaConsumer, decisions: Topic, version: int, clock: Clock) -> None:
        self._consumer, self._whole, self._clock = consumer, whole, clock
        self._partitions = [TopicPartition(decisions.name, n) for n in range(decisions.partitions)]
        self._version = version  # of the newest one on the topic; 0: there is none
        self._asked: _Asked | None = None
        self._due = 0.0

    async def next(self) -> PolicyConfirmed | None:
        """What is to be written now, behind all that was read and not written yet; None: nothing."""
        now = asyncio.get_running_loop().time()
        if self._asked is None and now >= self._due:
            self._asked = await self._ask()
        if self._asked is None or not await self._has_passed(self._asked):
            return None
        at, self._asked, self._due = self._asked.at, None, now + CONFIRM_SECONDS
        self._version += 1
        return PolicyConfirmed(OPERATOR_TENANT, self._version, at)

    async def _ask(self) -> _Asked | None:
        at = self._clock()
        try:
            return _Asked(at, await self._whole.end_offsets(self._partitions))
        except KafkaError as error:
            logger.warning("Kafka does not say where the decisions end, nothing is confirmed", error=repr(error))
            return None

    async def _has_passed(self, asked: _Asked) -> bool:
        return all([await self._consumer.position(tp) >= end for tp, end in asked.ends.items()])
