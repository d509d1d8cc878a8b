"""What an installation of before builds becomes: its tables move, its readers and positions stay."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config

from projections import builds, platform, streams
from projections.dead_letters import DeadLetters
from projections.model import TP
from projections.platform import connect, migrate
from projections.postgres_store import PostgresStore
from streams.ids import new_id
from streams.topics import Topics
from tests import projection_log as log

MADE = """
CREATE SCHEMA projection;
CREATE TABLE projection.streams_v{version} (LIKE {made} INCLUDING ALL);
INSERT INTO projection.streams_v{version} (tenant_id, stream_id, title) VALUES ('{tenant}', '{stream}', 'of before');
CREATE VIEW public.streams AS SELECT * FROM projection.streams_v{version};
INSERT INTO platform.projection_definition
    VALUES ('streams', {version}, 'CREATE TABLE IF NOT EXISTS projection.streams_v{version} (tenant_id');
INSERT INTO platform.projection_version VALUES ('streams', {version});
INSERT INTO platform.projection_offset (projection, version, topic, partition, next_offset) VALUES
    ('streams', {version}, 'a.fw.decisions', 0, 1), ('samples', 1, 'a.fw.samples', 0, 5);
"""


async def test_versions_become_builds_and_the_worker_goes_on(database: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(platform.__file__).with_name("migrations")))
    config.attributes["url"] = database
    await asyncio.to_thread(command.upgrade, config, "0001")
    pool, tenant, stream = await connect(database), new_id(), new_id()
    await pool.execute(f"CREATE SCHEMA shape; SET search_path = shape; {streams.STREAMS.ddl()}; SET search_path = DEFAULT")
    version = streams.PROJECTION.version
    made = MADE.format(made="shape.streams", tenant=tenant, stream=stream, version=version)
    await pool.execute(made + "DROP SCHEMA shape CASCADE")
    await migrate(database)

    decided, tp = log.Log("a.fw.decisions"), TP("a.fw.decisions", 0)
    for n, title in enumerate(("of before", "of now"), 1):
        decided.append(0, log.created(title), log.meta(tenant, stream, version=n))
    topics = Topics("a.")
    store = PostgresStore(streams.PROJECTION, topics, pool, DeadLetters("streams", topics, "127.0.0.1:1", pool))
    await store.prepare()
    assert await store.load_offsets([tp]) == {tp: 1}
    assert await pool.fetchval("SELECT title FROM streams") == "of before"
    await store.apply(tp, decided.records[tp])
    assert await pool.fetchval("SELECT title FROM streams") == "of now"
    assert await pool.fetchval(f"SELECT title FROM projection_streams_b{version}.streams") == "of now"
    of_samples = await builds.active(pool, "samples")
    assert of_samples is not None
    assert (of_samples.number, of_samples.definition) == (1, "")
    await store.close()
