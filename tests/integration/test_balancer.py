"""The balancer on the real servers: facts on the log to answers of both its doors, and what it decided back to a question.

The answers of MistServer's protocol are held to the recordings, byte for byte; only the names of streams are ours.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from gateway.balancer.media_json import pretty
from infra.embedded.ports import free_ports
from infra.embedded.stack import Stack
from projections.clickhouse import connect, rows
from streams.generated import ClientSamples, Event, Meta, NodeSamples, StreamRelayStarted, StreamWentLive, ViewerJoined
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.kafka import idempotent_producer
from tests.balancer_recordings import Recording, recordings
from tests.gateway_platform import OPERATOR_TOKEN, Api, Json, Made, Platform, append, new_tenant, running

REGISTER = """mutation($input: RegisterNodeInput!) { made: registerNode(input: $input) {
  __typename ... on RegisterNodeSuccess { nodeId position } ... on Error { code message } } }"""
SET_MODE = """mutation($input: SetNodeModeInput!) { made: setNodeMode(input: $input) {
  __typename ... on SetNodeModeSuccess { nodeId } ... on Error { code message } } }"""
SET_WEIGHTS = """mutation($input: SetBalancerWeightsInput!) { made: setBalancerWeights(input: $input) {
  __typename ... on SetBalancerWeightsSuccess { weights { cpu ram bandwidth geo bonus } } ... on Error { code message } } }"""
RESOLVE = """query($id: String!, $lat: Float, $lon: Float) {
  resolveViewerEndpoint(playbackId: $id, protocol: HLS, latitude: $lat, longitude: $lon) {
    url protocol node { nodeId nodeName region score { total cpu ram bandwidth geo bonus isOwn } }
    alternatives { nodeId url } excluded { nodeId reason } } }"""
INGEST = """query($key: String, $id: ID, $protocol: IngestProtocol!) {
  resolveIngestEndpoint(streamKey: $key, streamId: $id, protocol: $protocol) { url node { nodeId } } }"""
READ_MODELS = ("tenants", "streams", "samples", "node_registry", "routing")


@pytest.fixture(scope="module")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One of its own: the operator's nodes are those of the whole platform."""
    with running(stack, tmp_path_factory.mktemp("balancer"), READ_MODELS) as started:
        yield started


