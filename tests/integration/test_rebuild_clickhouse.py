"""Rebuild, verify and replay a ClickHouse projection while its worker runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from projections import builds, viewer_sessions
from projections.clickhouse import AsyncClient, connect, rows
from projections.clickhouse_store import ClickHouseStore
from projections.dead_letters import DeadLetters
from projections.model import TP, ConsumerRecord
from projections.platform import active_offsets
from projections.platform import connect as connect_postgres
from projections.rebuild import run
from projections.rebuild.errors import CannotRebuild
from projections.rebuild.lag import Passing
from projections.rebuild.replay import Part, replay
from projections.rebuild.site import Site
from streams.generated import ViewerEnd, ViewerJoined, ViewerLeft
from streams.ids import new_id
from streams.topics import PARTITIONS, partition_of
from tests import projection_log as log
from tests.rebuilding import Platform, working

PROJECTION = viewer_sessions.PROJECTION
COUNT = "SELECT (SELECT count() FROM viewer_joined_v), (SELECT count() FROM viewer_left_v)"


def apart() -> tuple[UUID, UUID]:
    """Two tenants in different partitions."""
    one = new_id()
    return one, next(other for other in iter(new_id, None) if partition_of(other) != partition_of(one))


@dataclass
class Viewers:
    """Viewings of two tenants; some facts are said twice, as an edge that lost an answer does."""

    platform: Platform
    ch: AsyncClient
    tenants: tuple[UUID, UUID] = field(default_factory=apart)
    count: int = 0

    async def one(self) -> None:
        n, self.count = self.count, self.count + 1
        viewing, stream = new_id(), new_id()
        about = replace(log.meta(self.tenants[n % 2], stream, occurred_at=log.at(n)), event_id=new_id())
        joined = ViewerJoined(node_id="n1", session_id=f"s{n}", viewing_id=viewing, connector="HLS", country="NL")
        for _ in range(2 if n % 5 == 0 else 1):
            await self.platform.append(joined, about)
        left = ViewerLeft(
            node_id="n1",
            session_id=f"s{n}",
            viewing_id=viewing,
            connector="HLS",
            seconds=n,
            up_bytes=n,
            down_bytes=n,
            end_reason=ViewerEnd.DISCONNECTED,
        )
        await self.platform.append(left, replace(about, event_id=new_id()))

    async def run(self) -> None:
        while True:
            await self.one()

    async def counted(self) -> tuple[int, int]:
        joined, left = (await rows(self.ch, COUNT, {}))[0]
        return int(joined), int(left)

    async def are_read(self) -> None:
        async with asyncio.timeout(180):
            while await self.counted() != (self.count, self.count):
                await asyncio.sleep(0.05)

    async def poll(self, looks: list[tuple[int, int]]) -> None:
        """A reader that looks all the time: no count goes down."""
        looks.append((0, 0))
        while True:
            found = await self.counted()
            assert all(now >= before for now, before in zip(found, looks[-1], strict=True)), (found, looks[-3:])
            looks.append(found)


@pytest.fixture
async def viewers(small_platform: Platform) -> AsyncIterator[Viewers]:
    ch = await connect(small_platform.env["FW_CLICKHOUSE_URL"])
    made = Viewers(small_platform, ch)
    for _ in range(40):
        await made.one()
    await small_platform.worker("viewer_sessions")
    async with asyncio.timeout(180):
        while await builds.active(small_platform.db, "viewer_sessions") is None:
            await asyncio.sleep(0.05)
        while not await rows(ch, "SELECT 1 FROM system.tables WHERE name = 'viewer_left_v' AND database = currentDatabase()", {}):
            await asyncio.sleep(0.05)
    await made.are_read()
    await settled(made)  # rows are seen before their position is moved
    yield made
    await ch.close()


async def active_build(platform: Platform) -> builds.Build:
    found = await builds.active(platform.db, "viewer_sessions")
    assert found is not None
    return found


async def test_a_rebuild_under_load_is_seen_by_nobody_and_its_worker_goes_on(viewers: Viewers) -> None:
    platform, looks = viewers.platform, list[tuple[int, int]]()
    before = await active_build(platform)
    running = [asyncio.create_task(viewers.run()), asyncio.create_task(viewers.poll(looks))]
    build, compared = await working(platform, "viewer_sessions", run.rebuild)
    assert build.number == (await active_build(platform)).number > before.number
    assert [(table.table, table.differences) for table in compared] == [("viewer_joined", []), ("viewer_left", [])]
    assert all(table.live_rows == table.rebuilt_rows >= 40 for table in compared), compared
    back, again = await working(platform, "viewer_sessions", run.roll_back)
    assert (back.number, again.number) == (build.number, before.number)
    for task in running:
        assert not task.done(), task.exception()
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await viewers.one()
    await settled(viewers)
    assert platform.started[0].returncode is None, platform.log("viewer_sessions")
    assert not any(table.differences for table in await working(platform, "viewer_sessions", run.verify))
    await working(platform, "viewer_sessions", run.drop)
    tables = await rows(
        viewers.ch, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine != 'View' ORDER BY name", {}
    )
    assert [name for (name,) in tables] == [f"viewer_joined_{before.number}", f"viewer_left_{before.number}"]


async def settled(viewers: Viewers) -> None:
    """Until the worker stands at the end of the log."""
    topic = viewers.platform.topics.facts

    async def at_end(site: Site) -> None:
        ends = {tp: (await site.history.ranges(topic))[tp.partition].end for tp in site.tps}
        async with asyncio.timeout(180):
            while any((at or 0) < ends[tp] for tp, at in (await active_offsets(site.pool, PROJECTION.name, site.tps)).items()):
                await asyncio.sleep(0.05)

    await working(viewers.platform, "viewer_sessions", at_end)


class Freezing(ClickHouseStore):
    """Stands still between the rows and the position of a batch, until it is woken."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.is_frozen, self.wakes = asyncio.Event(), asyncio.Event()

    async def insert(self, tp: TP, records: Sequence[ConsumerRecord]) -> None:
        await super().insert(tp, records)
        self.is_frozen.set()
        await self.wakes.wait()


