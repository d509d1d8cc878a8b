"""The gateway, the command worker and the projections as processes, over the real servers, for the gateway's tests and bench.

Invariant: everything has a topic prefix and databases of its own, and what `running` started is gone when it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest
from aiokafka import AIOKafkaProducer
from websockets.asyncio.client import ClientConnection, connect

from infra import kafka
from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from projections.platform import migrate
from streams.codec import encode, headers
from streams.generated import Event, Meta
from streams.pki.authority import make
from streams.settings import authority_files
from streams.topics import Topic, Topics, partition_of
from tests.stack import _delete_topics, _postgres, blocking

OPERATOR_TOKEN = "operator-token-of-a-test"
SECRET_KEY = "5a" * 32
READ_MODELS = (
    "tenants",
    "streams",
    "viewer_sessions",
    "ingests",
    "stream_health",
    "journal",
    "push_targets",
    "node_registry",
    "routing",
)
Json = dict[str, Any]  # what json gives


@dataclass(slots=True)
class Platform:
    """Addresses of what runs, and the processes."""

    stack: Stack
    topics: Topics
    postgres: str
    clickhouse: str
    env: Mapping[str, str]
    logs: Path
    gateway_port: int
    balancer_port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def graphql(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}/graphql"

    @property
    def graphql_ws(self) -> str:
        return f"ws://127.0.0.1:{self.gateway_port}/graphql"

    def start(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> None:
        self.ports[name] = self.gateway_port if name == "gateway" else free_ports(1)[0]
        metrics = {} if name == "gateway" else {"FW_METRICS_PORT": str(self.ports[name])}
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *command], env={**self.env, **metrics, **(env or {})}, stdout=log, stderr=log
            )

    def ready(self, names: Sequence[str], seconds: float = 300) -> None:
        """Until /readyz of each says so. Raises with the end of its log where one died."""
        give_up_at = time.monotonic() + seconds
        for name in names:
            while True:
                if self.processes[name].poll() is not None or time.monotonic() > give_up_at:
                    raise RuntimeError(f"{name} is not ready: {(self.logs / f'{name}.log').read_text()[-3000:]}")
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/readyz", timeout=2):
                        break
                except (urllib.error.URLError, OSError):
                    time.sleep(0.02)  # a readiness probe of another process: there is nothing to wait on

    def log(self, name: str) -> str:
        return (self.logs / f"{name}.log").read_text()

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        try:
            return process.wait(180)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def running(
    stack: Stack, logs: Path, read_models: Sequence[str] = READ_MODELS, more: Mapping[str, str] | None = None
) -> Iterator[Platform]:
    """The platform without edge and ingress, on names of its own. `more`: settings."""
    name = f"t{secrets.token_hex(4)}"
    topics = Topics(f"{name}.")
    with ExitStack() as made:
        blocking(kafka.apply(stack.kafka, topics))
        made.callback(lambda: blocking(_delete_topics(stack.kafka, topics.prefix)))
        blocking(_postgres(stack.postgres, f'CREATE DATABASE "{name}"'))
        made.callback(lambda: blocking(_postgres(stack.postgres, f'DROP DATABASE "{name}" WITH (FORCE)')))
        clickhouse = made.enter_context(clickhouse_connect.get_client(dsn=stack.clickhouse))
        clickhouse.command(f"CREATE DATABASE {name}")
        made.callback(lambda: clickhouse.command(f"DROP DATABASE {name} SYNC"))
        postgres = f"{stack.postgres.rsplit('/', 1)[0]}/{name}"
        blocking(migrate(postgres))
        port, balancer_port = free_ports(2)
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FW_")},
            "FW_DATA_DIR": str(logs),
            "FW_KAFKA_BOOTSTRAP": stack.kafka,
            "FW_POSTGRES_URL": postgres,
            "FW_CLICKHOUSE_URL": f"{stack.clickhouse.rsplit('/', 1)[0]}/{name}",
            "FW_TOPIC_PREFIX": topics.prefix,
            "FW_SECRET_KEY": SECRET_KEY,
            "FW_OPERATOR_TOKEN": OPERATOR_TOKEN,
            "FW_GATEWAY_LISTEN": f"127.0.0.1:{port}",
            "FW_BALANCER_LISTEN": f"127.0.0.1:{balancer_port}",
            **(more or {}),
        }
        for file, pem in zip(authority_files(logs), make(datetime.now(UTC)), strict=True):
            file.write_bytes(pem)
        platform = Platform(stack, topics, postgres, env["FW_CLICKHOUSE_URL"], env, logs, port, balancer_port)
        made.callback(lambda: _end(platform))
        platform.start("commands", "commands")
        for model in read_models:
            platform.start(model, "projections", model)
        platform.start("gateway", "gateway")
        platform.ready(["commands", *read_models, "gateway"])
        yield platform


@pytest.fixture(scope="session")
def gateway_platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One for all tests that leave its processes running as they were; each makes tenants of its own."""
    with running(stack, tmp_path_factory.mktemp("gateway")) as started:
        yield started


