"""Which node may publish a stream, so that no two do."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE platform.ingest_lease (
            stream_id uuid PRIMARY KEY,
            tenant_id uuid NOT NULL,
            node_id text NOT NULL,
            ingest_id uuid NOT NULL,
            is_publishing boolean NOT NULL,  -- false: reserved for a publisher that was just admitted
            granted_at timestamptz NOT NULL DEFAULT now(),
            expires_at timestamptz NOT NULL  -- a row that is over stays: its node may come back and go on
        )""")
    op.execute("CREATE INDEX ingest_lease_of_tenant ON platform.ingest_lease (tenant_id, expires_at)")
    op.execute("CREATE INDEX ingest_lease_of_node ON platform.ingest_lease (node_id)")


def downgrade() -> None:
    op.execute("DROP TABLE platform.ingest_lease")