async def test_a_frozen_worker_holds_up_no_flip_and_readers_keep_its_rows(viewers: Viewers) -> None:
    platform, looks, lines = viewers.platform, list[tuple[int, int]](), list[str]()
    platform.started[0].kill()
    await platform.started[0].wait()
    await viewers.one()
    tp = TP(platform.topics.facts.name, partition_of(viewers.tenants[(viewers.count - 1) % 2]))
    pool = await connect_postgres(platform.env["FW_POSTGRES_URL"])
    letters = DeadLetters(PROJECTION.name, platform.topics, platform.env["FW_KAFKA_BOOTSTRAP"], pool)
    frozen = Freezing(PROJECTION, platform.topics, pool, letters, viewers.ch)
    await frozen.prepare()
    position = (await frozen.load_offsets([tp]))[tp]
    assert position is not None

    async def behind(site: Site) -> list[ConsumerRecord]:
        end = (await site.history.ranges(platform.topics.facts))[tp.partition].end
        read = site.history.read(platform.topics.facts, tp.partition, position, end)
        return [record async for records in read for record in records]

    applying = asyncio.create_task(frozen.apply(tp, await working(platform, PROJECTION.name, behind)))
    await asyncio.wait_for(frozen.is_frozen.wait(), 180)
    assert await viewers.counted() == (viewers.count, viewers.count), "readers see what has no position yet"
    polling = asyncio.create_task(viewers.poll(looks))
    before = await active_build(platform)
    build, _ = await working(platform, PROJECTION.name, run.rebuild, lines)
    assert any("1 workers held a batch" in line for line in lines), lines
    assert (await active_build(platform)).number == build.number > before.number
    assert await viewers.counted() == (viewers.count, viewers.count)
    assert (await active_offsets(platform.db, PROJECTION.name, [tp]))[tp] == position

    frozen.wakes.set()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):  # and its process ends
        await asyncio.wait_for(applying, 180)
    await pool.close()
    await platform.worker("viewer_sessions")
    await viewers.one()
    await viewers.are_read()
    await settled(viewers)
    assert not polling.done(), polling.exception()
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    assert not any(table.differences for table in await working(platform, PROJECTION.name, run.verify))


