"""What happened to a stream, asked over the API: facts on the log to answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from streams import ids
from streams.generated import (
    BufferChanged,
    BufferState,
    Fact,
    IngestEnded,
    IngestRejected,
    IngestRejection,
    IngestStarted,
    Meta,
    StreamWentLive,
    Track,
    TracksChanged,
    ViewerEnd,
    ViewerJoined,
    ViewerLeft,
)
from streams.kafka import idempotent_producer
from tests.gateway_platform import (
    OPERATOR_TOKEN,
    Api,
    Json,
    Made,
    Platform,
    append,
    new_tenant,
)


@pytest.fixture
def platform(gateway_platform: Platform) -> Platform:
    return gateway_platform


@pytest.fixture
async def clean() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def me(platform: Platform, clean: AsyncExitStack) -> Made:
    return await new_tenant(platform, clean)


@pytest.fixture
async def operator(platform: Platform, clean: AsyncExitStack) -> Api:
    api = Api(platform, OPERATOR_TOKEN)
    clean.push_async_callback(api.close)
    return api


def payload(data: Json) -> Json:
    """The only root field's value."""
    (found,) = data.values()
    assert isinstance(found, dict)
    return found


def error_code(answer: Json) -> str:
    return str(answer["errors"][0]["extensions"]["code"])


