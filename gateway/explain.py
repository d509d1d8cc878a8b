"""Explain tokens: a number that the API gave, sealed together with what it takes to show the facts behind it.

Invariant: a token is never trusted. It is signed with a key of the installation, good for a week, and opens only for the tenant
that it was given to; what it names is read with the caller's tenant id all the same.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from gateway.connections import Connection
from gateway.errors import ApiError
from projections.explanations import Part, Question
from projections.moments import Moment, from_milliseconds, milliseconds

GOOD_FOR: Final = timedelta(days=7)
LONGEST: Final = 2048
_MAC_BYTES: Final = 16
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Explanation(Connection[Part]):
    """One page of the facts behind a number."""

    number: str
    value: int
    stream_id: UUID
    at: datetime | None
    known_at: datetime


def token_of(secret_key: bytes, tenant_id: UUID, question: Question, asked_at: datetime | None = None) -> str:
    """The text that opens the facts behind a number."""
    moment = question.moment
    asked_ms = milliseconds(asked_at or datetime.now(UTC))
    body = orjson.dumps(
        (
            _VERSION,
            tenant_id.hex,
            question.number,
            question.stream_id.hex,
            question.value,
            asked_ms,
            None if moment.at is None else milliseconds(moment.at),
            None if moment.known_at is None else milliseconds(moment.known_at),
            moment.upto,
            question.peak_at_ms,
            [(table, event_id.hex) for table, event_id in question.events],
        )
    )
    return base64.urlsafe_b64encode(_mac(secret_key, body) + body).decode().rstrip("=")


def opened(secret_key: bytes, tenant_id: UUID, token: str) -> tuple[Question, datetime]:
    """The number, and when it was asked for. Raises ApiError: not ours, another tenant's, or too old."""
    body = _body(secret_key, token)
    if body is None:
        raise ApiError("BAD_EXPLAIN_TOKEN", "The token is not one of yours: take it whole from `explain` beside a number.")
    _, tenant, number, stream_id, value, asked_ms, at, known_at, upto, peak_at_ms, events = orjson.loads(body)
    if tenant != tenant_id.hex:
        raise ApiError("BAD_EXPLAIN_TOKEN", "The token is not one of yours: take it whole from `explain` beside a number.")
    asked_at = from_milliseconds(asked_ms)
    if datetime.now(UTC) - asked_at > GOOD_FOR:
        raise ApiError("EXPLAIN_TOKEN_EXPIRED", f"The token is older than {GOOD_FOR.days} days: ask for the number again.")
    moment = Moment(
        None if at is None else from_milliseconds(at), None if known_at is None else from_milliseconds(known_at), upto
    )
    said = tuple((str(table), UUID(event_id)) for table, event_id in events)
    return Question(number, UUID(stream_id), value, moment, peak_at_ms, said), asked_at


def _body(secret_key: bytes, token: str) -> bytes | None:
    """What was signed here; None: nothing was."""
    if len(token) > LONGEST:
        return None
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    mac, body = data[:_MAC_BYTES], data[_MAC_BYTES:]
    return body if hmac.compare_digest(mac, _mac(secret_key, body)) else None


def _mac(secret_key: bytes, body: bytes) -> bytes:
    return hmac.digest(secret_key, b"frameworks/explain/1:" + body, "sha256")[:_MAC_BYTES]


def of_facts(number: str, stream_id: UUID, value: int, events: Sequence[tuple[str, UUID | None]]) -> Question:
    """A number that one fact says: the first of the events that are there."""
    return Question(number, stream_id, value, events=tuple((table, e) for table, e in events if e is not None))
