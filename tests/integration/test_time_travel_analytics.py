"""`at` and `known_at` against a model in plain Python, for any facts, delays and duplicates; and what is behind every number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from random import Random
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.embedded.stack import Stack
from projections import ingests, viewer_sessions
from projections.clickhouse import AsyncClient, connect, rows
from projections.clickhouse_store import ClickHouseStore
from projections.dead_letters import DeadLetters
from projections.explanations import AUDIENCE, PUBLISHING, Part, Question, parts
from projections.model import TP
from projections.moments import Moment, from_milliseconds, milliseconds
from projections.pages import Key
from projections.platform import connect as connect_postgres
from projections.platform import migrate
from projections.viewer_sessions import Audience, audience, sessions, viewers_over_time
from streams.codec import encode
from streams.generated import IngestEnded, IngestStarted, StreamTotals, ViewerEnd, ViewerJoined, ViewerLeft
from streams.topics import Topics
from tests.fact_log import NOON, Raw, at, fact_meta, fresh

Said = ViewerJoined | ViewerLeft | IngestStarted | IngestEnded | StreamTotals
NOON_MS = milliseconds(NOON)
FOR_EVER = 10**9


@dataclass(frozen=True)
class Fact:
    """Something that happened at a second, and the seconds at which the log took it: more than once where it was resent."""

    event: Said
    second: int
    appended: tuple[int, ...]
    id: UUID


@st.composite
def histories(draw: st.DrawFn) -> list[Fact]:
    """Viewings and publishings: joins and leaves that come early, late, twice or never."""
    said: list[Fact] = []

    def say(event: Said, second: int) -> None:
        delays = draw(st.lists(st.integers(0, 60), min_size=1, max_size=2))
        said.append(Fact(event, second, tuple(second + delay for delay in delays), uuid4()))

    for n in range(draw(st.integers(0, 6))):
        viewing, session, began = uuid4(), f"s{draw(st.integers(0, 3))}", draw(st.integers(0, 40))
        ends = draw(st.sampled_from(((), (False,), (True,), (True, False))))
        if not ends or draw(st.booleans()):
            say(ViewerJoined(node_id="n1", session_id=session, viewing_id=viewing, connector="HLS"), began)
        for synthesized in ends:
            seconds = draw(st.integers(0, 40))
            left = ViewerLeft(
                node_id="n1",
                session_id=session,
                viewing_id=viewing,
                connector="HLS",
                joined_at=draw(st.sampled_from((None, at(began)))),
                seconds=seconds,
                up_bytes=0 if synthesized else 1000 + n,
                down_bytes=n,
                end_reason=ViewerEnd.OTHER,
                synthesized=synthesized,
            )
            say(left, began + seconds)
    for n in range(draw(st.integers(0, 3))):
        ingest, began = uuid4(), draw(st.integers(0, 40))
        say(IngestStarted(node_id="n1", ingest_id=ingest, internal_name="x", protocol="RTMP"), began)
        if draw(st.booleans()):
            ended = IngestEnded(
                node_id="n1",
                ingest_id=ingest,
                internal_name="x",
                protocol="RTMP",
                end_reason="EOF",
                seconds=draw(st.sampled_from((None, 7))),
                received_bytes=draw(st.sampled_from((None, 500 + n))),
            )
            say(ended, began + draw(st.integers(0, 30)))
    return said


def order(said: Sequence[Fact], random: Random) -> list[tuple[int, Fact]]:
    """The log: (second of the append, fact), in the order of the log."""
    log = [(second, fact) for fact in said for second in fact.appended]
    random.shuffle(log)
    return sorted(log, key=lambda entry: entry[0])


class Model:
    """What was known at `known`, and how things stood then at `at`; every rule once more, in plain Python."""

    def __init__(self, log: Sequence[tuple[int, Fact]], at_second: int | None, known: int | None) -> None:
        self.at = FOR_EVER - 1 if at_second is None else at_second
        facts: dict[UUID, Fact] = {}
        for appended, fact in log:
            if known is None or appended <= known:
                facts.setdefault(fact.id, fact)
        self.viewings: list[tuple[int, int, str, ViewerLeft | None]] = []
        of: dict[UUID, list[Fact]] = {}
        for fact in facts.values():
            if isinstance(fact.event, ViewerJoined | ViewerLeft):
                of.setdefault(fact.event.viewing_id, []).append(fact)
        for told in of.values():
            joins = [f for f in told if isinstance(f.event, ViewerJoined)]
            leaves = [f for f in told if isinstance(f.event, ViewerLeft)]
            leaves.sort(key=lambda f: (not f.event.synthesized, f.second, f.id.int))  # type: ignore[union-attr]
            left = leaves[-1] if leaves else None
            if joins:
                began = joins[0].second
            else:
                assert left is not None
                assert isinstance(left.event, ViewerLeft)
                said = left.event.joined_at
                began = left.second - left.event.seconds if said is None else (milliseconds(said) - NOON_MS) // 1000
            ended = FOR_EVER if left is None else max(left.second, began)
            if began <= self.at:
                gone = left.event if left is not None and ended <= self.at else None
                assert gone is None or isinstance(gone, ViewerLeft)
                self.viewings.append((began, ended, told[0].event.session_id, gone))  # type: ignore[union-attr]
        self.ingests: list[IngestEnded | None] = []
        self.ingest_seconds = self.ingest_bytes = 0
        ends = {f.event.ingest_id: f for f in facts.values() if isinstance(f.event, IngestEnded)}
        starts = {f.event.ingest_id: f for f in facts.values() if isinstance(f.event, IngestStarted)}
        for ingest in starts.keys() | ends.keys():
            start, end = starts.get(ingest), ends.get(ingest)
            first = start or end
            assert first is not None
            if first.second > self.at:
                continue
            self.ingests.append(None)
            if end is not None and end.second <= self.at:
                assert isinstance(end.event, IngestEnded)
                whole = end.second - start.second if start else 0
                self.ingest_seconds += whole if end.event.seconds is None else end.event.seconds
                self.ingest_bytes += end.event.received_bytes or 0

    def audience(self) -> tuple[int, ...]:
        watching = [sum(b <= second < e for b, e, _, _ in self.viewings) for second, *_ in self.viewings]
        gone = [left for *_, left in self.viewings if left is not None]
        return (
            sum(ended > self.at for _, ended, _, _ in self.viewings),
            max(watching, default=0),
            len(self.viewings),
            len({session for _, _, session, _ in self.viewings}),
            sum(left.seconds for left in gone),
            sum(left.up_bytes for left in gone),
            sum(left.down_bytes for left in gone),
        )


Stores = tuple[ClickHouseStore, ClickHouseStore]


@pytest.fixture
async def stores(stack: Stack, topics: Topics, database: str, clickhouse_database: str) -> AsyncIterator[Stores]:
    await migrate(database)
    made = []
    for projection in (viewer_sessions.PROJECTION, ingests.PROJECTION):
        pool = await connect_postgres(database)
        letters = DeadLetters(projection.name, topics, stack.kafka, pool)
        made.append(ClickHouseStore(projection, topics, pool, letters, await connect(clickhouse_database)))
        await made[-1].prepare()
    yield made[0], made[1]
    for store in made:
        await store.close()


_PARTITIONS = count()


def fresh_partition(stores: Sequence[ClickHouseStore]) -> TP:
    """A partition of the facts that no other story is on."""
    return TP(stores[0].topics.facts.name, next(_PARTITIONS))


async def tell(
    stores: Sequence[ClickHouseStore], tp: TP, tenant: UUID, stream: UUID, log: Sequence[tuple[int, Fact]], start: int = 0
) -> None:
    """Puts entries of the log from `start` on into the tables, some at a time."""
    records = [
        Raw(tp.topic, tp.partition, n, NOON_MS + 1000 * second, encode(f.event, fact_meta(tenant, stream, at(f.second), f.id)))
        for n, (second, f) in enumerate(log)
    ]
    for store in stores:
        await store.load_offsets([tp])
        for n in range(start, len(records), 7):
            await store.apply(tp, records[n : n + 7])


def numbers(found: Audience) -> tuple[int, ...]:
    return (
        found.now,
        found.peak,
        found.total,
        found.unique,
        found.viewer_seconds,
        found.up_bytes,
        found.down_bytes,
    )


async def opened(ch: AsyncClient, tenant: UUID, question: Question) -> list[Part]:
    """Every page of an explanation."""
    found: list[Part] = []
    after: Key | None = None
    while True:
        page = await parts(ch, tenant, question, 9, after)
        found += page.items
        if not page.has_next:
            assert page.total_count == len(found) == len({p.event_id for p in found})
            return found
        after = page.keys[-1]


async def questions(ch: AsyncClient, tenant: UUID, stream: UUID, moment: Moment) -> list[Question]:
    """Every number of a stream at a moment, as a token would carry it."""
    seen = (await audience(ch, tenant, [stream], moment))[stream]
    fixed = replace(moment, upto=seen.upto)
    asked = [Question(n, stream, value, fixed, seen.peak_at_ms) for n, value in zip(AUDIENCE, numbers(seen), strict=True)]
    published = await ingests.ingest_totals(ch, tenant, stream, moment)
    fixed = replace(moment, upto=published.upto)
    sums = (published.count, published.seconds, published.bytes)
    return asked + [Question(n, stream, value, fixed) for n, value in zip(PUBLISHING, sums, strict=True)]


async def test_any_moment_as_known_at_any_other_counts_as_by_hand(stores: Stores) -> None:
    loop = asyncio.get_running_loop()
    moments = st.tuples(st.none() | st.integers(-5, 90), st.none() | st.integers(-5, 110))

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(histories(), st.lists(moments, min_size=1, max_size=2), st.integers(), st.data())
    def history(said: list[Fact], asked: list[tuple[int | None, int | None]], seed: int, data: st.DataObject) -> None:
        log = order(said, Random(seed))
        cut = data.draw(st.integers(0, len(log)))
        asyncio.run_coroutine_threadsafe(check(stores, log, cut, asked), loop).result(180)

    await asyncio.to_thread(history)


async def check(
    stores: Stores, log: Sequence[tuple[int, Fact]], cut: int, asked: Sequence[tuple[int | None, int | None]]
) -> None:
    (tenant, stream), tp, ch = fresh(), fresh_partition(stores), stores[0].clickhouse
    await tell(stores, tp, tenant, stream, log[:cut])
    remembered: list[tuple[Question, list[Part]]] = []
    for at_second, known in asked:
        moment = Moment(_time(at_second), _time(known))
        numbered = await questions(ch, tenant, stream, moment)
        remembered += zip(numbered, await asyncio.gather(*(opened(ch, tenant, q) for q in numbered)), strict=True)
    await tell(stores, tp, tenant, stream, log, cut)

    again = await asyncio.gather(*(opened(ch, tenant, question) for question, _ in remembered))
    for (question, shown), shown_again in zip(remembered, again, strict=True):
        assert sum(part.share for part in shown) == question.value, question
        assert shown_again == shown, "facts that came later changed what was behind a number"
    assert await opened(ch, uuid4(), remembered[0][0]) == [], "another tenant"
    first = {fact.id: n for n, (_, fact) in reversed(list(enumerate(log)))}
    for _, shown in remembered:
        for part in shown:
            second, fact = log[part.offset]
            assert (part.event_id, part.offset) == (fact.id, first[fact.id]), "not the first place of a fact"
            assert (part.type, part.appended_at) == (type(fact.event).__name__, at(second))
            assert part.occurred_at == at(fact.second)

    for at_second, known in asked:
        model, moment = Model(log, at_second, known), Moment(_time(at_second), _time(known))
        seen = (await audience(ch, tenant, [stream, uuid4()], moment))[stream]
        assert numbers(seen) == model.audience(), (at_second, known)
        listed = (await sessions(ch, tenant, stream, 100, None, moment)).items
        assert sorted((s.seconds or 0, s.left_at is not None) for s in listed) == sorted(
            (left.seconds if left else 0, left is not None) for *_, left in model.viewings
        )
        published = await ingests.ingest_totals(ch, tenant, stream, moment)
        assert (published.count, published.seconds, published.bytes) == (
            len(model.ingests),
            model.ingest_seconds,
            model.ingest_bytes,
        )
        series = await viewers_over_time(ch, tenant, stream, at(-3), at(80), 7, _time(known))
        by_hand = Model(log, None, known).viewings
        assert [n for _, n in series.points] == [sum(b <= s < e for b, e, _, _ in by_hand) for s in range(-3, 80, 7)]
        when, watching = series.points[4]
        question = Question("VIEWERS_NOW", stream, watching, Moment(when, _time(known), series.upto))
        assert sum(part.share for part in await opened(ch, tenant, question)) == watching


def _time(second: int | None) -> datetime | None:
    return None if second is None else at(second)


async def test_a_fact_that_stands_twice_is_the_first_however_it_came_into_the_table(stores: Stores) -> None:
    """Also when the second place was inserted first, in parts of its own, and merged: knownAt must not depend on that."""
    store, (tenant, stream) = stores[0], fresh()
    tp = fresh_partition(stores)
    event = ViewerJoined(node_id="n1", session_id="s", viewing_id=uuid4(), connector="HLS")
    value = encode(event, fact_meta(tenant, stream, at(0), uuid4()))
    first, second = (Raw(tp.topic, tp.partition, n, NOON_MS + 60_000 * n, value) for n in (0, 1))
    for record in (second, first, second):
        await store.insert(tp, [record])
        await store.insert(TP(tp.topic, 0), [second])
    asked = "SELECT _offset FROM viewer_joined_v WHERE tenant_id = {tenant_id:UUID}"
    for merged in (False, True):
        if merged:
            await store.clickhouse.command("OPTIMIZE TABLE viewer_joined_1 FINAL")
        assert await rows(store.clickhouse, asked, {"tenant_id": tenant}) == [(0,)]
        early = await audience(store.clickhouse, tenant, [stream], Moment(known_at=at(30)))
        assert early[stream].now == 1


async def test_bytes_that_only_the_totals_tell_are_explained_by_them(stores: Stores) -> None:
    (tenant, stream), tp, ch = fresh(), fresh_partition(stores), stores[1].clickhouse
    a, b = uuid4(), uuid4()

    def started(ingest: UUID) -> IngestStarted:
        return IngestStarted(node_id="n1", ingest_id=ingest, internal_name="x", protocol="RTMP")

    def ended(ingest: UUID, received_bytes: int | None) -> IngestEnded:
        return IngestEnded(
            node_id="n1", ingest_id=ingest, internal_name="x", protocol="RTMP", end_reason="EOF", received_bytes=received_bytes
        )

    totals = StreamTotals(
        node_id="n1", internal_name="x", up_bytes=1, down_bytes=700, viewers=0, inputs=1, outputs=0, viewer_seconds=0
    )
    told = ((started(a), 0), (ended(a, None), 10), (totals, 20), (started(b), 30), (ended(b, 42), 50))
    log = [(90, Fact(event, second, (90, 95), uuid4())) for event, second in told] * 2
    await tell([stores[1]], tp, tenant, stream, log)
    found = await questions(ch, tenant, stream, Moment())
    by_number = {q.number: q for q in found}
    assert by_number["INGEST_BYTES"].value == 742
    shares = {p.type: p.share for p in await opened(ch, tenant, by_number["INGEST_BYTES"]) if p.share}
    assert shares == {"StreamTotals": 700, "IngestEnded": 42}
    assert by_number["INGEST_SECONDS"].value == 30
    before = await questions(ch, tenant, stream, Moment(at=at(15)))
    assert {q.number: q.value for q in before}["INGEST_BYTES"] == 0, "the totals had not been said yet"
    (row,) = [i for i in (await ingests.ingests(ch, tenant, stream, 10)).items if i.id == a]
    assert row.totals_event is not None
    question = Question("INGEST_BYTES", stream, 700, events=[("stream_totals", row.totals_event)])
    (part,) = await opened(ch, tenant, question)
    assert (part.type, part.share, part.offset) == ("StreamTotals", 700, 2)
    with pytest.raises(ValueError, match="no number"):
        await parts(ch, tenant, Question("NOTHING", stream, 0), 1)


def test_milliseconds_and_back() -> None:
    assert from_milliseconds(milliseconds(at(1.234))) == at(1.234)
