"""GraphQL over WebSocket: graphql-transport-ws, with the limits that Ariadne's handler leaves to us.

Invariants: a page of a foreign host is refused before the upgrade; nothing runs before connection_init named a valid
credential or none; operations per socket, sockets per tenant and the length of a message are bounded. Close codes are the
protocol's own: 4400 bad message, 4401 not initialised, 4403 refused, 4408 too late, 4409 id in use, 4429 too many.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

import orjson
from ariadne import subscribe
from ariadne.asgi.handlers import GraphQLTransportWSHandler
from ariadne.asgi.handlers.graphql_transport_ws import ClientContext
from graphql import ExecutionResult, GraphQLError, OperationType
from prometheus_client import Counter, Gauge
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from gateway import origins
from gateway.auth import KNOWN_SECONDS, Anonymous, Caller
from gateway.documents import Documents
from gateway.errors import BAD_INPUT, coded, format_error
from gateway.http import asking, requests, run, silent, validated
from gateway.limits import (
    MAX_MESSAGE_BYTES,
    MAX_OPERATION_ID_LENGTH,
    MAX_OPERATIONS_PER_SOCKET,
    MAX_SOCKETS_PER_TENANT,
)
from gateway.runtime import Context, Runtime
from streams.ids import OPERATOR_TENANT
from streams.telemetry import log

INIT_SECONDS: Final = timedelta(seconds=10)
PROTOCOL: Final = "graphql-transport-ws"
ANONYMOUS_TENANT: Final = UUID(int=0)
logger = log(__name__)
sockets_open = Gauge("fw_gateway_sockets", "WebSockets that are open")
sockets_refused = Counter("fw_gateway_sockets_refused_total", "WebSockets that were refused or closed by us", ["reason"])


class Socket(ClientContext):
    """One connection: whose it is, beside what Ariadne keeps of it."""

    def __init__(self) -> None:
        super().__init__()
        self.caller: Caller | None = None
        self.counted_for: UUID | None = None
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.watch: asyncio.Task[None] | None = None

    def ended(self, operation_id: str, task: asyncio.Task[None]) -> None:
        if self.tasks.get(operation_id) is task:
            del self.tasks[operation_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("operation failed", exc_info=error)

    async def stop(self, operation_id: str) -> None:
        task = self.tasks.pop(operation_id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


class Closed(Exception):
    """We end the connection."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class WebSocketHandler(GraphQLTransportWSHandler):
    def __init__(self, runtime: Runtime, documents: Documents) -> None:
        super().__init__(connection_init_wait_timeout=INIT_SECONDS)
        self._runtime, self._documents = runtime, documents
        self._sockets: Tally[UUID] = Tally()

    async def handle_websocket(self, websocket: WebSocket) -> None:
        if not origins.allowed(websocket.headers.get("origin"), websocket.headers.get("host")):
            sockets_refused.labels("origin").inc()
            await websocket.close(code=4403)  # before accept: the upgrade is answered 403
            return
        if PROTOCOL not in websocket.scope["subprotocols"]:
            sockets_refused.labels("protocol").inc()
            await websocket.accept()
            await websocket.close(code=4406, reason=f"Ask for the subprotocol {PROTOCOL}.")
            return
        await websocket.accept(PROTOCOL)
        socket = Socket()
        sockets_open.inc()
        timeout = asyncio.create_task(self.handle_connection_init_timeout(websocket, socket))
        socket.connection_init_timeout_task = timeout
        try:
            await self._receive(websocket, socket)
        except WebSocketDisconnect:
            pass
        except Closed as closed:
            sockets_refused.labels(str(closed.code)).inc()
            if websocket.application_state is not WebSocketState.DISCONNECTED:
                await websocket.close(code=closed.code, reason=closed.reason)
        finally:
            timeout.cancel()
            if socket.watch is not None:
                socket.watch.cancel()
            sockets_open.dec()
            for operation_id in list(socket.tasks):
                await socket.stop(operation_id)
            if socket.counted_for is not None:
                self._sockets[socket.counted_for] -= 1
                if not self._sockets[socket.counted_for]:
                    del self._sockets[socket.counted_for]

    async def _receive(self, websocket: WebSocket, socket: Socket) -> None:
        while WebSocketState.DISCONNECTED not in (websocket.client_state, websocket.application_state):
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            raw = event.get("text")
            if raw is None:
                raise Closed(4400, "Messages are texts.")
            if len(raw) > MAX_MESSAGE_BYTES:
                raise Closed(4400, "The message is too long.")
            try:
                message = orjson.loads(raw)
            except orjson.JSONDecodeError:
                raise Closed(4400, "The message is not JSON.") from None
            if not isinstance(message, dict):
                raise Closed(4400, "The message must be an object.")
            await self._message(websocket, message, socket)

    async def _message(self, websocket: WebSocket, message: Mapping[str, Any], socket: Socket) -> None:
        operation_id = message.get("id")
        match message.get("type"):
            case self.GQL_CONNECTION_INIT:
                await self._init(websocket, message.get("payload"), socket)
            case self.GQL_PING:
                await websocket.send_json({"type": self.GQL_PONG})
            case self.GQL_PONG:
                pass
            case self.GQL_COMPLETE if isinstance(operation_id, str):
                await socket.stop(operation_id)
            case self.GQL_SUBSCRIBE if isinstance(operation_id, str) and 0 < len(operation_id) <= MAX_OPERATION_ID_LENGTH:
                await self._subscribe(websocket, message.get("payload"), operation_id, socket)
            case _:
                raise Closed(4400, "The type of the message is unknown, or it has no good id.")

    async def _init(self, websocket: WebSocket, payload: object, socket: Socket) -> None:
        if socket.connection_init_received:
            raise Closed(4429, "Too many initialisation requests")
        socket.connection_init_received = True
        authorization = websocket.headers.get("authorization")
        if isinstance(payload, dict):
            given = next((v for k, v in payload.items() if isinstance(k, str) and k.lower() == "authorization"), None)
            authorization = given if isinstance(given, str) else authorization
        caller = await self._runtime.credentials.caller(authorization)
        if isinstance(caller, Anonymous) and authorization is not None:
            raise Closed(4403, caller.problem[:120])
        owner = ANONYMOUS_TENANT if isinstance(caller, Anonymous) else caller.tenant_id
        if owner != OPERATOR_TENANT and self._sockets[owner] >= MAX_SOCKETS_PER_TENANT:
            raise Closed(4429, f"A tenant may have {MAX_SOCKETS_PER_TENANT} sockets.")
        self._sockets[owner] += 1
        socket.counted_for, socket.caller = owner, caller
        socket.connection_acknowledged = True
        if authorization is not None:
            socket.watch = asyncio.create_task(self._watch(websocket, authorization))
        await websocket.send_json({"type": self.GQL_CONNECTION_ACK})

    async def _watch(self, websocket: WebSocket, authorization: str) -> None:
        """Ends the connection when its credential was revoked: what it opened must not outlive it."""
        while True:
            await asyncio.sleep(KNOWN_SECONDS)
            try:
                caller = await self._runtime.credentials.caller(authorization)
            except Exception as error:  # noqa: BLE001 - the database is away: nothing is known, so nothing changes
                logger.warning("credential of a socket not checked", error=repr(error))
                continue
            if isinstance(caller, Anonymous):
                sockets_refused.labels("4403").inc()
                with suppress(WebSocketDisconnect, RuntimeError):  # it has just gone
                    await websocket.close(code=4403, reason=caller.problem[:120])
                return

    async def _subscribe(self, websocket: WebSocket, payload: object, operation_id: str, socket: Socket) -> None:
        if not socket.connection_acknowledged or socket.caller is None:
            raise Closed(4401, "Unauthorized")
        if operation_id in socket.tasks:
            raise Closed(4409, f"Subscriber for {operation_id[:60]} already exists")
        if not isinstance(payload, dict):
            raise Closed(4400, "The payload must be an object.")
        if len(socket.tasks) >= MAX_OPERATIONS_PER_SOCKET:
            raise Closed(4429, f"A socket may have {MAX_OPERATIONS_PER_SOCKET} operations.")
        # A task each, so that a slow operation holds up neither the others nor `complete`.
        task = asyncio.create_task(self._operate(websocket, payload, operation_id, socket.caller))
        socket.tasks[operation_id] = task
        task.add_done_callback(lambda done: socket.ended(operation_id, done))

    async def _operate(self, websocket: WebSocket, data: Mapping[str, Any], operation_id: str, caller: Caller) -> None:
        """One operation from its first message to its last."""
        headers = dict(websocket.scope["headers"])
        context = Context(self._runtime, caller, address=asking(self._runtime, websocket.scope, headers))
        try:
            if self._is_subscription(data):
                complete = await self._stream(websocket, data, operation_id, context)
            else:
                assert self.schema is not None, "configured before it serves"
                result = await run(self.schema, self._documents, data, context, only_query=False)
                complete = "data" in result
                await self._send(
                    websocket,
                    self.GQL_NEXT if complete else self.GQL_ERROR,
                    operation_id,
                    result if complete else result["errors"],
                )
            if complete:
                await self._send(websocket, self.GQL_COMPLETE, operation_id, None)
        except (WebSocketDisconnect, ConnectionError, RuntimeError):
            if websocket.application_state is WebSocketState.CONNECTED and websocket.client_state is WebSocketState.CONNECTED:
                raise  # not the client's going
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told and the log has the rest
            await self._send(websocket, self.GQL_ERROR, operation_id, [format_error(located(error))])

    def _is_subscription(self, data: Mapping[str, Any]) -> bool:
        text, name = data.get("query"), data.get("operationName")
        if not isinstance(text, str) or not (name is None or isinstance(name, str)):
            return False
        return self._documents.prepared(text).kind(name or None) is OperationType.SUBSCRIPTION

    async def _stream(self, websocket: WebSocket, data: Mapping[str, Any], operation_id: str, context: Context) -> bool:
        """A subscription; False where it never began."""
        assert self.schema is not None, "configured before it serves"
        prepared, variables = self._documents.prepared(data["query"]), data.get("variables")
        if not (variables is None or isinstance(variables, dict)):
            refused: Sequence[object] = [format_error(coded("`variables` must be an object.", BAD_INPUT))]
        elif (costly := prepared.too_costly(data.get("operationName") or None, variables or {})) is not None:
            refused = [format_error(costly)]
        else:
            began, source = await subscribe(
                self.schema,
                data,
                context_value=context,
                query_document=prepared.document,
                query_validator=validated,
                error_formatter=format_error,
                logger=silent,
            )
            if began:
                requests.labels("subscription", "ok").inc()
                await self._events(websocket, operation_id, cast(AsyncGenerator[ExecutionResult, None], source))
                return True
            refused = cast(Sequence[object], source)
        requests.labels("subscription", "errors").inc()
        await self._send(websocket, self.GQL_ERROR, operation_id, refused)
        return False

    async def _events(self, websocket: WebSocket, operation_id: str, source: AsyncGenerator[ExecutionResult, None]) -> None:
        async with aclosing(source):
            async for result in source:
                payload: dict[str, object] = {"data": result.data}
                if result.errors:
                    payload["errors"] = [format_error(e) for e in result.errors]
                await self._send(websocket, self.GQL_NEXT, operation_id, payload)

    @staticmethod
    async def _send(websocket: WebSocket, kind: str, operation_id: str, payload: object) -> None:
        message: dict[str, object] = {"id": operation_id, "type": kind}
        if payload is not None:
            message["payload"] = payload
        await websocket.send({"type": "websocket.send", "text": orjson.dumps(message).decode()})


def located(error: Exception) -> GraphQLError:
    return error if isinstance(error, GraphQLError) else GraphQLError("subscription", original_error=error)
