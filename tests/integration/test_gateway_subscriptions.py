"""Subscriptions over real Kafka, projections and sockets: snapshot, cursor, resume, gaps, refusals."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.cursors import LogCursor, event_cursor, parse_event_cursor
from infra.embedded.stack import Stack
from streams import ids
from streams.generated import Fact, IngestStarted, Meta, StreamWentLive, ViewerEnd, ViewerJoined, ViewerLeft
from streams.kafka import idempotent_producer
from streams.topics import partition_of
from tests.gateway_platform import Made, Platform, Subscription, append, new_tenant, running

EVENTS = """
subscription($id: ID!, $after: Cursor) { streamEvents(streamId: $id, after: $after) {
  __typename cursor eventId occurredAt
  ... on StreamSnapshot { state viewersNow stream { title } }
  ... on EventsSkipped { skipReason resumeFrom }
  ... on ViewerJoined { sessionId connector }
  ... on ViewerLeft { sessionId seconds upBytes endReason }
  ... on StreamRenamed { title }
} }"""


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(stack, tmp_path_factory.mktemp("gateway")) as started:
        yield started


@pytest.fixture
async def clean() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def me(platform: Platform, clean: AsyncExitStack) -> Made:
    return await new_tenant(platform, clean)


@pytest.fixture
async def producer(platform: Platform) -> AsyncIterator[AIOKafkaProducer]:
    started = idempotent_producer(platform.stack.kafka, "test")
    await started.start()
    yield started
    await started.stop()


def meta(tenant_id: str, stream_id: str) -> Meta:
    event_id = ids.new_id()
    now = datetime.now(UTC).replace(microsecond=0)
    return Meta(event_id, UUID(tenant_id), UUID(stream_id), 0, event_id, event_id, now, "node:test")


def joined(session: str) -> ViewerJoined:
    return ViewerJoined(node_id="n1", session_id=session, viewing_id=ids.new_id(), connector="HLS")


async def ended(connection: ClientConnection) -> int:
    """Reads until the server closes; its code."""
    try:
        while True:
            await asyncio.wait_for(connection.recv(), 180)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 0


async def test_a_snapshot_comes_first_then_what_happens(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    stream = await me.stream("Pier")
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"])
    snapshot = await events.event()
    assert (snapshot["__typename"], snapshot["state"], snapshot["viewersNow"]) == ("StreamSnapshot", "IDLE", 0)
    assert snapshot["stream"] == {"title": "Pier"}
    viewing = ids.new_id()
    facts: list[Fact] = [
        IngestStarted(node_id="n1", ingest_id=ids.new_id(), internal_name=stream["internalName"], protocol="RTMP"),
        StreamWentLive(node_id="n1", internal_name=stream["internalName"]),
        ViewerJoined(node_id="n1", session_id="s1", viewing_id=viewing, connector="HLS"),
        ViewerLeft(
            node_id="n1",
            session_id="s1",
            viewing_id=viewing,
            connector="HLS",
            seconds=14,
            up_bytes=872_971,
            down_bytes=0,
            end_reason=ViewerEnd.DISCONNECTED,
        ),
    ]
    for fact in facts:
        await append(producer, platform.topics.facts, fact, meta(me.tenant_id, stream["id"]))
    shown = [await events.event() for _ in facts]
    assert [e["__typename"] for e in shown] == [type(f).__name__ for f in facts]
    assert (shown[3]["seconds"], shown[3]["upBytes"], shown[3]["endReason"]) == (14, 872_971, "DISCONNECTED")
    rename = 'mutation($id: ID!) { renameStream(input: {streamId: $id, title: "Quay"}) { __typename } }'
    assert await me.api.data(rename, id=stream["id"]) == {"renameStream": {"__typename": "RenameStreamSuccess"}}
    renamed = await events.event()
    assert (renamed["__typename"], renamed["title"]) == ("StreamRenamed", "Quay")


async def test_who_comes_back_with_a_cursor_misses_nothing_and_sees_nothing_twice(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    stream, other = await me.stream(), await me.stream()
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"])
    await events.event()
    sent = 300
    cursors: list[str] = []
    seen: list[str] = []

    async def publish() -> None:
        for n in range(sent):
            await append(producer, platform.topics.facts, joined(f"s{n}"), meta(me.tenant_id, stream["id"]))
            await append(producer, platform.topics.facts, joined(f"other{n}"), meta(me.tenant_id, other["id"]))

    publishing = asyncio.create_task(publish())
    while len(seen) < sent:
        event = await events.event()
        seen.append(event["sessionId"])
        cursors.append(event["cursor"])
        if len(seen) % 40 == 0:  # leave in the middle, come back with the last cursor while events go on
            await events.socket.close()
            events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"], after=cursors[-1])
    await publishing
    assert seen == [f"s{n}" for n in range(sent)]
    again = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"], after=cursors[99])
    assert [(await again.event())["sessionId"] for _ in range(200)] == seen[100:]


async def test_a_fact_that_the_edge_sent_twice_is_shown_once(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    stream = await me.stream()
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"])
    await events.event()
    twice, once = meta(me.tenant_id, stream["id"]), meta(me.tenant_id, stream["id"])
    fact = joined("twice")
    await append(producer, platform.topics.facts, fact, twice)
    await append(producer, platform.topics.facts, fact, twice)
    await append(producer, platform.topics.facts, joined("once"), once)
    assert [(await events.event())["sessionId"] for _ in range(2)] == ["twice", "once"]


async def test_the_snapshot_and_what_follows_leave_nothing_out(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    """Subscribing while viewers join: those in the snapshot and those that follow are all of them."""
    stream = await me.stream()
    total = 60

    async def publish() -> None:
        for n in range(total):
            await append(producer, platform.topics.facts, joined(f"s{n}"), meta(me.tenant_id, stream["id"]))

    publishing = asyncio.create_task(publish())
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"])
    snapshot = await events.event()
    followed = {f"s{total - 1}"} if snapshot["viewersNow"] == total else set[str]()
    while f"s{total - 1}" not in followed:
        followed.add((await events.event())["sessionId"])
    await publishing
    included = {f"s{n}" for n in range(int(snapshot["viewersNow"]))}
    assert included | followed == {f"s{n}" for n in range(total)}


async def test_a_slow_reader_is_told_of_the_gap_and_can_fetch_it(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    stream = await me.stream()
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", platform.gateway_port))
    slow = await clean.enter_async_context(
        connect(platform.graphql_ws, sock=narrow, subprotocols=["graphql-transport-ws"], max_queue=1, compression=None)  # type: ignore[list-item]
    )
    await slow.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {me.token}"}}))
    await slow.recv()
    payload = {"query": EVENTS, "variables": {"id": stream["id"]}}
    await slow.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
    events = Subscription(slow)
    assert (await events.event())["__typename"] == "StreamSnapshot"
    sent = 16_000
    for start in range(0, sent, 1000):  # more than sockets' buffers and the queue hold; nobody reads
        await asyncio.gather(
            *[
                append(producer, platform.topics.facts, joined(f"s{n}"), meta(me.tenant_id, stream["id"]))
                for n in range(start, start + 1000)
            ]
        )
    seen, gap = 0, None
    while gap is None:
        event = await events.event()
        if event["__typename"] == "EventsSkipped":
            gap = event
        else:
            seen += 1
    assert gap["skipReason"] == "SLOW_READER"
    assert seen < sent
    await slow.close()
    again = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"], after=gap["resumeFrom"])
    missed = 0
    while seen + missed < sent:
        assert (await again.event())["__typename"] == "ViewerJoined"
        missed += 1
    assert seen + missed == sent


async def test_a_cursor_older_than_the_log_says_that_something_is_missing(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    stream = await me.stream()
    first = await append(producer, platform.topics.facts, joined("old"), meta(me.tenant_id, stream["id"]))
    kept = await append(producer, platform.topics.facts, joined("kept"), meta(me.tenant_id, stream["id"]))
    partition = TopicPartition(platform.topics.facts.name, partition_of(UUID(stream["id"])))
    admin = AIOKafkaAdminClient(bootstrap_servers=platform.stack.kafka)
    await admin.start()
    await admin.delete_records({partition: RecordsToDelete(before_offset=kept)})
    await admin.close()
    snapshot = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"])
    decisions = parse_event_cursor(UUID(stream["id"]), (await snapshot.event())["cursor"]).decisions
    old = event_cursor(UUID(stream["id"]), LogCursor(first, decisions))
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"], after=old)
    gap = await events.event()
    assert (gap["__typename"], gap["skipReason"], gap["resumeFrom"]) == ("EventsSkipped", "RETENTION", None)
    assert (await events.event())["sessionId"] == "kept"
    beyond = event_cursor(UUID(stream["id"]), LogCursor(1 << 40, decisions))
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"], after=beyond)
    assert (await events.event())["skipReason"] == "UNKNOWN_CURSOR"


async def test_foreign_and_wrong_things_are_refused(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    stream, other = await me.stream(), await new_tenant(platform, clean, "Other")

    async def refused(token: str | None, **variables: object) -> str:
        message = await (await Subscription.open(platform, token, EVENTS, clean, **variables)).message()
        assert message["type"] == "error", message
        payload = message["payload"]
        assert isinstance(payload, list)
        return str(payload[0]["extensions"]["code"])

    assert await refused(other.token, id=stream["id"]) == "NOT_FOUND"
    assert await refused(None, id=stream["id"]) == "UNAUTHENTICATED"
    assert await refused(me.token, id=stream["id"], after="no cursor") == "BAD_CURSOR"
    assert await refused(me.token, id="no id") == "NOT_FOUND"
    assert await refused(me.token) == "BAD_USER_INPUT"
    with pytest.raises(InvalidStatus, match="403"):
        await connect(platform.graphql_ws, subprotocols=["graphql-transport-ws"], origin="https://evil.example")  # type: ignore[list-item, arg-type]


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (["no json"], 4400),
        (['{"type": "nonsense"}'], 4400),
        (['{"type": "subscribe", "id": "1", "payload": {"query": "{ viewer { kind } }"}}'], 4401),
        (['{"type": "connection_init", "payload": {"authorization": "Bearer wrong"}}'], 4403),
        (['{"type": "connection_init"}', '{"type": "connection_init"}'], 4429),
    ],
)
async def test_a_socket_that_breaks_the_protocol_is_closed_with_its_code(
    platform: Platform, messages: list[str], code: int
) -> None:
    async with connect(platform.graphql_ws, subprotocols=["graphql-transport-ws"]) as connection:  # type: ignore[list-item]
        for message in messages:
            await connection.send(message)
        closed = await ended(connection)
        assert closed == code


async def test_operations_of_one_socket_run_side_by_side_and_are_bounded(
    platform: Platform, me: Made, clean: AsyncExitStack
) -> None:
    stream = await me.stream()
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"])
    await events.event()
    await events.socket.send('{"id": "q", "type": "subscribe", "payload": {"query": "{ viewer { kind } }"}}')
    assert await events.message() == {"id": "q", "type": "next", "payload": {"data": {"viewer": {"kind": "TENANT"}}}}
    assert await events.message() == {"id": "q", "type": "complete"}
    await events.socket.send('{"id": "b", "type": "subscribe", "payload": {"query": "{ nope }"}}')
    bad = await events.message()
    assert (bad["id"], bad["type"]) == ("b", "error")
    await events.socket.send('{"type": "ping"}')
    assert await events.message() == {"type": "pong"}
    payload = {"query": EVENTS, "variables": {"id": stream["id"]}}
    for n in range(2, 52):
        await events.socket.send(json.dumps({"id": str(n), "type": "subscribe", "payload": payload}))
    closed = await ended(events.socket)
    assert closed == 4429


async def test_a_stop_ends_the_sockets_and_the_cursor_goes_on_behind_it(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    stream = await me.stream()
    events = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"])
    await events.event()
    await append(producer, platform.topics.facts, joined("before"), meta(me.tenant_id, stream["id"]))
    before = await events.event()
    assert await asyncio.to_thread(platform.stop, "gateway") == 0
    assert await ended(events.socket) == 1012
    await append(producer, platform.topics.facts, joined("meanwhile"), meta(me.tenant_id, stream["id"]))
    platform.start("gateway", "gateway")
    await asyncio.to_thread(platform.ready, ["gateway"])
    again = await Subscription.open(platform, me.token, EVENTS, clean, id=stream["id"], after=before["cursor"])
    assert (await again.event())["sessionId"] == "meanwhile"
