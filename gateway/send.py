"""Commands to the log, outcomes from it.

Invariant: a command is sent once or more, decided once. Its id comes from the client's key where there is one, so whoever does
not know what became of it sends it again and is told. An outcome is whatever stands on the decisions topic, read committed;
nothing is assumed from a successful send.

1. the waiter is registered under the command id and the fingerprint of the wish: of two who use one key for two wishes at
   once, each gets the outcome of its own
2. the command goes to the tenant's partition, with acks of all replicas
3. the tail of the decisions topic (gateway/tail.py) hands over the first outcome with both
4. after the deadline: Pending. The command may still be decided; the waiter is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from uuid import UUID

from aiokafka.errors import KafkaError
from prometheus_client import Counter, Histogram

from streams.codec import Header, encode, headers
from streams.fingerprint import fingerprint
from streams.generated import Command, CommandHandled, CommandStatus, Meta
from streams.recorded import Position
from streams.telemetry import log
from streams.topics import Topic, partition_of

DEADLINE_SECONDS: Final = 5.0
logger = log(__name__)
sent = Counter("fw_gateway_commands_total", "Commands sent, by what became of them", ["command", "result"])
waited = Histogram(
    "fw_gateway_command_seconds",
    "From send to outcome",
    ["command"],
    buckets=(0.002, 0.004, 0.008, 0.012, 0.016, 0.024, 0.032, 0.064, 0.128, 0.256, 0.512, 1, 5),
)


@dataclass(frozen=True, slots=True)
class Accepted:
    position: Position


@dataclass(frozen=True, slots=True)
class Declined:
    """The business said no."""

    code: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True)
class Pending:
    """Not known in time."""

    command_id: UUID


Answer = Accepted | Declined | Pending


@dataclass(frozen=True, slots=True)
class Addressed:
    """A command and what stands beside it: which, whose, about what, by whom."""

    command: Command
    command_id: UUID
    tenant_id: UUID
    aggregate_id: UUID
    actor: str


class Producer(Protocol):
    async def send_and_wait(
        self, topic: str, value: bytes, key: bytes, partition: int, timestamp_ms: int, headers: Sequence[Header]
    ) -> object: ...


class Outcomes:
    """Who waits for which command. The tail feeds it; it never grows beyond the commands in flight."""

    def __init__(self) -> None:
        self.newest: dict[int, Position] = {}  # partition: where its last accepted command stands
        self._waiting: dict[tuple[UUID, bytes], list[asyncio.Future[Answer]]] = {}  # by command id and fingerprint

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, command_id: UUID, wish: bytes) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault((command_id, wish), []).append(future)
        return future

    def forget(self, command_id: UUID, wish: bytes, future: asyncio.Future[Answer]) -> None:
        futures = self._waiting.get((command_id, wish), [])
        if future in futures:
            futures.remove(future)
        if not futures:
            self._waiting.pop((command_id, wish), None)

    def handled(self, outcome: CommandHandled, position: Position) -> None:
        """An outcome was read. Only the first of a command and wish is anybody's answer."""
        if outcome.status is CommandStatus.ACCEPTED:
            self.newest[position.partition] = position
        for future in self._waiting.pop((outcome.command_id, outcome.fingerprint), ()):
            if future.done():
                continue
            if outcome.status is CommandStatus.ACCEPTED:
                future.set_result(Accepted(position))
            else:
                code = outcome.code or "REJECTED"
                future.set_result(Declined(code, outcome.message or "The command was rejected.", outcome.field))


class Sender:
    def __init__(self, producer: Producer, topic: Topic, outcomes: Outcomes, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._producer, self._topic, self._outcomes = producer, topic, outcomes
        self._deadline_seconds = deadline_seconds

    async def send(self, addressed: Addressed, traceparent: str | None) -> Answer:
        """Sends a command and waits for its outcome. Safe to repeat with the same command id."""
        name = type(addressed.command).__name__
        with waited.labels(name).time():
            answer = await self._answer(addressed, traceparent)
        result = {Accepted: "accepted", Declined: "rejected", Pending: "pending"}[type(answer)]
        sent.labels(name, result).inc()
        return answer

    def newest(self, tenant_id: UUID) -> Position | None:
        """A position behind every change of the tenant that was answered here; None when there was none since the start."""
        return self._outcomes.newest.get(partition_of(tenant_id, self._topic.partitions))

    async def _answer(self, addressed: Addressed, traceparent: str | None) -> Answer:
        command_id = addressed.command_id
        meta = Meta(
            event_id=command_id,
            tenant_id=addressed.tenant_id,
            aggregate_id=addressed.aggregate_id,
            version=0,
            causation_id=command_id,
            correlation_id=command_id,
            occurred_at=issued_at(),
            actor=addressed.actor,
        )
        wish = fingerprint(addressed.command, addressed.aggregate_id)
        future = self._outcomes.expect(command_id, wish)
        try:
            async with asyncio.timeout(self._deadline_seconds):
                await self._producer.send_and_wait(
                    self._topic.name,
                    value=encode(addressed.command, meta),
                    key=addressed.tenant_id.bytes,
                    partition=partition_of(addressed.tenant_id, self._topic.partitions),
                    timestamp_ms=int(meta.occurred_at.timestamp() * 1000),
                    headers=headers(addressed.command, meta, traceparent),
                )
                return await future
        except TimeoutError:
            return Pending(command_id)
        except KafkaError as error:
            # It may or may not be on the log: only sending it again tells.
            logger.warning("command not acknowledged", command_id=str(command_id), error=repr(error))
            return Pending(command_id)
        finally:
            self._outcomes.forget(command_id, wish, future)


def issued_at() -> datetime:
    """Now, in the milliseconds that the log keeps."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
