"""Whose keys: who a person is decides the key that seals what is known of them.

Invariant: a name that a tenant gives a viewer leaves the edge only sealed. The log and the key store know a tag in its place,
which only those who have the installation's secret can compute, so that an erasure itself says nothing of whom it is about.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Final
from uuid import UUID

from streams.generated import PersonalKind

KEPT_DAYS: Final = 30
"""How long the keys of a day live (FW_PRIVACY_DAYS). Those of a viewer with a name, and of a contact, live until erased."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whose a key is. `subject`: of kind VIEWER, the name that the tenant gave; `day`: of the kinds that have one, UTC."""

    tenant_id: UUID
    kind: PersonalKind
    subject: str | None = None
    day: date | None = None


@dataclass(frozen=True, slots=True)
class Whose:
    """The same as the log and the key store know it."""

    tenant_id: UUID
    kind: PersonalKind
    subject_tag: bytes | None = None
    day: date | None = None


def whose(secret_key: bytes, person: Person) -> Whose:
    tag = None if person.subject is None else subject_tag(secret_key, person.tenant_id, person.subject)
    return Whose(person.tenant_id, person.kind, tag, person.day)


def subject_tag(secret_key: bytes, tenant_id: UUID, subject: str) -> bytes:
    """Stands for a named viewer: the same for the same name of the same tenant, and for nothing else."""
    key = hmac.digest(secret_key, b"frameworks subject tag", "sha256")
    return hmac.digest(key, tenant_id.bytes + subject.encode(), "sha256")


def viewer_day(day_secret: bytes, tenant_id: UUID, who: str) -> str:
    """Pseudonym of a viewer for one day. The tenant goes into it, so nobody is recognised across two of them."""
    # BLAKE2's own keyed mode: every viewer who joins passes here, and it takes a fifth of the time of HMAC.
    return blake2b(tenant_id.bytes + who.encode("utf-8", "replace"), key=day_secret, digest_size=16).hexdigest()


def expires_at(day: date | None, kept_days: int) -> datetime | None:
    """When a key's time is over: so many days after the end of its day; None: it has none."""
    if day is None:
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1 + kept_days)
