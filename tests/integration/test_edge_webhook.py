"""A tenant's server that is asked about viewers, and everything that it can do wrong. Over real sockets."""

from __future__ import annotations

import asyncio
import hmac
import ssl
import time
from pathlib import Path

import orjson
import pytest

from edge_agent import breaker
from edge_agent.webhook import MAX_ANSWER_BYTES, Webhooks, signature
from streams.public_addresses import is_public
from tests.webhook_server import (
    NO,
    YES,
    Behaviour,
    answering,
    babbling,
    closing,
    dripping,
    endless,
    endless_head,
    own_certificate,
    silent,
    tenant_server,
)

SECRET = b"s" * 32
BODY = b'{"type":"playback.requested"}'


@pytest.mark.parametrize(("answer", "expected"), [(YES, True), (NO, False), (b'{"allow":true,"more":[1]}', True)])
async def test_an_answer_is_taken(answer: bytes, expected: bool) -> None:
    async with tenant_server(answering(answer)) as server, Webhooks(allows_private=True) as webhooks:
        assert (await webhooks.ask(server.url, SECRET, BODY)).is_allowed is expected
        [asked] = server.asked
        assert (asked.path, asked.body) == ("/play", BODY)
        assert asked.headers["content-type"] == "application/json"


async def test_it_is_signed_with_the_tenants_secret_and_the_time() -> None:
    async with tenant_server(answering(YES)) as server, Webhooks(allows_private=True, clock=lambda: 1_795_262_400.7) as webhooks:
        await webhooks.ask(server.url, SECRET, BODY)
    [asked] = server.asked
    digest = hmac.new(SECRET, b"1795262400." + BODY, "sha256").hexdigest()
    assert asked.headers["fw-signature"] == f"t=1795262400,v1={digest}" == signature(SECRET, 1_795_262_400, BODY)


async def test_one_connection_serves_many_questions() -> None:
    async with tenant_server(answering(YES)) as server, Webhooks(allows_private=True) as webhooks:
        for _ in range(5):
            assert (await webhooks.ask(server.url, SECRET, BODY)).is_allowed
        assert (len(server.asked), server.connections) == (5, 1)


WRONG = {
    "slow": silent,
    "dripping": dripping,
    "closing": closing,
    "babbling": babbling,
    "endless body": endless,
    "endless head": endless_head,
    "huge": answering(b'{"allow": true, "x": "' + b"x" * MAX_ANSWER_BYTES + b'"}'),
    "no JSON": answering(b"true"),
    "a list": answering(b"[true]"),
    "a text": answering(b'{"allow": "true"}'),
    "a number": answering(b'{"allow": 1}'),
    "nothing": answering(b""),
    "an error": answering(YES, "500 Internal Server Error"),
    "created": answering(YES, "201 Created"),
    "forbidden": answering(NO, "403 Forbidden"),
}


@pytest.mark.parametrize("behave", WRONG.values(), ids=WRONG.keys())
async def test_whatever_it_does_there_is_a_reply_in_time(behave: Behaviour) -> None:
    async with tenant_server(behave) as server, Webhooks(allows_private=True, deadline_seconds=1.0) as webhooks:
        began = time.monotonic()
        said = await webhooks.ask(server.url, SECRET, BODY)
        assert said.is_allowed is None
        assert said.problem
        assert str(server.port) not in said.problem
        assert time.monotonic() - began < 60  # it came by itself: the deadline is one second, the machine may be slow


async def test_it_is_not_followed_elsewhere() -> None:
    async with (
        tenant_server(answering(YES)) as other,
        tenant_server(answering(YES, "302 Found", f"Location: {other.url}")) as server,
        Webhooks(allows_private=True) as webhooks,
    ):
        assert (await webhooks.ask(server.url, SECRET, BODY)).problem.endswith("status 302")
        assert other.asked == []


