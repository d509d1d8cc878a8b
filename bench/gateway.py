"""The gateway under load, one worker: trivial query, 50 streams x 8 fields, createStream.

Baselines of the same run: Ariadne as it comes (its own handlers, no cache of documents, graphql-core's executor) over the same
schema and stores; for createStream one Postgres insert behind the same gateway. The way from a trigger to a socket is
measured by bench/latency.py.

`python -m bench.gateway --json` prints one JSON line per figure. FW_TEST_STACK names running servers, else they are started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import orjson
import uvicorn
import uvloop
from ariadne import MutationType, make_executable_schema
from ariadne.asgi import GraphQL
from ariadne.asgi.handlers import GraphQLTransportWSHandler
from graphql import GraphQLResolveInfo
from starlette.requests import Request

from gateway.app import Application, State, opened
from gateway.executable import executable
from gateway.mutations import streams as mutations
from gateway.runtime import Context
from infra.embedded.stack import Stack
from infra.embedded.stack import running as stack_running
from streams import ids
from streams.settings import read_settings
from tests.gateway_platform import Platform, new_tenant, running

TRIVIAL = "{ viewer { kind } }"
FIFTY = """query Streams($first: Int!) { streams(first: $first) { edges { cursor node {
  id title slug playbackId internalName state isLive createdAt } } pageInfo { hasNextPage endCursor } } }"""
CREATE = (
    "mutation($t: String!) { createStream(input: {title: $t}) { __typename ... on CreateStreamSuccess { streamKey position } } }"
)
BASELINES = ("plain", "insert")
ARIADNE = "Ariadne without the caches"
INSERT = "one Postgres insert through the same gateway"
CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Load:
    per_second: float
    p50_ms: float
    p99_ms: float


class Connection(asyncio.Protocol):
    """One keep-alive connection that asks the same thing again as soon as it is answered."""

    def __init__(self, request: Callable[[], bytes], until: float, latencies: list[float], done: asyncio.Event) -> None:
        self.request, self.until, self.latencies, self.done = request, until, latencies, done
        self.buffer = b""
        self.missing = -1
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.ask()

    def ask(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.request())

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.missing < 0:
            head = self.buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            text = self.buffer[:head].lower()
            assert text.startswith(b"http/1.1 200"), self.buffer[:300]
            length = int(text[text.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
            self.missing = head + 4 + length
        if len(self.buffer) < self.missing:
            return
        assert b'"errors"' not in self.buffer, self.buffer[:500]
        assert b"Error" not in self.buffer, self.buffer[:500]
        self.buffer, self.missing = b"", -1
        now = time.perf_counter()
        self.latencies.append(now - self.sent_at)
        if now < self.until:
            self.ask()
        else:
            self.done.set()
            self.transport.close()


def request(port: int, token: str, query: str, **variables: object) -> bytes:
    body = orjson.dumps({"query": query, "variables": variables})
    head = (
        f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nAuthorization: Bearer {token}\r\n"
    )
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def load(port: int, make: Callable[[], bytes], connections: int, seconds: float) -> Load:
    latencies: list[float] = []
    done = [asyncio.Event() for _ in range(connections)]
    began = time.perf_counter()
    loop = asyncio.get_running_loop()
    for event in done:
        await loop.create_connection(lambda event=event: Connection(make, began + seconds, latencies, event), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*(event.wait() for event in done))
    took = time.perf_counter() - began
    return Load(len(latencies) / took, 1000 * statistics.median(latencies), 1000 * sorted(latencies)[int(len(latencies) * 0.99)])


async def measure(platform: Platform, seconds: float, report: Callable[..., None]) -> None:
    async with AsyncExitStack() as clean:
        me = await new_tenant(platform, clean, "Bench")
        for n in range(50):
            await me.stream(f"Bench stream {n}")
        port = platform.gateway_port
        baseline = {name: platform.ports[name] for name in BASELINES}
        for name, query, target, variables in (
            ("GraphQL trivial query", TRIVIAL, 8000.0, {}),
            ("GraphQL 50 streams x 8 fields", FIFTY, 900.0, {"first": 50}),
        ):
            made, plain = (request(p, me.token, query, **variables) for p in (port, baseline["plain"]))
            await load(port, lambda made=made: made, CONNECTIONS, 0.5)  # type: ignore[misc]
            ours = await load(port, lambda made=made: made, CONNECTIONS, seconds)  # type: ignore[misc]
            theirs = await load(baseline["plain"], lambda plain=plain: plain, CONNECTIONS, seconds)  # type: ignore[misc]
            report(name, ours.per_second, theirs.per_second, "requests/s", ARIADNE, target)
        await load(port, lambda: request(port, me.token, CREATE, t="warm"), 1, 0.5)
        ours = await load(port, lambda: request(port, me.token, CREATE, t="one"), 1, seconds)
        theirs = await load(baseline["insert"], lambda: request(baseline["insert"], me.token, CREATE, t="one"), 1, seconds)
        report("createStream p50", ours.p50_ms, theirs.p50_ms, "ms", INSERT, 15.0)
        report("createStream p99", ours.p99_ms, theirs.p99_ms, "ms", INSERT, 60.0)


def serve_baseline(kind: str) -> None:
    """`plain`: Ariadne without our handlers. `insert`: our gateway, whose createStream is one Postgres insert."""

    async def serve() -> None:
        settings = read_settings()
        async with opened(settings) as (runtime, _):
            if kind == "plain":

                async def context(request: Request, _: object) -> Context:
                    return Context(runtime, await runtime.credentials.caller(request.headers.get("authorization")))

                schema = executable()
                application: object = GraphQL(schema, context_value=context, websocket_handler=GraphQLTransportWSHandler())
                application = _mounted(application)
            else:
                await runtime.database.execute("CREATE TABLE IF NOT EXISTS bench_streams (id uuid PRIMARY KEY, title text)")

                async def insert(
                    _: None, info: GraphQLResolveInfo[Context], input: dict[str, str]
                ) -> mutations.DeleteStreamSuccess:
                    made = ids.new_id()
                    context: Context = info.context
                    await context.runtime.database.execute("INSERT INTO bench_streams VALUES ($1, $2)", made, input["title"])
                    return mutations.DeleteStreamSuccess(made, None, None)  # type: ignore[arg-type]

                mutation = MutationType()
                mutation.set_field("createStream", insert)
                sdl = "type Query { none: Int } type Mutation { createStream(input: In!): Made } input In { title: String! }"
                sdl += " union Made = CreateStreamSuccess | Nothing type Nothing { a: Int }"
                sdl += " type CreateStreamSuccess { streamKey: String position: String }"
                schema = make_executable_schema(sdl, mutation)
                schema.type_map["Made"].resolve_type = lambda *_: "CreateStreamSuccess"  # type: ignore[attr-defined]
                for name in ("streamKey", "position"):
                    schema.type_map["CreateStreamSuccess"].fields[name].resolve = lambda *_: "x"  # type: ignore[attr-defined]
                application = Application(runtime, State(ready=True), schema)
            config = uvicorn.Config(
                application,
                host=settings.gateway.host,
                port=settings.gateway.port,
                http="httptools",
                lifespan="off",
                log_config=None,
                access_log=False,
            )
            await uvicorn.Server(config).serve()

    uvloop.run(serve())


def _mounted(graphql: object) -> Callable[..., Awaitable[None]]:
    async def application(scope: dict[str, object], receive: object, send: Callable[..., Awaitable[None]]) -> None:
        if scope["path"] == "/readyz":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ready"})
            return
        await graphql(scope, receive, send)  # type: ignore[operator]

    return application


@contextmanager
def servers(directory: Path) -> Iterator[Stack]:
    if file := os.environ.get("FW_TEST_STACK"):
        yield Stack.load(Path(file))
    else:
        with stack_running(directory) as started:
            yield started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a figure")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each figure is measured")
    parser.add_argument("--serve", choices=BASELINES, help="be a baseline server (the bench starts these itself)")
    arguments = parser.parse_args()
    if arguments.serve:
        serve_baseline(arguments.serve)
        return

    def report(name: str, ours: float, baseline: float, unit: str, baseline_is: str, target: float) -> None:
        figures = {"ours": round(ours, 2), "baseline": round(baseline, 2)}
        if arguments.json:
            more = {"unit": unit, "baseline_is": baseline_is, "target": target, "lower_is_better": unit == "ms"}
            print(json.dumps({"name": name, **figures, **more}), flush=True)
        else:
            print(f"{name:32} {figures['ours']:>10,} {unit:12} {baseline_is}: {figures['baseline']:,}", flush=True)

    with tempfile.TemporaryDirectory() as directory, servers(Path(directory) / "stack") as stack:
        logs = Path(directory) / "logs"
        logs.mkdir()
        with running(stack, logs, ("tenants", "streams", "viewer_sessions", "ingests")) as platform:
            from infra.embedded.ports import free_ports

            for name in BASELINES:
                port = free_ports(1)[0]
                platform.start(name, "bench.gateway", "--serve", name, env={"FW_GATEWAY_LISTEN": f"127.0.0.1:{port}"})
                platform.ports[name] = port
            platform.ready(BASELINES)
            uvloop.run(measure(platform, arguments.seconds, report))


if __name__ == "__main__":
    main()
