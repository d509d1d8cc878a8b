"""A hostile publisher, viewer or passer-by at the edge agent: no door opens, nothing is mis-parsed, nothing is told."""

from __future__ import annotations

import secrets
import socket
import time
from urllib.parse import urlsplit

import pytest

from tests.platform import Json, Platform, until

ROTATE = """mutation ($input: RotateStreamKeyInput!) { rotateStreamKey(input: $input) {
  ... on RotateStreamKeySuccess { streamKey } ... on Error { code } } }"""
DELETE = "mutation ($input: DeleteStreamInput!) { deleteStream(input: $input) { __typename } }"


def trigger(platform: Platform, name: str, body: str | bytes, pid: int, uuid: str | None = None) -> str:
    headers = {"X-Trigger-UUID": uuid or secrets.token_hex(8), "X-Instance": "hostile", "X-PID": str(pid)}
    answer = platform.http.post(f"{platform.up['edge']}/trigger/{name}", content=body, headers=headers)
    assert answer.status_code == 200
    return answer.text


def publish(platform: Platform, key: str) -> str:
    """What a publisher with this key is answered; it leaves again at once."""
    pid = secrets.randbelow(1 << 30)
    answer = trigger(platform, "PUSH_REWRITE", f"rtmp://h/live/{key}\n10.9.9.9\n{key}", pid)
    trigger(platform, "CONN_CLOSE", f"{key}\n10.9.9.9\nRTMP\nrtmp://h/live/{key}", pid)
    return answer


def connected(platform: Platform) -> socket.socket:
    address = urlsplit(platform.up["edge"])
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=10)


def raw(platform: Platform, request: bytes) -> bytes:
    """The status line of whatever comes back."""
    with connected(platform) as connection:
        connection.sendall(request)
        return connection.recv(4096).partition(b"\r\n")[0]


def metric(platform: Platform, name: str) -> float:
    lines = platform.http.get(f"{platform.up['edge']}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_rotated_key_is_good_until_its_grace_is_over_and_a_deleted_stream_has_none(platform: Platform) -> None:
    token = platform.create_tenant()
    stream_id, first = platform.create_stream(token)
    assert publish(platform, first).startswith("live+")

    def rotate(grace_seconds: int) -> str:
        asked: Json = {"input": {"streamId": stream_id, "graceSeconds": grace_seconds}}
        return str(platform.query(ROTATE, asked, token)["rotateStreamKey"]["streamKey"])

    second = rotate(3600)
    until(lambda: publish(platform, second).startswith("live+"), 180, "the new key to be known")
    assert publish(platform, first).startswith("live+"), "within its grace"
    third = rotate(3)
    until(lambda: publish(platform, third).startswith("live+"), 180, "the third key to be known")
    until(lambda: publish(platform, second) == "", 180, "the grace to end")
    fourth = rotate(0)
    until(lambda: publish(platform, fourth).startswith("live+"), 180, "the fourth key to be known")
    assert publish(platform, third) == "", "without grace the old key ends with the rotation"
    platform.query(DELETE, {"input": {"streamId": stream_id}}, token)
    until(lambda: publish(platform, fourth) == "", 180, "the deletion to be known")


def test_what_is_no_key_of_the_stream_opens_nothing(platform: Platform) -> None:
    token = platform.create_tenant()
    stream_id, key = platform.create_stream(token)
    name = publish(platform, key)
    for offered in (key.upper(), key[:-1], f"{key}x", key[:11], name, name.removeprefix("live+"), "", f"{key}\n", f"\0{key}"):
        assert publish(platform, offered) == "", offered
    assert trigger(platform, "STREAM_PUSH", f"{name}\n10.9.9.9\nRTMP\nrtmp://h/live/x", 4711) == "false"

    newest = "{ rejections(first: 100) { nodes { kind reason keyRedacted } } }"
    platform.http.post(f"{platform.up['edge']}/trigger/PUSH_REWRITE", content=f"rtmp://h/live/{key}y\n10.9.9.9\n{key}y")

    def refused() -> bool:  # keys that are nobody's are the operator's to see
        found = platform.query(newest, token=platform.up["operator_token"])["rejections"]["nodes"]
        return any(str(r["keyRedacted"]).startswith(key[:11]) and r["reason"] == "UNKNOWN_KEY" for r in found)

    until(refused, 180, "a refusal to arrive")
    found = str(platform.query(newest, token=platform.up["operator_token"]))
    assert key.rpartition("_")[2] not in found
    stream = platform.query("query ($id: ID!) { stream(id: $id) { ingests { totalCount } } }", {"id": stream_id}, token)["stream"]
    assert stream["ingests"]["totalCount"] == 0


@pytest.mark.parametrize("body", [b"", b"\0", b"\xff\xfe", b"\n" * 30, b"\n" * (1 << 20)])
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("PUSH_REWRITE", ""),
        ("RTMP_PUSH_REWRITE", ""),
        ("STREAM_PUSH", "false"),
        ("USER_NEW", "false"),
        ("PLAY_REWRITE", "unusable"),
        ("USER_END", "true"),
        ("STREAM_BUFFER", "true"),
        ("LIVE_TRACK_LIST", "true"),
        ("RECORDING_END", "true"),
        ("PUSH_END", "true"),
    ],
)
def test_a_body_that_cannot_be_read_opens_no_door(platform: Platform, name: str, body: bytes, answer: str) -> None:
    before = metric(platform, f'fw_edge_triggers_total{{result="invalid",trigger="{name}"}}')
    assert trigger(platform, name, body, 1) == answer
    assert metric(platform, f'fw_edge_triggers_total{{result="invalid",trigger="{name}"}}') == before + 1


