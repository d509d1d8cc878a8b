"""Builds of projections: several of one projection side by side, one of them active.

What the versions of before made becomes builds of the same number; their definition was not remembered as it is now, so it is
empty, and the first worker fills it in.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE platform.projection_build (
            projection text, build int,
            version int NOT NULL,  -- of the code that made it
            definition text NOT NULL,  -- what its tables are; '': unknown
            state text NOT NULL CHECK (state IN ('building', 'active', 'kept', 'scratch', 'dropped')),
            created_at timestamptz NOT NULL DEFAULT now(),
            activated_at timestamptz,
            PRIMARY KEY (projection, build)
        )""")
    op.execute("CREATE UNIQUE INDEX projection_active ON platform.projection_build (projection) WHERE state = 'active'")
    op.execute("ALTER TABLE platform.projection_offset RENAME COLUMN version TO build")
    op.execute("ALTER TABLE platform.projection_offset ADD COLUMN retired boolean NOT NULL DEFAULT false")
    op.execute("""
        INSERT INTO platform.projection_build (projection, build, version, definition, state, created_at, activated_at)
        SELECT o.projection, o.build, o.build, '',
            CASE WHEN o.build = coalesce(v.active, max(o.build) OVER (PARTITION BY o.projection)) THEN 'active' ELSE 'kept' END,
            coalesce(v.activated_at, now()), coalesce(v.activated_at, now())
        FROM (
            SELECT DISTINCT projection, build FROM platform.projection_offset
            UNION SELECT projection, active FROM platform.projection_version
            UNION SELECT projection, version FROM platform.projection_definition
        ) o LEFT JOIN platform.projection_version v USING (projection)""")
    op.execute("""
        UPDATE platform.projection_offset o SET retired = true FROM platform.projection_build b
        WHERE b.projection = o.projection AND b.build = o.build AND b.state <> 'active'""")
    op.execute("""
        DO $$
        DECLARE t record; home text;
        BEGIN
            FOR t IN
                SELECT d.projection, d.version, c.relname, left(c.relname, -length('_v' || d.version)) AS plain
                FROM platform.projection_definition d
                JOIN pg_namespace n ON n.nspname = 'projection'
                JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind = 'r'
                    AND position('projection.' || c.relname || ' (' IN d.definition) > 0
            LOOP
                home := format('projection_%s_b%s', t.projection, t.version);
                EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', home);
                EXECUTE format('ALTER TABLE projection.%I SET SCHEMA %I', t.relname, home);
                EXECUTE format('ALTER TABLE %I.%I RENAME TO %I', home, t.relname, t.plain);
            END LOOP;
        END $$""")
    op.execute("DROP TABLE platform.projection_version, platform.projection_definition")
    op.execute("DROP SCHEMA IF EXISTS projection")
    op.execute("""
        CREATE TABLE platform.projection_replay (
            projection text, tenant_id text, from_at timestamptz, to_at timestamptz,  -- what was asked for
            topic text, partition int,
            next_offset bigint NOT NULL, end_offset bigint NOT NULL,
            PRIMARY KEY (projection, tenant_id, from_at, to_at, topic, partition)
        )""")


def downgrade() -> None:
    raise NotImplementedError("builds cannot become versions again: restore the database, or rebuild the projections")