@dataclass(slots=True)
class World:
    """A platform, its two doors, and what happens on media servers."""

    platform: Platform
    producer: AIOKafkaProducer
    door: httpx.AsyncClient
    operator: Api
    clean: AsyncExitStack
    nodes: list[str] = field(default_factory=list)
    figures: dict[str, Mapping[str, int]] = field(default_factory=dict)

    async def say(self, event: Event, about: UUID, tenant_id: UUID = OPERATOR_TENANT) -> None:
        event_id = uuid4()
        meta = Meta(event_id, tenant_id, about, 0, event_id, event_id, datetime.now(UTC), "node:test")
        topics = self.platform.topics
        await append(self.producer, topics.of(type(event).__name__), event, meta)

    async def made(self, mutation: str, **wish: object) -> Json:
        """What the operator's mutation answers; sent again, as a client does it, while nobody has decided it."""
        wish["clientMutationId"] = uuid4().hex
        async with asyncio.timeout(180):
            while (answer := (await self.operator.data(mutation, input=wish))["made"])["__typename"] == "PendingResult":
                pass
        assert isinstance(answer, dict)
        return answer

    async def node(self, name: str, **described: object) -> str:
        made = await self.made(REGISTER, name=name, **described)
        assert made["__typename"] == "RegisterNodeSuccess", made
        self.nodes.append(name)
        return name

    async def mode(self, node_id: str, mode: str) -> None:
        made = await self.made(SET_MODE, nodeId=node_id, mode=mode)
        assert made["__typename"] == "SetNodeModeSuccess", made

    async def samples(self, node_id: str, **figures: int) -> None:
        """The node's numbers from now on: it says them now and every few seconds."""
        self.figures[node_id] = figures
        await self._sampled(node_id, **figures)

    async def keep_sampling(self) -> None:
        while True:
            await asyncio.sleep(5)
            for node_id, figures in list(self.figures.items()):
                await self._sampled(node_id, **figures)

    async def host(self, name: str) -> Json:
        """What is shown of a host; {} where it is a sentence."""
        found = json.loads((await self.door.get(f"/?host={name}")).text)
        return found if isinstance(found, dict) else {}

    async def online(self, *hosts: str) -> None:
        """Until the balancer has numbers of all of them."""
        async with asyncio.timeout(120):
            for host in hosts:
                while not isinstance((await self.host(host)).get("cpu"), int):
                    await asyncio.sleep(0.05)

    async def _sampled(self, node_id: str, *, cpu_permille: int = 100, up: int = 0, down: int = 0, viewers: int = 0) -> None:
        now = datetime.now(UTC)
        event = NodeSamples(
            node_id,
            now - timedelta(seconds=2),
            sampled_at=(now - timedelta(seconds=2), now),
            cpu_permille=(cpu_permille,) * 2,
            memory_used_bytes=(654_113 << 10,) * 2,
            memory_total_bytes=(24_683_520 << 10,) * 2,
            shm_used_bytes=(3072,) * 2,
            shm_total_bytes=(12_341_248,) * 2,
            up_bytes=(0, 2 * up),
            down_bytes=(0, 2 * down),
            viewers=(viewers,) * 2,
            inputs=(1,) * 2,
            outputs=(0,) * 2,
            bandwidth_limit_bytes_per_second=134_217_728,
        )
        await self.say(event, node_uuid(node_id))

    async def live(self, owner: Made, stream: Mapping[str, str], node_id: str) -> None:
        await self.say(StreamWentLive(node_id, stream["internalName"]), UUID(stream["id"]), UUID(owner.tenant_id))

    async def until(self, path: str, expected: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """Asks until the answer is this one."""
        give_up_at = time.monotonic() + 120
        while True:
            answer = await self.door.get(path, headers=headers)
            if answer.text == expected:
                return answer
            assert time.monotonic() < give_up_at, f"{path}: {answer.text!r}, not {expected!r}"
            await asyncio.sleep(0.05)


@pytest.fixture
async def world(platform: Platform) -> AsyncIterator[World]:
    async with AsyncExitStack() as clean:
        producer = idempotent_producer(platform.stack.kafka, "test")
        await producer.start()
        clean.push_async_callback(producer.stop)
        operator = Api(platform, OPERATOR_TOKEN)
        clean.push_async_callback(operator.close)
        door = httpx.AsyncClient(base_url=f"http://127.0.0.1:{platform.balancer_port}", timeout=60)
        clean.push_async_callback(door.aclose)
        world = World(platform, producer, door, operator, clean)
        sampling = asyncio.create_task(world.keep_sampling())
        yield world
        sampling.cancel()
        for node_id in world.nodes:  # no other test's question ends there
            await world.mode(node_id, "MAINTENANCE")


def same_headers(answer: httpx.Response, recording: Recording) -> None:
    """All of them, with their values; of the length and the place to go only that they are there."""
    ours = {name.title(): value for name, value in answer.headers.items() if name not in ("date", "content-length", "location")}
    theirs = {name: value for name, value in recording.headers if name not in ("Content-Length", "Location")}
    assert ours == theirs


async def test_media_servers_are_answered_as_by_their_own_balancer(world: World) -> None:
    owner = await new_tenant(world.platform, world.clean)
    stream, copy = await owner.stream("cam1"), await owner.stream("copy")
    name, copy_name = f"live+{stream['internalName']}", f"live+{copy['internalName']}"
    assert (await world.door.get(f"/{name}")).text == "FULL", "there is no node"
    await world.node("lab-1", region="Testlab", latitude=52.1, longitude=4.3, baseUrl="http://127.0.0.1:21003", tags=["blue"])
    await world.samples("lab-1", cpu_permille=124, up=301_070, down=94_944, viewers=4)
    await world.live(owner, stream, "lab-1")
    await world.live(owner, copy, "lab-1")
    now = datetime.now(UTC)
    await world.say(
        ClientSamples(
            "lab-1",
            now,
            session_ids=("a", "b", "c", "Ix"),
            sampled_at=(now,) * 4,
            connectors=("HLS", "HLS", "HLS", "INPUT:RTMP"),
            connected_seconds=(1,) * 4,
            up_bytes=(5_000_000, 5_000_000, 1_402_659, 0),
            down_bytes=(0, 0, 0, 1_999_471),
            up_bytes_per_second=(58_017, 58_017, 58_017, 0),
            down_bytes_per_second=(0,) * 4,
            packets_sent=(0,) * 4,
            packets_lost=(0,) * 4,
            packets_retransmitted=(0,) * 4,
        ),
        UUID(stream["id"]),
        UUID(owner.tenant_id),
    )
    said = recordings()
    # hosts: before anybody is sent anywhere, so that nobody is expected there
    status = said["status of all hosts"]
    answer = await world.until("/", pretty(status.reply))
    same_headers(answer, status)
    assert (len(answer.content), answer.text[-4:]) == (status.length, status.ending)
    one = await world.door.get("/?host=127.0.0.1")
    assert (one.text, len(one.content)) == (pretty(said["one host"].reply), said["one host"].length)
    listed = await world.door.get("/?lstserver=1")
    assert listed.text == pretty(said["server list"].reply).replace("21001", "21003")
    weights = await world.door.get("/?weights=%7B%7D")
    assert weights.text == '{"bonus":50,"bw":1000,"cpu":500,"geo":1000,"ram":500}'
    assert len(weights.content) == said["weights read"].length
    # streams
    await world.until(f"/?stream={name.replace('+', '%2B')}", "3")
    assert (await world.door.get("/?viewers=1")).text == pretty({copy_name: 0, name: 3})
    assert (await world.door.get("/?stream=nosuch")).text == "0"
    statistics = await world.door.get(f"/?streamstats={name.replace('+', '%2B')}")
    assert statistics.text == pretty({name: said["stream statistics"].reply["live+cam1"]})
    # sources: the asker is the host itself, as it was when it was recorded
    fallback = await world.door.get(f"/?source={name.replace('+', '%2B')}")
    assert fallback.text == "FULL"
    assert (await world.door.get("/?source=nosuch&fallback=rtmp%3A%2F%2Fx")).text == said["source with fallback"].reply
    same_headers(fallback, said["source of a stream that is live"])
    # viewers and publishers
    for path in (f"/{name}", f"/{name}?lat=52&lon=4&tag_adjust=%7B%22blue%22%3A10%7D", "/?ingest=10", f"/{stream['playbackId']}"):
        assert (await world.door.get(path)).text == "127.0.0.1", path
    headers = {"X-Latitude": "10", "X-Longitude": "20", "X-Tag-Adjust": '{"blue":-1000}'}
    assert (await world.door.get(f"/{name}", headers=headers)).text == "127.0.0.1"
    assert (await world.door.get("/nosuch")).text == "FULL"
    redirected, recorded = await world.door.get(f"/{name}?proto=HLS"), said["balance with redirect"]
    assert (redirected.status_code, redirected.text) == (307, recorded.reply.replace("live+cam1", name))
    assert redirected.headers["location"] == redirected.text
    same_headers(redirected, recorded)
    unknown, recorded = await world.door.get(f"/{name}?proto=NOPE"), said["balance with unknown protocol"]
    assert (unknown.status_code, unknown.headers["location"], unknown.text) == (307, recorded.reply, recorded.reply)
    watched = await world.door.get(f"/{stream['playbackId']}?tkn=abc&proto=hls")
    assert watched.headers["location"] == f"http://127.0.0.1:21003/hls/{stream['playbackId']}/index.m3u8?proto=&tkn=abc"


async def test_a_source_is_another_node_that_has_the_stream(world: World) -> None:
    owner = await new_tenant(world.platform, world.clean)
    stream = await owner.stream("Source")
    name = f"live%2B{stream['internalName']}"
    for node_id, cpu in (("src-1", 100), ("src-2", 500)):
        await world.node(node_id, baseUrl=f"http://{node_id}.invalid")
        await world.samples(node_id, cpu_permille=cpu)
    await world.node("src-3", baseUrl="http://src-3.invalid")
    await world.samples("src-3", cpu_permille=0)
    relay = StreamRelayStarted("src-3", stream["internalName"])  # the idlest, but it has the stream from another itself
    await world.say(relay, UUID(stream["id"]), UUID(owner.tenant_id))
    for node_id in ("src-1", "src-2"):
        await world.live(owner, stream, node_id)
    await world.until(f"/?source={name}", "dtsc://src-1.invalid")
    await world.until(f"/?source={name}&node=src-1", "dtsc://src-2.invalid")
    await world.mode("src-2", "DRAINING")
    await world.mode("src-1", "MAINTENANCE")
    await world.until(f"/?source={name}&node=src-3", "dtsc://src-2.invalid")
    await world.until(f"/?source={name}&node=src-2&fallback=dtsc%3A%2F%2Fx", "dtsc://x")


async def test_requests_are_bounded_and_weights_need_the_operator(world: World) -> None:
    door = world.door
    assert (await door.get("/x", params={"lat": "9" * 5000})).status_code == 414
    assert (await door.get("/?" + "&".join(f"a{n}=1" for n in range(30)))).status_code == 400
    assert (await door.get("/" + "x" * 600)).status_code == 414
    assert (await door.put("/")).status_code == 405
    assert (await door.get("/?addserver=127.0.0.1%3A9")).status_code == 403
    for wrong in ("nonsense", "[]", '{"cpu":"x"}', '{"mem":1}', '{"cpu":true}'):
        assert (await door.get("/", params={"weights": wrong})).status_code == 400
    change = {"weights": '{"cpu":400}'}
    for credential in ({}, {"Authorization": "Bearer nobody"}, {"Authorization": "nonsense"}):
        refused = await door.get("/", params=change, headers=credential)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    tenant = await new_tenant(world.platform, world.clean)
    assert (await door.get("/", params=change, headers={"Authorization": f"Bearer {tenant.token}"})).status_code == 401
    allowed = {"Authorization": f"Bearer {OPERATOR_TOKEN}"}
    assert (await door.get("/", params={"weights": '{"cpu":-1}'}, headers=allowed)).status_code == 400
    changed = await door.get("/", params=change, headers=allowed)
    assert changed.text == '{"bonus":50,"bw":1000,"cpu":400,"geo":1000,"ram":500}'
    assert len(changed.content) == recordings()["weights write"].length
    assert (await tenant.api.data(SET_WEIGHTS, input={"cpu": 1}))["made"]["code"] == "FORBIDDEN"
    back = await world.made(SET_WEIGHTS, cpu=500)
    assert back["weights"] == {"cpu": 500, "ram": 500, "bandwidth": 1000, "geo": 1000, "bonus": 50}
    assert (await world.operator.data("{ balancerWeights { cpu } }")) == {"balancerWeights": {"cpu": 500}}
    assert (await door.get("/", params={"weights": "{}"})).text.startswith('{"bonus":50,')


async def test_players_and_publishers_find_their_node(world: World) -> None:
    owner, other = await new_tenant(world.platform, world.clean), await new_tenant(world.platform, world.clean)
    stream = await owner.stream("Harbour")
    await world.node("ams", latitude=52.4, longitude=4.9, region="nl", baseUrl="https://ams.example.org")
    await world.node("syd", latitude=-33.9, longitude=151.2, baseUrl="https://syd.example.org")
    await world.node("full", latitude=52.4, longitude=4.9, baseUrl="https://full.example.org")
    await world.samples("ams")
    await world.samples("syd")
    await world.samples("full", cpu_permille=950)
    anyone = Api(world.platform, None)
    world.clean.push_async_callback(anyone.close)

    async def resolved(api: Api, latitude: float, longitude: float) -> Json:
        found = (await api.data(RESOLVE, id=stream["playbackId"], lat=latitude, lon=longitude))["resolveViewerEndpoint"]
        assert isinstance(found, dict)
        return found

    async with asyncio.timeout(120):
        while True:
            answer = await anyone(RESOLVE, id=stream["playbackId"], lat=51.5, lon=-0.1)
            if "errors" not in answer and len(answer["data"]["resolveViewerEndpoint"]["alternatives"]) == 1:
                break
            assert "errors" not in answer or answer["errors"][0]["extensions"]["code"] in ("NO_NODE", "NOT_FOUND"), answer
            await asyncio.sleep(0.1)
    near = await resolved(anyone, 51.5, -0.1)
    assert near["url"] == f"https://ams.example.org/hls/{stream['playbackId']}/index.m3u8"
    assert (near["node"]["nodeId"], near["node"]["region"], near["excluded"]) == ("ams", "nl", [])
    score = near["node"]["score"]
    assert score["total"] == sum(score[part] for part in ("cpu", "ram", "bandwidth", "geo", "bonus"))
    assert (score["cpu"], score["geo"], score["bonus"], score["isOwn"]) == (450, 982, 0, False)
    assert [a["nodeId"] for a in near["alternatives"]] == ["syd"]
    assert (await resolved(anyone, -30, 150))["node"]["nodeId"] == "syd"
    assert {"nodeId": "full", "reason": "CPU_FULL"} in (await resolved(owner.api, 0, 0))["excluded"]
    assert (await resolved(other.api, 0, 0))["excluded"] == []
    whip = await anyone.data(INGEST, key=stream["streamKey"], protocol="WHIP")
    assert whip["resolveIngestEndpoint"]["url"].endswith(f"example.org/webrtc/{stream['streamKey']}")
    rtmp = await owner.api.data(INGEST, id=stream["id"], protocol="RTMP")
    assert rtmp["resolveIngestEndpoint"]["url"] in {f"rtmp://{n}.example.org:1935/live/" for n in ("ams", "syd")}
    for api, variables in (
        (other.api, {"id": stream["id"]}),
        (anyone, {"key": stream["streamKey"][:-1] + ("y" if stream["streamKey"].endswith("z") else "z")}),
        (anyone, {"key": "nonsense"}),
    ):
        answer = await api(INGEST, protocol="RTMP", **variables)
        assert answer["errors"][0]["extensions"]["code"] == "NOT_FOUND", answer
    assert (await anyone(INGEST, protocol="RTMP"))["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    guess = await anyone(RESOLVE, id=f"live+{stream['internalName']}")
    assert guess["errors"][0]["extensions"]["code"] == "NOT_FOUND", "the media servers' name is not for viewers"
    many = "query($id: String!) {" + " ".join(f"n{n}: resolveViewerEndpoint(playbackId: $id) {{ url }}" for n in range(30)) + "}"
    codes: set[str] = set()
    async with asyncio.timeout(120):
        while "RATE_LIMITED" not in codes:  # 150 questions in five requests: beyond the burst, however slow the machine
            for answer in await asyncio.gather(*(anyone(many, id="nobody") for _ in range(5))):
                codes |= {error["extensions"]["code"] for error in answer["errors"]}
    assert codes == {"NOT_FOUND", "RATE_LIMITED"}
    assert (await resolved(owner.api, 0, 0))["url"], "who has a credential is not counted by address"


async def test_virtual_viewers_fill_a_node_until_its_numbers_have_them(world: World) -> None:
    owner = await new_tenant(world.platform, world.clean)
    stream = await owner.stream("Crowd")
    playback = stream["playbackId"]
    for node_id in ("crowd-a", "crowd-b"):
        await world.node(node_id, baseUrl=f"http://{node_id}.invalid")
        await world.samples(node_id, viewers=10, up=10 << 20)  # each viewer uses 1 MiB/s
    await world.online("crowd-a.invalid", "crowd-b.invalid")
    sent = [(await world.door.get(f"/{playback}")).text for _ in range(40)]
    assert set(sent) == {"crowd-a.invalid", "crowd-b.invalid"}, "the second fills up what the first has more"

    before = await world.host("crowd-a.invalid")
    expected = before["viewers"] - 10
    assert expected >= sent.count("crowd-a.invalid")
    assert before["up_add"] == expected << 20
    for _ in range(expected):
        join = ViewerJoined("crowd-a", uuid4().hex, uuid4(), "HLS")
        await world.say(join, UUID(stream["id"]), UUID(owner.tenant_id))
    await asyncio.sleep(1.1)  # the node's numbers are of a second later than the joins: a time on the log, nothing to wait on
    await world.samples("crowd-a", viewers=10 + expected, up=(10 + expected) << 20)
    async with asyncio.timeout(120):
        while (after := await world.host("crowd-a.invalid"))["up_add"] or after["viewers"] != 10 + expected:
            await asyncio.sleep(0.1)
    assert (after["viewers"], after["up"]) == (10 + expected, (10 + expected) << 20)


async def test_gateways_share_weights_and_viewers_on_their_way(world: World) -> None:
    owner = await new_tenant(world.platform, world.clean)
    stream = await owner.stream("Shared")
    await world.node("pair", baseUrl="http://pair.invalid")
    await world.samples("pair", viewers=1, up=70_000)
    await world.until(f"/{stream['playbackId']}", "pair.invalid")
    other_api, other_door = free_ports(2)
    listen = {"FW_GATEWAY_LISTEN": f"127.0.0.1:{other_api}", "FW_BALANCER_LISTEN": f"127.0.0.1:{other_door}"}
    world.platform.start("gateway-2", "gateway", env=listen)
    world.platform.ports["gateway-2"] = other_api
    try:
        await asyncio.to_thread(world.platform.ready, ["gateway-2"])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{other_door}", timeout=60) as there:
            other = World(world.platform, world.producer, there, world.operator, world.clean)
            await other.until(f"/{stream['playbackId']}", "pair.invalid")  # it has read the tables
            before = (await other.host("pair.invalid"))["up_add"]
            assert (await world.door.get(f"/{stream['playbackId']}")).text == "pair.invalid"
            began = time.monotonic()
            while (await other.host("pair.invalid"))["up_add"] != before + 70_000:
                assert time.monotonic() < began + 20, "a viewer whom the one sent is expected by the other"
                await asyncio.sleep(0.02)
            made = await world.made(SET_WEIGHTS, ram=501)
            assert made["__typename"] == "SetBalancerWeightsSuccess", made
            await other.until("/?weights=%7B%7D", '{"bonus":50,"bw":1000,"cpu":500,"geo":1000,"ram":501}')
            await world.made(SET_WEIGHTS, ram=500)
            await other.until("/?weights=%7B%7D", '{"bonus":50,"bw":1000,"cpu":500,"geo":1000,"ram":500}')
    finally:
        assert await asyncio.to_thread(world.platform.stop, "gateway-2") == 0


async def decided(platform: Platform, tenant_id: str) -> Sequence[Sequence[object]]:
    """The tenant's decisions that ClickHouse has."""
    ch = await connect(platform.clickhouse)
    try:
        sql = """SELECT purpose, protocol, country, h3_cell, node_id, node_ids, scores, is_own, exclusion_reasons, tenant_id
            FROM viewer_routed_v WHERE tenant_id = {tenant:UUID} ORDER BY occurred_at"""
        return await rows(ch, sql, {"tenant": UUID(tenant_id)})
    finally:
        await ch.close()


def fw_balancer(platform: Platform, *options: str) -> str:
    """What `fw balancer` prints."""
    command = [str(Path(sys.executable).parent / "fw"), "balancer", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**platform.env, "COLUMNS": "200"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def whatif(platform: Platform, *options: str) -> Json:
    found: Json = json.loads(await asyncio.to_thread(fw_balancer, platform, "whatif", "--json", *options))
    return found


async def test_every_decision_is_a_fact_and_other_weights_decide_it_anew(world: World) -> None:
    owner = await new_tenant(world.platform, world.clean)
    stream = await owner.stream("Replay")
    began = datetime.now(UTC)
    await world.node("if-near", latitude=52.4, longitude=4.9, baseUrl="http://if-near.invalid")
    await world.node("if-idle", latitude=-33.9, longitude=151.2, baseUrl="http://if-idle.invalid")
    await world.samples("if-near", cpu_permille=800)
    await world.samples("if-idle", cpu_permille=0)
    await world.online("if-near.invalid", "if-idle.invalid")
    path = f"/{stream['playbackId']}?lat=52&lon=5"
    await world.until(path, "if-near.invalid")
    for _ in range(9):
        assert (await world.door.get(path)).text == "if-near.invalid"
    async with asyncio.timeout(120):
        while sum(row[4] == "if-near" for row in await decided(world.platform, owner.tenant_id)) < 10:
            await asyncio.sleep(0.1)
    newest = (await decided(world.platform, owner.tenant_id))[-1]
    purpose, protocol, country, cell, node_id, node_ids, scores, is_own, reasons, _ = newest
    assert (purpose, protocol, country, node_id) == ("VIEWER", "", None, "if-near")
    assert cell == "831969fffffffff", "a cell of 12,400 km²: the city is not in it"
    assert node_ids == ["if-near", "if-idle"]
    assert isinstance(scores, list)
    assert scores[0] > scores[1]
    assert is_own == [False, False]
    assert isinstance(reasons, list)
    assert set(reasons) <= {"MAINTENANCE"}, "of the nodes of other tests"
    span = ("--from", began.isoformat(), "--to", (datetime.now(UTC) + timedelta(seconds=60)).isoformat())
    same = await whatif(world.platform, *span)
    assert same["decisions"] >= 10
    assert same["elsewhere"] == 0, "under the weights that held, the same nodes win"
    other = await whatif(world.platform, "--weights", "cpu=5000,geo=0", *span)
    near = next(node for node in other["nodes"] if node["node"] == "if-near")
    assert (near["went"], near["would"]) == (near["lost"], 0)
    assert near["lost"] >= 10
    assert other["countries"] == [{"country": None, "decisions": other["decisions"], "elsewhere": other["elsewhere"]}]
    told = await asyncio.to_thread(fw_balancer, world.platform, "whatif", "--weights", "cpu=5000,geo=0", *span)
    assert f"{other['elsewhere']:,} of them would have gone elsewhere." in told
    status = json.loads(await asyncio.to_thread(fw_balancer, world.platform, "status", "--json"))
    nodes = {node["node"]: node for node in status["nodes"]}
    assert (nodes["if-near"]["cpu_percent"], nodes["if-near"]["mode"], nodes["if-near"]["registered"]) == (80.0, "ACTIVE", True)
    assert "if-idle" in await asyncio.to_thread(fw_balancer, world.platform, "status")
