"""What is done before our processes start (`python -m infra.supervisor.jobs topics|migrations`); twice is harmless."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
from pathlib import Path

import asyncpg

from infra import kafka
from projections import platform
from streams.errors import Transient
from streams.settings import Settings, SettingsError, read_settings


async def topics(settings: Settings) -> None:
    copies = kafka.Replication(settings.replication_factor)
    for change in await kafka.apply(settings.kafka, settings.topics, copies):
        print(change)


async def migrations(settings: Settings) -> None:
    """Migrates unless these very migrations were the last to run here: Alembic takes a second to import."""
    directory = Path(platform.__file__).with_name("migrations")
    content = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(directory.rglob("*.py")))).hexdigest()
    connection = await asyncpg.connect(settings.postgres_url)
    try:
        if await connection.fetchval("SELECT obj_description(to_regnamespace('platform'), 'pg_namespace')") == content:
            return
        await platform.migrate(settings.postgres_url)
        print("the schema `platform` is up to date")
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"COMMENT ON SCHEMA platform IS '{content}'")
    finally:
        await connection.close()


JOBS = {"topics": topics, "migrations": migrations}


def main() -> None:
    try:
        asyncio.run(JOBS[sys.argv[1]](read_settings()))
    except (kafka.Refused, Transient, SettingsError, asyncpg.PostgresError, OSError) as error:
        raise SystemExit(f"{sys.argv[1]}: {error}") from None


if __name__ == "__main__":
    main()
