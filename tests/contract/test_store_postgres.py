"""The simulator's Postgres against the real one: the same statements, the same rows, the same refusals, the same waiting."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Sequence
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.embedded.stack import Stack
from projections import journal, streams
from projections.builds import begin, serving
from projections.model import TP, TableProjection
from projections.platform import advance, load_offsets, migrate
from projections.postgres_store import TRANSIENT, PostgresStore
from projections.tables import Column, Table, insert, upsert
from streams.errors import Superseded
from streams.faust_batches.fetched import Halted
from streams.generated import StreamRenamed
from streams.ids import derive, new_id
from streams.topics import Topics
from tests import projection_log as log
from tests.sim.stores.places import Place, Pool, Real, Simulated
from tests.sim.stores.statements import table_projections
from tests.stack import _postgres, blocking

PROJECTIONS = table_projections()


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    name = f"t_{secrets.token_hex(6)}"
    blocking(_postgres(stack.postgres, f'CREATE DATABASE "{name}" STRATEGY file_copy'))
    made = f"{stack.postgres.rsplit('/', 1)[0]}/{name}"
    blocking(migrate(made))
    yield made
    blocking(_postgres(stack.postgres, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(params=["simulated", "real"])
def place(request: pytest.FixtureRequest) -> Place:
    return Simulated() if request.param == "simulated" else Real(request.getfixturevalue("url"))


# The same changes give the same rows.

UUIDS = [UUID(int=n) for n in (1, 2**64, 2**127)]
TEXTS = ["", "a", "A", "b", "é", "z", "Z", "node-1", "node-10", "node-2", "_"]  # collations disagree about these
VALUES: dict[str, st.SearchStrategy[object]] = {
    "uuid": st.sampled_from(UUIDS),
    "text": st.sampled_from(TEXTS),
    "timestamptz": st.integers(-2, 3).map(log.at),
    "int": st.integers(-1, 3) | st.sampled_from([2**31 - 1]),
    "bigint": st.integers(-1, 3) | st.sampled_from([2**63 - 1]),
    "bytea": st.binary(max_size=3),
    "boolean": st.booleans(),
}


def a_row(table: Table) -> st.SearchStrategy[tuple[object, ...]]:
    def value(column: Column) -> st.SearchStrategy[object]:
        return VALUES[column.type] if column.name in table.key else st.none() | VALUES[column.type]

    return st.tuples(*[value(column) for column in table.written[1:]])


def batches(table: Table) -> st.SearchStrategy[Sequence[Sequence[tuple[object, ...]]]]:
    """Rows without the tenant; no key twice in a batch."""
    rows = st.lists(a_row(table), min_size=1, max_size=4, unique_by=lambda row: row[: len(table.key) - 1])
    return st.lists(rows, min_size=1, max_size=4)


ALL_TABLES = [(projection, table) for projection in PROJECTIONS for table in projection.tables]


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_changes_of_every_table_lead_to_equal_rows(url: str, data: st.DataObject) -> None:
    """All merges on all tables, in transactions that commit or not; and inserts, whose keys may be there."""
    history = []
    for projection, table in ALL_TABLES:
        statement = insert if table is journal.JOURNAL else upsert
        drawn = data.draw(batches(table))
        history += [(projection, statement(table), rows, data.draw(st.booleans())) for rows in drawn]
    tenant = new_id()

    def of_tenant(value: object) -> object:
        """Ids are unique for all tenants: those of an earlier example are not these."""
        return derive(tenant, value) if isinstance(value, UUID) else value

    async def play(place: Place) -> list[object]:
        pool = await place.pool()
        numbers = {p.name: (await serving(pool, p)).number for p in PROJECTIONS}
        said: list[object] = []
        for projection, statement, rows, keeps in history:
            arrays: list[list[object]] = [
                [tenant] * len(rows),
                *([of_tenant(v) for v in column] for column in zip(*rows, strict=True)),
            ]
            said.append(await outcome(pool, projection, numbers[projection.name], statement, arrays, keeps))
        for projection, table in ALL_TABLES:
            said.append(await place.rows(pool, projection.name, numbers[projection.name], table, tenant))
        await pool.close()
        return said

    simulated, real = Simulated(), Real(url)
    assert simulated.run(lambda: play(simulated)) == real.run(lambda: play(real))


async def outcome(
    pool: Pool, projection: TableProjection, build: int, statement: str, arrays: list[list[object]], keeps: bool
) -> object:
    """What became of a batch, in a transaction as the store makes it."""

    class Regretted(Exception):
        pass

    topic = f"t{secrets.token_hex(4)}"
    await load_offsets(pool, projection.name, build, [TP(topic, 0)])
    try:
        async with pool.acquire() as db, db.transaction():
            await advance(db, projection.name, build, TP(topic, 0), expected=None, new=1)
            told = await db.execute(statement, *arrays)
            if not keeps:
                raise Regretted
    except Regretted:
        told = "regretted"
    except asyncpg.PostgresError as error:
        return type(error)
    moved = await load_offsets(pool, projection.name, build, [TP(topic, 0)])
    return told, moved[TP(topic, 0)]


async def opened(place: Place, idle_seconds: float = 60) -> tuple[Pool, int, TP]:
    """A pool, the active build of `streams`, and a partition that nobody else has."""
    pool, projection = await place.pool(idle_seconds), streams.PROJECTION
    tp = TP(f"t{secrets.token_hex(4)}", 0)
    build = await serving(pool, projection)
    assert await load_offsets(pool, projection.name, build.number, [tp]) == {tp: None}
    return pool, build.number, tp


def a_stream(tenant: UUID, title: str) -> list[list[object]]:
    row: dict[str, object] = {"tenant_id": tenant, "stream_id": UUID(int=1), "title": title, "live_at": log.NOON}
    return [[row.get(c.name)] for c in streams.STREAMS.written]


def test_a_position_moves_only_from_where_it_is(place: Place) -> None:
    async def scenario() -> None:
        pool, build, tp = await opened(place)

        async def move(expected: int | None, new: int, of: int = build) -> None:
            await advance(pool, "streams", of, tp, expected=expected, new=new)

        for wrong in (0, 5):
            with pytest.raises(Superseded):
                await move(wrong, 7)
        await move(None, 5)
        for wrong_again in (None, 4):
            with pytest.raises(Superseded):
                await move(wrong_again, 7)
        with pytest.raises(Superseded):
            await move(5, 7, of=build + 99)
        await move(5, 7)
        assert await load_offsets(pool, "streams", build, [tp]) == {tp: 7}
        assert await load_offsets(pool, "streams", build + 99, [tp]) == {}  # there is no such build
        await pool.close()

    place.run(scenario)


def test_rivals_wait_for_the_row_and_the_loser_finds_it_moved(place: Place) -> None:
    async def scenario() -> None:
        pool, build, tp = await opened(place)
        async with pool.acquire() as first, pool.acquire() as second:
            one = first.transaction()
            await one.__aenter__()
            await advance(first, "streams", build, tp, expected=None, new=3)
            rival = asyncio.ensure_future(advance(second, "streams", build, tp, expected=None, new=4))
            asking = asyncio.ensure_future(load_offsets(pool, "streams", build, [tp]))  # who takes a partition over waits, too
            await asyncio.wait([rival, asking], timeout=0.1)
            assert not rival.done()
            assert not asking.done()
            await one.__aexit__(None, None, None)
            assert await asking == {tp: 3}
            with pytest.raises(Superseded):
                await rival
        assert await load_offsets(pool, "streams", build, [tp]) == {tp: 3}
        await pool.close()

    place.run(scenario)


def test_what_is_rolled_back_never_was_and_who_waited_goes_on(place: Place) -> None:
    async def scenario() -> None:
        pool, build, tp = await opened(place)
        tenant = new_id()

        class Regretted(Exception):
            pass

        async with pool.acquire() as first, pool.acquire() as second:
            rival = None
            with contextlib.suppress(Regretted):
                async with first.transaction():
                    await advance(first, "streams", build, tp, expected=None, new=3)
                    await first.execute(upsert(streams.STREAMS), *a_stream(tenant, "gone"))
                    rival = asyncio.ensure_future(advance(second, "streams", build, tp, expected=None, new=4))
                    await asyncio.wait([rival], timeout=0.1)
                    assert not rival.done()
                    raise Regretted
            assert rival is not None
            await rival
        assert await load_offsets(pool, "streams", build, [tp]) == {tp: 4}
        assert await place.rows(pool, "streams", build, streams.STREAMS, tenant) == []
        await pool.close()

    place.run(scenario)


def test_who_is_silent_inside_of_a_transaction_loses_it(place: Place) -> None:
    """Or the successor of a frozen worker would wait for ever."""

    async def scenario() -> None:
        pool, build, tp = await opened(place, idle_seconds=0.3)
        tenant = new_id()
        with pytest.raises(TRANSIENT):  # noqa: PT012  # wherever in it that comes
            async with pool.acquire() as frozen, frozen.transaction():
                await advance(frozen, "streams", build, tp, expected=None, new=3)
                await frozen.execute(upsert(streams.STREAMS), *a_stream(tenant, "frozen"))
                await advance(pool, "streams", build, tp, expected=None, new=4)  # waits until the other is thrown out
                await frozen.execute(upsert(streams.STREAMS), *a_stream(tenant, "woken"))
        assert await load_offsets(pool, "streams", build, [tp]) == {tp: 4}
        assert await place.rows(pool, "streams", build, streams.STREAMS, tenant) == []
        await pool.close()

    place.run(scenario)


def test_a_connection_that_ends_takes_its_transaction_with_it(place: Place) -> None:
    async def scenario() -> None:
        pool, build, tp = await opened(place)
        tenant = new_id()
        with pytest.raises(TRANSIENT):  # noqa: PT012  # wherever in it that comes
            async with pool.acquire() as cut, cut.transaction():
                await advance(cut, "streams", build, tp, expected=None, new=3)
                await cut.execute(upsert(streams.STREAMS), *a_stream(tenant, "cut"))
                await place.terminate(pool, cut)
                await cut.execute(upsert(streams.STREAMS), *a_stream(tenant, "after"))
        await advance(pool, "streams", build, tp, expected=None, new=4)
        assert await place.rows(pool, "streams", build, streams.STREAMS, tenant) == []
        await pool.close()

    place.run(scenario)


def test_two_that_wait_for_one_another_are_told(place: Place) -> None:
    async def scenario() -> None:
        pool, build, tp = await opened(place)
        other = TP(tp.topic, 1)
        await load_offsets(pool, "streams", build, [other])

        async def both(first: TP, then: TP, met: asyncio.Barrier) -> None:
            async with pool.acquire() as db, db.transaction():
                await advance(db, "streams", build, first, expected=None, new=1)
                await met.wait()
                await advance(db, "streams", build, then, expected=None, new=1)

        met = asyncio.Barrier(2)
        done = await asyncio.gather(both(tp, other, met), both(other, tp, met), return_exceptions=True)
        assert [type(d) for d in done if d is not None] in ([asyncpg.DeadlockDetectedError], [Superseded])
        assert isinstance(next(d for d in done if d is not None), TRANSIENT)
        await pool.close()

    place.run(scenario)


@pytest.mark.parametrize(
    ("column", "value"),
    [("title", "a\0b"), ("stream_id", None)],
)
def test_a_value_that_does_not_fit_is_refused_and_nothing_of_its_transaction_stays(
    place: Place, column: str, value: object
) -> None:
    async def scenario() -> type:
        pool, build, tp = await opened(place)
        arrays = a_stream(new_id(), "x")
        arrays[[c.name for c in streams.STREAMS.written].index(column)] = [value]
        with pytest.raises(asyncpg.PostgresError) as caught:  # noqa: PT012  # the transaction, not the statement
            async with pool.acquire() as db, db.transaction():
                await advance(db, "streams", build, tp, expected=None, new=1)
                await db.execute(upsert(streams.STREAMS), *arrays)
        assert await load_offsets(pool, "streams", build, [tp]) == {tp: None}
        await pool.close()
        return caught.type

    expected = asyncpg.CharacterNotInRepertoireError if column == "title" else asyncpg.NotNullViolationError
    assert place.run(scenario) is expected


def test_builds_are_numbered_and_one_is_active(place: Place) -> None:
    async def scenario() -> None:
        pool, build, _ = await opened(place)
        both = await asyncio.gather(serving(pool, streams.PROJECTION), serving(pool, streams.PROJECTION))
        assert [b.number for b in both] == [build, build]
        async with pool.acquire() as db, db.transaction():
            scratch = await begin(db, streams.PROJECTION, "scratch")
        assert scratch.number > build
        assert (await serving(pool, streams.PROJECTION)).number == build
        await pool.close()

    place.run(scenario)


# The store itself, on both.


class NoLetters:
    """A projection that can read everything."""

    async def bury(self, tp: TP, letters: Sequence[object]) -> None:
        assert not letters

    async def close(self) -> None: ...


async def store_of(place: Place, projection: TableProjection, topics: Topics) -> PostgresStore:
    store = PostgresStore(projection, topics, await place.pool(), NoLetters())
    await store.prepare()
    return store


def test_the_loser_of_two_workers_is_superseded_and_its_rows_never_were(place: Place) -> None:
    async def scenario() -> None:
        tenant, stream, topics = new_id(), new_id(), Topics(f"{secrets.token_hex(4)}.")
        decided, tp = log.Log(topics.decisions.name), TP(topics.decisions.name, 0)
        records = [
            decided.append(0, log.created(), log.meta(tenant, stream, version=1)),
            decided.append(0, StreamRenamed(title="A"), log.meta(tenant, stream, version=2)),
        ]
        stores = [await store_of(place, streams.PROJECTION, topics) for _ in range(2)]
        for store in stores:
            await store.load_offsets([tp])
        done = await asyncio.gather(*[s.apply(tp, records[: n + 1]) for n, s in enumerate(stores)], return_exceptions=True)
        assert sorted(type(d).__name__ for d in done) == ["NoneType", "Superseded"]
        winner = done.index(None)
        [row] = await rows_of(place, stores[0].pool, streams.STREAMS, tenant)
        assert row[2] == ("A" if winner else "Lobby")
        assert await stores[0].load_offsets([tp]) == {tp: winner + 1}
        for store in stores:
            await store.close()

    place.run(scenario)


async def rows_of(place: Place, pool: Pool, table: Table, tenant: UUID) -> list[tuple[object, ...]]:
    projection = next(p for p, t in ALL_TABLES if t is table)
    return await place.rows(pool, projection.name, (await serving(pool, projection)).number, table, tenant)


def test_the_journal_halts_on_a_gap_and_has_nothing_of_that_batch(place: Place) -> None:
    async def scenario() -> None:
        tenant, stream, topics = new_id(), new_id(), Topics(f"{secrets.token_hex(4)}.")
        decided, tp = log.Log(topics.decisions.name), TP(topics.decisions.name, 0)
        for version in (1, 2, 4):
            event = log.created() if version == 1 else StreamRenamed(title=str(version))
            decided.append(0, event, log.meta(tenant, stream, version=version, occurred_at=log.NOON + timedelta(seconds=version)))
        store = await store_of(place, journal.PROJECTION, topics)
        await store.load_offsets([tp])
        await store.apply(tp, decided.records[tp][:1])
        with pytest.raises(Halted, match="has version 4, but 3 comes next"):
            await store.apply(tp, decided.records[tp][1:])
        assert await store.load_offsets([tp]) == {tp: 1}
        assert [row[4] for row in await rows_of(place, store.pool, journal.JOURNAL, tenant)] == [1]
        await store.close()

    place.run(scenario)
