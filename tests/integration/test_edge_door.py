"""The door: exact answers over real sockets, limits before buffers, and no trust in what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from edge_agent.http import Doors, Reply, Request


class Echo:
    """Answers with the body, and remembers."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refusals: list[int] = []

    def answer(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        reply(200, request.body)

    def refused(self, status: int) -> None:
        self.refusals.append(status)


@pytest.fixture
async def door() -> AsyncIterator[tuple[Echo, int]]:
    echo = Echo()
    doors = Doors(echo)
    port = await doors.listen("127.0.0.1", 0)
    yield echo, port
    await doors.close()


async def exchange(port: int, *parts: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0)
    answer = await asyncio.wait_for(reader.read(), 180)
    writer.close()
    return answer


async def test_an_answer_is_exactly_its_bytes(door: tuple[Echo, int]) -> None:
    echo, port = door
    answer = await exchange(port, b"POST /trigger/X HTTP/1.1\r\nContent-Length: 5\r\nX-Instance: a:b`{|\r\n\r\nhello")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"hello"
    assert b"Content-Length: 5" in head
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert echo.requests[0].headers[b"x-instance"] == b"a:b`{|"


async def test_a_request_may_come_byte_by_byte(door: tuple[Echo, int]) -> None:
    request = b"POST /trigger/X?q=1 HTTP/1.1\r\ncontent-length:3\r\n\r\nabc"
    assert (await exchange(door[1], *(request[n : n + 1] for n in range(len(request))))).endswith(b"\r\n\r\nabc")
    assert door[0].requests[0].path == "/trigger/X"


async def test_an_empty_answer_has_a_length(door: tuple[Echo, int]) -> None:
    assert b"Content-Length: 0\r\n\r\n" in await exchange(door[1], b"POST / HTTP/1.1\r\n\r\n")


async def test_a_client_that_asks_before_it_sends(door: tuple[Echo, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door[1])
    writer.write(b"POST /x HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 180) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"ok")
    assert (await reader.read()).endswith(b"ok")
    writer.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /x HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413),
        (b"POST /x HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST /x HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST /x\r\n\r\n", 400),
        (b"POST x HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01 a TLS hello?\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nX: " + b"a" * 20_000, 431),
        (b"POST /x HTTP/1.1\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_what_is_no_request_is_refused(door: tuple[Echo, int], request_: bytes, status: int) -> None:
    echo, port = door
    assert (await exchange(port, request_)).startswith(b"HTTP/1.1 %d " % status)
    assert echo.requests == []
    assert echo.refusals == [status]


async def test_a_refused_body_is_not_kept(door: tuple[Echo, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door[1])
    writer.write(b"POST /x HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 3_000_000)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 180)).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_client_that_leaves_early_harms_nobody(door: tuple[Echo, int]) -> None:
    echo, port = door
    for part in (b"", b"POST /x", b"POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe"):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(part)
        writer.close()
        await writer.wait_closed()
    assert (await exchange(port, b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nok")).endswith(b"ok")
    assert len(echo.requests) == 1


async def test_a_client_that_half_closes_is_answered(door: tuple[Echo, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", door[1])
    writer.write(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nok")
    writer.write_eof()
    assert (await asyncio.wait_for(reader.read(), 180)).endswith(b"ok")
    writer.close()
