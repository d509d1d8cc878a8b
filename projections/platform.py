"""The schema `platform`: what the platform knows of its own projections. Alembic owns it, and nothing else.

Invariant: a partition's position of one build of a projection moves only by compare-and-set, and only while the build is not
retired. The row lock that this takes makes rivals wait for one another, and the loser finds the position moved: it is
superseded and must exit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Lock

import asyncpg

from projections.model import TP, Database
from streams.errors import Superseded

_CLAIM = """
INSERT INTO platform.projection_offset (projection, build, topic, partition, retired)
SELECT $1, $2, t.topic, t.partition, b.state IN ('kept', 'dropped')
FROM unnest($3::text[], $4::int[]) AS t (topic, partition), platform.projection_build b
WHERE b.projection = $1 AND b.build = $2 FOR SHARE OF b ON CONFLICT DO NOTHING"""  # FOR SHARE: a flip comes before or after
_LOAD = """
SELECT topic, partition, next_offset FROM platform.projection_offset
WHERE projection = $1 AND build = $2 AND (topic, partition) IN (SELECT * FROM unnest($3::text[], $4::int[]))"""
_LOAD_ACTIVE = """
SELECT topic, partition, next_offset FROM platform.projection_offset o
JOIN platform.projection_build b USING (projection, build)
WHERE projection = $1 AND b.state = 'active' AND (topic, partition) IN (SELECT * FROM unnest($2::text[], $3::int[]))"""
_ADVANCE = """
UPDATE platform.projection_offset SET next_offset = $6, advanced_at = now()
WHERE projection = $1 AND build = $2 AND topic = $3 AND partition = $4 AND next_offset IS NOT DISTINCT FROM $5
    AND (NOT retired OR $8)
RETURNING set_config('search_path', $7, true)"""


_ALEMBIC = Lock()  # its context is a global of the process


async def migrate(url: str) -> None:
    """Brings the schema up to date. Many may call this at once: an advisory lock lets one after the other do it."""
    await asyncio.to_thread(_upgrade, url)


def _upgrade(url: str) -> None:
    # Imported here: 20 MB that no worker and no gateway should carry.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["url"] = url
    with _ALEMBIC:
        command.upgrade(config, "head")


async def connect(url: str, *, min_size: int = 1, max_size: int = 4) -> asyncpg.Pool[asyncpg.Record]:
    """A pool that costs no round trip when a connection is given back: we leave no session state behind."""

    async def nothing(_: object) -> None: ...

    return await asyncpg.create_pool(
        url,
        min_size=min_size,
        max_size=max_size,
        command_timeout=30,
        reset=nothing,
        server_settings={
            "application_name": "frameworks",
            "jit": "off",
            # A frozen process keeps its row locks; without this its successor would wait for ever.
            "idle_in_transaction_session_timeout": "5000",
            # Rows and position are lost together when the server crashes, and the log still has what made them: nobody has to
            # wait for the disk. The worker finds its position moved back, is superseded, and begins again from there.
            "synchronous_commit": "off",
        },
    )


def schema(projection: str, build: int) -> str:
    """The schema of a build's Postgres tables."""
    return f"projection_{projection}_b{build}"


async def load_offsets(db: Database, projection: str, build: int, tps: Collection[TP]) -> Mapping[TP, int | None]:
    """Next offset of each partition; None: from the beginning. Makes the rows that `advance` needs."""
    topics, partitions = [tp.topic for tp in tps], [tp.partition for tp in tps]
    await db.execute(_CLAIM, projection, build, topics, partitions)
    rows = await db.fetch(_LOAD, projection, build, topics, partitions)
    return {TP(r["topic"], r["partition"]): r["next_offset"] for r in rows}


async def active_offsets(db: Database, projection: str, tps: Collection[TP]) -> Mapping[TP, int | None]:
    """Up to where each partition is in what readers see; None: nothing of it is."""
    rows = await db.fetch(_LOAD_ACTIVE, projection, [tp.topic for tp in tps], [tp.partition for tp in tps])
    return {**dict.fromkeys(tps), **{TP(r["topic"], r["partition"]): r["next_offset"] for r in rows}}


async def advance(
    db: Database, projection: str, build: int, tp: TP, *, expected: int | None, new: int, retired_too: bool = False
) -> None:
    """Moves a position from `expected` (None: never moved) to `new`. Raises Superseded.

    `retired_too` is for whoever fills a build that readers do not see.

    In a transaction, call it first: what follows finds the build's tables by their plain names.
    """
    done = await db.execute(
        _ADVANCE, projection, build, tp.topic, tp.partition, expected, new, schema(projection, build), retired_too
    )
    if done != "UPDATE 1":
        raise Superseded(f"{projection}, build {build}: another worker moved {tp.topic}/{tp.partition} from {expected}")