async def test_nobody_there() -> None:
    async with tenant_server(answering(YES)) as server:
        url = server.url
    async with Webhooks(allows_private=True) as webhooks:
        assert (await webhooks.ask(url, SECRET, BODY)).is_allowed is None
        assert (await webhooks.ask("http://no-such-host.invalid/", SECRET, BODY)).is_allowed is None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "https://user:secret@example.org/",
        "https://",
        "https://[bad",
        "https://example.org:99999999/",
        "",
        "file:///etc/passwd",
    ],
)
async def test_what_is_no_https_address_is_not_asked(url: str) -> None:
    async with Webhooks() as webhooks:
        said = await webhooks.ask(url, SECRET, BODY)
    assert said.is_allowed is None
    assert "https" in said.problem
    assert "secret" not in said.problem


async def test_nothing_is_sent_unsigned() -> None:
    async with tenant_server(answering(YES)) as server, Webhooks(allows_private=True) as webhooks:
        assert (await webhooks.ask(server.url, None, BODY)).is_allowed is None
        assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "0x7f.1"])
async def test_the_operators_own_network_is_not_reached(host: str, tmp_path: Path) -> None:
    async with tenant_server(answering(YES), own_certificate(tmp_path / "pem")) as server, Webhooks() as webhooks:
        said = await webhooks.ask(f"https://{host}:{server.port}/", SECRET, BODY)
        assert said.is_allowed is None
        assert server.connections == 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("10.0.0.1", False),
        ("172.16.3.4", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:a00:1::", False),
        ("ff02::1", False),
        ("nonsense", False),
    ],
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(address) is expected


async def test_tls_is_verified(tmp_path: Path) -> None:
    certificate = own_certificate(tmp_path / "pem")
    trusting = ssl.create_default_context(cafile=certificate)
    async with tenant_server(answering(YES), certificate) as server:
        async with Webhooks(allows_private=True) as webhooks:
            assert (await webhooks.ask(server.url, SECRET, BODY)).is_allowed is None
        assert server.asked == []
        async with Webhooks(allows_private=True, certificates=trusting) as webhooks:
            assert (await webhooks.ask(server.url, SECRET, BODY)).is_allowed is True
            elsewhere = server.url.replace("127.0.0.1", "127.0.0.2")
            assert (await webhooks.ask(elsewhere, SECRET, BODY)).is_allowed is None


async def test_a_server_that_fails_again_and_again_is_left_alone_and_tried_once_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "PAUSE_SECONDS", 0.3)
    answers = [answering(b"", "500 Oops")]

    async def behave(asked: object, writer: asyncio.StreamWriter) -> None:
        await answers[-1](asked, writer)  # type: ignore[arg-type]

    async with tenant_server(behave) as server, tenant_server(answering(YES)) as other, Webhooks(allows_private=True) as webhooks:
        for _ in range(breaker.FAILURES):
            assert "status 500" in (await webhooks.ask(server.url, SECRET, BODY)).problem
        assert "left alone" in (await webhooks.ask(server.url, SECRET, BODY)).problem
        assert len(server.asked) == breaker.FAILURES
        assert (await webhooks.ask(other.url, SECRET, BODY)).is_allowed  # others are not its fault
        await asyncio.sleep(0.3)  # the pause is by the clock
        assert "status 500" in (await webhooks.ask(server.url, SECRET, BODY)).problem
        assert "left alone" in (await webhooks.ask(server.url, SECRET, BODY)).problem
        answers.append(answering(YES))
        await asyncio.sleep(0.3)
        for _ in range(3):
            assert (await webhooks.ask(server.url, SECRET, BODY)).is_allowed


async def test_a_slow_server_does_not_take_all_connections() -> None:
    async with (
        tenant_server(silent) as slow,
        tenant_server(answering(YES)) as good,
        Webhooks(allows_private=True, deadline_seconds=2.0) as webhooks,
    ):
        waiting = [asyncio.create_task(webhooks.ask(slow.url, SECRET, BODY)) for _ in range(80)]
        await asyncio.sleep(0)
        assert (await webhooks.ask(good.url, SECRET, orjson.dumps({}))).is_allowed
        said = await asyncio.gather(*waiting)
    assert {s.is_allowed for s in said} == {None}
    assert sum("wait for the webhook's server already" in s.problem for s in said) >= 16
