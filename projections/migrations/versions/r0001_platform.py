"""Positions, active versions and dead letters of projections."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE platform.projection_offset (
            projection text, version int, topic text, partition int,
            next_offset bigint,  -- NULL: from the beginning
            advanced_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (projection, version, topic, partition)
        ) WITH (fillfactor = 50)""")
    op.execute("""
        CREATE TABLE platform.projection_version (
            projection text PRIMARY KEY,
            active int NOT NULL,
            activated_at timestamptz NOT NULL DEFAULT now()
        )""")
    op.execute("""
        CREATE TABLE platform.projection_definition (
            projection text, version int,
            definition text NOT NULL,  -- the DDL that made its tables: a change of it needs another version
            PRIMARY KEY (projection, version)
        )""")
    op.execute("""
        CREATE TABLE platform.dead_letter (
            projection text, topic text, partition int, "offset" bigint,
            reason text NOT NULL,
            buried_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (projection, topic, partition, "offset")
        )""")


def downgrade() -> None:
    op.execute("DROP SCHEMA platform CASCADE")
