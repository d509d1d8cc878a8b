"""Asking a tenant's server whether a viewer may watch.

Invariants
* Be it dead, slow, lying or huge, there is a `WebhookSaid` within the deadline, which is below the 5 s that the media server
  waits (CONTRACT 2.2). An answer that is not `200` with JSON `{"allow": true|false}` is none.
* Nothing is sent unsigned: `FW-Signature: t=UNIX_SECONDS,v1=HMAC_SHA256_HEX("t.body")` with the tenant's secret.
* A tenant's URL reaches nothing that is not on the public internet (`public_network.py`), and is not followed elsewhere.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import httpcore
import orjson

from edge_agent.breaker import Breaker, Breakers
from edge_agent.public_network import Forbidden, PublicNetwork
from streams.playback.rules import WebhookSaid
from streams.telemetry import log

DEADLINE_SECONDS: Final = 2.0
MAX_ANSWER_BYTES: Final = 4096
CONNECTIONS: Final = 256
IN_FLIGHT: Final = 64  # of one host: a slow one must not have all of them
SIGNATURE_HEADER: Final = "FW-Signature"
_FAILURES: Final = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    ssl.SSLError,
    OSError,
)

logger = log(__name__)


class NoAnswer(Exception):
    """What came is no answer; a sentence that says why."""


def signature(secret: bytes, unix_seconds: int, body: bytes) -> str:
    """The header's value."""
    digest = hmac.digest(secret, b"%d." % unix_seconds + body, "sha256").hex()
    return f"t={unix_seconds},v1={digest}"


class Webhooks:
    """Connections to tenants' servers. Close it, or use it as a context."""

    def __init__(
        self,
        *,
        allows_private: bool = False,
        deadline_seconds: float = DEADLINE_SECONDS,
        certificates: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._allows_private, self._deadline_seconds, self._clock = allows_private, deadline_seconds, clock
        self._network = PublicNetwork(allows_private=allows_private)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=certificates or ssl.create_default_context(),
            max_connections=CONNECTIONS,
            keepalive_expiry=30,
            network_backend=self._network,
        )
        self.breakers = Breakers()

    async def __aenter__(self) -> Webhooks:
        return self

    async def __aexit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None) -> None:
        await self._pool.aclose()
        self._network.close()

    async def ask(self, url: str, secret: bytes | None, body: bytes) -> WebhookSaid:
        """What the server at this URL says to this JSON. Never raises, never takes longer than the deadline."""
        host = _host(url, allows_http=self._allows_private)
        if host is None:
            return WebhookSaid(None, "the webhook's URL is none that is asked: it must be https")
        if secret is None:
            return WebhookSaid(None, "the node does not have the tenant's webhook secret yet")
        breaker = self.breakers.of(host)
        if breaker.in_flight >= IN_FLIGHT:
            return WebhookSaid(None, f"{IN_FLIGHT} questions wait for the webhook's server already")
        if not breaker.lets(time.monotonic()):
            return WebhookSaid(None, "the webhook's server failed several times in a row and is left alone for a while")
        return await self._ask(url, secret, body, breaker)

    async def _ask(self, url: str, secret: bytes, body: bytes, breaker: Breaker) -> WebhookSaid:
        breaker.in_flight += 1
        said: WebhookSaid | None = None
        try:
            async with asyncio.timeout(self._deadline_seconds):
                said = WebhookSaid(await self._post_twice(url, secret, body))
        except TimeoutError:
            problem = f"the webhook's server did not answer within {self._deadline_seconds:g} s"
        except (NoAnswer, Forbidden) as reason:
            problem = f"the webhook's server gave no answer: {reason}"
        except _FAILURES as error:
            problem = f"the webhook's server is not reachable ({type(error).__name__})"
        finally:
            breaker.in_flight -= 1
            if said:
                breaker.succeeded()
            else:
                breaker.failed(time.monotonic())
        if said is None:
            logger.debug("a webhook did not answer", problem=problem)
        return said or WebhookSaid(None, problem)

    async def _post_twice(self, url: str, secret: bytes, body: bytes) -> bool:
        """Once more where the connection broke: it may have been an idle one that the server closed at that moment."""
        try:
            return await self._post(url, secret, body)
        except (httpcore.ReadError, httpcore.WriteError, httpcore.RemoteProtocolError):
            return await self._post(url, secret, body)

    async def _post(self, url: str, secret: bytes, body: bytes) -> bool:
        headers: dict[bytes | str, bytes | str] = {
            "Host": urlsplit(url).netloc,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "FrameWorks-Edge",
            SIGNATURE_HEADER: signature(secret, int(self._clock()), body),
        }
        found = bytearray()
        async with self._pool.stream("POST", url, headers=headers, content=body) as response:
            if response.status != 200:
                raise NoAnswer(f"status {response.status}")
            async for piece in response.aiter_stream():
                found += piece
                if len(found) > MAX_ANSWER_BYTES:
                    raise NoAnswer(f"more than {MAX_ANSWER_BYTES} bytes")
        return _answer(bytes(found))


def _answer(body: bytes) -> bool:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise NoAnswer("no JSON") from None
    allowed = found.get("allow") if isinstance(found, dict) else None
    if not isinstance(allowed, bool):
        raise NoAnswer('no JSON with `"allow": true` or `false`')
    return allowed


def _host(url: str, *, allows_http: bool) -> str | None:
    """host:port of a URL that may be asked."""
    try:
        found = urlsplit(url)
        host, port = found.hostname, found.port
    except ValueError:
        return None
    schemes = ("https", "http") if allows_http else ("https",)
    if found.scheme not in schemes or not host or found.username is not None or found.password is not None:
        return None
    return f"{host}:{port or found.scheme}"