def _end(platform: Platform) -> None:
    for process in platform.processes.values():
        process.terminate()
    for process in platform.processes.values():
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Api:
    """A client of the API with one credential."""

    def __init__(self, platform: Platform, token: str | None) -> None:
        self.platform, self.token = platform, token
        credential = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.AsyncClient(base_url=platform.graphql.rsplit("/", 1)[0], headers=credential, timeout=180)

    async def __call__(self, query: str, headers: Mapping[str, str] | None = None, /, **variables: object) -> Json:
        """The whole answer."""
        response = await self.http.post("/graphql", json={"query": query, "variables": variables}, headers=headers)
        answer: Json = response.json()
        return answer

    async def data(self, query: str, headers: Mapping[str, str] | None = None, /, **variables: object) -> Json:
        """The data of an answer without errors; asked again while a projection is behind."""
        async with asyncio.timeout(180):
            while "NOT_READ_YET" in str((answer := await self(query, headers, **variables)).get("errors")):
                pass
        assert "errors" not in answer, answer
        found = answer["data"]
        assert isinstance(found, dict)
        return found

    async def made(self, mutation: str, **variables: object) -> Json:
        """What a mutation answers; sent again, as a client does it, while nobody has decided it."""
        key = secrets.token_hex(8)
        async with asyncio.timeout(180):
            while True:
                [answer] = (await self.data(mutation, key=key, **variables)).values()
                assert isinstance(answer, dict)
                if answer["__typename"] != "PendingResult":
                    return answer

    async def close(self) -> None:
        await self.http.aclose()


CREATE_TENANT = """
mutation($name: String!, $key: String) { createTenant(input: {name: $name, clientMutationId: $key}) {
  __typename
  ... on CreateTenantSuccess { tenant { id name } apiToken position }
  ... on Error { code message }
  ... on ValidationError { field } } }"""
CREATE_STREAM = """
mutation($title: String!, $slug: String, $key: String) {
  createStream(input: {title: $title, slug: $slug, clientMutationId: $key}) {
    __typename
    ... on CreateStreamSuccess { stream { id title slug playbackId internalName state } streamKey position clientMutationId }
    ... on Error { code message }
    ... on ValidationError { field } } }"""


@dataclass(frozen=True, slots=True)
class Made:
    """A tenant of a test, and a client with its token."""

    tenant_id: str
    token: str
    api: Api

    async def stream(self, title: str = "Harbour") -> dict[str, str]:
        """A new stream, readable when this returns; with `streamKey` and `position` among its fields."""
        made = await self.api.made(CREATE_STREAM, title=title)
        assert made["__typename"] == "CreateStreamSuccess", made
        found = {**made["stream"], "streamKey": made["streamKey"], "position": made["position"]}
        await self.api.data(
            "query($id: ID!, $at: Position) { stream(id: $id, after: $at) { id } }", id=found["id"], at=made["position"]
        )
        return found


async def new_tenant(platform: Platform, clean: AsyncExitStack, name: str = "Lighthouse") -> Made:
    operator = Api(platform, OPERATOR_TOKEN)
    made = await operator.made(CREATE_TENANT, name=name)
    await operator.close()
    assert made["__typename"] == "CreateTenantSuccess", made
    api = Api(platform, made["apiToken"])
    clean.push_async_callback(api.close)
    async with asyncio.timeout(180):  # a projection that is far behind does not know the token yet
        while (await api.data("{ viewer { kind } }"))["viewer"] != {"kind": "TENANT"}:
            await asyncio.sleep(0.1)
    return Made(made["tenant"]["id"], made["apiToken"], api)


async def append(producer: AIOKafkaProducer, topic: Topic, event: Event, meta: Meta, appended_at: datetime | None = None) -> int:
    """Puts a fact of a stream where the ingress would; its offset. It says that the log took it when it happened, or then."""
    partition = partition_of(meta.aggregate_id)
    sent = await producer.send_and_wait(
        topic.name,
        encode(event, meta),
        key=meta.aggregate_id.bytes,
        partition=partition,
        headers=list(headers(event, meta)),
        timestamp_ms=int((appended_at or meta.occurred_at).timestamp() * 1000),
    )
    return int(sent.offset)


class Subscription:
    """A graphql-transport-ws client with one operation."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    @classmethod
    async def open(
        cls, platform: Platform, token: str | None, query: str, clean: AsyncExitStack, **variables: object
    ) -> Subscription:
        socket = await clean.enter_async_context(connect(platform.graphql_ws, subprotocols=["graphql-transport-ws"]))  # type: ignore[list-item]
        payload = {"authorization": f"Bearer {token}"} if token else {}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        ack = json.loads(await asyncio.wait_for(socket.recv(), 180))
        assert ack["type"] == "connection_ack", ack
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query, "variables": variables}}))
        return cls(socket)

    async def message(self, seconds: float = 180) -> Json:
        found: Json = json.loads(await asyncio.wait_for(self.socket.recv(), seconds))
        return found

    async def event(self, seconds: float = 180) -> Json:
        """The next event's fields."""
        message = await self.message(seconds)
        payload = message.get("payload")
        assert message["type"] == "next", message
        assert isinstance(payload, dict), message
        assert "errors" not in payload, message
        found: Json = payload["data"]["streamEvents"]
        return found
