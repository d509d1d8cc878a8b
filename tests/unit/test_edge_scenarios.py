"""Recordings of real media servers lead to exactly the facts that happened, whatever the agent went through meanwhile."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from infra.recordings import names, read
from infra.recordings.replay import Translation, recorded_key
from streams.generated import (
    BandwidthMeasured,
    BufferChanged,
    BufferState,
    Fact,
    IngestEnded,
    IngestRejected,
    IngestRejection,
    IngestStarted,
    ListenerStarted,
    PushEnded,
    PushStarted,
    RecordingEnded,
    StreamTotals,
    TriggerInvalid,
    ViewerEnd,
    ViewerJoined,
    ViewerLeft,
)
from tests.edge_node import KEY, STREAM, TENANT, AgentUnderTest

HLS_FACTS = [
    "NodeStarted", "IngestStarted", "TracksChanged", "BufferChanged", "StreamWentLive", "ViewerJoined", "ViewerJoined",
    "ViewerJoined", "IngestEnded", "BufferChanged", "StreamWentOffline", "TracksChanged", "ViewerLeft", "ViewerLeft",
    "ViewerLeft", "StreamTotals", "NodeStopped",
]  # fmt: skip

BESIDE = {"ListenerStarted", "BandwidthMeasured"}  # what the media server says beside it, not of the broadcast itself


def told(agent: AgentUnderTest) -> list[str]:
    return [name for name in agent.names() if name not in BESIDE]


def played(recording: str) -> AgentUnderTest:
    agent = AgentUnderTest()
    agent.play(recording)
    return agent


def viewed(agent: AgentUnderTest) -> list[tuple[int, int, bool, ViewerEnd]]:
    left = [f for f in agent.said() if isinstance(f, ViewerLeft)]
    return [(v.seconds, v.up_bytes, v.joined_at is not None, v.end_reason) for v in left]


def test_one_publisher_and_three_viewers() -> None:
    agent = played("1-publisher-3-hls-viewers")
    assert told(agent) == HLS_FACTS
    seen = ViewerEnd.DISCONNECTED
    assert viewed(agent) == [(14, 872971, True, seen), (17, 1263288, True, seen), (22, 1395155, True, seen)]
    started, ended = agent.said(IngestStarted, IngestEnded)
    assert isinstance(started, IngestStarted)
    assert isinstance(ended, IngestEnded)
    assert (started.protocol, started.key_prefix, started.internal_name) == ("RTMP", "abcd2345", "lobby")
    assert (ended.ingest_id, ended.end_reason, ended.seconds, ended.synthesized) == (
        started.ingest_id,
        "CLEAN_INTENDED_STOP",
        30,
        False,
    )
    [totals] = agent.said(StreamTotals)
    assert isinstance(totals, StreamTotals)
    assert (totals.down_bytes, totals.up_bytes, totals.viewers, totals.viewer_seconds) == (1359808, 3535154, 3, 99)
    assert [(f.connector, f.interface, f.port) for f in agent.said() if isinstance(f, ListenerStarted)] == [
        ("HTTP", "127.0.0.1", 18080),
        ("RTMP", "127.0.0.1", 11935),
    ]
    assert [f.bytes_per_second for f in agent.said() if isinstance(f, BandwidthMeasured)] == [38651, 45399, 46127]


def test_the_same_with_asynchronous_triggers() -> None:
    agent = played("1-publisher-3-hls-viewers-only-rewrite-blocking")
    assert told(agent) == HLS_FACTS
    seen = ViewerEnd.DISCONNECTED
    assert viewed(agent) == [(14, 873047, True, seen), (17, 1133973, True, seen), (21, 1395203, True, seen)]


def test_the_same_with_the_fork() -> None:
    agent = played("fork/1-publisher-3-hls-viewers")
    assert told(agent) == HLS_FACTS
    seen = ViewerEnd.DISCONNECTED
    assert viewed(agent) == [(13, 969889, True, seen), (17, 1097153, True, seen), (21, 1350075, True, seen)]


def test_a_killed_publisher_a_stall_and_a_second_publisher_with_the_same_key() -> None:
    agent = played("2-publisher-kill9-reconnect")
    ends = [f for f in agent.said() if isinstance(f, IngestEnded)]
    assert [(e.end_reason, e.seconds) for e in ends] == [("CLEAN_REMOTE_CLOSE", 11), ("CLEAN_INTENDED_STOP", 41)]
    assert [e.ingest_id for e in ends] == [f.ingest_id for f in agent.said() if isinstance(f, IngestStarted)]
    [rejected] = [f for f in agent.said() if isinstance(f, IngestRejected)]
    assert (rejected.reason, rejected.key_redacted) == (IngestRejection.DUPLICATE_INGEST, "sk_abcd2345")
    states = [(f.state, f.issues) for f in agent.said() if isinstance(f, BufferChanged)]
    assert (BufferState.DRY, "High jitter (11205ms)!") in states
    assert Counter(state for state, _ in states) == {
        BufferState.FULL: 2,
        BufferState.EMPTY: 2,
        BufferState.DRY: 1,
        BufferState.RECOVER: 1,
    }
    assert viewed(agent) == [(58, 2442137, True, ViewerEnd.DISCONNECTED)]
    assert agent.names().count("StreamWentLive") == agent.names().count("StreamWentOffline") == 2


def test_every_recording_and_push_with_its_result() -> None:
    agent = played("3-recording-and-push-out")
    pushes = {f.push_id: f.target for f in agent.said() if isinstance(f, PushStarted)}
    ends = [f for f in agent.said() if isinstance(f, PushEnded)]
    assert {e.push_id: e.target for e in ends} == pushes
    assert [(e.target, e.sent_bytes, e.seconds, e.media_ms, e.end_reason) for e in ends] == [
        ("/var/mist/run/rec/second.ts", 568324, 9, 9275, "CLEAN_SIGNAL"),
        ("rtmp://127.0.0.1:9/live/…", 0, 0, 0, "FORMAT_SPECIFIC"),
        ("/var/mist/run/rec/$stream-$datetime.mkv", 1794189, 34, 38165, "CLEAN_EOF"),
        ("rtmp://127.0.0.1:11935/live/…", 1542309, 33, 32576, "CLEAN_EOF"),
        ("/var/mist/run/rec/auto-$stream.mkv", 765764, 16, 16123, "CLEAN_EOF"),
    ]
    assert ends[1].end_detail == "could not connect to 127.0.0.1:9: Connection refused!"
    recordings = [f for f in agent.said() if isinstance(f, RecordingEnded)]
    assert [(r.path, r.connector, r.size_bytes, r.seconds, pushes[r.push_id]) for r in recordings if r.push_id] == [
        ("/var/mist/run/rec/second.ts", "HTTPTS", 568324, 9, "/var/mist/run/rec/second.ts"),
        ("/var/mist/run/rec/auto-live+lobby.mkv", "EBML", 765764, 16, "/var/mist/run/rec/auto-$stream.mkv"),
        (
            "/var/mist/run/rec/live+lobby-2026.11.20.12.01.07.mkv",
            "EBML",
            1794189,
            34,
            "/var/mist/run/rec/$stream-$datetime.mkv",
        ),
    ]
    assert len(recordings) == 3
    # The media server's push into itself, to a stream of its own called `copy`, is no publisher of ours.
    assert agent.names().count("IngestStarted") == 1
    assert agent.said(IngestRejected) == []


def test_every_refused_key_with_its_reason_and_none_of_them_an_ingest() -> None:
    agent = AgentUnderTest()
    answers = agent.play("4-rejected-stream-key")
    rejected = [f for f in agent.said() if isinstance(f, IngestRejected)]
    assert [(r.reason, r.protocol, r.key_redacted) for r in rejected] == 4 * [(IngestRejection.UNKNOWN_KEY, "RTMP", None)]
    assert len(agent.said(IngestStarted)) == len(agent.said(IngestEnded)) == 1
    refused = {line.pid for line, answer in answers if line.name in ("RTMP_PUSH_REWRITE", "PUSH_REWRITE") and not answer}
    assert refused == {"15239", "15278", "15306", "15404"}
    assert all(answer == "false" for line, answer in answers if line.name == "STREAM_PUSH" and line.pid in refused)
    # The recorded server refused its viewers; ours let them in, so their end was never said, and STREAM_END concludes it.
    assert viewed(agent) == 8 * [(0, 0, True, ViewerEnd.STREAM_ENDED)]


@pytest.mark.parametrize("recording", names())
def test_nothing_stays_open_and_nothing_is_said_twice(recording: str) -> None:
    agent = played(recording)
    ids = [meta.event_id for _, meta in agent.facts]
    assert len(set(ids)) == len(ids)
    assert not agent.said(TriggerInvalid)
    state = agent.agent.state
    assert not [v for v in state.viewings if v.concluded_ms is None]
    assert not [*state.ingests, *state.pushes, *state.admissions, *state.refusals, *state.push_results]
    joined = [f.viewing_id for f in agent.said() if isinstance(f, ViewerJoined)]
    assert sorted(map(str, joined)) == sorted(str(f.viewing_id) for f in agent.said() if isinstance(f, ViewerLeft))
    stream = {meta.aggregate_id for fact, meta in agent.facts if type(fact).__name__ in ("ViewerLeft", "IngestEnded")}
    assert stream == {STREAM}
    assert {meta.tenant_id for fact, meta in agent.facts if type(fact).__name__ == "StreamTotals"} == {TENANT}


@pytest.mark.parametrize("recording", names())
def test_an_agent_killed_after_every_single_trigger_says_the_same(recording: str) -> None:
    undisturbed, killed = played(recording), AgentUnderTest()
    handle = killed.handle

    def handle_then_die(trigger):  # type: ignore[no-untyped-def]
        outcome = handle(trigger)
        killed.restart()
        return outcome

    killed.handle = handle_then_die  # type: ignore[method-assign]
    killed.play(recording)
    assert killed.told() == undisturbed.told()


@pytest.mark.parametrize("recording", names())
def test_every_trigger_sent_twice_says_everything_once(recording: str) -> None:
    once, twice = played(recording), AgentUnderTest()
    handle = twice.handle

    def handle_twice(trigger):  # type: ignore[no-untyped-def]
        outcome = handle(trigger)
        assert handle(trigger).answer == outcome.answer
        return outcome

    twice.handle = handle_twice  # type: ignore[method-assign]
    twice.play(recording)
    assert twice.told() == once.told()


def test_no_fact_of_any_recording_holds_a_key_an_address_or_a_url() -> None:
    for recording in names():
        for fact in played(recording).said():
            text = repr(fact)
            assert KEY not in text
            assert "wrong-key" not in text
            assert "127.0.1." not in text  # the viewers' addresses
            assert "tkn=" not in text


def test_a_recording_is_translated_for_a_run() -> None:
    recorded = read("2-publisher-kill9-reconnect")
    assert recorded_key(recorded) == "sk-7f3a9c"
    translation = Translation("sk-7f3a9c", KEY, {"live+cam1": "live+lobby"})
    body = "live+cam1\n127.0.1.1\nHLS\nhttp://127.0.0.1:22003/hls/live%2bcam1/index.m3u8"
    assert translation.body(body) == "live+lobby\n127.0.1.1\nHLS\nhttp://127.0.0.1:22003/hls/live%2blobby/index.m3u8"


def test_facts_are_facts() -> None:
    kinds = set(get_args(Fact))
    assert all(type(fact) in kinds for recording in names() for fact in played(recording).said())
