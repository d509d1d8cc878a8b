"""A trigger is the same trigger, whichever way its request was read."""

from __future__ import annotations

import pytest

from edge_agent.door import MAX_BODY_BYTES, read_head
from edge_agent.http import whole_request
from edge_agent.trigger import Trigger, from_request
from infra.recordings import names, read

SPARE = "spare"


def as_sent(headers: dict[str, str], body: bytes) -> bytes:
    """As MistServer writes it: names sorted (CONTRACT section 1)."""
    every = {"Accept": "*/*", "Content-Length": str(len(body)), "Content-Type": "text/plain", **headers}
    fields = "".join(f"{name}: {value}\r\n" for name, value in sorted(every.items()))
    return f"POST /trigger/{headers['X-Trigger']} HTTP/1.1\r\n{fields}\r\n".encode("latin-1") + body


def looked_at(raw: bytes, name: str) -> Trigger:
    """By the general way: every field of the head."""
    head, _, body = raw.partition(b"\r\n\r\n")
    read_ = read_head(head + b"\r\n")
    assert read_
    return from_request(name, read_[2], body, 5, lambda: SPARE)


@pytest.mark.parametrize("recording", names())
def test_recorded_requests(recording: str) -> None:
    for line in read(recording):
        headers = {k: v for k, v in line.headers.items() if k.startswith(("X-", "Date", "Host", "User-Agent"))}
        raw = as_sent(headers | {"X-Trigger": line.name}, line.body.encode())
        for variant in (raw, raw.replace(b"Accept: */*\r\n", b""), raw.replace(b"X-Version", b"x-version")):
            request = whole_request(variant)
            assert request
            assert request.path == f"/trigger/{line.name}"
            assert from_request(line.name, request.headers, request.body, 5, lambda: SPARE) == looked_at(variant, line.name)
        assert whole_request(raw[:-1]) is None
        assert whole_request(raw + b"x") is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"POST /trigger/X HTTP/1.1\r\n\r\n",
        b"POST /trigger/X HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /trigger/X HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
        b"POST /trigger/X HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        b"POST /trigger/X HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
        b"POST /trigger/X HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1),
        b"GET /readyz HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_what_is_no_whole_trigger_is_looked_at_more_closely(raw: bytes) -> None:
    assert whole_request(raw) is None
