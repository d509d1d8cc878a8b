"""The gateway as an ASGI application, and what it needs to run.

Start: 1. stores and producer connect, 2. the tails stand at the ends of their topics, 3. ready. A tail that fails ends the
process: without it no outcome and no event would ever arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import asyncpg
from ariadne.asgi import GraphQL
from graphql import GraphQLSchema
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from gateway import enrolment, explorer, registry_api
from gateway.auth import Credentials
from gateway.balancer.balancer import Balancer
from gateway.balancer.routes import Routes
from gateway.documents import Documents
from gateway.errors import format_error
from gateway.executable import executable, published
from gateway.fanout import Fanout
from gateway.history import History
from gateway.http import HttpHandler
from gateway.runtime import Enrolment, Runtime
from gateway.send import Outcomes, Sender
from gateway.tail import Tail
from gateway.websocket import WebSocketHandler
from projections import clickhouse, platform, tenants
from streams.balancing.score import Ceilings
from streams.generated import ViewerRouted
from streams.geoip import places
from streams.kafka import idempotent_producer
from streams.pki.authority import load
from streams.policy_signing import public_key
from streams.privacy.key_store import KeyStore
from streams.settings import Settings

PATHS: Final = ("/graphql", "/api/gateway")
DATABASE_CONNECTIONS: Final = 8


@dataclass(slots=True)
class State:
    ready: bool = False


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Runtime, Sequence[asyncio.Task[None]]]]:
    """Everything a gateway needs, and the tasks that must not end while it runs."""
    async with AsyncExitStack() as stack:
        database = await platform.connect(settings.postgres_url, min_size=2, max_size=DATABASE_CONNECTIONS)
        stack.push_async_callback(database.close)
        reads = await clickhouse.connect(settings.clickhouse_url)
        stack.push_async_callback(reads.close)
        producer = idempotent_producer(settings.kafka, "gateway")
        await producer.start()
        stack.push_async_callback(producer.stop)
        outcomes = Outcomes()
        fanout = Fanout(settings.kafka, settings.topics, outcomes, published(executable()))
        route_producer = idempotent_producer(settings.kafka, "gateway-routes")  # of its own: commands do not stand behind it
        await route_producer.start()
        stack.push_async_callback(route_producer.stop)
        routes = Routes(route_producer, settings.topics.of(ViewerRouted.__name__))
        balancer = Balancer(database, routes, ceilings(settings))
        fanout.watchers.append(balancer.record)
        ours = [
            Tail(settings.kafka, topic, balancer.record, _nobody) for topic in (settings.topics.nodes, settings.topics.samples)
        ]
        tails = (fanout.decisions, fanout.facts, *ours)
        for tail in tails:
            stack.push_async_callback(tail.stop)
            await tail.start()
        with suppress(asyncpg.UndefinedTableError):  # its projection has not started yet; it is asked again in a second
            await balancer.load()
        tasks = [asyncio.create_task(tail.run(), name=f"tail {tail.topic.name}") for tail in tails]
        tasks += [asyncio.create_task(routes.run(), name="routes"), asyncio.create_task(balancer.run(), name="balancer")]
        stack.push_async_callback(_cancelled, tasks)
        stack.push_async_callback(routes.flush)

        keys = KeyStore(settings)
        stack.push_async_callback(keys.close)

        async def owner_of(prefix: str) -> tenants.TokenOwner | None:
            return await tenants.token_owner(database, prefix)

        runtime = Runtime(
            database=database,
            clickhouse=reads,
            sender=Sender(producer, settings.topics.commands, outcomes),
            fanout=fanout,
            history=History(settings.kafka),
            credentials=Credentials(settings.operator_token, owner_of),
            secret_key=settings.secret_key,
            keys=keys,
            allows_private_pushes=settings.allows_private_pushes,
            balancer=balancer,
            place_of=places(settings.geoip_database),
            trusted_proxies=settings.trusted_proxies,
            enrolment=_enrolment(settings),
        )
        yield runtime, tasks


def ceilings(settings: Settings) -> Ceilings:
    """What a node may use, as the settings say."""
    return Ceilings(
        settings.cpu_ceiling_percent * 10_000,
        settings.ram_ceiling_percent * 10_000,
        settings.bandwidth_ceiling_percent * 10_000,
        settings.node_stale_seconds,
    )


def _nobody(_: int) -> None:
    """A gap in a topic whose state is read anew every 30 s tells nobody anything."""


def _enrolment(settings: Settings) -> Enrolment | None:
    """Raises NoAuthority: files are named that are none."""
    if settings.authority is None:
        return None
    authority = load(*settings.authority)
    return Enrolment(authority, settings.ingress_public, settings.certificate_seconds, public_key(settings.secret_key))


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Application:
    """Dispatches the API's paths before Starlette's routing: they are nearly all the traffic."""

    def __init__(self, runtime: Runtime, state: State, schema: GraphQLSchema | None = None) -> None:
        schema = schema or executable()
        documents = Documents(schema)
        http = HttpHandler(runtime, documents)
        self._graphql = GraphQL(
            schema, http_handler=http, websocket_handler=WebSocketHandler(runtime, documents), error_formatter=format_error
        )
        self._http = http
        self._rest = Starlette(
            routes=[
                Route("/healthz", _healthz),
                Route("/readyz", _readyz(state)),
                Route("/metrics", _metrics),
                *(Route(f"{path}/explorer/{{name}}", explorer.asset) for path in PATHS),
                Mount("/registry", routes=registry_api.ROUTES),
                *enrolment.routes(runtime),
                Route("/", _welcome),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/") in PATHS:
            await self._http.handle(scope, receive, send)
        elif scope["type"] == "websocket" and scope["path"].rstrip("/") in PATHS:
            await self._graphql(scope, receive, send)
        else:
            await self._rest(scope, receive, send)


async def _healthz(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _readyz(state: State) -> Callable[[Request], Awaitable[Response]]:
    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ready\n") if state.ready else PlainTextResponse("starting\n", status_code=503)

    return readyz


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _welcome(_: Request) -> Response:
    return PlainTextResponse("The API is at /graphql: open it in a browser for the explorer.\n")
