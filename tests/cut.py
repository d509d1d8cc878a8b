"""A TCP line between client and server that can be cut: as a network does it, without a word to either program."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Cut:
    """Forwards a free port to another one. `cut` breaks all connections at once; new ones are forwarded again.

    While `is_down` new ones are broken, too.
    """

    def __init__(self, to_port: int, port: int = 0) -> None:
        self._to_port = to_port
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = port
        self.is_down = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> int:
        """Breaks every connection; how many there were."""
        writers, self._writers = self._writers, set()
        for writer in writers:
            writer.transport.abort()
        return len(writers) // 2

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_down:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except ConnectionError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
