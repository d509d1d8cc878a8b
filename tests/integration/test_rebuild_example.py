"""The worked example of docs/rebuilding.md: the module is the one on that page."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest

from projections import builds
from projections.model import TP
from projections.platform import active_offsets
from projections.rebuild import run
from projections.rebuild.site import Site
from projections.worker import open_store
from streams.generated import StreamRenamed, TenantRegistered
from streams.ids import new_id
from streams.settings import read_settings
from tests import projection_log as log
from tests.archive_log import archiver_of, delete_before
from tests.rebuilding import Platform, working

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rebuilding.md"


@pytest.fixture
def example() -> Iterator[ModuleType]:
    """The page's module, importable as `projections.tenant_activity`."""
    text = PAGE.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    module = ModuleType("projections.tenant_activity")
    sys.modules[module.__name__] = module
    exec(compile(text, str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


async def forget_log(platform: Platform) -> None:
    """What is on the log goes into the archive, and retention takes it."""
    topics = (platform.topics.decisions, platform.topics.facts)
    settings = read_settings(platform.env)
    archived = await archiver_of(settings, *topics).flush()
    assert len([end for end in archived.values() if end]) == 2, "a decision and a fact"
    for topic in topics:
        for tp, end in archived.items():
            if tp.topic == topic.name and end:
                await delete_before(settings.kafka, topic, tp.partition, end)


async def test_a_projection_is_added_to_history_while_traffic_runs(small_platform: Platform, example: ModuleType) -> None:
    platform, now = small_platform, datetime.now(UTC)
    sleeper, awake = new_id(), new_id()
    await platform.append(
        TenantRegistered("Sleeper"), log.meta(sleeper, sleeper, version=1, occurred_at=now - timedelta(days=400))
    )
    await platform.append(log.went_live(), log.meta(sleeper, new_id(), occurred_at=now - timedelta(days=390)))
    await forget_log(platform)
    stream = new_id()
    await platform.append(log.created(), log.meta(awake, stream, version=1, occurred_at=now - timedelta(days=399)))

    async def traffic() -> None:
        version = 1
        while True:
            version += 1
            about = replace(log.meta(awake, stream, version=version), occurred_at=datetime.now(UTC))
            await platform.append(StreamRenamed(f"title {version}"), about)

    running = asyncio.create_task(traffic())

    async def unseen(_: Site) -> None:
        """Nothing is to be seen before the first build is whole."""
        with pytest.raises(asyncpg.UndefinedTableError):
            await example.asleep(platform.db, sleeper, 300)

    await working(platform, "tenant_activity", unseen)
    await working(platform, "tenant_activity", run.rebuild)
    assert await example.asleep(platform.db, sleeper, 300) is True
    assert await example.asleep(platform.db, sleeper, 395) is False
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    # The worker goes on from there. Its store is fed here as its Faust app does it.
    store = await open_store(example.PROJECTION, read_settings(platform.env))
    build = await builds.active(platform.db, "tenant_activity")
    assert build is not None
    assert build.number == 1

    async def go_on(site: Site) -> None:
        await store.load_offsets(site.tps)
        for tp, at in (await active_offsets(site.pool, "tenant_activity", site.tps)).items():
            end = (await site.history.ranges(site.topics[tp.topic]))[tp.partition].end
            async for records in site.history.read(site.topics[tp.topic], tp.partition, at or 0, end):
                await store.apply(TP(*tp), records)

    await working(platform, "tenant_activity", go_on)
    await store.close()
    assert await example.asleep(platform.db, awake, 1) is False
    assert not any(table.differences for table in await working(platform, "tenant_activity", run.verify))
