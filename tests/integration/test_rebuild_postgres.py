"""Rebuild and verify a Postgres projection while its worker runs, is killed, and readers look on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import pytest

from projections import builds, streams
from projections.model import TP
from projections.platform import active_offsets
from projections.positions import passed
from projections.rebuild import run
from projections.rebuild.errors import CannotRebuild
from projections.rebuild.site import Site
from streams.generated import StreamRenamed
from streams.ids import new_id
from streams.recorded import Position
from tests import projection_log as log
from tests.rebuilding import Platform, said, working

START = Position(0, 0)


@dataclass
class Traffic:
    """A load that never stops: streams are made, renamed, go live. `made` is what a reader must find."""

    platform: Platform
    tenants: Sequence[UUID] = field(default_factory=lambda: [new_id() for _ in range(4)])
    made: list[tuple[UUID, UUID]] = field(default_factory=list)
    last: Position = START

    async def one(self) -> None:
        tenant, stream = secrets.choice(self.tenants), new_id()
        slug = f"s{len(self.made)}"
        await self.platform.append(log.created(slug, slug), log.meta(tenant, stream, version=1))
        await self.platform.append(log.went_live(), log.meta(tenant, stream, occurred_at=log.at(len(self.made))))
        self.last = await self.platform.append(StreamRenamed(f"{slug} renamed"), log.meta(tenant, stream, version=2))
        self.made.append((tenant, stream))

    async def run(self) -> None:
        while True:
            await self.one()

    async def is_read(self) -> bool:
        return await passed(self.platform.db, "streams", self.last, 180)


async def polling(platform: Platform, looks: list[int]) -> None:
    """A reader that looks all the time: no row that it saw is ever missing."""
    seen: set[UUID] = set()
    while True:
        found = {row["stream_id"] for row in await platform.db.fetch("SELECT stream_id FROM streams")}
        assert seen <= found, f"{len(seen - found)} rows vanished after {len(looks)} looks"
        seen = found
        looks.append(len(found))
        await asyncio.sleep(0)


async def active_build(platform: Platform) -> int:
    found = await builds.active(platform.db, "streams")
    assert found is not None
    return found.number


async def started(platform: Platform, count: int) -> Traffic:
    """Streams on the log, and a worker that has read them."""
    traffic = Traffic(platform)
    for _ in range(count):
        await traffic.one()
    await platform.worker("streams")
    assert await traffic.is_read(), platform.log("streams")
    return traffic


async def kill_when(platform: Platform, what: str) -> None:
    """Starts `fw rebuild streams` and kills it as soon as it says this; the last thing it says it may have ended before."""
    process = await platform.start("rebuild", "streams")
    await said(process, what)
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def test_a_rebuild_under_load_is_killed_and_its_flip_is_seen_by_nobody(small_platform: Platform) -> None:
    platform = small_platform
    traffic, looks = await started(platform, 200), list[int]()
    worker = platform.started[-1]
    running = [asyncio.create_task(traffic.run()), asyncio.create_task(polling(platform, looks))]
    before = await active_build(platform)

    await kill_when(platform, "begins")  # while it replays
    assert await active_build(platform) == before
    await kill_when(platform, "replayed")  # with everything replayed; it may die on either side of the flip
    between = await active_build(platform)
    code, out = await platform.fw("rebuild", "streams", "--json")
    assert code == 0, out
    after = await active_build(platform)
    outcome = [json.loads(line) for line in out.splitlines()]
    assert outcome[-1]["active"] == after > before
    assert between != before or any("which an earlier run began" in line.get("said", "") for line in outcome)
    assert next(line for line in outcome if line.get("table") == "streams")["differences"] == []
    # The worker was not restarted, and what is decided now can be read at once.
    await traffic.one()
    assert await traffic.is_read(), platform.log("streams")

    # killed right behind the flip, where nothing is left to do
    await kill_when(platform, "readers see build")
    last = await active_build(platform)
    assert last > after
    # back again, caught up with what came in between; nobody saw that either
    await working(platform, "streams", run.roll_back)
    assert await active_build(platform) == after
    await traffic.one()
    assert await traffic.is_read()
    for task in running:
        assert not task.done(), task.exception()
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await traffic.one()
    assert await traffic.is_read()
    assert len(looks) > 10
    assert await platform.db.fetchval("SELECT count(*) FROM streams WHERE state = 'LIVE'") >= len(traffic.made)
    assert worker.returncode is None

    assert not any(table.differences for table in await working(platform, "streams", run.verify))
    await working(platform, "streams", run.drop)
    schemas = await platform.db.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'projection%'")
    assert [row["nspname"] for row in schemas] == [f"projection_streams_b{after}"]
    with pytest.raises(CannotRebuild, match="no kept build"):
        await working(platform, "streams", run.roll_back)


async def test_a_row_that_was_changed_by_hand_is_found_and_a_rebuild_mends_it(small_platform: Platform) -> None:
    platform = small_platform
    traffic = await started(platform, 5)
    (tenant, changed), (_, gone), *_ = traffic.made
    table = f"projection_streams_b{await active_build(platform)}.streams"
    await platform.db.execute(f"UPDATE {table} SET title = 'forged' WHERE stream_id = $1", changed)
    await platform.db.execute(f"DELETE FROM {table} WHERE stream_id = $1", gone)
    await platform.db.execute(f"INSERT INTO {table} (tenant_id, stream_id) VALUES ($1, $1)", tenant)

    code, out = await platform.fw("verify", "streams")
    assert code == 1, out
    assert f"stream_id={changed}: title is 'forged', should be 's0 renamed'" in out
    assert f"stream_id={gone}: the live build lacks it" in out
    assert f"stream_id={tenant}: only the live build has it" in out
    assert "3 rows differ" in out
    assert len(await builds.builds(platform.db, "streams")) == 1, "verify leaves nothing behind"

    before = await active_build(platform)
    with pytest.raises(run.Differences, match="--accept-differences") as told:
        await working(platform, "streams", run.rebuild)
    assert [len(table.differences) for table in told.value.compared] == [3]
    assert await active_build(platform) == before
    lines: list[str] = []

    async def accepting(site: Site) -> None:
        await run.rebuild(site, accept_differences=True)

    await working(platform, "streams", accepting, lines)
    assert any("which an earlier run began" in line for line in lines)
    row = await streams.stream_by_id(platform.db, tenant, changed)
    assert row is not None
    assert row.title == "s0 renamed"
    assert await platform.db.fetchval("SELECT count(*) FROM streams") == 5


async def test_two_at_once_and_what_does_not_exist(small_platform: Platform) -> None:
    platform = small_platform
    code, out = await platform.fw("rebuild", "nonsense")
    assert (code, "there is no projection 'nonsense': there are tenants," in out) == (2, True), out
    holder = await asyncpg.connect(platform.env["FW_POSTGRES_URL"], server_settings={"application_name": "rebuild by process 7"})
    await holder.execute("SELECT pg_advisory_lock(7170103, hashtext('streams'))")
    code, out = await platform.fw("rebuild", "streams")
    assert (code, "being worked on (rebuild by process 7)" in out) == (3, True), out
    await holder.close()
    with pytest.raises(CannotRebuild, match="has no build yet"):
        await working(platform, "streams", run.verify)


async def test_another_version_is_made_beside_and_needs_to_be_accepted(small_platform: Platform) -> None:
    platform = small_platform
    traffic = await started(platform, 5)
    number = await active_build(platform)
    await platform.db.execute("UPDATE platform.projection_build SET version = 99")
    for refused in (run.rebuild, run.verify):
        now = f"this is version {streams.PROJECTION.version}"
        with pytest.raises(CannotRebuild, match=f"is of version 99, and {now}: the two cannot be compared"):
            await working(platform, "streams", refused)
    assert await active_build(platform) == number

    async def accepting(site: Site) -> None:
        await run.rebuild(site, accept_new_definition=True)

    await working(platform, "streams", accepting)
    assert await active_build(platform) > number
    assert await platform.db.fetchval("SELECT count(*) FROM streams") == 5
    with pytest.raises(CannotRebuild, match="is of version 99"):
        await working(platform, "streams", run.roll_back)
    at = await active_offsets(platform.db, "streams", [TP(platform.topics.decisions.name, traffic.last.partition)])
    assert list(at.values()) == [traffic.last.offset + 1]


async def test_a_worker_of_a_newer_version_fills_its_build_before_anybody_sees_it(small_platform: Platform) -> None:
    """As after an upgrade: the build that readers see is of an older version, and stays until the new one has passed it."""
    platform = small_platform
    traffic = await started(platform, 5)
    number, older = await active_build(platform), platform.started[-1]
    older.terminate()
    await older.wait()
    await platform.db.execute("UPDATE platform.projection_build SET version = 0")
    await traffic.one()
    await platform.worker("streams")
    assert await traffic.is_read(), platform.log("streams")
    assert await active_build(platform) > number
    assert await platform.db.fetchval("SELECT count(*) FROM streams") == 6
