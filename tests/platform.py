"""The whole platform, started once per run: `fw up` on the servers of the `stack` fixture, and a client for its doors.

Invariant: tests share it and none stops it; whoever kills its processes waits until they are back. What a test needs of its
own it makes with a tenant of its own.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import pytest

from infra.embedded.stack import Stack
from tests.stack import _delete_topics, _postgres, blocking
from tests.up import up

FW = str(Path(sys.executable).parent / "fw")
Json = dict[str, Any]


class Unavailable(Exception):
    """The gateway says that a part does not answer: it is being restarted."""


@dataclass(slots=True)
class Platform:
    """A running platform. `up` is what `fw up --json` printed."""

    up: Json
    data_dir: Path
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=180))

    def query(self, document: str, variables: Mapping[str, object] | None = None, token: str | None = None) -> Json:
        """`data` of a GraphQL answer; an answer with errors fails the test."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = self.http.post(self.up["graphql"], json={"query": document, "variables": variables or {}}, headers=headers)
        body: Json = answer.json()
        if any(error["extensions"]["code"] == "UNAVAILABLE" for error in body.get("errors", ())):
            raise Unavailable(body["errors"])
        assert "errors" not in body, body
        data: Json = body["data"]
        return data

    def create_tenant(self, name: str = "Acme") -> str:
        """API token of a new tenant."""
        made = self._made(
            """mutation ($input: CreateTenantInput!) { made: createTenant(input: $input) {
                 __typename ... on CreateTenantSuccess { apiToken } ... on Error { code message } } }""",
            {"name": name},
            self.up["operator_token"],
        )
        assert made["__typename"] == "CreateTenantSuccess", made
        token = str(made["apiToken"])
        until(lambda: self.query("{ viewer { kind } }", token=token)["viewer"] == {"kind": "TENANT"}, 180, "the token")
        return token

    def create_stream(self, token: str, title: str = "Lobby") -> tuple[str, str]:
        """Id and key of a new stream; the edge agent knows it when this returns."""
        made = self._made(
            """mutation ($input: CreateStreamInput!) { made: createStream(input: $input) {
                 __typename ... on CreateStreamSuccess { streamKey stream { id internalName } }
                 ... on Error { code message } } }""",
            {"title": title, "slug": f"s-{secrets.token_hex(4)}"},
            token,
        )
        assert made["__typename"] == "CreateStreamSuccess", made
        self.edge_knows(made["stream"]["internalName"])
        return made["stream"]["id"], made["streamKey"]

    def _made(self, mutation: str, wish: Json, token: str) -> Json:
        """What a mutation answers; sent again, as a client does it, while nobody has decided it."""
        wish, end = wish | {"clientMutationId": secrets.token_hex(8)}, time.monotonic() + 180
        while True:
            answer: Json = self.query(mutation, {"input": wish}, token)["made"]
            if answer["__typename"] != "PendingResult" or time.monotonic() > end:
                return answer

    def edge_knows(self, internal_name: str) -> None:
        """Waits until the edge agent admits viewers of the stream's name (its policy has arrived)."""

        def known() -> bool:
            body = f"live+{internal_name}\n127.0.0.9\n\nHLS\nhttp://127.0.0.1/x\n{'0' * 64}"  # a re-check: leaves no fact
            return self.http.post(f"{self.up['edge']}/trigger/USER_NEW", content=body).text == "true"

        until(known, 180, f"the edge agent to know {internal_name}")

    def replay(self, recording: str, key: str, speed: float) -> Json:
        """Replays a recording through the edge agent; the replayer's summary."""
        command = [FW, "replay-recording", recording, "--edge", self.up["edge"], "--stream-key", key]
        done = subprocess.run([*command, "--speed", str(speed), "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        summary: Json = json.loads(done.stdout.strip().splitlines()[-1])
        return summary

    def status(self) -> Json:
        command = [FW, "status", "--json", "--data-dir", str(self.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        status: Json = json.loads(done.stdout)
        return status


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits for a condition; fails the test with `what` when it does not come."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (httpx.TransportError, Unavailable):
            pass  # a part that is being restarted
        if time.monotonic() > end:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.05)


@contextmanager
def running(data_dir: Path, env: Mapping[str, str]) -> Iterator[Platform]:
    """`fw up` in that directory, until the block ends."""
    with up(data_dir, env=env) as started:
        yield Platform(dict(started.line), data_dir)


@pytest.fixture(scope="session")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The platform's own processes on the shared servers, in a database and behind a topic prefix of this run."""
    name = f"p_{secrets.token_hex(6)}"
    blocking(_postgres(stack.postgres, f'CREATE DATABASE "{name}"'))
    with clickhouse_connect.get_client(dsn=stack.clickhouse) as client:
        client.command(f"CREATE DATABASE {name}")
    env = {
        "FW_KAFKA_BOOTSTRAP": stack.kafka,
        "FW_POSTGRES_URL": f"{stack.postgres.rsplit('/', 1)[0]}/{name}",
        "FW_CLICKHOUSE_URL": f"{stack.clickhouse.rsplit('/', 1)[0]}/{name}",
        "FW_TOPIC_PREFIX": f"{name}.",
    }
    with running(tmp_path_factory.mktemp("platform"), env) as platform:
        yield platform
    blocking(_postgres(stack.postgres, f'DROP DATABASE "{name}" WITH (FORCE)'))
    with clickhouse_connect.get_client(dsn=stack.clickhouse) as client:
        client.command(f"DROP DATABASE {name} SYNC")
    blocking(_delete_topics(stack.kafka, f"{name}."))
