"""A key store of a test: a database of its own, migrated, and a master key in a directory of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg

from projections.platform import migrate
from streams.generated import PersonalKind
from streams.ids import new_id
from streams.privacy.key_store import KeyStore, NewKey
from streams.privacy.people import Whose
from streams.privacy.sealing import new_key
from streams.settings import Settings
from streams.topics import Topics
from tests.ingress import ingress_settings

TENANT, OTHER = UUID(int=1), UUID(int=2)
ALICE, BOB = (Whose(TENANT, PersonalKind.VIEWER, tag * 32) for tag in (b"a", b"b"))


def settings_of(database: str, data_dir: Path, kafka: str = "", topics: Topics | None = None) -> Settings:
    return replace(ingress_settings(kafka, topics or Topics()), postgres_url=database, data_dir=data_dir)


@asynccontextmanager
async def key_store(database: str, data_dir: Path) -> AsyncIterator[KeyStore]:
    await migrate(database)
    store = KeyStore(settings_of(database, data_dir))
    try:
        yield store
    finally:
        await store.close()


def made(whose: Whose = ALICE, *, at: datetime | None = None, expires_at: datetime | None = None) -> NewKey:
    """A new key of somebody."""
    return NewKey(new_id(), new_key(), whose, at or datetime.now(UTC), expires_at)


async def fetch(database: str, statement: str, *values: object) -> Sequence[asyncpg.Record]:
    db = await asyncpg.connect(database)
    try:
        return list(await db.fetch(statement, *values))
    finally:
        await db.close()
