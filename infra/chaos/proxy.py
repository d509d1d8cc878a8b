"""A TCP proxy that can be cut, hung up and slowed down: the network between two parts.

Invariant: without a fault it changes nothing: bytes, their order and the end of either side go through as they come.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

CHUNK_BYTES: Final = 64 << 10


@dataclass(eq=False, slots=True)
class Proxy:
    """`async with Proxy("postgres", 15432, 5432) as proxy:` listens on the first port and connects to the second."""

    name: str
    port: int
    target: int
    delay_seconds: float = 0.0  # of every chunk, each way
    is_cut: bool = False  # connections end at once, and new ones too
    cuts: int = 0  # connections that were ended by `cut`
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=CHUNK_BYTES)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._server
        self._server.close()
        self._abort()

    def cut(self) -> None:
        """Ends every connection with a reset, and refuses new ones until `heal`."""
        self.is_cut = True
        self.cuts += len(self._open) // 2
        self._abort()

    def heal(self) -> None:
        self.is_cut, self.delay_seconds = False, 0.0

    def _abort(self) -> None:
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.target, limit=CHUNK_BYTES)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, there_writer}
        try:
            await asyncio.gather(self._pipe(reader, there_writer), self._pipe(there_reader, writer))
        finally:
            self._open -= {writer, there_writer}
            writer.close()
            there_writer.close()

    async def _pipe(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """One way. Its end closes that way only; an error ends the other side too, which ends the other way."""
        try:
            while data := await source.read(CHUNK_BYTES):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                sink.write(data)
                await sink.drain()
            if sink.can_write_eof():
                sink.write_eof()
        except OSError:
            sink.transport.abort()
