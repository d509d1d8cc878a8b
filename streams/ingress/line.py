"""The line between a node and the ingress: how it is opened, retried, and what can be said of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import grpc
import grpc.aio

from streams.ingress.limits import CHANNEL_OPTIONS
from streams.ingress.transport import TLS_OPTIONS, NodeCertificate
from streams.telemetry import log

Credential = Callable[[], str | NodeCertificate]
"""Gives the node credential, or the certificate that takes its place; asked again for every connection, so that a file may be
replaced while the node runs. OSError, ValueError: it cannot be read."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 5.0

logger = log(__name__)


@dataclass(slots=True)
class Line:
    """What a node knows of its connection, for its metrics and its readiness."""

    is_up: bool = False
    problem: str | None = "not connected yet"
    lost_total: int = 0
    stale: asyncio.Event = field(default_factory=asyncio.Event)  # set: the next connection shall take the place of this one
    wake: Callable[[], None] = lambda: None  # of whoever sleeps in the connection and should look at `stale`

    def begin_anew(self) -> None:
        """Lets a new connection take the place of this one, which ends when all that was sent in it is answered."""
        self.stale.set()
        self.wake()

    def up(self) -> None:
        if not self.is_up:
            logger.info("connected to the ingress")
        self.is_up, self.problem = True, None

    def down(self, problem: str) -> None:
        if self.is_up:
            self.lost_total += 1
        if self.is_up or self.problem != problem:
            logger.warning("no connection to the ingress, trying again", problem=problem)
        self.is_up, self.problem = False, problem


def open_channel(address: str, credential: Credential | None = None) -> grpc.aio.Channel:
    """A channel to `host:port`, over TLS where the node has a certificate. Raises what `credential` does.

    gRPC's own pauses between connection attempts are kept below ours.
    """
    shown = credential() if credential is not None else ""
    options = [
        *CHANNEL_OPTIONS,
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.enable_retries", 0),  # what is sent again, and in which order, is decided here
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if isinstance(shown, NodeCertificate):
        return grpc.aio.secure_channel(address, shown.channel_credentials(), options=[*options, *TLS_OPTIONS])
    return grpc.aio.insecure_channel(address, options=options)


def authorization(credential: Credential) -> tuple[tuple[str, str], ...]:
    """Metadata of a call: nothing where the channel itself says who calls."""
    shown = credential()
    return () if isinstance(shown, NodeCertificate) else (("authorization", f"Bearer {shown.strip()}"),)


def sentence(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details() or 'no details'}"


OWN_TROUBLE: Final = "fw-own-trouble"
"""Trailing metadata of a status: the ingress failed for a reason of its own, such as Kafka; nothing is wrong with what it got."""


def is_own_trouble(error: grpc.aio.AioRpcError) -> bool:
    return OWN_TROUBLE in (error.trailing_metadata() or ())  # type: ignore[comparison-overlap]  # a mapping, not what the stub says


def pauses() -> Iterator[float]:
    """Seconds to wait before each new attempt: doubled up to five, and spread so that nodes do not come back in step."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.5, 1)
        pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
