"""What became of dead letters, and which projections stand still."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
        ALTER TABLE platform.dead_letter
            ADD COLUMN state text NOT NULL DEFAULT 'buried' CHECK (state IN ('buried', 'retried', 'dropped')),
            ADD COLUMN settled_at timestamptz,
            ADD COLUMN settled_by text,
            ADD COLUMN settled_reason text""")
    op.execute("""
        CREATE TABLE platform.projection_halt (
            projection text, topic text, partition int,
            reason text NOT NULL,  -- a sentence that says where, why and what to do
            halted_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (projection, topic, partition)
        )""")


def downgrade() -> None:
    op.execute("DROP TABLE platform.projection_halt")
    op.execute("""
        ALTER TABLE platform.dead_letter
            DROP COLUMN state, DROP COLUMN settled_at, DROP COLUMN settled_by, DROP COLUMN settled_reason""")
