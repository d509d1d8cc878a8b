"""The edge agent as a process: recordings over HTTP, through journal, gRPC and Kafka, to exactly the facts that happened."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from edge_agent.journal import Journal
from edge_agent.journal_file import Answer, TriggerRows
from infra.embedded.stack import Stack
from infra.processes.ingress import Running, running
from infra.recordings import read
from infra.recordings.replay import Answered, replay
from streams.codec import encode
from streams.generated import (
    BufferChanged,
    BufferState,
    Event,
    IngestEnded,
    IngestRejected,
    IngestRejection,
    IngestStarted,
    ListenerStarted,
    Meta,
    NodeStarted,
    NodeStopped,
    StreamCreated,
    StreamDeleted,
    StreamKeyRotated,
    ViewerJoined,
    ViewerLeft,
)
from streams.ids import derive, new_id, node_uuid
from streams.ingress.credentials import issue
from streams.kafka import idempotent_producer
from streams.topics import Topics, partition_of
from tests.cut import Cut
from tests.edge_node import KEY, STREAM, TENANT
from tests.edge_process import EdgeProcess, facts_on_log, request
from tests.ingress import SECRET_KEY, ingress_settings, meta, records
from tests.policy_log import publishing

OTHER_TENANT = derive(TENANT, "another tenant")


@pytest.fixture
async def ingress(stack: Stack, topics: Topics) -> AsyncIterator[Running]:
    """An ingress that knows one stream, `lobby`, with the key of the tests."""
    created = StreamCreated("Lobby", "lobby", "pblobby", "lobby", KEY.rpartition("_")[0], sha256(KEY.encode()).digest())
    async with idempotent_producer(stack.kafka, "test") as producer:
        value = encode(created, meta(TENANT, STREAM, version=1))
        await producer.send_and_wait(topics.decisions.name, value, TENANT.bytes, partition_of(TENANT))
    async with publishing(stack.kafka, topics), running(ingress_settings(stack.kafka, topics)) as ingress:
        yield ingress


@pytest.fixture
async def edge(ingress: Running, tmp_path: Path) -> AsyncIterator[EdgeProcess]:
    async with EdgeProcess(tmp_path / "edge", f"127.0.0.1:{ingress.port}") as edge:
        await edge.ready()
        yield edge


def distinct(facts: list[tuple[Event, Meta]]) -> dict[str, tuple[Event, Meta]]:
    return {str(m.event_id): (event, m) for event, m in facts}


async def test_a_recorded_stream_reaches_the_log_as_it_happened(stack: Stack, topics: Topics, edge: EdgeProcess) -> None:
    run = new_id()
    summary = await replay(read("1-publisher-3-hls-viewers"), edge_url=edge.url, stream_key=KEY, run_id=run, speed=0)
    assert summary.streams == {"live+cam1": "live+lobby"}
    assert summary.statuses == {200: sum(summary.triggers.values())}
    await edge.drained()
    facts = await facts_on_log(stack.kafka, topics)
    assert Counter(type(event).__name__ for event, _ in facts) == {
        "NodeStarted": 1, "NodeStopped": 1, "IngestStarted": 1, "IngestEnded": 1, "StreamWentLive": 1, "StreamWentOffline": 1,
        "BufferChanged": 2, "TracksChanged": 2, "ViewerJoined": 3, "ViewerLeft": 3, "StreamTotals": 1,
        "ListenerStarted": 2, "BandwidthMeasured": 1,
    }  # fmt: skip
    left = [event for event, _ in facts if isinstance(event, ViewerLeft)]
    assert [(v.seconds, v.up_bytes) for v in left] == [(14, 872971), (17, 1263288), (22, 1395155)]
    assert [v.viewing_id for v in left] == [event.viewing_id for event, _ in facts if isinstance(event, ViewerJoined)]
    assert all(
        m.tenant_id == TENANT and m.aggregate_id == STREAM
        for event, m in facts
        if not isinstance(event, NodeStarted | NodeStopped | ListenerStarted)
    )
    assert {m.actor for _, m in facts} == {"node:edge-1"}


async def test_a_recording_sent_again_is_not_a_second_broadcast(stack: Stack, topics: Topics, edge: EdgeProcess) -> None:
    run = new_id()
    for _ in range(2):
        await replay(read("2-publisher-kill9-reconnect"), edge_url=edge.url, stream_key=KEY, run_id=run, speed=0)
    await edge.drained()
    facts = await facts_on_log(stack.kafka, topics)
    assert len(facts) == len(distinct(facts))
    assert [e.end_reason for e, _ in facts if isinstance(e, IngestEnded)] == ["CLEAN_REMOTE_CLOSE", "CLEAN_INTENDED_STOP"]
    await replay(read("2-publisher-kill9-reconnect"), edge_url=edge.url, stream_key=KEY, run_id=new_id(), speed=0)
    await edge.drained()
    again = Counter(type(event).__name__ for event, _ in await facts_on_log(stack.kafka, topics))
    once = Counter(type(event).__name__ for event, _ in facts)
    for thinned in ("BandwidthMeasured", "StreamNotFound"):  # the second run comes too soon after the first
        del again[thinned], once[thinned]
    assert again == once + once


@pytest.mark.parametrize("killed_at", ["STREAM_PUSH", "USER_END"])
async def test_a_kill_in_the_middle_loses_and_doubles_nothing(
    stack: Stack, topics: Topics, edge: EdgeProcess, killed_at: str
) -> None:
    """Killed twice during one recording; what was answered is there, what was not is sent again by the media server."""
    kills = 0

    async def kill(answered: Answered) -> None:
        nonlocal kills
        if answered.trigger.name == killed_at and kills < 2:
            kills += 1
            await edge.kill()
            await edge.start()

    recorded = read("1-publisher-3-hls-viewers")
    summary = await replay(recorded, edge_url=edge.url, stream_key=KEY, run_id=new_id(), speed=0, heard=kill)
    assert summary.statuses == {200: len(recorded)}
    assert kills >= 1
    await edge.drained()
    facts = list(distinct(await facts_on_log(stack.kafka, topics)).values())
    assert Counter(type(event).__name__ for event, _ in facts)["ViewerLeft"] == 3
    assert [(v.seconds, v.joined_at is not None) for v, _ in facts if isinstance(v, ViewerLeft)] == [
        (14, True),
        (17, True),
        (22, True),
    ]
    ends = [e for e, _ in facts if isinstance(e, IngestEnded)]
    starts = [e for e, _ in facts if isinstance(e, IngestStarted)]
    assert [e.ingest_id for e in ends] == [s.ingest_id for s in starts]
    assert len(facts) == 20


async def test_a_retry_gets_the_same_answer_and_says_nothing_also_after_a_restart(
    stack: Stack, topics: Topics, edge: EdgeProcess
) -> None:
    viewer = f"live+lobby\n127.0.1.1\ntoken\nHLS\nhttp://127.0.0.1/hls\n{'a' * 64}\nfalse"
    url = f"rtmp://127.0.0.1/live/{KEY}"
    for attempt in (1, 2, 3):
        assert await edge.post("PUSH_REWRITE", f"{url}\n127.0.0.1\n{KEY}", uuid="u1", attempt=attempt) == (200, "live+lobby")
        assert await edge.post("STREAM_PUSH", f"live+lobby\n127.0.0.1\nRTMP\n{url}", uuid="u2", attempt=attempt) == (200, "true")
        assert await edge.post("USER_NEW", viewer, uuid="u3", pid=7, attempt=attempt) == (200, "true")
        await edge.kill()
        await edge.start()
        await edge.ready()
    await edge.drained()
    facts = distinct(await facts_on_log(stack.kafka, topics))
    assert sorted(type(event).__name__ for event, _ in facts.values()) == ["IngestStarted", "ViewerJoined"]


async def test_a_node_that_is_cut_off_decides_alone_and_catches_up(
    stack: Stack, topics: Topics, ingress: Running, tmp_path: Path
) -> None:
    async with Cut(ingress.port) as line, EdgeProcess(tmp_path / "edge", f"127.0.0.1:{line.port}") as edge:
        await edge.ready()
        edge_down = EdgeProcess(tmp_path / "edge", "127.0.0.1:1", port=edge.port)  # nobody listens there
        await edge.kill()
        async with edge_down:
            await edge_down.ready()  # the policy is on its disk
            run = new_id()
            summary = await replay(read("3-recording-and-push-out"), edge_url=edge.url, stream_key=KEY, run_id=run, speed=0)
            assert summary.streams["live+cam1"] == "live+lobby"
            waiting = (await edge_down.gauges())["fw_edge_journal_rows"]
            assert waiting > 0
            await edge_down.kill()
        assert not await facts_on_log(stack.kafka, topics)
        await edge.start()
        drained = asyncio.create_task(edge.drained())
        await line.cut()
        await drained
    facts = await facts_on_log(stack.kafka, topics)
    assert len(distinct(facts)) == waiting


async def test_the_door_refuses_what_is_no_trigger(edge: EdgeProcess) -> None:
    assert (await edge.post("NO_SUCH_TRIGGER", "x", uuid="u"))[0] == 404
    assert (await request(edge.port, "GET", "/trigger/USER_NEW"))[0] == 405
    assert (await request(edge.port, "GET", "/healthz")) == (200, b"ok\n")
    gauges = await edge.gauges()
    assert gauges["fw_edge_unknown_triggers_total"] == 1
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"POST /trigger/USER_NEW HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n")  # refused by its head: no body is sent
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 180)).startswith(b"HTTP/1.1 413 ")
    writer.close()
    assert (await edge.gauges())['fw_edge_refused_requests_total{status="413"}'] == 1


async def test_a_trigger_whose_sender_does_not_wait_is_recorded(stack: Stack, topics: Topics, edge: EdgeProcess) -> None:
    """Asynchronous triggers: MistServer writes the request and closes (CONTRACT 2.1)."""
    body = b"3.10"
    for n in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        head = f"POST /trigger/SYSTEM_START HTTP/1.1\r\nX-Trigger-UUID: u{n}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(180):
        while (await edge.gauges()).get('fw_edge_facts_total{event="NodeStarted"}', 0) < 20:
            await asyncio.sleep(0.02)
    await edge.drained()
    facts = await facts_on_log(stack.kafka, topics)
    assert [m.aggregate_id for _, m in facts] == [node_uuid("edge-1")] * 20


async def test_a_trace_goes_from_a_trigger_to_the_log(stack: Stack, topics: Topics, edge: EdgeProcess) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert await edge.post("SYSTEM_START", "3.10", uuid="u", traceparent=parent) == (200, "true")
    await edge.drained()
    [record] = await records(stack.kafka, topics.nodes)
    assert dict(record.headers)["traceparent"].decode().split("-")[1] == parent.split("-")[1]


async def test_what_the_ingress_refuses_is_kept_with_its_reason_and_holds_up_nothing(
    stack: Stack, topics: Topics, edge: EdgeProcess
) -> None:
    """The node's credential is exchanged for one that is bound to another tenant."""
    edge.tenants = [OTHER_TENANT]
    await edge.kill()
    (edge.state_dir / "credential").write_text(issue(SECRET_KEY, "edge-1", edge.tenants))
    journal = Journal(edge.state_dir / "journal.db")
    journal.open()
    foreign = encode(BufferChanged("edge-1", BufferState.FULL), meta(TENANT, STREAM))
    journal.write(TriggerRows(((foreign, None), (b"poison", None)), (), Answer(b"x", "true", 1)))
    journal.close()
    await edge.start()
    await edge.ready()
    assert await edge.post("SYSTEM_START", "3.10", uuid="u") == (200, "true")
    await edge.drained()
    [(_, node_started)] = await facts_on_log(stack.kafka, topics)
    assert node_started.tenant_id == OTHER_TENANT  # of what the only tenant's node says about itself
    assert (await edge.gauges())["fw_edge_quarantined_facts_total"] == 2
    await edge.stop()
    with sqlite3.connect(edge.state_dir / "journal.db") as file:
        kept = file.execute("SELECT value, code FROM quarantine ORDER BY seq").fetchall()
    assert kept == [(foreign, "FOREIGN_TENANT"), (b"poison", "MALFORMED")]


