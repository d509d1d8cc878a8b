"""A hostile or clumsy client at the WebSocket: closed with the protocol's code, or told with ours; nobody else notices."""

from __future__ import annotations

import base64
import json
import struct
from uuid import UUID

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.platform import Json, Platform

WATCH = """subscription ($id: ID!, $after: Cursor) { streamEvents(streamId: $id, after: $after) { __typename
  ... on EventsSkipped { skipReason } } }"""


def opened(platform: Platform, origin: str | None = None) -> connect:
    headers = {"Origin": origin} if origin else {}
    protocols = [Subprotocol("graphql-transport-ws")]
    return connect(platform.up["graphql_ws"], subprotocols=protocols, additional_headers=headers, max_size=None)


def init(token: str) -> Json:
    return {"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}


def watch(stream_id: str, after: str | None = None, operation: object = "1") -> Json:
    payload = {"query": WATCH, "variables": {"id": stream_id, "after": after}}
    return {"type": "subscribe", "id": operation, "payload": payload}


def cursor(stream_id: str, facts: int, decisions: int, version: int = 1) -> str:
    packed = struct.pack(">B4sQQ", version, UUID(stream_id).bytes[-4:], facts, decisions)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


async def said(socket: ClientConnection, messages: list[Json | str | bytes]) -> None:
    for message in messages:
        await socket.send(json.dumps(message) if isinstance(message, dict) else message)


async def close_code(platform: Platform, messages: list[Json | str | bytes]) -> int | None:
    """The code with which the server ends the connection."""
    async with opened(platform) as socket:
        try:
            await said(socket, messages)
            while True:
                await socket.recv()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


async def answer(platform: Platform, token: str, message: Json) -> Json:
    async with opened(platform) as socket:
        await said(socket, [init(token), message])
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        found: Json = json.loads(await socket.recv())
        return found


@pytest.fixture(scope="module")
def token(platform: Platform) -> str:
    return platform.create_tenant()


@pytest.fixture(scope="module")
def stream_id(platform: Platform, token: str) -> str:
    return platform.create_stream(token)[0]


async def test_what_breaks_the_protocol_is_closed_with_its_code(platform: Platform, token: str, stream_id: str) -> None:
    ready = init(token)
    broken: list[tuple[int, list[Json | str | bytes]]] = [
        (4401, [watch(stream_id)]),
        (4403, [init("fwt_aaaaaaaa_" + "a" * 32)]),
        (4429, [ready, ready]),
        (4409, [ready, watch(stream_id), watch(stream_id)]),
        (4429, [ready, *(watch(stream_id, operation=str(n)) for n in range(60))]),
        (4400, [b"bytes"]),
        (4400, ["{"]),
        (4400, ["[" * 100_000]),
        (4400, ["null"]),
        (4400, ["x" * 300_000]),
        (1009, ["x" * 600_000]),
        (4400, [ready, {"type": "nonsense"}]),
        (4400, [ready, watch(stream_id, operation=5)]),
        (4400, [ready, watch(stream_id, operation="x" * 1000)]),
        (4400, [ready, {"type": "subscribe", "id": "1", "payload": []}]),
    ]
    for code, messages in broken:
        assert await close_code(platform, messages) == code, messages[-1]


async def test_a_page_of_another_site_is_refused(platform: Platform) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with opened(platform, origin="http://evil.example"):
            pass
    assert refused.value.response.status_code == 403


async def test_a_foreign_stream_and_a_made_up_cursor(platform: Platform, token: str, stream_id: str) -> None:
    foreign = platform.create_stream(platform.create_tenant("Rival"))[0]
    for message, code in (
        (watch(foreign), "NOT_FOUND"),
        (watch("\0"), "NOT_FOUND"),
        (watch(stream_id, "?"), "BAD_CURSOR"),
        (watch(stream_id, cursor(foreign, 0, 0)), "BAD_CURSOR"),
        (watch(stream_id, cursor(stream_id, 0, 0, version=9)), "BAD_CURSOR"),
        (watch(stream_id, cursor(stream_id, 1 << 63, 1 << 63)), "BAD_CURSOR"),
    ):
        found = await answer(platform, token, message)
        assert (found["type"], found["payload"][0]["extensions"]["code"]) == ("error", code)
    for facts, decisions in ((1 << 40, 1 << 40), (1 << 40, 0), (0, 1 << 40)):
        found = await answer(platform, token, watch(stream_id, cursor(stream_id, facts, decisions)))
        assert found["payload"]["data"]["streamEvents"] == {"__typename": "EventsSkipped", "skipReason": "UNKNOWN_CURSOR"}


async def test_a_client_that_never_reads_holds_up_nobody(platform: Platform, token: str, stream_id: str) -> None:
    async with opened(platform) as deaf:
        await said(deaf, [init(token), *(watch(stream_id, operation=str(n)) for n in range(50))])
        document = "mutation ($input: RenameStreamInput!) { renameStream(input: $input) { __typename } }"
        for n in range(50):
            renamed = platform.query(document, {"input": {"streamId": stream_id, "title": f"Title {n}"}}, token)
            assert renamed["renameStream"]["__typename"] == "RenameStreamSuccess"
        found = await answer(platform, token, watch(stream_id))
        assert found["payload"]["data"]["streamEvents"]["__typename"] == "StreamSnapshot"
