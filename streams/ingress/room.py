"""How many bytes may wait for Kafka: of one connection, and of all together.

Invariant: whoever has taken more than there is room for reads nothing further, so a slow Kafka slows nodes down instead of
filling the memory. The last message read may go over; one connection reads one message at a time.
"""

from __future__ import annotations

import asyncio


class Room:
    """Bytes in use, of a limit; what a part uses counts in the whole too."""

    def __init__(self, limit_bytes: int, whole: Room | None = None) -> None:
        self._limit_bytes, self._whole, self.used_bytes = limit_bytes, whole, 0
        self._freed = asyncio.Event()

    def take(self, size_bytes: int) -> None:
        self.used_bytes += size_bytes
        if self._whole is not None:
            self._whole.take(size_bytes)

    def free(self, size_bytes: int) -> None:
        self.used_bytes -= size_bytes
        self._freed.set()
        if self._whole is not None:
            self._whole.free(size_bytes)

    async def available(self) -> None:
        """Returns when no more is in use than there may be."""
        while self.used_bytes > self._limit_bytes:
            self._freed.clear()
            await self._freed.wait()
        if self._whole is not None:
            await self._whole.available()
