"""The ClickHouse store: what is inserted twice is one row, poison is buried alone, and no body speaks for another."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import fastavro
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from clickhouse_connect.driver.exceptions import DatabaseError

from infra.embedded.stack import Stack
from projections import builds, ingests, samples, stream_health, viewer_sessions
from projections.avro_blocks import block, header, varint
from projections.builds import Build
from projections.clickhouse import AsyncClient, connect, rows
from projections.clickhouse_store import ClickHouseStore, Target, show
from projections.dead_letters import DeadLetters
from projections.model import TP, FactProjection
from projections.platform import connect as connect_postgres
from projections.platform import migrate
from streams.codec import PREFIX, encode
from streams.errors import Superseded
from streams.faust_batches.fetched import Halted
from streams.generated import WRITERS, ClientSamples, StreamWentLive, ViewerEnd, ViewerJoined, ViewerLeft, write_Meta
from streams.registry import by_id, by_name
from streams.topics import Topics
from tests.cut import Cut
from tests.fact_log import APPENDED_AT_MS, FactLog, at, fact_meta, fresh


class Open(Protocol):
    async def __call__(self, projection: FactProjection, build: Build | None = None) -> ClickHouseStore: ...


@pytest.fixture
async def opened(stack: Stack, topics: Topics, database: str, clickhouse_database: str) -> AsyncIterator[Open]:
    """Opens stores over fresh databases, as a worker does when it starts."""
    await migrate(database)
    async with AsyncExitStack() as closing:

        async def open_(projection: FactProjection, build: Build | None = None) -> ClickHouseStore:
            pool = await connect_postgres(database)
            letters = DeadLetters(projection.name, topics, stack.kafka, pool, cap=20)
            store = ClickHouseStore(projection, topics, pool, letters, await connect(clickhouse_database), build)
            closing.push_async_callback(store.close)
            await store.prepare()
            await store.load_offsets([TP("fw.facts", p) for p in range(12)] + [TP("fw.samples", 0)])
            return store

        yield open_


def joined(n: int, viewing_id: UUID | None = None) -> ViewerJoined:
    return ViewerJoined(node_id="n1", session_id=f"s{n}", viewing_id=viewing_id or uuid4(), connector="HLS", country="NL")


def left(n: int, viewing_id: UUID | None = None) -> ViewerLeft:
    return ViewerLeft(
        node_id="n1",
        session_id=f"s{n}",
        viewing_id=viewing_id or uuid4(),
        connector="HLS",
        seconds=n,
        up_bytes=1000 * n,
        down_bytes=n,
        end_reason=ViewerEnd.DISCONNECTED,
    )


async def one(ch: AsyncClient, sql: str) -> object:
    return (await rows(ch, sql, {}))[0][0]


async def test_a_batch_in_doubt_is_inserted_again_and_changes_nothing(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    for n in range(500):
        log.say(joined(n) if n % 2 else left(n), tenant, stream, at(n))
    await store.apply(log.tp, log.records)
    # A second worker, killed between insert and commit, would have inserted any part of it, in any cut.
    for start in range(0, 500, 90):
        for target, records in store._blocks(log.tp, log.records[start : start + 200])[0]:
            assert await store._insert(target, records) == []
    assert await one(store.clickhouse, "SELECT (count(), uniqExact(event_id)) FROM viewer_joined_v") == (250, 250)
    assert await one(store.clickhouse, "SELECT (count(), sum(up_bytes)) FROM viewer_left_v") == (
        250,
        sum(1000 * n for n in range(0, 500, 2)),
    )


async def test_a_fact_that_stands_on_the_log_twice_is_one_row(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    event, event_id = joined(1), uuid4()
    for _ in range(6):
        log.say(event, tenant, stream, at(1), event_id)
    for start in (0, 1, 2):  # alone, and several in one block
        await store.apply(log.tp, log.records[start : start + 1] if start < 2 else log.records[2:])
    assert await one(store.clickhouse, "SELECT count() FROM viewer_joined_v") == 1


async def test_rows_say_where_they_came_from(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog(TP("fw.facts", 7))
    for n in range(4):
        log.say(joined(n), tenant, stream, at(n))
    await store.apply(log.tp, log.records)
    found = await rows(
        store.clickhouse,
        "SELECT _partition, _offset, toUnixTimestamp64Milli(_appended_at), tenant_id, aggregate_id, session_id"
        " FROM viewer_joined_v ORDER BY _offset",
        {},
    )
    assert [tuple(row) for row in found] == [(7, r.offset, r.timestamp, tenant, stream, f"s{r.offset}") for r in log.records]


async def test_records_of_other_projections_are_passed_over(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    log.say(StreamWentLive(node_id="n1", internal_name="x"), tenant, stream, at(0))
    await store.apply(log.tp, log.records)
    assert (await store.load_offsets([log.tp]))[log.tp] == 1


async def test_records_below_the_position_are_dropped(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    for n in range(6):
        log.say(joined(n), tenant, stream, at(n))
    await store.apply(log.tp, log.records[:4])
    await store.apply(log.tp, log.records[:4])
    await store.apply(log.tp, log.records[2:])
    assert (await store.load_offsets([log.tp]))[log.tp] == 6
    assert await one(store.clickhouse, "SELECT count() FROM viewer_joined_v") == 6


async def test_a_superseded_worker_exits_and_has_done_no_harm(opened: Open) -> None:
    one_store, other = await opened(viewer_sessions.PROJECTION), await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    for n in range(6):
        log.say(joined(n), tenant, stream, at(n))
    await one_store.apply(log.tp, log.records)
    with pytest.raises(Superseded):
        await other.apply(log.tp, log.records[:3])
    assert await one(other.clickhouse, "SELECT count() FROM viewer_joined_v") == 6
    assert (await one_store.load_offsets([log.tp]))[log.tp] == 6


async def test_poison_in_the_middle_of_a_block_is_buried_alone(opened: Open, stack: Stack) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    good = [encode(joined(n), fact_meta(tenant, stream, at(n))) for n in range(100)]
    poison = {
        10: good[10][:40],  # cut short
        11: good[11] + b"\x00tail",  # more than a record
        40: good[40][:5] + b"\xff" * 60,  # lengths without sense
        41: b"",  # a tombstone's value
        42: None,
        70: b"{}",  # not framed
        99: good[99][:5],  # nothing behind the frame
    }
    for n, value in enumerate(good):
        log.append(poison.get(n, value))
    await store.apply(log.tp, log.records)
    want = sorted(set(range(100)) - set(poison))
    assert [row[0] for row in await rows(store.clickhouse, "SELECT _offset FROM viewer_joined_v ORDER BY 1", {})] == want
    letters = await read_letters(stack.kafka, store.topics.dead_letters.name, len(poison))
    assert letters == poison


async def test_too_much_poison_stops_the_line(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    log = FactLog()
    for _ in range(21):
        log.append(PREFIX.pack(0, by_name()["ViewerJoined"].id) + b"\xff" * 20)
    with pytest.raises(Halted, match="21 unreadable facts"):
        await store.apply(log.tp, log.records)
    assert (await store.load_offsets([log.tp]))[log.tp] is None


async def test_an_unknown_schema_id_stops_the_line_and_nothing_is_skipped(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    log.say(joined(1), tenant, stream, at(0))
    newer = len(by_id()) + 1
    log.append(PREFIX.pack(0, newer) + b"whatever")
    with pytest.raises(Halted, match=rf"fw\.facts/3 at 1: schema id {newer}"):
        await store.apply(log.tp, log.records)
    assert (await store.load_offsets([log.tp]))[log.tp] is None


async def test_noise_that_begins_like_a_record_is_buried_and_the_line_goes_on(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    log.append(PREFIX.pack(0, 3_000_000_000) + b"whatever")
    log.say(joined(1), tenant, stream, at(0))
    await store.apply(log.tp, log.records)
    assert (await store.load_offsets([log.tp]))[log.tp] == 2


async def test_two_bodies_that_fit_together_cannot_smuggle_in_a_third(opened: Open) -> None:
    """One body carries a whole further row, the next is cut so that its last string swallows its neighbour: the count fits."""
    store = await opened(viewer_sessions.PROJECTION)
    (tenant, stream), (victim, victims_stream) = fresh(), fresh()
    seal, tp = 5, TP("fw.facts", 3)
    honest = encode(joined(2), fact_meta(tenant, stream, at(2)))
    swallowing = encode(replace(joined(1), country=None), fact_meta(tenant, stream, at(1)))
    forged = encode(joined(666), fact_meta(victim, victims_stream, at(0)))
    log = FactLog(tp)
    # The first body goes on with a seal that its writer had to guess, and with a forged row behind it.
    guessed, place = varint(4711), b"".join(map(varint, (tp.partition, 0, 0)))
    log.append(encode(joined(0), fact_meta(tenant, stream, at(0))) + guessed + place + forged[PREFIX.size :])
    # The last string of the second reaches to the end of the third.
    reach = len(b"".join(map(varint, (seal, tp.partition, APPENDED_AT_MS, 2)))) + len(honest) - PREFIX.size
    log.append(swallowing[:-1] + varint(1) + varint(reach))
    log.append(honest)
    body = block(header(by_name()["ViewerJoined"]), seal, log.records)
    settings = {"log_comment": str(seal)}
    with pytest.raises(DatabaseError, match="sealed"):
        await store.clickhouse.raw_insert("viewer_joined_1", insert_block=body, fmt="Avro", settings=settings)
    await store.clickhouse.command("CREATE TABLE unsealed AS viewer_joined_1")
    await store.clickhouse.command("ALTER TABLE unsealed DROP CONSTRAINT sealed")
    await store.clickhouse.raw_insert("unsealed", insert_block=body, fmt="Avro", settings=settings)
    assert await one(store.clickhouse, "SELECT tenant_id FROM unsealed WHERE session_id = 's666'") == victim  # the danger is real
    await store.apply(tp, log.records)
    found = await rows(store.clickhouse, "SELECT tenant_id, session_id FROM viewer_joined_v", {})
    assert [tuple(row) for row in found] == [(tenant, "s2")]


async def test_arrays_become_one_row_an_element_and_twice_is_once(opened: Open) -> None:
    store = await opened(samples.PROJECTION)
    tenant, stream = fresh()
    log = FactLog(TP("fw.samples", 0))
    for window in range(10):
        log.say(client_samples(window, 100), tenant, stream, at(window * 5))
    await store.apply(log.tp, log.records)
    for target, records in store._blocks(log.tp, log.records)[0]:
        await store._insert(target, records)
    assert await one(store.clickhouse, "SELECT (count(), uniqExact(session_id), sum(up_bytes)) FROM client_samples_v") == (
        1000,
        100,
        10 * sum(range(100)),
    )
    series = await samples.traffic(store.clickhouse, tenant, stream, at(0), at(50), 10)
    assert [(t.at, t.sessions, t.up_bytes_per_second) for t in series] == [(at(10 * n), 100, 100 * 1000) for n in range(5)]
    other_tenant = await samples.traffic(store.clickhouse, uuid4(), stream, at(0), at(50), 10)
    assert other_tenant == []


async def test_arrays_of_different_lengths_are_poison(opened: Open, stack: Stack) -> None:
    store = await opened(samples.PROJECTION)
    tenant, stream = fresh()
    log = FactLog(TP("fw.samples", 0))
    log.say(client_samples(0, 3), tenant, stream, at(0))
    log.say(replace(client_samples(1, 3), up_bytes=(1, 2)), tenant, stream, at(5))
    log.say(client_samples(2, 3), tenant, stream, at(10))
    await store.apply(log.tp, log.records)
    assert await one(store.clickhouse, "SELECT count() FROM client_samples_v") == 6
    assert list(await read_letters(stack.kafka, store.topics.dead_letters.name, 1)) == [1]


def client_samples(window: int, sessions: int) -> ClientSamples:
    per_session = tuple(range(sessions))
    return ClientSamples(
        node_id="n1",
        window_started_at=at(window * 5),
        session_ids=tuple(f"s{n}" for n in per_session),
        sampled_at=tuple(at(window * 5 + n / 1000) for n in per_session),
        connectors=("HLS",) * sessions,
        connected_seconds=per_session,
        up_bytes=per_session,
        down_bytes=per_session,
        up_bytes_per_second=(1000,) * sessions,
        down_bytes_per_second=(10,) * sessions,
        packets_sent=per_session,
        packets_lost=per_session,
        packets_retransmitted=per_session,
    )


async def test_preparing_again_changes_nothing_and_a_flip_is_followed(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    log.say(joined(1), tenant, stream, at(0))
    await store.apply(log.tp, log.records)
    await store.prepare()
    async with store.pool.acquire() as db, db.transaction():
        second = await builds.begin(db, viewer_sessions.PROJECTION, "building")
    rebuilt = await opened(viewer_sessions.PROJECTION, second)
    assert await one(rebuilt.clickhouse, "SELECT count() FROM viewer_joined_v") == 1  # still the first build's
    log.say(joined(2), tenant, stream, at(0))
    await rebuilt.apply(log.tp, log.records)
    assert await one(rebuilt.clickhouse, "SELECT count() FROM viewer_joined_v") == 1
    async with store.pool.acquire() as db, db.transaction():
        await builds.flip(db, viewer_sessions.PROJECTION, store.served.build, second)
    # Whoever flipped died before the views: the worker of the first build goes on with the second and lets readers see it.
    log.say(joined(3), tenant, stream, at(0))
    await store.apply(log.tp, log.records[2:])
    assert store.served.build.number == second.number
    assert await one(rebuilt.clickhouse, "SELECT count() FROM viewer_joined_v") == 3
    await show(store.clickhouse, builds.tables(viewer_sessions.PROJECTION, second))
    assert await one(rebuilt.clickhouse, "SELECT count() FROM viewer_joined_v") == 3


@pytest.mark.parametrize("projection", [viewer_sessions.PROJECTION, samples.PROJECTION], ids=lambda p: p.name)
async def test_a_field_that_the_table_lacks_becomes_a_column(opened: Open, projection: FactProjection) -> None:
    """As after an upgrade: the table was made by a schema without `connector(s)`, and holds rows."""
    store = await opened(projection)
    tenant, stream = fresh()
    log = FactLog(TP("fw.samples" if projection is samples.PROJECTION else "fw.facts", 0))
    event = client_samples(0, 2) if projection is samples.PROJECTION else joined(1)
    log.say(event, tenant, stream, at(0))
    await store.apply(log.tp, log.records)
    table = projection.tables[0]
    if projection is samples.PROJECTION:
        unfold = await one(
            store.clickhouse,
            "SELECT as_select FROM system.tables WHERE name = 'client_samples_unfold_1' AND database = currentDatabase()",
        )
        older = str(unfold).replace("connector, ", "", 1).replace("connectors AS connector, ", "")
        await store.clickhouse.command(f"ALTER TABLE client_samples_unfold_1 MODIFY QUERY {older}")
        await store.clickhouse.command(f"ALTER TABLE {table.target} DROP COLUMN connectors")
    await store.clickhouse.command(f"ALTER TABLE {table.physical} DROP COLUMN connector")
    await store.prepare()
    log.say(event, tenant, stream, at(1))
    await store.apply(log.tp, log.records)
    found = await rows(
        store.clickhouse,
        f"SELECT DISTINCT _appended_at, connector FROM {table.view} ORDER BY occurred_at"
        if projection is not samples.PROJECTION
        else f"SELECT DISTINCT connector FROM {table.view} ORDER BY connector",
        {},
    )
    assert [row[-1] for row in found] == ["", "HLS"]


async def test_records_of_an_older_schema_get_the_defaults_of_newer_fields(opened: Open) -> None:
    """As if `country`, `joined_at` and `synthesized` had come later: older bodies have no bytes for them."""
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    newest = by_name()["ViewerLeft"]
    later = {"country", "joined_at", "synthesized"}
    fields = [f for f in newest.schema["fields"] if f["name"] not in later]  # type: ignore[attr-defined]  # JSON of a record
    older = replace(newest, id=77_000_001, schema={**newest.schema, "fields": fields})
    meta = fact_meta(tenant, stream, at(0))
    written = WRITERS[ViewerLeft](left(5)) | {"meta": write_Meta(meta)}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(dict(older.schema)), written)
    log = FactLog()
    log.append(PREFIX.pack(0, older.id) + body.getvalue())
    log.say(replace(left(6), synthesized=True, country="NL"), tenant, stream, at(1))
    store.targets[PREFIX.pack(0, older.id)] = Target("viewer_left_1", header(older))  # what the lock file would have led to
    await store.apply(log.tp, log.records)
    found = await rows(
        store.clickhouse, "SELECT seconds, country, joined_at, synthesized FROM viewer_left_v ORDER BY seconds", {}
    )
    assert [tuple(row) for row in found] == [(5, None, None, False), (6, "NL", None, True)]


async def test_a_server_that_is_away_for_a_while_is_waited_for(opened: Open, clickhouse_database: str) -> None:
    """Connections break in the middle of inserts, again and again: nothing is lost, nothing counts twice."""
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    url = urlsplit(clickhouse_database)
    assert url.port
    log = FactLog()
    for n in range(3000):
        log.say(joined(n), tenant, stream, at(n))
    direct = store.clickhouse
    async with Cut(url.port) as line:
        store.clickhouse = await connect(clickhouse_database.replace(f":{url.port}/", f":{line.port}/"))
        cuts = 0

        async def cut_often() -> None:
            nonlocal cuts
            while True:
                await asyncio.sleep(0.03)  # the moment is the test's input
                cuts += await line.cut()

        cutting = asyncio.create_task(cut_often())
        for start in range(0, 3000, 150):
            await store.apply(log.tp, log.records[start : start + 150])
        cutting.cancel()
        await store.clickhouse.close()
    store.clickhouse = direct
    assert cuts
    assert await one(direct, "SELECT (count(), uniqExact(event_id)) FROM viewer_joined_v") == (3000, 3000)


async def test_a_table_that_is_missing_is_no_poison(opened: Open) -> None:
    store = await opened(viewer_sessions.PROJECTION)
    tenant, stream = fresh()
    log = FactLog()
    log.say(joined(1), tenant, stream, at(0))
    await store.clickhouse.command("DROP TABLE viewer_joined_1 SYNC")
    with pytest.raises(DatabaseError):
        await store.apply(log.tp, log.records)
    assert (await store.load_offsets([log.tp]))[log.tp] is None


async def test_health_needs_no_buffer_fact(opened: Open) -> None:
    store = await opened(stream_health.PROJECTION)
    await opened(ingests.PROJECTION)
    assert await stream_health.health(store.clickhouse, *fresh()) is None


async def read_letters(kafka: str, topic: str, count: int) -> dict[int, bytes | None]:
    """Values on the dead-letter topic by the offset that they had."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, p) for p in range(12)])
        await consumer.seek_to_beginning()
        found: dict[int, bytes | None] = {}
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    found[int(dict(record.headers)["dead_letter.offset"])] = record.value
        return dict(sorted(found.items()))
    finally:
        await consumer.stop()
