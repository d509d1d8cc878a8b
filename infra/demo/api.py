"""A client of the GraphQL API as any other would be: HTTP for questions, graphql-transport-ws for what happens.

Invariant: what the API decides (Refused) and what a restart of a part does to us (Away) are told apart; only the latter is tried
again. Every mutation has a clientMutationId, so asking again does nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Final, TypeVar

import httpx
import msgspec
import websockets.asyncio.client
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

T = TypeVar("T")
NULL: Final = msgspec.Raw(b"null")
Variables = Mapping[str, object]
PATIENCE_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 0.2
TRANSIENT: Final = frozenset({"UNAVAILABLE", "NOT_READ_YET"})
REFUSING_CODES: Final = range(4400, 4500)  # of graphql-transport-ws: the server does not want us


class Refused(Exception):
    """The API said no, in its own words."""


class Away(ConnectionError):
    """The API, or a part behind it, does not answer at the moment, as while it is restarted."""


class _Extensions(msgspec.Struct):
    code: str = ""


class _Error(msgspec.Struct):
    message: str
    extensions: _Extensions = msgspec.field(default_factory=_Extensions)


class _Answer(msgspec.Struct):
    data: msgspec.Raw = NULL
    errors: list[_Error] = []


class Api:
    """GraphQL over HTTP, with one credential."""

    def __init__(self, url: str, token: str) -> None:
        self.client = httpx.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=15)
        self.url = url

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.client.aclose()

    async def ask(self, kind: type[T], query: str, **variables: object) -> T:
        """Runs an operation; its `data` as `kind`. Raises Refused with what the API said; Away: a minute without an answer."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await self._ask(kind, query, variables)
            except Away:
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(RETRY_SECONDS)

    async def _ask(self, kind: type[T], query: str, variables: Variables) -> T:
        try:
            answer = await self.client.post(self.url, json={"query": query, "variables": variables})
        except httpx.TransportError as error:
            raise Away(f"{self.url} does not answer: {error or type(error).__name__}") from error
        try:
            return data(kind, answer.content)
        except msgspec.DecodeError as error:
            problem = Away if answer.is_server_error else Refused
            raise problem(f"{self.url} answered {answer.status_code}, and no GraphQL: {error}") from None


def data(kind: type[T], content: bytes) -> T:
    answer = msgspec.json.decode(content, type=_Answer)
    if answer.errors or answer.data == NULL:
        raise problem_of(answer.errors)
    return msgspec.json.decode(answer.data, type=kind)


def problem_of(errors: Sequence[_Error]) -> Refused | Away:
    said = "; ".join(e.message for e in errors) or "neither data nor errors"
    return Away(said) if any(e.extensions.code in TRANSIENT for e in errors) else Refused(said)


class _Message(msgspec.Struct):
    type: str
    payload: msgspec.Raw = NULL


async def subscribe(url: str, token: str, kind: type[T], query: str, variables: Variables) -> AsyncGenerator[T, None]:
    """What a subscription delivers, until the caller has enough. Raises Refused with what the API said; Away: it is cut off."""
    protocol = Subprotocol("graphql-transport-ws")
    try:
        async with websockets.asyncio.client.connect(url, subprotocols=[protocol], max_size=1 << 20) as socket:
            await socket.send(json.dumps({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}))
            while True:
                message = msgspec.json.decode(await socket.recv(), type=_Message)
                match message.type:
                    case "connection_ack":
                        payload = {"query": query, "variables": variables}
                        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
                    case "ping":
                        await socket.send('{"type":"pong"}')
                    case "next":
                        yield data(kind, bytes(message.payload))
                    case "error":
                        raise problem_of(msgspec.json.decode(message.payload, type=list[_Error]))
                    case "complete":
                        return
                    case _:
                        pass
    except ConnectionClosed as closed:
        if closed.rcvd is not None and closed.rcvd.code in REFUSING_CODES:
            raise Refused(f"the subscription was closed: {closed.rcvd.code} {closed.rcvd.reason}") from None
        raise Away("the subscription was cut off") from closed
    except Away:
        raise
    except (WebSocketException, OSError) as error:
        raise Away(f"{url} does not answer: {error or type(error).__name__}") from error