def test_a_newline_that_a_viewer_typed_shifts_nothing_and_a_retry_is_no_second_viewer(platform: Platform) -> None:
    token = platform.create_tenant()
    stream_id, key = platform.create_stream(token)
    name, session, uuid = publish(platform, key), secrets.token_hex(32), secrets.token_hex(8)
    evil = f"{name}\n10.9.9.9\nevil\ntoken\nHLS\nhttp://h/x\n{secrets.token_hex(32)}\nfalse"
    assert trigger(platform, "USER_NEW", evil, 5) == "false"
    for _ in range(3):
        assert trigger(platform, "USER_NEW", f"{name}\n10.9.9.9\n\nHLS\nhttp://h/x\n{session}\nfalse", 6, uuid) == "true"
    query = "query ($id: ID!) { stream(id: $id) { viewers { now } sessions { totalCount nodes { sessionId } } } }"

    def joined() -> bool:
        return bool(platform.query(query, {"id": stream_id}, token)["stream"]["sessions"]["totalCount"])

    until(joined, 180, "the viewer to arrive")
    stream = platform.query(query, {"id": stream_id}, token)["stream"]
    assert stream == {"viewers": {"now": 1}, "sessions": {"totalCount": 1, "nodes": [{"sessionId": session}]}}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /trigger/USER_NEW HTTP/1.1\r\n\r\n", b"405"),
        (b"POST /trigger/NOPE HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /trigger/../metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"404"),
        (b"POST /trigger/SYSTEM_STOP HTTP/1.0\r\nContent-Length: 1\r\n\r\nx", b"200"),
        (b"POST /trigger/USER_NEW HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST /trigger/USER_NEW HTTP/1.1\r\nContent-Length: 2000000\r\n\r\n", b"413"),
        (b"POST /trigger/USER_NEW HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /trigger/USER_NEW HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"400"),
        (b"POST /trigger/USER_NEW HTTP/1.1\r\nX: " + b"a" * 20_000, b"431"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_trigger_is_refused_with_a_status(platform: Platform, request_bytes: bytes, status: bytes) -> None:
    assert raw(platform, request_bytes).split(b" ")[1] == status


def test_an_unknown_trigger_is_counted(platform: Platform) -> None:
    before = metric(platform, "fw_edge_unknown_triggers_total")
    assert platform.http.post(f"{platform.up['edge']}/trigger/NOPE").status_code == 404
    assert metric(platform, "fw_edge_unknown_triggers_total") == before + 1


def test_slow_clients_hold_up_nobody(platform: Platform) -> None:
    slow = [connected(platform) for _ in range(200)]
    try:
        for connection in slow:
            connection.sendall(b"POST /trigger/USER_NEW HTTP/1.1\r\nX")
        began = time.monotonic()
        assert trigger(platform, "PLAY_REWRITE", "x\n10.9.9.9\nHLS\nhttp://h/x", 1) == "x"
        assert time.monotonic() - began < 5
    finally:
        for connection in slow:
            connection.close()
