"""Publishers, pushes, recordings, refusals and health, as they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import permutations
from uuid import UUID, uuid4

import pytest

from infra.embedded.stack import Stack
from projections import ingests, stream_health
from projections.clickhouse import AsyncClient, connect
from projections.clickhouse_store import ClickHouseStore
from projections.dead_letters import DeadLetters
from projections.model import FactProjection
from projections.platform import connect as connect_postgres
from projections.platform import migrate
from streams.generated import (
    BufferChanged,
    BufferState,
    Event,
    IngestEnded,
    IngestRejected,
    IngestRejection,
    IngestStarted,
    PushEnded,
    PushStarted,
    RecordingEnded,
    StreamTotals,
    Track,
    TracksChanged,
    ViewerRejected,
    ViewerRejection,
)
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.topics import Topics
from tests.fact_log import FactLog, at, fresh

Tell = Callable[..., Awaitable[AsyncClient]]
Said = tuple[Event, float]


@pytest.fixture
async def tell(stack: Stack, topics: Topics, database: str, clickhouse_database: str) -> AsyncIterator[Tell]:
    """Tells facts of a stream to both projections, twice and the second time the other way round; gives a client to read with."""
    await migrate(database)
    async with AsyncExitStack() as closing:
        stores: list[tuple[FactProjection, ClickHouseStore]] = []
        for projection in (ingests.PROJECTION, stream_health.PROJECTION):
            pool = await connect_postgres(database)
            letters = DeadLetters(projection.name, topics, stack.kafka, pool)
            store = ClickHouseStore(projection, topics, pool, letters, await connect(clickhouse_database))
            closing.push_async_callback(store.close)
            await store.prepare()
            stores.append((projection, store))
        log = FactLog()

        async def tell_(tenant: UUID, stream: UUID, *facts: Said) -> AsyncClient:
            start = len(log.records)
            named = [(event, seconds, uuid4()) for event, seconds in facts]
            for event, seconds, event_id in [*named, *reversed(named)]:
                log.say(event, tenant, stream, at(seconds), event_id)
            for _, store in stores:
                await store.load_offsets([log.tp])
                await store.apply(log.tp, log.records[start:])
            return stores[0][1].clickhouse

        yield tell_


def started(ingest_id: UUID) -> IngestStarted:
    return IngestStarted(node_id="n1", ingest_id=ingest_id, internal_name="x", protocol="RTMP", key_prefix="sk_abc")


def ended(ingest_id: UUID, *, synthesized: bool = False, received_bytes: int | None = None) -> IngestEnded:
    return IngestEnded(
        node_id="n1",
        ingest_id=ingest_id,
        internal_name="x",
        protocol="RTMP",
        end_reason="SOURCE_LOST" if synthesized else "CLEAN_REMOTE_CLOSE",
        received_bytes=received_bytes,
        synthesized=synthesized,
    )


def totals(down_bytes: int, node_id: str = "n1") -> StreamTotals:
    return StreamTotals(
        node_id=node_id, internal_name="x", up_bytes=7, down_bytes=down_bytes, viewers=3, inputs=1, outputs=0, viewer_seconds=53
    )


async def bytes_of(ch: AsyncClient, tenant: UUID, stream: UUID) -> dict[UUID, int | None]:
    return {i.id: i.bytes for i in (await ingests.ingests(ch, tenant, stream, 100)).items}


async def test_an_ingest_from_start_to_end_and_the_bytes_of_the_totals(tell: Tell) -> None:
    tenant, stream = fresh()
    first = uuid4()
    ch = await tell(tenant, stream, (started(first), 0), (ended(first), 30), (totals(1_359_808), 50))
    page = await ingests.ingests(ch, tenant, stream, 10)
    assert page.items == [
        ingests.Ingest(first, at(0), at(30), "RTMP", "n1", "CLEAN_REMOTE_CLOSE", None, 1_359_808, synthesized=False, seconds=30)
    ]
    assert (page.total_count, page.has_next) == (1, False)
    assert (await ingests.ingests(ch, uuid4(), stream, 10)).items == []
    assert [t.down_bytes for t in (await ingests.totals(ch, tenant, stream, 10)).items] == [1_359_808]


async def test_totals_tell_the_bytes_only_where_one_ingest_made_them(tell: Tell) -> None:
    tenant, stream = fresh()
    a, b, c, d, e, f, g, h = (uuid4() for _ in range(8))
    ch = await tell(
        tenant,
        stream,
        *((started(a), 0), (ended(a), 10), (totals(100), 30)),  # one
        *((started(b), 40), (ended(b), 50), (started(c), 51), (ended(c), 60), (totals(200), 80)),  # two in one
        *((started(d), 90), (totals(300), 95), (ended(d), 99)),  # still there when it was counted
        *((started(g), 99.2), (ended(g), 99.4), (totals(350), 99.8)),  # alone, but for the rest of the one before
        *((started(e), 100), (ended(e, received_bytes=400), 110), (totals(999), 130)),  # the end says it itself
        *((started(f), 140), (ended(f), 150), (totals(0), 170)),  # the media server did not count
        *((started(h), 180), (ended(h), 190), (totals(500), 210)),  # one
    )
    assert await bytes_of(ch, tenant, stream) == {a: 100, b: None, c: None, d: None, e: 400, f: None, g: None, h: 500}


async def test_totals_of_another_node_tell_nothing(tell: Tell) -> None:
    tenant, stream = fresh()
    first = uuid4()
    ch = await tell(tenant, stream, (started(first), 0), (ended(first), 10), (totals(100, "n2"), 30))
    assert await bytes_of(ch, tenant, stream) == {first: None}


async def test_an_ingest_without_an_end_without_a_start_and_with_two_ends(tell: Tell) -> None:
    tenant, stream = fresh()
    going, unseen, twice = uuid4(), uuid4(), uuid4()
    ch = await tell(
        tenant,
        stream,
        (started(going), 100),
        (replace(ended(unseen), started_at=at(5)), 20),
        *((started(twice), 50), (ended(twice, synthesized=True), 60), (ended(twice), 59)),
    )
    page = await ingests.ingests(ch, tenant, stream, 2)
    assert [(i.id, i.started_at, i.ended_at, i.end_reason, i.synthesized) for i in page.items] == [
        (going, at(100), None, None, False),
        (twice, at(50), at(59), "CLEAN_REMOTE_CLOSE", False),
    ]
    assert (page.has_next, page.total_count) == (True, 3)
    rest = await ingests.ingests(ch, tenant, stream, 2, page.keys[-1])
    assert [(i.id, i.started_at, i.ended_at) for i in rest.items] == [(unseen, at(5), at(20))]
    assert (rest.has_next, rest.total_count) == (False, 3)
    behind = await ingests.ingests(ch, tenant, stream, 2, rest.keys[-1])
    assert (behind.items, behind.has_next, behind.total_count) == ([], False, 3)


@pytest.mark.parametrize("real_at", [59, 61])
async def test_a_real_end_wins_over_a_concluded_one_in_any_order_and_split(tell: Tell, real_at: int) -> None:
    """After a SYSTEM_START the end of before may still come, said to be earlier or later than it was concluded."""
    ingest, push = uuid4(), uuid4()
    killed = PushEnded(
        node_id="n1",
        push_id=push,
        target="/rec/$stream.mkv",
        target_used="/rec/$stream.mkv",
        started_at=at(1),
        end_reason="KILLED",
        end_detail="the media server started anew",
        synthesized=True,
    )
    said = replace(
        killed, target_used="/rec/x.mkv", end_reason="CLEAN_EOF", end_detail=None, sent_bytes=4711, seconds=58, synthesized=False
    )
    lost = replace(ended(ingest, synthesized=True), started_at=at(0))
    left = replace(ended(ingest), started_at=at(0))
    real: list[Said] = [(said, real_at), (left, real_at)]
    others: list[list[Said]] = [
        [(PushStarted(node_id="n1", push_id=push, target="/rec/$stream.mkv"), 1), (started(ingest), 0)],
        [(killed, 60), (lost, 60)],
    ]
    for order in permutations([real, *others]):
        for split in ([[*order[0], *order[1], *order[2]]], order, [order[0], [*order[1], *order[2]]], [*order, others[1]]):
            tenant, stream = fresh()
            for batch in split:
                ch = await tell(tenant, stream, *batch)
            pushes, publishings = await ingests.pushes(ch, tenant, stream, 10), await ingests.ingests(ch, tenant, stream, 10)
            assert pushes.items == [
                ingests.Push(push, "/rec/x.mkv", at(1), at(real_at), 58, 4711, None, "CLEAN_EOF", None, "n1", synthesized=False)
            ]
            assert [(i.id, i.started_at, i.ended_at, i.end_reason, i.synthesized) for i in publishings.items] == [
                (ingest, at(0), at(real_at), "CLEAN_REMOTE_CLOSE", False)
            ]


async def test_who_was_refused_at_a_stream_at_a_tenant_and_nowhere_known(tell: Tell) -> None:
    (tenant, stream), (_, other) = fresh(), fresh()
    expired = IngestRejected(node_id="n1", protocol="SRT", reason=IngestRejection.KEY_EXPIRED, key_redacted="sk_abc")
    unknown = IngestRejected(node_id="n1", protocol="RTMP", reason=IngestRejection.UNKNOWN_KEY, key_redacted=None)
    viewer = ViewerRejected(node_id="n1", session_id="s", connector="HLS", reason=ViewerRejection.STREAM_DELETED)
    await tell(tenant, stream, (expired, 10), (viewer, 20))
    await tell(tenant, other, (viewer, 30))
    ch = await tell(OPERATOR_TENANT, node_uuid(f"n-{tenant}"), (unknown, 40))
    of_stream = await ingests.rejections(ch, tenant, stream, 10)
    assert [(r.at, r.kind, r.reason, r.key_redacted) for r in of_stream.items] == [
        (at(20), "VIEWER", "STREAM_DELETED", None),
        (at(10), "INGEST", "KEY_EXPIRED", "sk_abc"),
    ]
    of_tenant = await ingests.rejections(ch, tenant, None, 2)
    assert [(r.stream_id, r.kind) for r in of_tenant.items] == [(other, "VIEWER"), (stream, "VIEWER")]
    assert (of_tenant.total_count, of_tenant.has_next) == (3, True)
    nowhere = await ingests.rejections(ch, OPERATOR_TENANT, node_uuid(f"n-{tenant}"), 10)
    assert [(r.kind, r.reason) for r in nowhere.items] == [("INGEST", "UNKNOWN_KEY")]


async def test_pushes_and_recordings_with_their_results(tell: Tell) -> None:
    tenant, stream = fresh()
    going, done, killed, file = (uuid4() for _ in range(4))

    def push_ended(push_id: UUID, reason: str, sent_bytes: int | None, *, synthesized: bool = False) -> PushEnded:
        return PushEnded(
            node_id="n1",
            push_id=push_id,
            target="/rec/$stream.mkv",
            target_used="/rec/x.mkv",
            end_reason=reason,
            sent_bytes=sent_bytes,
            seconds=20,
            synthesized=synthesized,
        )

    recording = RecordingEnded(
        node_id="n1",
        recording_id=file,
        push_id=done,
        path="/rec/x.mkv",
        connector="EBML",
        size_bytes=4711,
        seconds=20,
        started_at=at(10),
        ended_at=at(30),
        media_ms=19_900,
        end_reason="CLEAN_EOF",
    )
    ch = await tell(
        tenant,
        stream,
        (PushStarted(node_id="n1", push_id=done, target="/rec/$stream.mkv"), 10),
        (push_ended(done, "CLEAN_EOF", 4711), 30),
        (push_ended(killed, "KILLED", None, synthesized=True), 40),
        (PushStarted(node_id="n1", push_id=going, target="rtmp://far/…"), 50),
        (recording, 30),
    )
    pushes = await ingests.pushes(ch, tenant, stream, 10)
    assert [(p.id, p.target, p.started_at, p.ended_at, p.sent_bytes, p.end_reason, p.synthesized) for p in pushes.items] == [
        (going, "rtmp://far/…", at(50), None, None, None, False),
        (killed, "/rec/x.mkv", None, at(40), None, "KILLED", True),
        (done, "/rec/x.mkv", at(10), at(30), 4711, "CLEAN_EOF", False),
    ]
    recordings = await ingests.recordings(ch, tenant, stream, 10)
    assert recordings.items == [
        ingests.Recording(file, done, "/rec/x.mkv", "EBML", 4711, 20, 19_900, at(10), at(30), "CLEAN_EOF", None, "n1")
    ]
    assert recordings.total_count == 1


async def test_health_is_what_the_newest_facts_say(tell: Tell) -> None:
    (tenant, stream), (_, silent), (_, trackless) = fresh(), fresh(), fresh()
    video = Track(name="video_1", kind="video", codec="H264", bitrate_bps=5000, width=1280, height=720, frame_rate=25.0)
    audio = Track(name="audio_1", kind="audio", codec="AAC", bitrate_bps=100, channels=2, sample_rate_hz=48_000)
    full = BufferChanged(node_id="n1", state=BufferState.FULL, buffer_ms=4000, jitter_ms=20, bitrate_bps=5100)
    dry = BufferChanged(
        node_id="n1", state=BufferState.DRY, buffer_ms=900, jitter_ms=700, bitrate_bps=400, issues="Unstable connection"
    )
    ch = await tell(
        tenant,
        stream,
        (full, 4),
        (dry, 20),
        (TracksChanged(node_id="n1", tracks=(video,)), 3),
        (TracksChanged(node_id="n1", tracks=(video, audio)), 10),
    )
    await tell(tenant, trackless, (full, 4))
    health = await stream_health.health(ch, tenant, stream)
    assert health is not None
    assert (health.at, health.state, health.buffer_ms, health.jitter_ms, health.bitrate_bps, health.issues) == (
        at(20),
        "DRY",
        900,
        700,
        400,
        "Unstable connection",
    )
    assert [(t.name, t.width, t.frame_rate, t.channels) for t in health.tracks] == [
        ("video_1", 1280, 25.0, None),
        ("audio_1", None, None, 2),
    ]
    assert await stream_health.health(ch, tenant, silent) is None
    assert await stream_health.health(ch, uuid4(), stream) is None
    both = await stream_health.healths(ch, tenant, [stream, trackless, silent])
    assert {stream_id: (h.state, len(h.tracks)) for stream_id, h in both.items()} == {stream: ("DRY", 2), trackless: ("FULL", 0)}
