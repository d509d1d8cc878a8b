"""asOf, history, at/knownAt and explain over the API, and the page of the docs about them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from streams import ids
from streams.generated import (
    Fact,
    IngestEnded,
    IngestStarted,
    Meta,
    StreamWentLive,
    StreamWentOffline,
    ViewerEnd,
    ViewerJoined,
    ViewerLeft,
)
from streams.kafka import idempotent_producer
from tests.gateway_platform import CREATE_STREAM, Json, Made, Platform, append, new_tenant

DOCS = Path(__file__).parents[2] / "docs" / "time-travel.md"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
RENAME = """mutation($id: ID!, $title: String!) { renameStream(input: {streamId: $id, title: $title}) {
    __typename ... on RenameStreamSuccess { position } ... on Error { code } } }"""
DELETE = "mutation($id: ID!) { deleteStream(input: {streamId: $id}) { ... on DeleteStreamSuccess { position } } }"
HISTORY = """query($id: ID, $first: Int = 50, $after: String, $types: [String!], $from: DateTime, $until: DateTime,
    $cause: ID, $at: Position) {
  history(id: $id, first: $first, after: $after, types: $types, from: $from, until: $until, correlationId: $cause,
      afterPosition: $at) {
    totalCount pageInfo { hasNextPage endCursor }
    nodes { eventId type objectId version occurredAt appendedAt actor { kind name tokenPrefix }
      changes { field before after } refusal { command code message field } commandId correlationId traceparent position } } }"""


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
async def producer(platform: Platform, clean: AsyncExitStack) -> AIOKafkaProducer:
    made = idempotent_producer(platform.stack.kafka, "test")
    await made.start()
    clean.push_async_callback(made.stop)
    return made


@dataclass(frozen=True)
class Edge:
    """Says facts of a stream: when they happened, and when the log took them, in hours and minutes of yesterday."""

    platform: Platform
    producer: AIOKafkaProducer
    me: Made
    stream_id: str

    async def say(self, fact: Fact, at: str, appended: str | None = None, event_id: UUID | None = None) -> None:
        event_id = event_id or ids.new_id()
        meta = Meta(event_id, UUID(self.me.tenant_id), UUID(self.stream_id), 0, event_id, event_id, time_of(at), "node:n1")
        await append(self.producer, self.platform.topics.facts, fact, meta, time_of(appended or at))

    async def viewing(self, session: str, joined: str, left: str, seconds: int, appended: str | None = None) -> None:
        """A join and a leave, each said twice: an edge that got no answer says it again."""
        viewing = ids.new_id()
        come = ViewerJoined(node_id="n1", session_id=session, viewing_id=viewing, connector="HLS", country="NL")
        gone = ViewerLeft(
            node_id="n1",
            session_id=session,
            viewing_id=viewing,
            connector="HLS",
            seconds=seconds,
            up_bytes=2 * seconds,
            down_bytes=0,
            end_reason=ViewerEnd.DISCONNECTED,
        )
        for fact, at in ((come, joined), (gone, left)):
            event_id = ids.new_id()
            await self.say(fact, at, appended, event_id)
            await self.say(fact, at, "23:00", event_id)


def time_of(clock: str) -> datetime:
    hours, minutes = clock.split(":")
    return YESTERDAY + timedelta(hours=int(hours), minutes=int(minutes))


def text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def error_of(answer: Json) -> tuple[str, str]:
    error = answer["errors"][0]  # one for every root field
    return error["extensions"]["code"], error["message"]


async def history(me: Made, **wanted: object) -> list[Json]:
    found = (await me.api.data(HISTORY, **wanted))["history"]
    assert found["totalCount"] == len(found["nodes"])
    nodes: list[Json] = found["nodes"]
    return nodes


async def renamed(me: Made, stream_id: str, title: str) -> str:
    done = (await me.api.data(RENAME, id=stream_id, title=title))["renameStream"]
    assert done["__typename"] == "RenameStreamSuccess", done
    return str(done["position"])


async def test_objects_as_they_were(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    first, second = await me.stream("Harbour"), await me.stream("Lighthouse")
    await renamed(me, first["id"], "Pier")
    assert (await me.api.data(DELETE, id=second["id"]))["deleteStream"]["position"]
    third = await me.stream("Harbour again")
    entries = list(reversed(await history(me, at=third["position"])))
    at = {entry["type"] + str(n): entry["appendedAt"] for n, entry in enumerate(entries)}
    asked = """query($id: ID!, $then: DateTime!, $after: String, $title: String, $state: StreamState) {
        stream(id: $id, asOf: $then) { title state }
        streams(asOf: $then, first: 1, after: $after, title: $title, state: $state) {
          totalCount nodes { title } pageInfo { hasNextPage endCursor } } tenant(asOf: $then) { name } }"""
    seen: dict[str, list[str]] = {}
    for name, then in at.items():
        titles: list[str] = []
        after: str | None = None
        while True:
            found = (await me.api.data(asked, id=first["id"], then=then, after=after))["streams"]
            titles += [node["title"] for node in found["nodes"]]
            after = found["pageInfo"]["endCursor"]
            if not found["pageInfo"]["hasNextPage"]:
                break
        assert found["totalCount"] == len(titles)
        seen[name] = titles
    assert list(seen.values())[-6:] == [
        [],
        ["Harbour"],
        ["Lighthouse", "Harbour"],
        ["Lighthouse", "Pier"],
        ["Pier"],
        ["Harbour again", "Pier"],
    ]
    then = list(at.values())[-4]
    filtered = await me.api.data(asked, id=first["id"], then=then, title="HARB")
    assert filtered == {
        "stream": {"title": "Harbour", "state": "IDLE"},
        "streams": {"totalCount": 1, "nodes": [{"title": "Harbour"}], "pageInfo": filtered["streams"]["pageInfo"]},
        "tenant": {"name": "Lighthouse"},
    }
    other = await new_tenant(platform, clean, "Other")
    assert (await other.api.data("query($id: ID!) { stream(id: $id) { id } }", id=first["id"])) == {"stream": None}
    now = text(datetime.now(UTC))
    mine = await other.api("query($id: ID!, $now: DateTime!) { stream(id: $id, asOf: $now) { id } }", id=first["id"], now=now)
    assert mine["data"] == {"stream": None}
    for outside in ("2001-01-01T00:00:00Z", text(datetime.now(UTC) + timedelta(days=1))):
        code, sentence = error_of(await me.api(asked, id=first["id"], then=outside))
        assert code == "OUTSIDE_HISTORY"
        assert "give a time from" in sentence


async def test_a_stream_was_live_then(platform: Platform, me: Made, producer: AIOKafkaProducer) -> None:
    stream = await me.stream()
    (created,) = await history(me, id=stream["id"], at=stream["position"])
    base = datetime.fromisoformat(created["appendedAt"])
    facts: tuple[Fact, ...] = (
        IngestStarted(node_id="n1", ingest_id=ids.new_id(), internal_name="x", protocol="RTMP"),
        StreamWentLive(node_id="n1", internal_name="x"),
        StreamWentOffline(node_id="n1", internal_name="x"),
    )
    for n, fact in enumerate(facts, 2):
        event_id, when = ids.new_id(), base + timedelta(milliseconds=n)
        meta = Meta(event_id, UUID(me.tenant_id), UUID(stream["id"]), 0, event_id, event_id, when, "node:n1")
        await append(producer, platform.topics.facts, fact, meta)
    asked = """query($a: DateTime!, $b: DateTime!, $c: DateTime!, $d: DateTime!) {
      a: streams(asOf: $a) { nodes { state } } b: streams(asOf: $b, state: CONNECTING) { nodes { state } }
      c: streams(asOf: $c, state: LIVE) { nodes { state isLive } } d: streams(asOf: $d) { nodes { state } } }"""
    times = {name: text(base + timedelta(milliseconds=n)) for n, name in enumerate("abcd", 1)}

    def known(found: Json) -> bool:
        return bool(found["d"]["nodes"][0]["state"] == "IDLE" and found["c"]["nodes"] and found["b"]["nodes"])

    async with asyncio.timeout(180):
        while text(datetime.now(UTC)) < times["d"]:  # a clock, and nothing else to wait on
            await asyncio.sleep(0.001)
    found = await until(me, asked, known, **times)
    assert found["a"]["nodes"] == [{"state": "IDLE"}]
    assert found["b"]["nodes"] == [{"state": "CONNECTING"}]
    assert found["c"]["nodes"] == [{"state": "LIVE", "isLive": True}]


async def until(me: Made, asked: str, condition: Callable[[Json], bool], **variables: object) -> Json:
    """The answer as soon as the projections are there."""
    async with asyncio.timeout(180):
        while not condition(found := await me.api.data(asked, **variables)):
            await asyncio.sleep(0.05)
    return found


async def test_who_changed_what(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    stream = await me.stream("Harbour")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    named = """mutation($n: String!) { createApiToken(input: {name: $n}) {
        ... on CreateApiTokenSuccess { apiToken tokenPrefix position } } }"""
    token = (await me.api.data(named, n="encoder"))["createApiToken"]
    encoder = Made(me.tenant_id, token["apiToken"], type(me.api)(platform, token["apiToken"]))
    clean.push_async_callback(encoder.api.close)
    await encoder.api.data(RENAME, {"traceparent": trace}, id=stream["id"], title="Pier")
    refused = (await encoder.api.data(CREATE_STREAM, title="Twin", slug=stream["slug"]))["createStream"]
    assert refused["code"] == "SLUG_TAKEN"
    last = await renamed(me, stream["id"], "Quay")
    entries = await history(me, at=last)
    assert [(e["type"], e["version"]) for e in entries[:5]] == [
        ("StreamRenamed", 3),
        ("CommandRejected", None),
        ("StreamRenamed", 2),
        ("ApiTokenIssued", entries[3]["version"]),
        ("StreamCreated", 1),
    ]
    quay, rejected, pier, issued, created = entries[:5]
    by_encoder = {"kind": "API_TOKEN", "name": "encoder", "tokenPrefix": token["tokenPrefix"]}
    assert pier["actor"] == rejected["actor"] == by_encoder
    assert quay["actor"]["tokenPrefix"] == me.token.rpartition("_")[0]
    assert (pier["changes"], pier["traceparent"]) == ([{"field": "title", "before": "Harbour", "after": "Pier"}], trace)
    assert quay["changes"] == [{"field": "title", "before": "Pier", "after": "Quay"}]
    assert rejected["changes"] == []
    assert rejected["refusal"]["command"] == "CreateStream"
    assert rejected["refusal"]["code"] == "SLUG_TAKEN"
    assert issued["changes"] == [{"field": f"apiToken {token['tokenPrefix']}", "before": None, "after": "encoder"}]
    made = {c["field"]: c["after"] for c in created["changes"]}
    assert made == {
        "title": "Harbour",
        "slug": stream["slug"],
        "playbackId": stream["playbackId"],
        "internalName": stream["internalName"],
        "keyPrefix": stream["streamKey"].rpartition("_")[0],
    }
    assert {e["actor"]["kind"] for e in entries[5:]} == {"OPERATOR"}
    assert me.token not in json.dumps(entries)

    assert [e["eventId"] for e in await history(me, id=stream["id"])] == [e["eventId"] for e in (quay, pier, created)]
    assert await history(me, types=["CommandRejected"]) == [rejected]
    assert await history(me, cause=pier["correlationId"]) == [pier]
    since = await history(me, **{"from": rejected["appendedAt"], "until": quay["appendedAt"]})
    assert rejected in since
    assert quay not in since
    assert created not in since
    walked: list[Json] = []
    after: str | None = None
    while True:
        page = (await me.api.data(HISTORY, first=2, after=after))["history"]
        walked += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert walked == entries
    other = await new_tenant(platform, clean, "Other")
    assert await history(other, id=stream["id"]) == []
    assert error_of(await me.api(HISTORY, after="nonsense"))[0] == "BAD_CURSOR"
    assert error_of(await me.api(HISTORY, id="nonsense"))[0] == "BAD_USER_INPUT"
    assert error_of(await me.api(HISTORY, **{"from": quay["appendedAt"], "until": created["appendedAt"]}))[0] == "BAD_USER_INPUT"


NUMBERS = ("NOW", "PEAK", "TOTAL", "UNIQUE", "VIEWER_SECONDS", "UP_BYTES", "DOWN_BYTES")
EXPLAIN = """query($token: String!, $after: String) { explain(token: $token, first: 3, after: $after) {
    number value knownAt totalCount pageInfo { hasNextPage endCursor }
    nodes { eventId type subjectId topic partition offset occurredAt appendedAt share } } }"""


async def opened(me: Made, token: str) -> tuple[int, list[Json]]:
    """The number of a token, and everything behind it, page by page."""
    parts: list[Json] = []
    after: str | None = None
    while True:
        found = (await me.api.data(EXPLAIN, token=token, after=after))["explain"]
        parts += found["nodes"]
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            assert found["totalCount"] == len(parts)
            return found["value"], parts


async def test_every_number_opens_into_facts_that_add_up(
    platform: Platform, me: Made, producer: AIOKafkaProducer, clean: AsyncExitStack
) -> None:
    stream = await me.stream()
    edge = Edge(platform, producer, me, stream["id"])
    await edge.viewing("s1", "10:00", "10:20", 1200)
    await edge.viewing("s2", "10:05", "10:10", 300, appended="12:00")
    ingest = ids.new_id()
    await edge.say(IngestStarted(node_id="n1", ingest_id=ingest, internal_name="x", protocol="RTMP"), "09:59")
    ended = IngestEnded(
        node_id="n1", ingest_id=ingest, internal_name="x", protocol="RTMP", end_reason="EOF", seconds=1500, received_bytes=77
    )
    await edge.say(ended, "10:24")
    audience = " ".join(f"{n.lower()}_: explain(number: {n})" for n in NUMBERS)
    asked = f"""query($id: ID!, $at: DateTime, $known: DateTime, $from: DateTime!, $to: DateTime!) {{ stream(id: $id) {{
      viewers(at: $at, knownAt: $known) {{ now peak total unique viewerSeconds upBytes downBytes {audience} }}
      ingestTotals(at: $at) {{ count seconds bytes
        a: explain(number: COUNT) b: explain(number: SECONDS) c: explain(number: BYTES) }}
      viewersOverTime(from: $from, to: $to, step: 300) {{ viewers explain }}
      sessions(at: $at, knownAt: $known) {{ nodes {{ seconds upBytes explain(number: SECONDS) }} }}
      ingests(at: $at) {{ nodes {{ bytes explain(number: BYTES) }} }} }} }}"""
    span = {"id": stream["id"], "from": text(time_of("10:00")), "to": text(time_of("10:30"))}

    def complete(found: Json) -> bool:
        of = found["stream"]
        return bool(of["viewers"]["viewerSeconds"] == 1500 and of["ingestTotals"]["bytes"] == 77)

    found = (await until(me, asked, complete, **span))["stream"]
    then = (await me.api.data(asked, **span, at=text(time_of("10:07")), known=text(time_of("11:00"))))["stream"]
    assert {k: then["viewers"][k] for k in ("now", "peak", "total", "viewerSeconds")} == {
        "now": 1,
        "peak": 1,
        "total": 1,
        "viewerSeconds": 0,
    }
    assert [s["seconds"] for s in then["sessions"]["nodes"]] == [None]
    assert then["sessions"]["nodes"][0]["explain"] is None
    assert then["ingests"]["nodes"] == [{"bytes": None, "explain": None}]
    assert [p["viewers"] for p in found["viewersOverTime"]] == [1, 2, 1, 1, 0, 0]
    tokens: list[tuple[int, str]] = []
    for of in (found["viewers"], then["viewers"]):
        values = (of[k] for k in ("now", "peak", "total", "unique", "viewerSeconds", "upBytes", "downBytes"))
        tokens += zip(values, (of[f"{n.lower()}_"] for n in NUMBERS), strict=True)
    tokens += [
        (found["ingestTotals"][k], found["ingestTotals"][t]) for k, t in (("count", "a"), ("seconds", "b"), ("bytes", "c"))
    ]
    tokens += [(p["viewers"], p["explain"]) for p in found["viewersOverTime"]]
    tokens += [(s["seconds"], s["explain"]) for s in found["sessions"]["nodes"]]
    tokens += [(i["bytes"], i["explain"]) for i in found["ingests"]["nodes"]]
    shown = await asyncio.gather(*(opened(me, token) for _, token in tokens))
    for (value, _), (said, parts) in zip(tokens, shown, strict=True):
        assert said == value == sum(part["share"] for part in parts)
        assert len({part["eventId"] for part in parts}) == len(parts)
    _, seconds = shown[4]
    assert [(p["type"], p["occurredAt"], p["appendedAt"], p["share"]) for p in seconds] == [
        ("ViewerLeft", text(time_of("10:20")), text(time_of("10:20")), 1200),
        ("ViewerLeft", text(time_of("10:10")), text(time_of("12:00")), 300),
        ("ViewerJoined", text(time_of("10:05")), text(time_of("12:00")), 0),
        ("ViewerJoined", text(time_of("10:00")), text(time_of("10:00")), 0),
    ]
    assert {p["topic"] for p in seconds} == {platform.topics.facts.name}

    await edge.viewing("s3", "10:06", "10:08", 99)
    await until(me, asked, lambda now: now["stream"]["viewers"]["viewerSeconds"] == 1599, **span)
    again = await asyncio.gather(*(opened(me, token) for _, token in tokens[:7]))
    assert again == shown[:7], "facts that came later changed what is behind a number"

    other = await new_tenant(platform, clean, "Other")
    for api, token in ((other.api, tokens[0][1]), (me.api, tokens[0][1][:-3]), (me.api, "nonsense")):
        code, sentence = error_of(await api(EXPLAIN, token=token))
        assert code == "BAD_EXPLAIN_TOKEN"
        assert "not one of yours" in sentence
    future = text(datetime.now(UTC) + timedelta(hours=1))
    assert error_of(await me.api(asked, **span, at=future))[0] == "OUTSIDE_HISTORY"


def matches(answer: object, page: object) -> bool:
    """Whether an answer is what the docs say; `…` is anything."""
    match page:
        case "…":
            return True
        case dict():
            return (
                isinstance(answer, dict) and answer.keys() == page.keys() and all(matches(answer[k], v) for k, v in page.items())
            )
        case list():
            return isinstance(answer, list) and len(answer) == len(page) and all(map(matches, answer, page))
        case _:
            return answer == page


async def test_the_docs_tell_the_truth(platform: Platform, me: Made, producer: AIOKafkaProducer) -> None:
    stream = await me.stream("Harbour")
    edge = Edge(platform, producer, me, stream["id"])
    (created,) = await history(me, id=stream["id"], at=stream["position"])
    keyed = RENAME.replace("title: $title}", 'title: $title, clientMutationId: "k"}')
    for title, typename in (("Pier", "RenameStreamSuccess"), ("Quay", "ConflictError")):
        assert (await me.api.data(keyed, id=stream["id"], title=title))["renameStream"]["__typename"] == typename
    await edge.viewing("s1", "13:58", "14:13", 900)
    await edge.viewing("s2", "14:04", "14:14", 600, appended="15:30")
    ready = "query($id: ID!) { stream(id: $id) { viewers { viewerSeconds } } }"
    await until(me, ready, lambda found: found["stream"]["viewers"]["viewerSeconds"] == 1500, id=stream["id"])
    page = DOCS.read_text().replace("2026-11-20", YESTERDAY.date().isoformat())
    blocks = re.findall(r"```graphql\n(.*?)```\s*```json\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    variables: Json = {"stream": stream["id"], "then": created["appendedAt"]}
    for query, expected in blocks:
        declared = {name: variables[name] for name in re.findall(r"\$(\w+):", query)}
        answer = await me.api.data(query, **declared)
        assert matches(answer, json.loads(expected)), (query, json.dumps(answer, indent=1))
        if "explain(number" in query:
            variables["token"] = answer["stream"]["viewers"]["explain"]
