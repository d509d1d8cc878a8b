"""gRPC between a node and the ingress, as much as publishing uses: the real client and the real server over two queues.

Invariant: messages of a connection arrive in order or not at all; after a cut nothing does, and both sides are told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import grpc
import grpc.aio

from streams.ingress.append import Appender
from streams.ingress.server import Ingress, PolicySource
from streams.topics import Topics
from tests.sim.cluster import SimCluster
from tests.sim.loop import Process, SimLoop

SECRET_KEY = bytes(range(32))


def _unavailable(details: str = "connection lost", trailing: tuple[tuple[str, str], ...] = ()) -> grpc.aio.AioRpcError:
    said = grpc.aio.Metadata(*trailing)
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), said, details=details, debug_error_string=None)


@dataclass(eq=False)
class Link:
    """One call. None in a queue: nothing comes behind it."""

    metadata: tuple[tuple[str, str], ...]
    up: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    down: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    error: grpc.aio.AioRpcError | None = None
    serving: asyncio.Task[None] | None = None
    begins_with: tuple[tuple[str, str], ...] = ()
    is_mute: bool = False
    """Answers of the server are lost from here on."""

    def cut(self, details: str = "connection lost", trailing: tuple[tuple[str, str], ...] = ()) -> None:
        if self.error is None:
            self.error = _unavailable(details, trailing)
            self.up.put_nowait(None)
            self.down.put_nowait(None)
            self.accepted.set()
            if self.serving is not None:
                self.serving.cancel()


class _Context:
    """The server's side."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._link.metadata

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """No certificate: a line without TLS."""
        return {}

    async def send_initial_metadata(self, metadata: tuple[tuple[str, str], ...]) -> None:
        self._link.begins_with = metadata
        self._link.accepted.set()

    async def read(self) -> object:
        return await self._link.up.get()  # None: what ends a stream is no message

    async def write(self, message: object) -> None:
        if self._link.error is not None:
            raise asyncio.CancelledError
        if not self._link.is_mute:
            self._link.down.put_nowait(message)

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._link.cut(details, trailing_metadata)
        await asyncio.sleep(0)
        raise asyncio.CancelledError


class _Call:
    """The client's side."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def initial_metadata(self) -> tuple[tuple[str, str], ...]:
        await self._link.accepted.wait()
        return self._link.begins_with

    def done(self) -> bool:
        return self._link.error is not None

    async def read(self) -> object:
        message = await self._link.down.get()
        if message is None:
            raise self._link.error or _unavailable()
        return message

    async def write(self, message: object) -> None:
        if self._link.error is not None:
            raise self._link.error
        self._link.up.put_nowait(message)

    def cancel(self) -> None:
        self._link.cut("cancelled")


class _Channel:
    def __init__(self, server: IngressServer) -> None:
        self._server = server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def stream_stream(self, *_: object, **__: object) -> Callable[..., _Call]:
        return lambda metadata: _Call(self._server.accept(tuple(metadata)))

    unary_stream = unary_unary = stream_stream


class _NoPolicy:
    """Nobody follows the policy here."""


class IngressServer:
    """The ingress as a process that can be killed and started again."""

    def __init__(self, loop: SimLoop, kafka: SimCluster, topics: Topics) -> None:
        self._loop, self._kafka, self._topics = loop, kafka, topics
        self.links: list[Link] = []
        self.process: Process | None = None
        self._count = 0

    def start(self) -> None:
        self._count += 1
        self.process = self._loop.process(f"ingress {self._count}")
        self._appender = Appender(cast(Any, lambda: self._kafka.idempotent_producer("ingress")))
        self._ingress = Ingress(self._appender, cast(PolicySource, _NoPolicy()), self._topics, SECRET_KEY)
        self._running = self.process.start(self._appender.run())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None
            self.cut()

    def cut(self) -> None:
        """Every connection breaks; what was on its way is gone."""
        for link in self.links:
            link.cut()
        self.links.clear()

    def mute(self) -> None:
        for link in self.links:
            link.is_mute = True

    def open_channel(self, _: str, __: object) -> grpc.aio.Channel:
        return cast(grpc.aio.Channel, _Channel(self))

    def accept(self, metadata: tuple[tuple[str, str], ...]) -> Link:
        link = Link(metadata)
        if self.process is None:
            link.cut("connection refused")
            return link
        self.links.append(link)
        link.serving = self.process.start(self._serve(link))
        return link

    async def _serve(self, link: Link) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._ingress.Publish(None, cast(Any, _Context(link)))
        link.cut("the ingress ended the connection")
