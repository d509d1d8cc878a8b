"""What waits is bounded: of one connection, and of all together."""

from __future__ import annotations

import asyncio

from streams.ingress.room import Room


async def held_up(room: Room) -> asyncio.Task[None]:
    """A reader that waits for room; it has had every chance to go on."""
    waiting = asyncio.create_task(room.available())
    for _ in range(5):
        await asyncio.sleep(0)
    return waiting


async def test_a_connection_waits_until_enough_of_its_own_is_acknowledged() -> None:
    room = Room(10)
    room.take(15)
    waiting = await held_up(room)
    assert not waiting.done()
    room.free(4)
    await asyncio.sleep(0)
    assert not waiting.done()
    room.free(1)
    async with asyncio.timeout(180):
        await waiting


async def test_all_connections_wait_while_they_use_too_much_together() -> None:
    whole = Room(10)
    one, other = Room(10, whole), Room(10, whole)
    one.take(8)
    other.take(8)
    waiting = [await held_up(one), await held_up(other)]
    assert not any(w.done() for w in waiting)
    one.free(8)
    async with asyncio.timeout(180):
        await asyncio.gather(*waiting)
    assert whole.used_bytes == 8
