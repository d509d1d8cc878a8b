"""Postgres projections against a real database: any split of the log, resent facts, rivals, poison."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.embedded.stack import Stack
from projections import journal, streams, tenants
from projections.dead_letters import DeadLetters
from projections.model import TP, ConsumerRecord, TableProjection
from projections.platform import connect, migrate
from projections.positions import passed
from projections.postgres_store import PostgresStore
from streams.errors import Superseded
from streams.faust_batches.fetched import Halted
from streams.generated import (
    ApiTokenIssued,
    CommandHandled,
    CommandStatus,
    Event,
    StreamDeleted,
    StreamKeyRotated,
    StreamRenamed,
    TenantRegistered,
)
from streams.ids import new_id
from streams.kafka import reader
from streams.recorded import Position
from streams.topics import Topics
from tests import projection_log as log
from tests.stack import blocking


@pytest.fixture
def migrated(database: str) -> str:
    blocking(migrate(database))
    return database


@asynccontextmanager
async def opened(
    projection: TableProjection, url: str, topics: Topics, kafka: str = "127.0.0.1:1", cap: int = 1000
) -> AsyncIterator[PostgresStore]:
    pool = await connect(url)
    store = PostgresStore(projection, topics, pool, DeadLetters(projection.name, topics, kafka, pool, cap))
    try:
        await store.prepare()
        yield store
    finally:
        await store.close()


async def feed(store: PostgresStore, *batches: Sequence[ConsumerRecord]) -> None:
    await store.load_offsets({TP(b[0].topic, b[0].partition) for b in batches})
    for batch in batches:
        await store.apply(TP(batch[0].topic, batch[0].partition), batch)


async def test_a_token_leads_to_its_tenant(migrated: str) -> None:
    topics, tenant = Topics("a."), new_id()
    decided = log.Log(topics.decisions.name)
    decided.append(3, TenantRegistered(name="Acme"), log.meta(tenant, tenant, version=1))
    decided.append(3, ApiTokenIssued(name="first", token_prefix="fw_abc", token_hash=b"h"), log.meta(tenant, tenant, version=2))
    async with opened(tenants.PROJECTION, migrated, topics) as store:
        await feed(store, *decided.records.values())
        assert await tenants.token_owner(store.pool, "fw_abc") == (tenant, b"h")
        assert await tenants.token_owner(store.pool, "fw_xyz") is None
        assert await tenants.tenant_by_id(store.pool, tenant) == (tenant, "Acme", log.NOON, "ACTIVE", None)
        assert await tenants.tenant_by_id(store.pool, new_id()) is None


async def test_live_state_does_not_depend_on_the_order_of_topics(migrated: str) -> None:
    tenant = new_id()
    async with opened(streams.PROJECTION, migrated, Topics("x.")) as store:
        for n, facts_first in enumerate((True, False)):
            topics, stream = Topics(f"{n}."), new_id()
            decided, facts = log.Log(topics.decisions.name), log.Log(topics.facts.name)
            decided.append(0, log.created(slug=f"s{n}"), log.meta(tenant, stream, version=1))
            facts.append(5, log.ingest_started(), log.meta(tenant, stream, occurred_at=log.at(1)))
            facts.append(5, log.went_live("node-7"), log.meta(tenant, stream, occurred_at=log.at(2)))
            both = [*decided.records.values(), *facts.records.values()]
            await feed(store, *(reversed(both) if facts_first else both))
            row = await streams.stream_by_id(store.pool, tenant, stream)
            assert row is not None
            assert (row.state, row.live_node_id, row.slug) == ("LIVE", "node-7", f"s{n}")


async def test_each_state_and_what_leads_to_it(migrated: str) -> None:
    tenant, stream, topics = new_id(), new_id(), Topics("x.")
    decided, facts = log.Log(topics.decisions.name), log.Log(topics.facts.name)
    decided.append(0, log.created(), log.meta(tenant, stream, version=1))
    story: list[tuple[Event, str]] = [
        (log.ingest_started(), "CONNECTING"),
        (log.went_live(), "LIVE"),
        (log.ingest_ended(), "LIVE"),  # the buffer still plays
        (log.went_offline(), "IDLE"),
        (log.ingest_started(), "CONNECTING"),
        (log.ingest_ended(), "IDLE"),
    ]
    async with opened(streams.PROJECTION, migrated, topics) as store:
        await feed(store, *decided.records.values())
        for seconds, (event, state) in enumerate(story, 1):
            record = facts.append(2, event, log.meta(tenant, stream, occurred_at=log.at(seconds)))
            await feed(store, [record])
            row = await streams.stream_by_id(store.pool, tenant, stream)
            assert row is not None
            assert row.state == state, event


async def test_a_late_end_does_not_end_the_next_publisher(migrated: str) -> None:
    """The server started anew, the edge concluded; the next publisher was there before the real end was."""
    before, after = log.ingest_started(), log.ingest_started()
    concluded = replace(log.ingest_ended(), ingest_id=before.ingest_id, started_at=log.at(1), synthesized=True)
    ended = replace(concluded, synthesized=False)
    one_by_one: list[tuple[Event, int]] = [(before, 1), (concluded, 5), (after, 7), (ended, 8)]
    tenant, topics = new_id(), Topics("x.")
    decided, facts = log.Log(topics.decisions.name), log.Log(topics.facts.name)
    async with opened(streams.PROJECTION, migrated, topics) as store:
        for n, story in enumerate(itertools.permutations(one_by_one)):
            stream = new_id()
            created = decided.append(0, log.created(slug=f"s{n}"), log.meta(tenant, stream, version=1))
            told = [facts.append(2, event, log.meta(tenant, stream, occurred_at=log.at(at))) for event, at in story]
            await feed(store, [created], told[: n % 4 + 1], *([rest] if (rest := told[n % 4 + 1 :]) else []))
            row = await streams.stream_by_id(store.pool, tenant, stream)
            assert row is not None
            assert row.state == "CONNECTING", story
            last = replace(ended, ingest_id=after.ingest_id, started_at=log.at(7))
            await feed(store, [facts.append(2, last, log.meta(tenant, stream, occurred_at=log.at(9)))])
            row = await streams.stream_by_id(store.pool, tenant, stream)
            assert row is not None
            assert row.state == "IDLE", story


async def test_a_node_that_hears_late_of_its_end_does_not_take_the_stream_off_the_air_elsewhere(migrated: str) -> None:
    """The first node crashed; the encoder went to a second one before the first one knew that it was over."""
    over = replace(log.went_offline("node-1"), live_since=log.at(1))
    told: list[tuple[Event, int]] = [(log.went_live("node-1"), 1), (log.went_live("node-2"), 5), (over, 9)]
    tenant, topics = new_id(), Topics("x.")
    decided, facts = log.Log(topics.decisions.name), log.Log(topics.facts.name)
    async with opened(streams.PROJECTION, migrated, topics) as store:
        for n, story in enumerate(itertools.permutations(told)):
            stream = new_id()
            created = decided.append(0, log.created(slug=f"s{n}"), log.meta(tenant, stream, version=1))
            heard = [facts.append(2, event, log.meta(tenant, stream, occurred_at=log.at(at))) for event, at in story]
            await feed(store, [created], heard)
            row = await streams.stream_by_id(store.pool, tenant, stream)
            assert row is not None
            assert (row.state, row.live_node_id) == ("LIVE", "node-2"), story
            last = replace(log.went_offline("node-2"), live_since=log.at(5))
            await feed(store, [facts.append(2, last, log.meta(tenant, stream, occurred_at=log.at(11)))])
            row = await streams.stream_by_id(store.pool, tenant, stream)
            assert row is not None
            assert row.state == "IDLE", story


async def test_a_fact_before_its_stream_is_seen_by_nobody(migrated: str) -> None:
    tenant, stream, topics = new_id(), new_id(), Topics("x.")
    facts = log.Log(topics.facts.name)
    facts.append(1, log.went_live(), log.meta(tenant, stream))
    async with opened(streams.PROJECTION, migrated, topics) as store:
        await feed(store, *facts.records.values())
        assert await streams.stream_by_id(store.pool, tenant, stream) is None
        assert (await streams.streams_page(store.pool, tenant, first=10)).items == []


async def test_what_another_tenant_has_is_not_there(migrated: str) -> None:
    mine, other, stream, topics = new_id(), new_id(), new_id(), Topics("x.")
    decided = log.Log(topics.decisions.name)
    decided.append(0, log.created(), log.meta(mine, stream, version=1))
    async with opened(streams.PROJECTION, migrated, topics) as store:
        await feed(store, *decided.records.values())
        assert await streams.stream_by_id(store.pool, other, stream) is None
        assert await streams.stream_by_ids(store.pool, other, [stream]) == {}
        assert list(await streams.stream_by_ids(store.pool, mine, [stream, new_id()])) == [stream]


async def test_pages_filters_and_deleted_streams(migrated: str) -> None:
    tenant, topics = new_id(), Topics("x.")
    decided, facts = log.Log(topics.decisions.name), log.Log(topics.facts.name)
    made = [new_id() for _ in range(7)]
    for n, stream in enumerate(made):
        title = f"Event 50%_{n}" if n % 2 else f"Lobby {n}"
        decided.append(0, log.created(title, f"s{n}"), log.meta(tenant, stream, version=1, occurred_at=log.at(n // 2)))
    decided.append(0, StreamDeleted(slug="s6"), log.meta(tenant, made[6], version=2, occurred_at=log.at(100)))
    facts.append(4, log.went_live(), log.meta(tenant, made[2], occurred_at=log.at(50)))
    async with opened(streams.PROJECTION, migrated, topics) as store:
        await feed(store, *decided.records.values(), *facts.records.values())
        seen: list[UUID] = []
        after = None
        while True:
            page = await streams.streams_page(store.pool, tenant, first=2, after=after)
            assert page.total_count == 6
            seen += [row.stream_id for row in page.items]
            after = page.keys[-1]
            if not page.has_next:
                break
        assert sorted(seen) == sorted(made[:6])
        assert seen == sorted(seen, key=lambda s: (made.index(s) // 2, s), reverse=True)
        beyond = await streams.streams_page(store.pool, tenant, first=2, after=after)
        assert (beyond.items, beyond.total_count) == ([], 6)
        assert [r.stream_id for r in (await streams.streams_page(store.pool, tenant, first=9, state="LIVE")).items] == [made[2]]
        assert (await streams.streams_page(store.pool, tenant, first=1, title="50%_")).total_count == 3
        assert (await streams.streams_page(store.pool, tenant, first=1, title="lobby")).total_count == 3
        assert await streams.stream_by_id(store.pool, tenant, made[6]) is None
        with pytest.raises(ValueError, match="key"):
            await streams.streams_page(store.pool, tenant, first=1, after=("a",))


def make_decision(kind: str, n: int) -> Event:
    match kind:
        case "rename":
            return StreamRenamed(title=f"title {n}")
        case "rotate":
            return StreamKeyRotated(key_prefix=f"key {n}", key_hash=b"h")
        case _:
            return StreamDeleted(slug="x")


decision = st.sampled_from(["rename", "rotate", "delete"])
fact = st.sampled_from([log.ingest_started, log.ingest_ended, log.went_live, log.went_offline])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), decision), max_size=12),
    st.lists(
        st.tuples(st.integers(0, 2), fact, st.integers(0, 6), st.sampled_from(["n1", "n2"]), st.integers(0, 2)), max_size=16
    ),
    st.lists(st.integers(1, 4), max_size=20),
    st.lists(st.integers(1, 4), max_size=20),
    st.randoms(),
)
def test_any_split_of_the_log_gives_the_rows_of_one_pass(migrated: str, decisions, facts, one, two, random) -> None:  # type: ignore[no-untyped-def]
    """Cut at random, partitions and topics interleaved at random, facts resent: the rows equal those of a pass event by event."""

    def history(topics: Topics, tenant: UUID, ids: list[UUID], resend: bool) -> list[list[ConsumerRecord]]:
        decided, told = log.Log(topics.decisions.name), log.Log(topics.facts.name)
        versions = dict.fromkeys(ids, 1)
        for stream in ids:
            decided.append(1, log.created(slug=str(ids.index(stream))), log.meta(tenant, stream, version=1))
        for n, (which, kind) in enumerate(decisions):
            stream = ids[which]
            versions[stream] += 1
            event = make_decision(kind, n)
            decided.append(1, event, log.meta(tenant, stream, version=versions[stream], occurred_at=log.at(n)))
        for which, make, second, node_id, partition in facts:
            for _ in range(2 if resend and random.random() < 0.3 else 1):
                told.append(partition, make(node_id), log.meta(tenant, ids[which], occurred_at=log.at(second)))
        return [*decided.records.values(), *told.records.values()]

    async def rows(store: PostgresStore, tenant: UUID, ids: list[UUID]) -> dict[int, tuple[object, ...]]:
        found = await store.pool.fetch("SELECT * FROM streams WHERE tenant_id = $1", tenant)
        return {ids.index(r["stream_id"]): tuple(r)[2:] for r in found}

    async def compare() -> None:
        async with opened(streams.PROJECTION, migrated, Topics()) as store:
            outcome = []
            for lengths, resend in ((itertools.repeat(1, 100), False), (one, True), (two, True)):
                topics, tenant, ids = Topics(f"{secrets.token_hex(6)}."), new_id(), [new_id() for _ in range(3)]
                queues = [list(log.cut(records, lengths)) for records in history(topics, tenant, ids, resend)]
                await store.load_offsets({TP(q[0][0].topic, q[0][0].partition) for q in queues})
                while queues := [q for q in queues if q]:
                    batch = random.choice(queues).pop(0)
                    await store.apply(TP(batch[0].topic, batch[0].partition), batch)
                outcome.append(await rows(store, tenant, ids))
            assert outcome[0] == outcome[1] == outcome[2]

    asyncio.run(compare())


async def test_a_batch_that_comes_again_changes_nothing(migrated: str) -> None:
    tenant, topics = new_id(), Topics("x.")
    decided = log.Log(topics.decisions.name)
    for n in range(6):
        decided.append(0, log.created(slug=f"s{n}"), log.meta(tenant, new_id(), version=1))
    records = decided.records[TP(topics.decisions.name, 0)]
    async with opened(journal.PROJECTION, migrated, topics) as store:
        await feed(store, records[:4])
        await feed(store, records[:4])
        await feed(store, records[2:])  # overlaps what is stored
        assert await store.pool.fetchval("SELECT count(*) FROM journal") == 6
        assert await store.load_offsets([TP(topics.decisions.name, 0)]) == {TP(topics.decisions.name, 0): 6}


async def test_the_loser_of_two_workers_is_superseded(migrated: str) -> None:
    tenant, stream, topics = new_id(), new_id(), Topics("x.")
    decided, tp = log.Log(topics.decisions.name), TP(topics.decisions.name, 0)
    records = [
        decided.append(0, log.created(), log.meta(tenant, stream, version=1)),
        decided.append(0, StreamRenamed(title="A"), log.meta(tenant, stream, version=2)),
    ]
    async with opened(streams.PROJECTION, migrated, topics) as old, opened(streams.PROJECTION, migrated, topics) as new:
        await old.load_offsets([tp])
        await new.load_offsets([tp])
        results = await asyncio.gather(old.apply(tp, records), new.apply(tp, records), return_exceptions=True)
        assert [type(r) for r in results if r is not None] == [Superseded]
        assert results.count(None) == 1
        assert await old.load_offsets([tp]) == {tp: 2}


async def test_the_journal_keeps_decisions_and_refusals(migrated: str) -> None:
    tenant, stream, topics = new_id(), new_id(), Topics("x.")
    decided = log.Log(topics.decisions.name)

    def outcome(status: CommandStatus) -> CommandHandled:
        return CommandHandled(new_id(), "RenameStream", b"f", status, 1, code="TITLE_EMPTY" if status == "REJECTED" else None)

    decided.append(0, log.created(), log.meta(tenant, stream, version=1))
    decided.append(0, outcome(CommandStatus.ACCEPTED), log.meta(tenant, stream))
    decided.append(0, outcome(CommandStatus.REJECTED), log.meta(tenant, stream))
    decided.append(0, StreamRenamed(title="Stage"), log.meta(tenant, stream, version=2))
    async with opened(journal.PROJECTION, migrated, topics) as store:
        await feed(store, *decided.records.values())
        wanted = journal.Wanted(stream)
        first = await journal.history(store.pool, tenant, wanted, first=2)
        assert [(e.event_type, e.version, e.position) for e in first.items] == [
            ("StreamRenamed", 2, Position(0, 3)),
            ("CommandHandled", 0, Position(0, 2)),
        ]
        assert (first.has_next, first.total_count) == (True, 3)
        rest = await journal.history(store.pool, tenant, wanted, first=2, after=first.keys[-1])
        assert [e.event for e in rest.items] == [log.created()]
        assert (await journal.history(store.pool, new_id(), wanted, first=2)).items == []


@pytest.mark.parametrize("versions", [(2,), (1, 3), (1, 1), (1, 2, 2)])
async def test_the_journal_halts_on_a_gap_or_a_conflict(migrated: str, versions: tuple[int, ...]) -> None:
    tenant, stream, topics = new_id(), new_id(), Topics("x.")
    decided, tp = log.Log(topics.decisions.name), TP(topics.decisions.name, 0)
    for version in versions:
        decided.append(0, StreamRenamed(title="T"), log.meta(tenant, stream, version=version))
    async with opened(journal.PROJECTION, migrated, topics) as store:
        with pytest.raises(Halted, match=rf"x.fw.decisions/0 at {len(versions) - 1}: .* comes next"):
            await feed(store, decided.records[tp])
        assert await store.load_offsets([tp]) == {tp: None}
        assert await store.pool.fetchval("SELECT count(*) FROM journal") == 0


async def test_an_unreadable_decision_stops_the_line(migrated: str) -> None:
    tenant, topics = new_id(), Topics("x.")
    decided, tp = log.Log(topics.decisions.name), TP(topics.decisions.name, 0)
    decided.append(0, log.created(), log.meta(tenant, new_id(), version=1))
    decided.append_bytes(0, b"nonsense")
    async with opened(streams.PROJECTION, migrated, topics) as store:
        with pytest.raises(Halted, match=r"x\.fw\.decisions/0 at 1: a decision cannot be read"):
            await feed(store, decided.records[tp])
        assert await store.load_offsets([tp]) == {tp: None}


async def test_unreadable_facts_are_buried_and_the_line_goes_on(stack: Stack, topics: Topics, migrated: str) -> None:
    tenant, stream = new_id(), new_id()
    facts, tp = log.Log(topics.facts.name), TP(topics.facts.name, 7)
    whole = facts.append(7, log.went_live(), log.meta(tenant, stream)).value or b""
    poison = [b"nonsense", None, whole[:-2], whole + b"!", whole[:1] + b"\xff\xff\xff\xff" + whole[5:]]
    for value in poison:
        facts.append_bytes(7, value, [("tenant_id", b"t")])
    facts.append(7, log.went_offline(), log.meta(tenant, stream, occurred_at=log.at(9)))
    async with opened(streams.PROJECTION, migrated, topics, stack.kafka) as store:
        await feed(store, facts.records[tp])
        row = await store.pool.fetchrow("SELECT live_at, offline_at FROM streams")
        assert row is not None
        assert tuple(row) == (log.NOON, log.at(9))
    consumer = reader(stack.kafka, "test")
    await consumer.start()
    where = TP(topics.dead_letters.name, 7)
    consumer.assign([where])
    await consumer.seek_to_beginning()
    letters: list[ConsumerRecord] = []
    while len(letters) < len(poison):
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            letters += records
    await consumer.stop()
    assert [letter.value for letter in letters] == poison
    about = dict(letters[1].headers)
    assert about.pop("dead_letter.reason").startswith(b"not a framed")
    assert about == {
        "tenant_id": b"t",
        "dead_letter.projection": b"streams",
        "dead_letter.topic": topics.facts.name.encode(),
        "dead_letter.partition": b"7",
        "dead_letter.offset": b"2",
    }


async def test_too_many_unreadable_facts_stop_the_line(stack: Stack, topics: Topics, migrated: str) -> None:
    facts, tp = log.Log(topics.facts.name), TP(topics.facts.name, 0)
    for _ in range(4):
        facts.append_bytes(0, b"nonsense")
    records = facts.records[tp]
    async with opened(streams.PROJECTION, migrated, topics, stack.kafka, cap=3) as store:
        await feed(store, records[:3])
        with pytest.raises(Halted, match="the cap is 3"):
            await feed(store, records[3:])
        assert await store.load_offsets([tp]) == {tp: 3}


async def test_a_definition_that_changed_needs_another_version(migrated: str) -> None:
    changed = TableProjection(
        "streams",
        streams.PROJECTION.version,
        ("decisions",),
        frozenset(),
        (tenants.TENANTS,),
        streams.apply,  # other tables, same version
    )
    async with opened(streams.PROJECTION, migrated, Topics()):
        pass
    with pytest.raises(Halted, match="bump its version"):
        async with opened(changed, migrated, Topics()):
            pass


async def test_without_migration_a_store_says_what_to_do(database: str) -> None:
    with pytest.raises(Halted, match="python -m projections migrate"):
        async with opened(streams.PROJECTION, database, Topics()):
            pass


async def test_many_migrate_at_once(database: str) -> None:
    await asyncio.gather(*(migrate(database) for _ in range(3)))
    pool = await connect(database)
    assert await pool.fetchval("SELECT count(*) FROM platform.projection_offset") == 0
    await pool.close()


async def test_waiting_for_a_position(migrated: str) -> None:
    tenant, topics = new_id(), Topics("x.")
    decided, tp = log.Log(topics.decisions.name), TP(topics.decisions.name, 4)
    for n in range(2):
        decided.append(4, log.created(slug=f"s{n}"), log.meta(tenant, new_id(), version=1))
    async with opened(streams.PROJECTION, migrated, topics) as store:
        await feed(store, decided.records[tp][:1])
        assert await passed(store.pool, "streams", Position(4, 0), 0)
        assert not await passed(store.pool, "streams", Position(4, 1), 0.02)
        assert not await passed(store.pool, "streams", Position(5, 0), 0)
        assert not await passed(store.pool, "journal", Position(4, 0), 0)
        waiting = asyncio.create_task(passed(store.pool, "streams", Position(4, 1), 180))
        await feed(store, decided.records[tp][1:])
        assert await waiting


async def test_a_database_that_restarts_is_waited_for(migrated: str) -> None:
    """Every connection is cut between two batches: the second one is stored all the same."""
    tenant, stream, topics = new_id(), new_id(), Topics("x.")
    decided, tp = log.Log(topics.decisions.name), TP(topics.decisions.name, 0)
    decided.append(0, log.created(), log.meta(tenant, stream, version=1))
    decided.append(0, StreamRenamed(title="Stage"), log.meta(tenant, stream, version=2))
    async with opened(streams.PROJECTION, migrated, topics) as store:
        await store.load_offsets([tp])
        await store.apply(tp, decided.records[tp][:1])
        admin = await asyncpg.connect(migrated)
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await admin.close()
        await store.apply(tp, decided.records[tp][1:])
        row = await streams.stream_by_id(store.pool, tenant, stream)
        assert row is not None
        assert row.title == "Stage"