async def test_what_happened_to_a_stream(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    producer = idempotent_producer(platform.stack.kafka, "test")
    await producer.start()
    clean.push_async_callback(producer.stop)
    stream = await me.stream()
    noon = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
    ingest, first, second = ids.new_id(), ids.new_id(), ids.new_id()

    async def put(seconds: int, fact: Fact) -> None:
        event_id = ids.new_id()
        at = noon + timedelta(seconds=seconds)
        meta = Meta(event_id, UUID(me.tenant_id), UUID(stream["id"]), 0, event_id, event_id, at, "node:n1")
        await append(producer, platform.topics.facts, fact, meta)

    def joined(viewing: UUID, session: str) -> ViewerJoined:
        return ViewerJoined(node_id="n1", session_id=session, viewing_id=viewing, connector="HLS", country="NL")

    await put(0, IngestStarted(node_id="n1", ingest_id=ingest, internal_name=stream["internalName"], protocol="RTMP"))
    await put(2, StreamWentLive(node_id="n1", internal_name=stream["internalName"]))
    await put(2, BufferChanged(node_id="n1", state=BufferState.FULL, buffer_ms=4000, jitter_ms=20, bitrate_bps=2_000_000))
    await put(2, TracksChanged(node_id="n1", tracks=(Track("video_H264", "video", "H264", 1_800_000, width=1280, height=720),)))
    await put(10, joined(first, "s1"))
    await put(12, joined(second, "s2"))
    left = ViewerLeft(
        node_id="n1",
        session_id="s1",
        viewing_id=first,
        connector="HLS",
        seconds=14,
        up_bytes=872_971,
        down_bytes=5,
        end_reason=ViewerEnd.DISCONNECTED,
    )
    await put(24, left)
    await put(
        25, IngestRejected(node_id="n1", protocol="RTMP", reason=IngestRejection.DUPLICATE_INGEST, key_redacted="sk_aaaaaaaa_…")
    )
    asked = """query($id: ID!, $from: DateTime!, $to: DateTime!) { stream(id: $id) {
        state isLive
        viewers { now peak total }
        sessions(first: 5) { totalCount pageInfo { hasNextPage } edges { cursor node {
          id sessionId joinedAt leftAt seconds upBytes downBytes connector nodeId endReason synthesized country } } }
        ingests(first: 5) { totalCount edges { node { id startedAt endedAt protocol endReason bytes } } }
        rejections(first: 5) { totalCount edges { node { at kind reason keyRedacted } } }
        health { bufferState bufferMs jitterMs bitrateBps tracks { kind codec width height } }
        viewersOverTime(from: $from, to: $to, step: 5) { at viewers }
        pushes { totalCount } recordings { totalCount }
      } }"""
    around = {"from": noon.isoformat(), "to": (noon + timedelta(seconds=30)).isoformat()}

    async def ask() -> Json:
        return payload(await me.api.data(asked, id=stream["id"], **around))

    def complete(found: Json) -> bool:
        health = found["health"] or {}  # its two halves come from two tables, one after the other
        told = bool(health.get("tracks") and health.get("bufferState")) and found["ingests"]["totalCount"] == 1
        return told and found["state"] == "LIVE" and found["rejections"]["totalCount"] == 1

    async with asyncio.timeout(180):
        while not complete(found := await ask()) or found["viewers"] != {"now": 1, "peak": 2, "total": 2}:
            await asyncio.sleep(0.05)
    assert found["isLive"] is True

    def at(seconds: int) -> str:
        return (noon + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")[:-6] + "Z"

    sessions = found["sessions"]
    assert sessions["totalCount"] == 2
    assert sessions["edges"][1]["node"] == {
        "id": str(first),
        "sessionId": "s1",
        "joinedAt": at(10),
        "leftAt": at(24),
        "seconds": 14,
        "upBytes": 872_971,
        "downBytes": 5,
        "connector": "HLS",
        "nodeId": "n1",
        "endReason": "DISCONNECTED",
        "synthesized": False,
        "country": "NL",
    }
    assert sessions["edges"][0]["node"]["leftAt"] is None
    node = {"id": str(ingest), "startedAt": at(0), "endedAt": None, "protocol": "RTMP", "endReason": None, "bytes": None}
    assert found["ingests"] == {"totalCount": 1, "edges": [{"node": node}]}
    refusal = {"at": at(25), "kind": "INGEST", "reason": "DUPLICATE_INGEST", "keyRedacted": "sk_aaaaaaaa_…"}
    assert found["rejections"] == {"totalCount": 1, "edges": [{"node": refusal}]}
    assert found["health"] == {
        "bufferState": "FULL",
        "bufferMs": 4000,
        "jitterMs": 20,
        "bitrateBps": 2_000_000,
        "tracks": [{"kind": "video", "codec": "H264", "width": 1280, "height": 720}],
    }
    over_time = found["viewersOverTime"]
    assert over_time == [{"at": at(5 * n), "viewers": v} for n, v in enumerate([0, 0, 1, 2, 2, 1])]
    behind = """query($id: ID!, $after: String) { stream(id: $id) { sessions(first: 1, after: $after) {
        edges { node { sessionId } } pageInfo { hasNextPage } } } }"""
    page = await me.api.data(behind, id=stream["id"], after=sessions["edges"][0]["cursor"])
    assert page == {"stream": {"sessions": {"edges": [{"node": {"sessionId": "s1"}}], "pageInfo": {"hasNextPage": False}}}}
    await put(40, IngestEnded(node_id="n1", ingest_id=ingest, internal_name="x", protocol="RTMP", end_reason="EOF"))


async def test_the_operator_sees_who_was_refused_without_a_tenant(
    platform: Platform, operator: Api, clean: AsyncExitStack
) -> None:
    producer = idempotent_producer(platform.stack.kafka, "test")
    await producer.start()
    clean.push_async_callback(producer.stop)
    event_id = ids.new_id()
    meta = Meta(event_id, ids.OPERATOR_TENANT, ids.node_uuid("n1"), 0, event_id, event_id, datetime.now(UTC), "node:n1")
    fact = IngestRejected(node_id="n1", protocol="SRT", reason=IngestRejection.UNKNOWN_KEY, key_redacted="sk_zz…")
    await append(producer, platform.topics.facts, fact, meta)
    asked = "{ rejections(first: 5) { totalCount edges { node { kind reason keyRedacted } } } }"
    async with asyncio.timeout(180):
        while (found := payload(await operator.data(asked)))["totalCount"] == 0:
            await asyncio.sleep(0.05)
    assert found["edges"] == [{"node": {"kind": "INGEST", "reason": "UNKNOWN_KEY", "keyRedacted": "sk_zz…"}}]