async def test_what_was_changed_by_hand_is_found_and_replayed(viewers: Viewers) -> None:
    platform, ch = viewers.platform, viewers.ch
    number = (await active_build(platform)).number
    # A row of each tenant is lost; one that nobody sent is there.
    lost = await rows(ch, "SELECT argMin(event_id, occurred_at) FROM viewer_left_v GROUP BY tenant_id", {})
    for (event_id,) in lost:
        await ch.command(f"ALTER TABLE viewer_left_{number} DELETE WHERE event_id = '{event_id}' SETTINGS mutations_sync = 2")
    await ch.command(
        f"INSERT INTO viewer_joined_{number} SETTINGS log_comment = '0'"
        f" SELECT * REPLACE (generateUUIDv4() AS event_id, 0 AS _seal) FROM viewer_joined_{number} LIMIT 1"
    )
    found = {table.table: table.differences for table in await working(platform, "viewer_sessions", run.verify)}
    assert [d.rebuilt for d in found["viewer_joined"]] == [None]
    assert sorted(d.key.split("event_id=")[1] for d in found["viewer_left"]) == sorted(str(event_id) for (event_id,) in lost)
    assert all(d.live is None for d in found["viewer_left"])

    # Of one tenant, then the rest: nothing that was there is counted twice.
    one_tenant = viewers.tenants[0]
    code, out = await platform.fw("replay", "--projection", "viewer_sessions", "--tenant", str(one_tenant), "--max-lag", "60")
    assert code == 0, out
    assert await viewers.counted() == (viewers.count + 1, viewers.count - 1)

    async def yesterday(site: Site) -> int:
        now = datetime.now(UTC)
        return await replay(site, Part(now - timedelta(days=2), now - timedelta(days=1)), 60)

    async def tomorrow(site: Site) -> int:
        return await replay(site, Part(datetime.now(UTC) + timedelta(days=1)), 60)

    async def today(site: Site) -> int:
        return await replay(site, Part(datetime.now(UTC) - timedelta(days=1)), 60)

    for outside in (yesterday, tomorrow):
        with pytest.raises(CannotRebuild, match="lies outside of history"):
            await working(platform, "viewer_sessions", outside)
    for wrong in (("--from", "someday"), ("--tenant", "mine"), ("--from", "2026-11-21", "--to", "2026-11-20")):
        code, out = await platform.fw("replay", "--projection", "viewer_sessions", *wrong)
        assert (code, out.count("\n"), out[:4]) == (2, 1, "fw: "), out
    assert await working(platform, "viewer_sessions", today) == viewers.count * 2 + viewers.count // 5
    assert await viewers.counted() == (viewers.count + 1, viewers.count)
    assert await platform.db.fetchval("SELECT count(*) FROM platform.projection_replay") == 0


async def test_a_replay_goes_on_where_it_was_and_waits_for_the_worker(viewers: Viewers) -> None:
    platform = viewers.platform
    worker, lines = platform.started[0], list[str]()
    await settled(viewers)
    at = await active_offsets(platform.db, PROJECTION.name, [TP(platform.topics.facts.name, p) for p in range(PARTITIONS)])
    done, left = (partition_of(tenant) for tenant in viewers.tenants)
    for tp, position in (
        (tp, position) for tp, position in at.items() if position
    ):  # as a replay leaves it that was killed behind the first tenant's partition
        await platform.db.execute(
            "INSERT INTO platform.projection_replay VALUES ('viewer_sessions', '', $1, $2, $3, $4, $5, $6)",
            Part().start,
            Part().end,
            *tp,
            position if tp.partition == done else 0,
            position,
        )

    async def whole(site: Site) -> int:
        return await replay(site, Part(), 0.0)

    worker.kill()
    await worker.wait()
    await viewers.one()  # nobody reads it: the live build falls behind, and the replay stands still
    replaying = asyncio.create_task(working(platform, "viewer_sessions", whole, lines))
    async with asyncio.timeout(180):
        while not any("behind: waiting" in line for line in lines):
            assert not replaying.done(), "it did not wait"
            await asyncio.sleep(0.05)
    await platform.worker("viewer_sessions")
    assert await asyncio.wait_for(replaying, 180) == at[TP(platform.topics.facts.name, left)]
    assert any("goes on where an earlier run" in line for line in lines)
    await viewers.are_read()


async def test_postgres_is_replayed_only_where_that_is_harmless(small_platform: Platform) -> None:
    code, out = await small_platform.fw("replay", "--projection", "journal")
    assert (code, "no build" in out) == (1, True), out
    await small_platform.append(log.created(), log.meta(new_id(), stream := new_id(), version=1))
    await small_platform.append(log.went_live(), log.meta(new_id(), stream))
    for name in ("journal", "streams"):
        await small_platform.worker(name)
        async with asyncio.timeout(180):
            while await builds.active(small_platform.db, name) is None:
                await asyncio.sleep(0.05)
    with pytest.raises(CannotRebuild, match="journal cannot be replayed in part"):
        await working(small_platform, "journal", lambda site: replay(site, Part(), 60))
    await small_platform.db.execute("UPDATE projection_streams_b1.streams SET live_at = NULL")
    lines: list[str] = []
    assert await working(small_platform, "streams", lambda site: replay(site, Part(), 60), lines) == 1
    assert any("left out" in line and "StreamRenamed" in line for line in lines)
    assert await small_platform.db.fetchval("SELECT count(*) FROM streams WHERE live_at IS NOT NULL") == 1


def test_the_age_of_what_a_worker_has_not_passed() -> None:
    passing = Passing()
    assert passing.behind_seconds(0, end=10, position=10) == 0
    assert passing.behind_seconds(1, end=15, position=10) == 0  # seen just now
    assert passing.behind_seconds(3, end=30, position=12) == 2
    assert passing.behind_seconds(4, end=30, position=15) == 1  # the first is passed, what came at 3 is not
    assert passing.behind_seconds(9, end=30, position=30) == 0
