"""Data keys of personal data on the wire: what the ingress tells nodes to seal with, and what nodes hand over.

Invariant: a node forgets an envelope when the ingress has said that its key is kept, or why it never will be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from typing import Final, Protocol
from uuid import UUID

from streams.errors import Invalid
from streams.ingress.ingress_pb2 import DayKeys as DayKeysMessage
from streams.ingress.ingress_pb2 import KeyEnvelope, KeyEnvelopes, KeyRefusal, KeysRegistered
from streams.ingress.ingress_pb2_grpc import IngressStub
from streams.ingress.line import Credential, authorization, open_channel
from streams.privacy.envelope import DayKeys, Envelope

MAX_ENVELOPES: Final = 1000
ANSWER_SECONDS: Final = 30.0
_EPOCH: Final = date(1970, 1, 1)
_LAST_DAY: Final = 100_000  # in the year 2243


class KeyDesk(Protocol):
    """Who publishes keys and keeps them (`streams.privacy.intake`); None where an ingress runs without a key store."""

    @property
    def published(self) -> tuple[DayKeys, ...]: ...
    async def take(self, envelopes: Sequence[Envelope], serves: Callable[[UUID], bool]) -> dict[UUID, str]: ...


def day_messages(days: Iterable[DayKeys]) -> list[DayKeysMessage]:
    return [DayKeysMessage(day=(d.day - _EPOCH).days, intake=d.intake, pseudonyms=d.pseudonyms) for d in days]


def day_keys(messages: Iterable[DayKeysMessage]) -> tuple[DayKeys, ...]:
    return tuple(DayKeys(_date(m.day), m.intake, m.pseudonyms) for m in messages)


def envelopes(request: KeyEnvelopes) -> list[Envelope]:
    """Raises Invalid: not as the protocol says."""
    if len(request.envelopes) > MAX_ENVELOPES:
        raise Invalid(f"at most {MAX_ENVELOPES} envelopes at once, not {len(request.envelopes)}")
    if any(len(e.key_id) != 16 for e in request.envelopes):
        raise Invalid("a key id has 16 bytes")
    return [Envelope(UUID(bytes=e.key_id), _date(e.day), e.courier, e.body) for e in request.envelopes]


def registered(refused: dict[UUID, str]) -> KeysRegistered:
    return KeysRegistered(refusals=[KeyRefusal(key_id=i.bytes, reason=reason) for i, reason in refused.items()])


async def hand_over(address: str, credential: Credential, sent: Sequence[Envelope]) -> dict[UUID, str]:
    """Gives data keys to the ingress; what it refused, with a sentence. AioRpcError, OSError, ValueError: nothing is known."""
    request = KeyEnvelopes(
        envelopes=[KeyEnvelope(key_id=e.key_id.bytes, day=(e.day - _EPOCH).days, courier=e.courier, body=e.body) for e in sent]
    )
    async with open_channel(address, credential) as channel:
        call = IngressStub(channel).RegisterKeys(request, metadata=authorization(credential), timeout=ANSWER_SECONDS)
        answer: KeysRegistered = await call
    return {UUID(bytes=r.key_id): r.reason for r in answer.refusals}


def _date(days: int) -> date:
    """Raises Invalid."""
    if days > _LAST_DAY:
        raise Invalid(f"day {days} is none")
    return _EPOCH + timedelta(days=days)