async def test_a_decision_reaches_the_node_within_a_second(stack: Stack, topics: Topics, edge: EdgeProcess) -> None:
    new_key = "sk_newnewne_0123456789abcdefghijkl"

    async def answer(key: str) -> str:
        """What a publisher with this key is told, who goes away at once."""
        said = await edge.post("PUSH_REWRITE", f"rtmp://h/live/{key}\n10.0.0.1\n{key}", uuid=str(new_id()))
        await edge.post("CONN_CLOSE", "\n10.0.0.1\nRTMP\n", uuid=str(new_id()))
        return said[1]

    async def decided(*events: StreamKeyRotated | StreamDeleted) -> None:
        async with idempotent_producer(stack.kafka, "test") as producer:
            for event in events:
                value = encode(event, meta(TENANT, STREAM, version=2))
                await producer.send_and_wait(topics.decisions.name, value, TENANT.bytes, partition_of(TENANT))

    assert (await answer(KEY), await answer(new_key)) == ("live+lobby", "")
    await decided(StreamKeyRotated(new_key.rpartition("_")[0], sha256(new_key.encode()).digest()))
    clock = asyncio.get_running_loop().time
    async with asyncio.timeout(180):
        rotated_at = clock()
        while (await answer(KEY), await answer(new_key)) != ("", "live+lobby"):
            await asyncio.sleep(0.01)
        deleted_at = clock()
        await decided(StreamDeleted("lobby"))
        while await answer(new_key) != "":
            await asyncio.sleep(0.01)
    # a second on a quiet machine; a busy one may be late with one of them
    assert min(deleted_at - rotated_at, clock() - deleted_at) < 5
    await edge.drained()
    reasons = [e.reason for e, _ in await facts_on_log(stack.kafka, topics) if isinstance(e, IngestRejected)]
    assert {IngestRejection.UNKNOWN_KEY, IngestRejection.KEY_EXPIRED, IngestRejection.STREAM_DELETED} <= set(reasons)


async def test_a_node_that_never_had_a_policy_refuses_and_says_why(tmp_path: Path) -> None:
    async with EdgeProcess(tmp_path / "edge", "127.0.0.1:1") as edge:
        async with asyncio.timeout(180):
            while True:
                try:
                    status, detail = await request(edge.port, "GET", "/readyz")
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        assert status == 503
        assert b"no policy was ever received" in detail
        assert await edge.post("PUSH_REWRITE", f"rtmp://h/live/{KEY}\n10.0.0.1\n{KEY}", uuid="u") == (200, "")
        log = (edge.state_dir / "log").read_text()
        assert "no policy was ever received" in log
        assert KEY not in log


async def test_sigterm_ends_it_cleanly(edge: EdgeProcess) -> None:
    assert (await edge.post("SYSTEM_START", "3.10", uuid="u"))[0] == 200
    assert await edge.stop() == 0
