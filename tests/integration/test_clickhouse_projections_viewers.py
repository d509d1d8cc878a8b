"""Audience, sessions and viewers over time against a model that counts by hand, for any facts in any order and any batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from random import Random
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.embedded.stack import Stack
from projections import viewer_sessions
from projections.clickhouse import connect
from projections.clickhouse_store import ClickHouseStore
from projections.dead_letters import DeadLetters
from projections.model import TP
from projections.platform import connect as connect_postgres
from projections.platform import migrate
from projections.viewer_sessions import Audience, Session, audience, sessions, viewers_over_time
from streams.generated import ViewerEnd, ViewerJoined, ViewerLeft
from streams.topics import Topics
from tests.fact_log import NOON, FactLog, at, fresh


@dataclass(frozen=True)
class Left:
    at: int
    seconds: int
    says_joined_at: int | None
    synthesized: bool


@dataclass(frozen=True)
class Viewing:
    """One viewing as it happened, and which facts of it there are."""

    id: UUID
    joined_at: int | None
    leaves: tuple[Left, ...]

    @property
    def left(self) -> Left | None:
        return min(self.leaves, key=lambda left: left.synthesized, default=None)

    @property
    def began(self) -> int:
        left = self.left
        if self.joined_at is not None:
            return self.joined_at
        assert left is not None
        return left.at - left.seconds if left.says_joined_at is None else left.says_joined_at

    def watches(self, second: float) -> bool:
        return self.began <= second and (self.left is None or second < self.left.at)


@st.composite
def viewings(draw: st.DrawFn) -> Viewing:
    began = draw(st.integers(0, 60))
    seen_joining = draw(st.booleans())
    leaves = []
    for synthesized in draw(st.sampled_from(((), (False,), (True,), (True, False)) if seen_joining else ((False,), (True,)))):
        seconds = draw(st.integers(0, 60))
        said = draw(st.sampled_from((None, began)))
        leaves.append(Left(began + seconds, seconds, said, synthesized))
    return Viewing(uuid4(), began if seen_joining else None, tuple(leaves))


def facts(viewing: Viewing) -> list[tuple[ViewerJoined | ViewerLeft, int, UUID]]:
    said: list[tuple[ViewerJoined | ViewerLeft, int, UUID]] = []
    session = f"s{viewing.id}"
    if viewing.joined_at is not None:
        joined = ViewerJoined(node_id="n1", session_id=session, viewing_id=viewing.id, connector="HLS", country="NL")
        said.append((joined, viewing.joined_at, uuid4()))
    for left in viewing.leaves:
        event = ViewerLeft(
            node_id="n1",
            session_id=session,
            viewing_id=viewing.id,
            connector="" if left.synthesized else "HLS",
            joined_at=None if left.says_joined_at is None else at(left.says_joined_at),
            seconds=left.seconds,
            up_bytes=0 if left.synthesized else 1000,
            down_bytes=0 if left.synthesized else 10,
            end_reason=ViewerEnd.NODE_RESTARTED if left.synthesized else ViewerEnd.DISCONNECTED,
            synthesized=left.synthesized,
        )
        said.append((event, left.at, uuid4()))
    return said


@pytest.fixture
async def store(stack: Stack, topics: Topics, database: str, clickhouse_database: str) -> AsyncIterator[ClickHouseStore]:
    await migrate(database)
    pool = await connect_postgres(database)
    letters = DeadLetters("viewer_sessions", topics, stack.kafka, pool)
    store = ClickHouseStore(viewer_sessions.PROJECTION, topics, pool, letters, await connect(clickhouse_database))
    await store.prepare()
    yield store
    await store.close()


async def tell(store: ClickHouseStore, logs: Sequence[FactLog], batch: int) -> None:
    """Applies logs in batches. Each is a partition of its own."""
    for log in logs:
        await store.load_offsets([log.tp])
        for start in range(0, len(log.records), batch):
            await store.apply(log.tp, log.records[start : start + batch])


PARTITIONS = count()


def log_of() -> FactLog:
    """A partition that no other history lies on."""
    return FactLog(TP("fw.facts", next(PARTITIONS)))


HISTORY = st.lists(viewings(), max_size=12)


async def test_any_history_counts_as_by_hand(store: ClickHouseStore) -> None:
    """Duplicates, any order, any batches: hypothesis runs in a thread of its own, the store stays on this loop."""
    loop = asyncio.get_running_loop()

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(HISTORY, st.lists(viewings(), max_size=3), st.integers(), st.integers(1, 30))
    def history(happened: list[Viewing], elsewhere: list[Viewing], seed: int, batch: int) -> None:
        asyncio.run_coroutine_threadsafe(check(store, happened, elsewhere, Random(seed), batch), loop).result(180)

    await asyncio.to_thread(history)


async def check(store: ClickHouseStore, happened: list[Viewing], elsewhere: list[Viewing], random: Random, batch: int) -> None:
    (tenant, stream), (other_tenant, other_stream) = fresh(), fresh()
    said = [(tenant, stream, fact) for viewing in happened for fact in facts(viewing)]
    said += [(tenant, other_stream, fact) for viewing in elsewhere for fact in facts(viewing)]
    said += [(other_tenant, stream, fact) for viewing in elsewhere for fact in facts(viewing)]
    said += said[::2]  # the edge sent some of it again
    random.shuffle(said)
    log = log_of()
    for whose, what, (event, second, event_id) in said:
        log.say(event, whose, what, at(second), event_id)
    if log.records:
        await tell(store, [log], batch)

    ch = store.clickhouse
    seconds = range(-61, 130)
    watching = [sum(v.watches(s) for v in happened) for s in seconds]
    begins = [sum(v.watches(v2.began) for v in happened) for v2 in happened]
    expected = (sum(v.left is None for v in happened), max(begins, default=0), len(happened))
    assert max(watching, default=0) == max(begins, default=0)
    found = await audience(ch, tenant, [stream, other_stream, uuid4()])
    assert (found[stream].now, found[stream].peak, found[stream].total) == expected
    assert found[other_stream].total == len(elsewhere)
    assert list(found.values())[2] == Audience(0, 0, 0, upto={"viewer_joined": -1, "viewer_left": -1})

    for step in (1, 7):
        series = await viewers_over_time(ch, tenant, stream, at(-61), at(130), step)
        assert [(when, n) for when, n in series.points] == [
            (NOON + timedelta(seconds=s), sum(v.watches(s) for v in happened)) for s in range(-61, 130, step)
        ]

    listed: list[Session] = []
    after = None
    while True:
        page = await sessions(ch, tenant, stream, 5, after)
        listed += page.items
        assert page.total_count == len(happened)
        if not page.has_next:
            break
        after = page.keys[-1]
    by_id = {v.id: v for v in happened}
    begun = [by_id[s.id].began for s in listed]
    assert begun == sorted(begun, reverse=True)
    assert len(listed) == len({s.id for s in listed}) == len(happened)
    for session in listed:
        viewing = by_id[session.id]
        left = viewing.left
        claimed = left.says_joined_at if left else None
        joined = claimed if viewing.joined_at is None else viewing.joined_at
        assert session.session_id == f"s{viewing.id}"
        assert session.joined_at == (None if joined is None else at(joined))
        assert session.left_at == (left and at(left.at))
        assert session.seconds == (left and left.seconds)
        assert session.up_bytes == (left and (0 if left.synthesized else 1000))
        assert session.end_reason == (left and ("NODE_RESTARTED" if left.synthesized else "DISCONNECTED"))
        assert session.synthesized == bool(left and left.synthesized)
        assert session.country == ("NL" if viewing.joined_at is not None else None)


async def test_a_concluded_leave_gives_way_to_the_real_one_whenever_it_comes(store: ClickHouseStore) -> None:
    tenant, stream = fresh()
    viewing = Viewing(uuid4(), 0, (Left(10, 0, 0, True), Left(22, 17, 0, False)))
    joined, concluded, real = facts(viewing)
    log = log_of()
    shown = []
    for event, second, event_id in (joined, concluded, real, concluded):
        log.say(event, tenant, stream, at(second), event_id)
        await store.load_offsets([log.tp])
        await store.apply(log.tp, log.records)
        (session,) = (await sessions(store.clickhouse, tenant, stream, 10)).items
        shown.append((session.left_at, session.seconds, session.synthesized, session.end_reason))
    assert shown == [
        (None, None, False, None),
        (at(10), 0, True, "NODE_RESTARTED"),
        (at(22), 17, False, "DISCONNECTED"),
        (at(22), 17, False, "DISCONNECTED"),
    ]


async def test_what_is_no_series_is_refused(store: ClickHouseStore) -> None:
    tenant, stream = fresh()
    for start, end, step in ((at(0), at(10), 0), (at(10), at(0), 1), (at(0), at(0), 1)):
        with pytest.raises(ValueError, match="step must be positive"):
            await viewers_over_time(store.clickhouse, tenant, stream, start, end, step)
    with pytest.raises(ValueError, match="take a longer step"):
        await viewers_over_time(store.clickhouse, tenant, stream, at(0), at(10_001), 1)
    with pytest.raises(ValueError, match="not a key"):
        await sessions(store.clickhouse, tenant, stream, 10, ("x", 1))
