"""What is sealed in facts and decisions, as it stands there: ciphertext, which only the key store's keys open.

No table has anything of it in the clear, so an erasure changes nothing here: it takes the key away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from projections.clickhouse import AsyncClient, rows
from projections.model import Database
from streams.codec import decode
from streams.generated import ErasureReason, ErasureRequested, PersonalKind, SubjectErased, TenantRegistered
from streams.privacy.reading import Sealed

_JOINS: Final = """
SELECT viewing_id, event_id, hex(address), hex(subject) FROM viewer_joined_v
WHERE tenant_id = {tenant_id:UUID} AND viewing_id IN {ids:Array(UUID)}
ORDER BY occurred_at, event_id LIMIT 1 BY viewing_id"""
_STARTS: Final = """
SELECT ingest_id, event_id, hex(address) FROM ingest_started_v
WHERE tenant_id = {tenant_id:UUID} AND ingest_id IN {ids:Array(UUID)}
ORDER BY occurred_at, event_id LIMIT 1 BY ingest_id"""
_REGISTERED: Final = "SELECT value FROM journal WHERE tenant_id = $1 AND aggregate_id = $1 AND event_type = 'TenantRegistered'"
_ERASURES: Final = """
SELECT aggregate_id, event_type, occurred_at, actor, value FROM journal
WHERE tenant_id = $1 AND event_type IN ('ErasureRequested', 'SubjectErased') ORDER BY log_partition, log_offset"""


@dataclass(frozen=True, slots=True)
class Erasure:
    """One erasure. Until the keys are destroyed, `erased_at` and `keys_destroyed` are None."""

    id: UUID
    kind: PersonalKind
    reason: ErasureReason
    day: str | None
    requested_at: datetime
    requested_by: str
    erased_at: datetime | None = None
    keys_destroyed: int | None = None


async def of_viewings(
    ch: AsyncClient, tenant_id: UUID, viewing_ids: Sequence[UUID]
) -> Mapping[UUID, tuple[Sealed | None, Sealed | None]]:
    """Address and name of the viewer, of each viewing whose join is known."""
    found = await rows(ch, _JOINS, {"tenant_id": tenant_id, "ids": list(viewing_ids)})
    return {row[0]: (_sealed(row[2], row[1], "address"), _sealed(row[3], row[1], "subject")) for row in found}


async def of_ingests(ch: AsyncClient, tenant_id: UUID, ingest_ids: Sequence[UUID]) -> Mapping[UUID, Sealed | None]:
    """Address of the publisher, of each publishing whose start is known."""
    found = await rows(ch, _STARTS, {"tenant_id": tenant_id, "ids": list(ingest_ids)})
    return {row[0]: _sealed(row[2], row[1], "address") for row in found}


async def contact_of(db: Database, tenant_id: UUID) -> Sealed | None:
    """The tenant's contact, as it was registered."""
    row = await db.fetchrow(_REGISTERED, tenant_id)
    if row is None:
        return None
    event, _ = decode(row["value"])
    assert isinstance(event, TenantRegistered)
    return None if event.contact_email is None else Sealed(event.contact_email, tenant_id, "contact_email")


async def erasures(db: Database, tenant_id: UUID, first: int) -> Sequence[Erasure]:
    """Erasures of a tenant, the newest first."""
    found: dict[UUID, Erasure] = {}
    for row in await db.fetch(_ERASURES, tenant_id):
        event, _ = decode(row["value"])
        match event:
            case ErasureRequested(kind=kind, reason=reason, day=day):
                found[row["aggregate_id"]] = Erasure(row["aggregate_id"], kind, reason, day, row["occurred_at"], row["actor"])
            case SubjectErased(kind=kind, reason=reason, day=day, keys_destroyed=keys):
                known = found[row["aggregate_id"]]  # versions are contiguous: the request stands before it
                found[known.id] = Erasure(
                    known.id, kind, reason, day, known.requested_at, known.requested_by, row["occurred_at"], keys
                )
            case _:
                pass
    return [*reversed(found.values())][:first]


def _sealed(hexadecimal: str | None, event_id: UUID, field: str) -> Sealed | None:
    return Sealed(bytes.fromhex(hexadecimal), event_id, field) if hexadecimal else None
