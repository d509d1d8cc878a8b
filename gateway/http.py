"""GraphQL over HTTP: one request in, one JSON answer out.

Invariants: a body is refused before it is held when it is too long; a POST must be JSON (so a browser asks before a foreign
page may send one); GET runs queries only. With `application/json` every well-formed request is answered 200, errors and all;
`application/graphql-response+json` gets the status codes of the GraphQL-over-HTTP specification.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final
from urllib.parse import parse_qsl

import orjson
from ariadne import graphql
from ariadne.asgi.handlers import GraphQLHTTPHandler
from graphql import GraphQLError, GraphQLSchema, OperationType
from opentelemetry import trace
from prometheus_client import Counter, Histogram
from starlette.types import Message, Receive, Scope, Send

from gateway import explorer, origins
from gateway.addresses import client_address
from gateway.auth import Anonymous
from gateway.documents import Documents
from gateway.errors import BAD_INPUT, coded, format_error
from gateway.execution import FastExecutor
from gateway.limits import BODY_SECONDS, MAX_BODY_BYTES, MAX_PARAMETERS
from gateway.runtime import Context, Runtime
from streams.recorded import Position
from streams.telemetry import bind, continued, log, traceparent

JSON: Final = b"application/json"
GRAPHQL_JSON: Final = b"application/graphql-response+json"
ALLOWED: Final = b"GET, POST, OPTIONS"
_TRACEPARENT: Final = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
Headers = Mapping[bytes, bytes]
Result = Mapping[str, object]

requests = Counter("fw_gateway_requests_total", "GraphQL operations, by kind and by whether they had errors", ["kind", "result"])
seconds = Histogram(
    "fw_gateway_request_seconds",
    "Time to answer a GraphQL operation",
    ["kind"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
KINDS: Final = {
    None: "none",
    OperationType.QUERY: "query",
    OperationType.MUTATION: "mutation",
    OperationType.SUBSCRIPTION: "subscription",
}
_OK: Final = {kind: requests.labels(kind, "ok") for kind in KINDS.values()}
_FAILED: Final = {kind: requests.labels(kind, "errors") for kind in KINDS.values()}
_SECONDS: Final = {kind: seconds.labels(kind) for kind in KINDS.values()}
logger = log(__name__)
silent = logging.getLogger("gateway.ariadne")
silent.disabled = True  # gateway/errors.py logs what is ours to log; the rest is the client's business


class BadRequest(Exception):
    """Not a GraphQL request; nothing was executed."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def failed(*errors: GraphQLError) -> Result:
    return {"errors": [format_error(e) for e in errors]}


async def run(
    schema: GraphQLSchema, documents: Documents, data: Mapping[str, object], context: Context, *, only_query: bool
) -> Result:
    """Executes a query or mutation. `data` is `{query, variables, operationName}` as it came."""
    text, variables, name = data.get("query"), data.get("variables"), data.get("operationName")
    if not isinstance(text, str):
        return failed(coded("The request has no `query` text.", BAD_INPUT))
    if not (variables is None or isinstance(variables, dict)) or not (name is None or isinstance(name, str)):
        return failed(coded("`variables` must be an object and `operationName` a text.", BAD_INPUT))
    began = time.perf_counter()
    prepared = documents.prepared(text)
    kind = prepared.kind(name or None)
    label = KINDS[kind]
    result: Result
    if prepared.document is None:
        result = failed(*prepared.errors)
    elif (error := prepared.too_costly(name or None, variables or {})) is not None:
        result = failed(error)
    elif kind is OperationType.SUBSCRIPTION:
        result = failed(
            coded("Subscriptions need a WebSocket with the subprotocol graphql-transport-ws.", "SUBSCRIPTION_OVER_HTTP")
        )
    elif only_query and kind is not OperationType.QUERY:
        result = failed(coded("GET runs queries only: send mutations with POST.", "MUTATION_OVER_GET"))
    else:
        context.plans = prepared.plans
        operation = name or next(iter(prepared.kinds)) or ""

        def described(error: GraphQLError, _: bool = False) -> dict[str, object]:
            with named(context, operation):  # only where something is logged: binding costs as much as a small query
                return format_error(error)

        with _traced(context, operation, label) if tracing() else nullcontext():
            _, result = await graphql(
                schema,
                data,
                context_value=context,
                query_document=prepared.document,
                query_validator=validated,
                error_formatter=described,
                logger=silent,
                execution_context_class=FastExecutor,
            )
        if kind is OperationType.MUTATION:
            with named(context, operation):
                logger.info("mutation", seconds=round(time.perf_counter() - began, 4), outcome=_outcome(result))
    (_FAILED if "errors" in result else _OK)[label].inc()
    _SECONDS[label].observe(time.perf_counter() - began)
    return result


