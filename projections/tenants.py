"""Tenants, the API tokens that stand for them, and the keys that their viewers' tokens are signed with.

Reads decisions. A token is known by its hash; its prefix only finds it. A revoked one has no hash any more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg

from projections.changes import Changes
from projections.model import Database, Delivered, TableProjection
from projections.tables import Column, Index, Merge, Table
from streams.generated import (
    ApiTokenIssued,
    ApiTokenRevoked,
    SigningKeyCreated,
    SigningKeyRevoked,
    SuspensionReason,
    TenantLimitsSet,
    TenantRegistered,
    TenantReinstated,
    TenantStanding,
    TenantSuspended,
)

VERSION: Final = 2
NO_LIMIT: Final = -1  # null would leave the limit as it was

TENANTS: Final = Table(
    "tenants",
    key=("tenant_id",),
    columns=(
        Column("tenant_id", "uuid"),
        Column("name", "text"),
        Column("registered_at", "timestamptz"),
        Column("standing", "text"),
        Column("max_live_streams", "int"),
    ),
)
SIGNING_KEYS: Final = Table(
    "signing_keys",
    key=("tenant_id", "key_id"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("key_id", "text"),
        Column("name", "text"),
        Column("algorithm", "text"),
        Column("public_key", "bytea"),
        Column("created_at", "timestamptz", Merge.FIRST),
        Column("revoked_at", "timestamptz", Merge.FIRST),
    ),
)
API_TOKENS: Final = Table(
    "api_tokens",
    key=("tenant_id", "token_prefix"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("token_prefix", "text"),
        Column("token_hash", "bytea"),
        Column("name", "text"),
        Column("issued_at", "timestamptz", Merge.FIRST),
    ),
    # Not unique: two tenants with one prefix must not stop the line.
    indexes=(Index("by_prefix", "(token_prefix, issued_at)"),),
)


async def apply(batch: Sequence[Delivered], db: Database) -> None:
    tenants, tokens, keys = Changes(TENANTS), Changes(API_TOKENS), Changes(SIGNING_KEYS)
    fold(batch, tenants, tokens, keys)
    for changes in (tenants, tokens, keys):
        await changes.upsert(db)


def fold(batch: Sequence[Delivered], tenants: Changes, tokens: Changes, keys: Changes) -> None:
    """The one meaning of these events: of the tables, of the past (`as_of`), and of what a decision changed (`differences`)."""
    for delivered in batch:
        meta = delivered.meta
        match delivered.event:
            case TenantRegistered(name=name):
                tenants.put(
                    (meta.tenant_id,),
                    name=name,
                    registered_at=meta.occurred_at,
                    standing=TenantStanding.ACTIVE.value,
                    max_live_streams=NO_LIMIT,
                )
            case TenantSuspended(reason=reason):
                standing = reason.value if reason is not SuspensionReason.OTHER else TenantStanding.SUSPENDED.value
                tenants.put((meta.tenant_id,), standing=standing)
            case TenantReinstated():
                tenants.put((meta.tenant_id,), standing=TenantStanding.ACTIVE.value)
            case TenantLimitsSet(max_live_streams=limit):
                tenants.put((meta.tenant_id,), max_live_streams=NO_LIMIT if limit is None else limit)
            case SigningKeyCreated() as key:
                of = (meta.tenant_id, key.key_id)
                keys.put(of, name=key.name, algorithm=key.algorithm.value, public_key=key.public_key)
                keys.first(of, created_at=meta.occurred_at)
            case SigningKeyRevoked(key_id=key_id):
                keys.first((meta.tenant_id, key_id), revoked_at=meta.occurred_at)
            case ApiTokenIssued(name=name, token_prefix=prefix, token_hash=digest):
                tokens.put((meta.tenant_id, prefix), name=name, token_hash=digest)
                tokens.first((meta.tenant_id, prefix), issued_at=meta.occurred_at)
            case ApiTokenRevoked(token_prefix=prefix):
                tokens.put((meta.tenant_id, prefix), token_hash=b"")
            case _:
                pass


PROJECTION: Final = TableProjection(
    name="tenants",
    version=VERSION,
    topics=("decisions",),
    handles=frozenset(
        {
            TenantRegistered,
            ApiTokenIssued,
            ApiTokenRevoked,
            TenantSuspended,
            TenantReinstated,
            TenantLimitsSet,
            SigningKeyCreated,
            SigningKeyRevoked,
        }
    ),
    tables=(TENANTS, API_TOKENS, SIGNING_KEYS),
    apply=apply,
)


class TenantRow(NamedTuple):
    tenant_id: UUID
    name: str
    registered_at: datetime
    standing: str
    max_live_streams: int | None


class SigningKeyRow(NamedTuple):
    key_id: str
    name: str
    algorithm: str
    public_key: bytes
    created_at: datetime
    revoked_at: datetime | None


class TokenOwner(NamedTuple):
    """Whose token it is if its SHA-256 is `token_hash`; compare in constant time."""

    tenant_id: UUID
    token_hash: bytes


async def token_owner(db: Database, token_prefix: str) -> TokenOwner | None:
    """Who owns the token with this prefix; None: nobody."""
    row = await db.fetchrow(
        "SELECT tenant_id, token_hash FROM api_tokens WHERE token_prefix = $1 AND token_hash <> '' ORDER BY issued_at LIMIT 1",
        token_prefix,
    )
    return TokenOwner(*row) if row else None


async def tenant_by_id(db: Database, tenant_id: UUID) -> TenantRow | None:
    row = await db.fetchrow(
        "SELECT tenant_id, name, registered_at, standing, max_live_streams FROM tenants WHERE tenant_id = $1", tenant_id
    )
    return tenant_row(row) if row else None


def tenant_row(row: Mapping[str, Any] | asyncpg.Record) -> TenantRow:
    """A row of the table, or of a fold."""
    limit = row["max_live_streams"]
    name, standing = row["name"], row["standing"]
    return TenantRow(row["tenant_id"], name, row["registered_at"], standing, None if limit == NO_LIMIT else limit)


async def signing_keys(db: Database, tenant_id: UUID) -> Sequence[SigningKeyRow]:
    """All that the tenant ever had, the newest first."""
    found = await db.fetch(
        "SELECT key_id, name, algorithm, public_key, created_at, revoked_at FROM signing_keys "
        "WHERE tenant_id = $1 AND created_at IS NOT NULL ORDER BY created_at DESC, key_id",
        tenant_id,
    )
    return [SigningKeyRow(*row) for row in found]


async def token_names(db: Database, tenant_id: UUID, prefixes: Sequence[str]) -> Mapping[str, str]:
    """What the tenant called its tokens, also those that are revoked, by prefix."""
    found = await db.fetch(
        "SELECT token_prefix, name FROM api_tokens WHERE tenant_id = $1 AND token_prefix = ANY($2::text[])", tenant_id, prefixes
    )
    return {row["token_prefix"]: row["name"] for row in found if row["name"]}
