"""A worker whose build is not there yet: it makes and fills one before it serves, and readers do not see it half filled.

That is a projection that is new to a history, or code with a newer version than the build that readers see: they keep that one
until the flip, and workers of the older code keep it up to date as long as they run.
"""

from __future__ import annotations

import asyncpg

from projections import builds
from projections.builds import Projection
from projections.rebuild.errors import CannotRebuild
from streams.faust_batches.fetched import Halted
from streams.settings import Settings
from streams.telemetry import log


async def ensure(pool: asyncpg.Pool[asyncpg.Record], projection: Projection, settings: Settings) -> None:
    """Returns when the active build is one that this code can go on with, or may be made empty. Raises Halted."""
    await builds.migrated(pool)
    if await _is_there(pool, projection):
        return
    from projections.rebuild.lock import alone  # what most starts of a worker do without
    from projections.rebuild.progress import Progress
    from projections.rebuild.run import rebuild
    from projections.rebuild.site import open_site
    from streams.archive.errors import ArchiveError

    progress = Progress(lambda sentence: log(__name__).info(sentence, projection=projection.name))
    try:
        async with alone(settings.postgres_url, projection.name, "first fill", wait=True):
            if await _is_there(pool, projection):
                return
            async with open_site(projection, settings, progress) as site:
                ranges = [await site.history.ranges(topic) for topic in site.topics.values()]
                is_empty = all(r.end == 0 for of_topic in ranges for r in of_topic.values())
                if not is_empty or await site.active() is not None:
                    await rebuild(site, accept_new_definition=True)
    except (CannotRebuild, ArchiveError) as error:
        raise Halted(f"{projection.name} cannot be filled: {error}") from error


async def _is_there(pool: asyncpg.Pool[asyncpg.Record], projection: Projection) -> bool:
    """Also where a newer version is there: that is for `prepare` to refuse."""
    found = await builds.active(pool, projection.name)
    return found is not None and found.version >= projection.version
