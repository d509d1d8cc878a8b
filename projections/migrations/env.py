"""Runs the migrations of schema `platform`, one process at a time."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

LOCK = 7_170_101  # any number that nothing else in the database takes


def run(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:n)"), {"n": LOCK})
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS platform"))
    context.configure(connection=connection, version_table="migration", version_table_schema="platform")
    with context.begin_transaction():
        context.run_migrations()


async def migrate(url: str) -> None:
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(migrate(context.config.attributes["url"]))
