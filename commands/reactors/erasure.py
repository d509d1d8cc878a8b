"""Erasure: destroys the keys of a person's data when that was decided, and when the keys' time is over.

Invariant: what was decided happens, once, and is confirmed with what it was. In this order:

1. the keys are destroyed and that is recorded beside them, in one transaction (done again, it destroys what is left: nothing)
2. ConfirmErasure goes to the log; its id is derived from the erasure, so it takes effect once
3. the position moves, when SubjectErased has come back

A confirmation that is refused (the clock of this machine is ahead) is sent again until it is answered by that decision.
A key that comes after that, and was made before, is refused by the key store, which has the record of step 1. Keys whose time is
over are erased the same way: this sends RequestErasure for them, and then meets the decision like any other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from prometheus_client import Counter

from commands.partition import Clock, utc_now
from commands.reactors.follow import Reactor
from streams.codec import encode, headers
from streams.errors import Invalid, Transient
from streams.generated import (
    Command,
    ConfirmErasure,
    ErasureReason,
    ErasureRequested,
    Event,
    Meta,
    RequestErasure,
    SubjectErased,
)
from streams.ids import derive
from streams.privacy.key_store import Due, KeyStore
from streams.privacy.people import Whose
from streams.recorded import Recorded
from streams.telemetry import log
from streams.topics import Topics, partition_of

NAME: Final = "erasure"
ACTOR: Final = f"reactor:{NAME}"
EXPIRY_SECONDS: Final = 30.0
DESTROYED = Counter("fw_erasure_keys_destroyed_total", "Data keys that were destroyed")

logger = log(__name__)


@dataclass(slots=True)
class _Unconfirmed:
    """An erasure that has happened, until the log says so."""

    of: Recorded[Event]
    command: ConfirmErasure
    sent_at: float = 0.0


class Erasures:
    def __init__(self, store: KeyStore, producer: AIOKafkaProducer, topics: Topics, clock: Clock = utc_now) -> None:
        self._store, self._producer, self._topics, self._clock = store, producer, topics, clock
        self._unconfirmed: dict[UUID, _Unconfirmed] = {}
        self.reactor = Reactor(NAME, frozenset({ErasureRequested, SubjectErased}), self.react, self.holds)

    async def react(self, recorded: Recorded[Event]) -> None:
        """Raises Transient, and Invalid: a decision that no decider of ours made."""
        requested, meta = recorded.event, recorded.meta
        erasure_id = meta.aggregate_id
        if isinstance(requested, SubjectErased):
            self._unconfirmed.pop(erasure_id, None)
            return
        assert isinstance(requested, ErasureRequested)
        whose = Whose(meta.tenant_id, requested.kind, requested.subject_tag, _day(requested.day))
        count = await self._store.destroy(erasure_id, whose)
        DESTROYED.inc(count)
        self._unconfirmed[erasure_id] = unconfirmed = _Unconfirmed(recorded, ConfirmErasure(count))
        await self._confirm(unconfirmed)
        logger.info("erased", erasure_id=str(erasure_id), kind=requested.kind.value, keys=count)
        try:
            await self._store.sweep()
        except Transient as error:  # the keys are gone for every reader; this is about old copies in the database's files
            logger.warning("old row versions stay until PostgreSQL's own vacuum", reason=str(error))

    def holds(self, partition: int) -> int | None:
        """The first erasure of a partition that is not confirmed: the position must not pass it."""
        return min((u.of.offset for u in self._unconfirmed.values() if u.of.partition == partition), default=None)

    async def _confirm(self, unconfirmed: _Unconfirmed) -> None:
        unconfirmed.sent_at = asyncio.get_running_loop().time()
        meta, erasure_id = unconfirmed.of.meta, unconfirmed.of.meta.aggregate_id
        command_id = derive(erasure_id, "confirm")
        await self._send(unconfirmed.command, command_id, meta.tenant_id, erasure_id, meta.correlation_id)

    async def confirm_again(self, after_seconds: float = EXPIRY_SECONDS) -> None:
        """Sends what nobody has answered for so long."""
        now = asyncio.get_running_loop().time()
        for unconfirmed in [u for u in self._unconfirmed.values() if u.sent_at + after_seconds <= now]:
            erasure_id = str(unconfirmed.of.meta.aggregate_id)
            logger.warning("an erasure is done and not confirmed: is the clock of this machine right?", erasure_id=erasure_id)
            await self._confirm(unconfirmed)

    async def keep_expiring(self, every_seconds: float = EXPIRY_SECONDS) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.confirm_again()
                await self.expire()
            except (Transient, KafkaError) as error:
                logger.warning("keys whose time is over stay for now", reason=str(error))
            await asyncio.sleep(every_seconds)

    async def expire(self) -> None:
        """Asks for the erasure of keys whose time is over. Asked again meanwhile, it is the same command. Raises Transient."""
        await self._store.expire_own()
        for due in await self._store.due():
            command_id = expiry_id(due)
            command = RequestErasure(due.kind, ErasureReason.EXPIRED, None, due.day.isoformat())
            await self._send(command, command_id, due.tenant_id, derive(command_id, "erasure"), command_id)

    async def _send(self, command: Command, command_id: UUID, tenant_id: UUID, about: UUID, correlation_id: UUID) -> None:
        now = self._clock()
        meta = Meta(
            event_id=command_id,
            tenant_id=tenant_id,
            aggregate_id=about,
            version=0,
            causation_id=command_id,
            correlation_id=correlation_id,
            occurred_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            actor=ACTOR,
        )
        await self._producer.send_and_wait(
            self._topics.commands.name,
            value=encode(command, meta),
            key=tenant_id.bytes,
            partition=partition_of(tenant_id, self._topics.commands.partitions),
            timestamp_ms=int(meta.occurred_at.timestamp() * 1000),
            headers=headers(command, meta),
        )


def expiry_id(due: Due) -> UUID:
    """The command that ends the keys of a tenant's day."""
    return derive(due.tenant_id, "expiry", due.kind.value, due.day.isoformat())


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise Invalid(f"an erasure is of the day {text!r}, which is none") from None
