"""The promise of the spine: what a recording of a real media server says is what the API answers, through every part.

The expected figures are read from the recorded USER_END bodies themselves, not from what the platform made of them.
"""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from tests.platform import Json, Platform, until

AUDIENCE = """query ($id: ID!) { stream(id: $id) { state isLive
  viewers { now peak total }
  sessions(first: 50) { totalCount edges { cursor node {
    id sessionId joinedAt leftAt seconds upBytes downBytes connector nodeId endReason synthesized } } }
  ingests(first: 50) { totalCount edges { node { id startedAt endedAt protocol endReason bytes } } }
  rejections(first: 50) { totalCount edges { node { at kind reason } } } } }"""


def recorded(recording: str) -> list[Json]:
    text = files("infra.recordings").joinpath(f"{recording}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def recorded_viewings(recording: str) -> list[tuple[int, int, int]]:
    """(seconds, up bytes, down bytes) of every USER_END."""
    bodies = [r["body"].split("\n") for r in recorded(recording) if r["trigger"] == "USER_END"]
    return sorted((int(b[4]), int(b[5]), int(b[6])) for b in bodies)


def nodes(connection: Json) -> list[Json]:
    return [edge["node"] for edge in connection["edges"]]


def after_replay(platform: Platform, recording: str, speed: float = 30) -> tuple[Json, str]:
    """The stream as the API shows it once everything of the recording has arrived, and the tenant's token."""
    token = platform.create_tenant()
    stream_id, key = platform.create_stream(token)
    platform.replay(recording, key, speed)
    viewings = len(recorded_viewings(recording))

    def settled() -> bool:
        stream = platform.query(AUDIENCE, {"id": stream_id}, token)["stream"]
        left = [s for s in nodes(stream["sessions"]) if s["leftAt"] and not s["synthesized"]]
        over = str(stream["state"]) == "IDLE" and all(i["endedAt"] for i in nodes(stream["ingests"]))
        return over and len(left) >= viewings

    until(settled, 180, f"{recording} to arrive")
    return platform.query(AUDIENCE, {"id": stream_id}, token)["stream"], token


@pytest.mark.parametrize(
    "recording",
    [
        "1-publisher-3-hls-viewers",
        "1-publisher-3-hls-viewers-only-rewrite-blocking",
        "fork/1-publisher-3-hls-viewers",
    ],
)
def test_one_publisher_and_three_viewers(platform: Platform, recording: str) -> None:
    stream, _ = after_replay(platform, recording)
    sessions = nodes(stream["sessions"])
    assert sorted((s["seconds"], s["upBytes"], s["downBytes"]) for s in sessions) == recorded_viewings(recording)
    assert all(s["connector"] == "HLS" and s["endReason"] == "DISCONNECTED" and not s["synthesized"] for s in sessions)
    assert stream["viewers"] == {"now": 0, "peak": 3, "total": 3}
    assert [(i["protocol"], i["endReason"]) for i in nodes(stream["ingests"])] == [("RTMP", "CLEAN_INTENDED_STOP")]
    received = next(int(r["body"].split("\n")[1]) for r in recorded(recording) if r["trigger"] == "STREAM_END")
    assert nodes(stream["ingests"])[0]["bytes"] == received
    assert stream["rejections"]["totalCount"] == 0


def test_a_killed_publisher_a_reconnect_and_a_refused_duplicate(platform: Platform) -> None:
    stream, _ = after_replay(platform, "2-publisher-kill9-reconnect")
    ends = sorted(i["endReason"] for i in nodes(stream["ingests"]))
    assert ends == ["CLEAN_INTENDED_STOP", "CLEAN_REMOTE_CLOSE"]
    assert [(r["kind"], r["reason"]) for r in nodes(stream["rejections"])] == [("INGEST", "DUPLICATE_INGEST")]
    sessions = nodes(stream["sessions"])
    expected = recorded_viewings("2-publisher-kill9-reconnect")
    assert [(s["seconds"], s["upBytes"], s["downBytes"]) for s in sessions] == expected


def test_two_tenants_never_see_each_other(platform: Platform) -> None:
    stream, _ = after_replay(platform, "1-publisher-3-hls-viewers")
    assert stream["sessions"]["totalCount"] == 3
    foreign = platform.create_tenant("Rival")
    own_id, _ = platform.create_stream(foreign)
    seen = platform.query("{ streams(first: 50) { totalCount edges { node { id } } } }", token=foreign)["streams"]
    assert [n["id"] for n in nodes(seen)] == [own_id]
    assert platform.query("query ($id: ID!) { stream(id: $id) { id } }", {"id": own_id}, foreign)["stream"]["id"] == own_id


PUSHES = """query ($id: ID!) { stream(id: $id) {
  pushes(first: 50) { totalCount nodes { target endReason bytes seconds endedAt } }
  recordings(first: 50) { totalCount nodes { path bytes seconds endReason } }
  ingests(first: 50) { totalCount } } }"""


def test_every_recording_and_push_out_with_its_result(platform: Platform) -> None:
    recording = "3-recording-and-push-out"
    token = platform.create_tenant()
    stream_id, key = platform.create_stream(token)
    platform.replay(recording, key, 30)
    bodies = [r["body"].split("\n") for r in recorded(recording) if r["trigger"] == "RECORDING_END"]
    files_written = sorted((int(b[3]), int(b[4]), b[10]) for b in bodies)
    push_ends = [r["body"].split("\n") for r in recorded(recording) if r["trigger"] == "PUSH_END"]
    # what the OUTPUT_END of the same process said is the final word on a push
    ends = {r["headers"]["X-PID"]: r["body"].split("\n") for r in recorded(recording) if r["trigger"] == "OUTPUT_END"}
    pushed = sorted((int(ends[b[0]][3]), ends[b[0]][10]) for b in push_ends)

    def settled() -> bool:
        stream = platform.query(PUSHES, {"id": stream_id}, token)["stream"]
        ended = [p for p in stream["pushes"]["nodes"] if p["endedAt"]]
        return len(ended) >= len(pushed) and len(stream["recordings"]["nodes"]) >= len(files_written)

    until(settled, 180, f"{recording} to arrive")
    stream = platform.query(PUSHES, {"id": stream_id}, token)["stream"]
    assert sorted((r["bytes"], r["seconds"], r["endReason"]) for r in stream["recordings"]["nodes"]) == files_written
    assert sorted((p["bytes"], p["endReason"]) for p in stream["pushes"]["nodes"]) == pushed
    assert stream["ingests"]["totalCount"] == 1
    assert not any("nobody" in p["target"] for p in stream["pushes"]["nodes"]), "the key of another service is hidden"


def test_every_refusal_with_its_reason_and_none_an_ingest(platform: Platform) -> None:
    query = "{ rejections(first: 100) { nodes { kind reason at } totalCount } }"
    before = platform.query(query, token=platform.up["operator_token"])["rejections"]["totalCount"]
    stream, _ = after_replay(platform, "4-rejected-stream-key")
    assert stream["ingests"]["totalCount"] == 1  # the one publisher with the real key

    def arrived() -> bool:
        after = platform.query(query, token=platform.up["operator_token"])["rejections"]["totalCount"]
        return int(after) >= int(before) + 4

    until(arrived, 180, "four refusals")
    newest = platform.query(query, token=platform.up["operator_token"])["rejections"]["nodes"][:4]
    assert [(r["kind"], r["reason"]) for r in newest] == [("INGEST", "UNKNOWN_KEY")] * 4