def named(context: Context, operation: str) -> AbstractContextManager[object]:
    """Log lines inside say whose operation it is."""
    owner = None if isinstance(context.caller, Anonymous) else str(context.caller.tenant_id)
    return bind(tenant_id=owner, operation=operation)


def tracing() -> bool:
    """Whether anybody records spans."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def _traced(context: Context, operation: str, kind: str) -> Iterator[None]:
    """The trace that the request came with goes on, or one begins; commands carry it on."""
    with continued(f"graphql {kind}", context.traceparent, {"graphql.operation.name": operation}):
        context.traceparent = traceparent() or context.traceparent
        yield


def _outcome(result: Result) -> str:
    """What a mutation came to, for the log: types of its payloads where they were asked for, never their contents."""
    data = result.get("data")
    if not isinstance(data, dict):
        return "errors"
    return ",".join(str(v.get("__typename", "answered")) if isinstance(v, dict) else "answered" for v in data.values())


def validated(*_: object, **__: object) -> list[GraphQLError]:
    """Validation was done when the text was first seen (gateway/documents.py)."""
    return []


def asking(runtime: Runtime, scope: Scope, headers: Headers) -> str:
    """The address that asks."""
    forwarded = headers.get(b"x-forwarded-for")
    peer = scope["client"][0] if scope.get("client") else ""
    return client_address(peer, None if forwarded is None else forwarded.decode("latin-1"), runtime.trusted_proxies)


class HttpHandler(GraphQLHTTPHandler):
    """Ariadne's handler without what it does again for every request: parsing, validation, request objects."""

    def __init__(self, runtime: Runtime, documents: Documents) -> None:
        super().__init__()
        self._runtime, self._documents = runtime, documents

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        try:
            data = await self._data(scope, headers, receive)
        except BadRequest as problem:
            body = orjson.dumps(failed(coded(problem.message, problem.code)))
            await _answer(send, problem.status, JSON, body, headers)
            return
        if data is None:
            await self._without_query(scope, headers, receive, send)
            return
        try:
            context = await self.context(headers, scope)
        except BadRequest as problem:
            result = failed(coded(problem.message, problem.code))
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the rest
            result = failed(GraphQLError("credential", original_error=error))
        else:
            assert self.schema is not None, "configured before it serves"
            only_query = scope["method"] == "GET"
            result = await run(self.schema, self._documents, data, context, only_query=only_query)
        kind = GRAPHQL_JSON if GRAPHQL_JSON in headers.get(b"accept", b"") else JSON
        status = 400 if kind is GRAPHQL_JSON and "data" not in result else 200
        await _answer(send, status, kind, orjson.dumps(result, option=orjson.OPT_NON_STR_KEYS), headers)

    async def context(self, headers: Headers, scope: Scope) -> Context:
        """Raises BadRequest for an X-FW-After that is no position."""
        credentials = self._runtime.credentials
        raw = headers.get(b"authorization")
        authorization = None if raw is None else raw.decode("latin-1")
        caller = credentials.remembered(authorization) or await credentials.caller(authorization)
        context = Context(self._runtime, caller, address=asking(self._runtime, scope, headers))
        if (parent := headers.get(b"traceparent")) is not None and _TRACEPARENT.fullmatch(parent):
            context.traceparent = parent.decode("latin-1")
        if (after := headers.get(b"x-fw-after")) is not None:
            try:
                context.after = Position.parse(after.decode("latin-1"))
            except ValueError as error:
                raise BadRequest(400, BAD_INPUT, f"X-FW-After: {error}") from None
        return context

    async def _data(self, scope: Scope, headers: Headers, receive: Receive) -> Mapping[str, object] | None:
        """The GraphQL request; None: there is none in it. Raises BadRequest."""
        match scope["method"]:
            case "POST":
                return await _posted(headers, receive)
            case "GET" | "HEAD":
                return _asked(scope["query_string"])
            case _:
                return None

    async def _without_query(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Preflights, people with browsers, and methods that are not for us."""
        match scope["method"]:
            case "OPTIONS":
                await _answer(send, 204, JSON, b"", headers)
            case "GET" | "HEAD" if b"text/html" in headers.get(b"accept", b""):
                await explorer.page(scope["path"].rstrip("/"))(scope, receive, send)
            case "GET" | "HEAD":
                body = failed(coded("Send a query: POST JSON, or GET with ?query=…; browsers get the explorer.", BAD_INPUT))
                await _answer(send, 400, JSON, orjson.dumps(body), headers)
            case _:
                await _answer(send, 405, JSON, orjson.dumps(failed(coded("Use POST or GET.", BAD_INPUT))), headers)


async def _posted(headers: Headers, receive: Receive) -> Mapping[str, object]:
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != JSON:
        raise BadRequest(415, "UNSUPPORTED_MEDIA_TYPE", "Send the request as application/json.")
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise BadRequest(413, "BODY_TOO_LARGE", f"A request may have {MAX_BODY_BYTES:,} bytes.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(receive)
    except TimeoutError:
        raise BadRequest(408, "BODY_TOO_SLOW", f"A request must have arrived within {BODY_SECONDS:.0f} seconds.") from None
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest(400, BAD_INPUT, "The body is not JSON.") from None
    if not isinstance(data, dict):
        raise BadRequest(400, BAD_INPUT, "The body must be one JSON object with `query`; batches are not served.")
    return data


async def _body(receive: Receive) -> bytes:
    """Raises BadRequest where it is too long."""
    body = b""
    more = True
    while more:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest(400, BAD_INPUT, "The request ended early.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest(413, "BODY_TOO_LARGE", f"A request may have {MAX_BODY_BYTES:,} bytes.")
    return body


def _asked(query_string: bytes) -> Mapping[str, object] | None:
    if not query_string:
        return None
    try:
        found = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS))
    except ValueError:
        raise BadRequest(400, BAD_INPUT, f"A request may have {MAX_PARAMETERS} parameters.") from None
    if "query" not in found:
        return None
    data: dict[str, object] = {"query": found["query"], "operationName": found.get("operationName") or None}
    if found.get("variables"):
        try:
            data["variables"] = orjson.loads(found["variables"])
        except orjson.JSONDecodeError:
            raise BadRequest(400, BAD_INPUT, "`variables` is not JSON.") from None
    return data


async def _answer(send: Send, status: int, kind: bytes, body: bytes, request: Headers) -> None:
    headers = [(b"content-type", kind + b"; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    if (origin := request.get(b"origin")) is not None:
        headers += _cors(origin, request.get(b"host"))
    if status == 405:
        headers.append((b"allow", ALLOWED))
    if status in (408, 413):  # the rest of the request is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _cors(origin: bytes, host: bytes | None) -> list[tuple[bytes, bytes]]:
    headers = [(b"vary", b"origin")]
    if origins.allowed(origin.decode("latin-1"), None if host is None else host.decode("latin-1")):
        headers += [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-methods", ALLOWED),
            (b"access-control-allow-headers", b"authorization, content-type, traceparent, x-fw-after"),
            (b"access-control-max-age", b"600"),
        ]
    return headers
