"""Data keys of personal data, what was erased, and how far reactors have read."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE platform.data_key (
            key_id uuid PRIMARY KEY,
            tenant_id uuid NOT NULL,
            kind text NOT NULL,
            subject_tag bytea,  -- a viewer with a name, as a keyed pseudonym
            day date,
            made_at timestamptz NOT NULL,
            expires_at timestamptz,  -- NULL: lives until it is erased
            master_key_id bytea NOT NULL,
            wrapped bytea,  -- by the master key; NULL: destroyed
            destroyed_at timestamptz,
            CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
        )""")
    op.execute("CREATE INDEX data_key_by_person ON platform.data_key (tenant_id, kind, subject_tag, day)")
    op.execute("CREATE INDEX data_key_by_end ON platform.data_key (expires_at) WHERE wrapped IS NOT NULL")
    op.execute("""
        CREATE TABLE platform.erasure (
            erasure_id uuid PRIMARY KEY,
            tenant_id uuid NOT NULL,
            kind text NOT NULL,
            subject_tag bytea,
            day date,
            keys_destroyed int NOT NULL,
            destroyed_at timestamptz NOT NULL
        )""")
    op.execute("CREATE INDEX erasure_by_person ON platform.erasure (tenant_id, kind, subject_tag, day)")
    op.execute("""
        CREATE TABLE platform.reactor_position (
            reactor text, topic text, partition int,
            next_offset bigint NOT NULL,
            PRIMARY KEY (reactor, topic, partition)
        )""")


def downgrade() -> None:
    op.execute("DROP TABLE platform.data_key, platform.erasure, platform.reactor_position")
