"""The gateway as an HTTP server and as a process: what it refuses, what it serves beside GraphQL, how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest

from gateway.limits import MAX_BODY_BYTES
from infra.embedded.ports import free_ports
from tests.cut import Cut
from tests.gateway_platform import (
    OPERATOR_TOKEN,
    Api,
    Json,
    Made,
    Platform,
    new_tenant,
)


@pytest.fixture
def platform(gateway_platform: Platform) -> Platform:
    return gateway_platform


@pytest.fixture
async def clean() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def me(platform: Platform, clean: AsyncExitStack) -> Made:
    return await new_tenant(platform, clean)


@pytest.fixture
async def operator(platform: Platform, clean: AsyncExitStack) -> Api:
    api = Api(platform, OPERATOR_TOKEN)
    clean.push_async_callback(api.close)
    return api


def payload(data: Json) -> Json:
    """The only root field's value."""
    (found,) = data.values()
    assert isinstance(found, dict)
    return found


def error_code(answer: Json) -> str:
    return str(answer["errors"][0]["extensions"]["code"])


async def test_http_says_what_is_wrong(platform: Platform) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{platform.gateway_port}") as http:

        async def code(status: int, method: str, path: str = "/graphql", **request: object) -> str:
            response = await http.request(method, path, **request)  # type: ignore[arg-type]
            assert response.status_code == status, response.text
            return error_code(response.json())

        assert await code(415, "POST", content=b"query={viewer{kind}}") == "UNSUPPORTED_MEDIA_TYPE"
        assert await code(400, "POST", content=b"{", headers={"Content-Type": "application/json"}) == "BAD_USER_INPUT"
        assert await code(400, "POST", json=[{"query": "{ viewer { kind } }"}]) == "BAD_USER_INPUT"
        assert await code(413, "POST", json={"query": "x" * MAX_BODY_BYTES}) == "BODY_TOO_LARGE"
        assert await code(200, "POST", json={"query": "{ nope }"}) == "GRAPHQL_VALIDATION_FAILED"
        assert await code(200, "POST", json={"query": "{"}) == "GRAPHQL_PARSE_FAILED"
        assert (
            await code(200, "POST", json={"query": "subscription { streamEvents(streamId: 1) { cursor } }"})
            == "SUBSCRIPTION_OVER_HTTP"
        )
        deep = "{ tenant " * 14 + "}" * 14
        assert await code(200, "POST", json={"query": deep}) == "QUERY_TOO_DEEP"
        aliases = "{" + " ".join(f"a{n}: viewer {{ kind }}" for n in range(31)) + "}"
        assert await code(200, "POST", json={"query": aliases}) == "TOO_MANY_ALIASES"
        costly = "{ streams(first: 100) { nodes { sessions(first: 100) { nodes { id seconds } } } } }"
        assert await code(200, "POST", json={"query": costly}) == "QUERY_TOO_COSTLY"
        spec = {"Accept": "application/graphql-response+json"}
        assert await code(400, "POST", json={"query": "{ nope }"}, headers=spec) == "GRAPHQL_VALIDATION_FAILED"
        assert (
            await code(200, "GET", params={"query": "mutation { deleteStream(input: {streamId: 1}) { __typename } }"})
            == "MUTATION_OVER_GET"
        )
        assert await code(405, "DELETE") == "BAD_USER_INPUT"
        for path in ("/graphql", "/api/gateway", "/graphql/"):
            found = await http.get(path, params={"query": "{ viewer { kind } }"})
            assert found.json() == {"data": {"viewer": {"kind": "ANONYMOUS"}}}
        page = await http.get("/api/gateway", headers={"Accept": "text/html"})
        assert "/api/gateway/explorer/graphiql.min.js" in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for asset in ("explorer.js", "graphiql.min.js", "graphiql.min.css", "react.production.min.js"):
            assert (await http.get(f"/graphql/explorer/{asset}")).status_code == 200
        assert (await http.get("/graphql/explorer/page.html")).status_code == 404
        foreign = await http.options("/graphql", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers
        local = await http.options("/graphql", headers={"Origin": "http://localhost:5173"})
        assert local.headers["access-control-allow-origin"] == "http://localhost:5173"
        assert (await http.get("/readyz")).text == "ready\n"
        assert (await http.get("/healthz")).text == "ok\n"
        assert "fw_gateway_requests_total" in (await http.get("/metrics")).text


async def test_any_avro_client_can_find_the_schemas(platform: Platform, me: Made) -> None:
    from streams.registry import registered

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{platform.gateway_port}/registry") as http:
        subjects = (await http.get("/subjects")).json()
        assert "fw.facts.ViewerLeft" in subjects
        for known in registered():
            assert (await http.get(f"/schemas/ids/{known.id}")).json() == {"schema": known.text}
            shown = (await http.get(f"/subjects/{known.subject}/versions/{known.version}")).json()
            assert (shown["id"], shown["subject"], shown["version"]) == (known.id, known.subject, known.version)
        latest = (await http.get("/subjects/fw.facts.ViewerLeft/versions/latest")).json()
        found = await http.post("/subjects/fw.facts.ViewerLeft", json={"schema": latest["schema"]})
        assert found.json()["id"] == latest["id"]
        assert (await http.get("/schemas/types")).json() == ["AVRO"]
        missing = await http.get("/schemas/ids/99999")
        assert (missing.status_code, missing.json()["error_code"]) == (404, 40403)
        assert (await http.get("/subjects/nope/versions")).json()["error_code"] == 40401
        refused = await http.post("/subjects/fw.facts.ViewerLeft/versions", json={"schema": "{}"})
        assert (refused.status_code, refused.json()["error_code"]) == (422, 42205)


async def test_a_stop_is_clean_and_a_failure_is_not(platform: Platform) -> None:
    platform.start("second", "gateway", env={"FW_METRICS_PORT": "0"})  # the port is taken
    assert await asyncio.to_thread(platform.processes["second"].wait, 120) == 1
    assert "another program has the port" in platform.log("second")
    assert "Traceback" not in platform.log("second")
    assert await asyncio.to_thread(platform.stop, "gateway") == 0
    platform.start("gateway", "gateway")
    await asyncio.to_thread(platform.ready, ["gateway"])
    assert '"serving"' in platform.log("gateway")


async def test_it_waits_for_a_server_that_is_not_there_yet(platform: Platform) -> None:
    port, api, balancer = free_ports(3)
    database = urlsplit(platform.postgres)
    late = urlunsplit(database._replace(netloc=database.netloc.replace(f":{database.port}", f":{port}")))
    listen = {"FW_GATEWAY_LISTEN": f"127.0.0.1:{api}", "FW_BALANCER_LISTEN": f"127.0.0.1:{balancer}"}
    env = {"FW_POSTGRES_URL": late, **listen, "FW_METRICS_PORT": "0"}
    platform.start("early", "gateway", env=env)
    await said(platform, "early", "waits for a server")
    async with Cut(database.port or 0, port):
        await said(platform, "early", '"serving"')
        assert await asyncio.to_thread(platform.stop, "early") == 0


async def said(platform: Platform, name: str, words: str) -> None:
    """Until these words stand in the log of a process that runs."""
    async with asyncio.timeout(120):
        while words not in platform.log(name):
            assert platform.processes[name].poll() is None, platform.log(name)
            await asyncio.sleep(0.05)


async def test_settings_that_are_missing_are_all_named(platform: Platform) -> None:
    platform.start("unset", "gateway", env={"FW_KAFKA_BOOTSTRAP": "", "FW_POSTGRES_URL": "nonsense"})
    assert await asyncio.to_thread(platform.processes["unset"].wait, 120) == 2
    assert "FW_KAFKA_BOOTSTRAP" in platform.log("unset")
    assert "FW_POSTGRES_URL" in platform.log("unset")
