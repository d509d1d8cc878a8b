"""Push targets, recordings and stops, from the mutation to what clients read and subscribers see."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer

from streams import ids
from streams.codec import decode
from streams.generated import CreatePushTarget, Meta, PushKind, PushTargetCreated, PushTargetState, PushTargetStateChanged
from streams.sealed_secret import unseal
from tests.gateway_platform import SECRET_KEY, Json, Made, Platform, Subscription, append, new_tenant
from tests.ingress import records

SECRET = bytes.fromhex(SECRET_KEY)
URL = "rtmp://live.example.org/app/live_123_secret"
ANSWER = "__typename ... on Error { code message } ... on ValidationError { field }"
CREATE = f"""mutation($stream: ID!, $name: String!, $url: String!, $enabled: Boolean, $key: String) {{
    createPushTarget(input: {{streamId: $stream, name: $name, url: $url, enabled: $enabled, clientMutationId: $key}}) {{
        {ANSWER} ... on CreatePushTargetSuccess {{ position pushTarget {{ id name url enabled state }} }} }} }}"""
TARGETS = """query($stream: ID!, $at: Position) { stream(id: $stream) { pushTargets(after: $at) {
    id name url enabled state reason attempt retryAt sentBytes since nodeId } } }"""
RECORDINGS = """query($stream: ID!, $at: Position) { stream(id: $stream) { recordingRequests(after: $at) {
    id container calledOffAt state reason sentBytes } } }"""


def of_target(name: str) -> str:
    return f"""mutation($stream: ID!, $target: ID!, $key: String) {{
        {name}(input: {{streamId: $stream, targetId: $target, clientMutationId: $key}}) {{
            {ANSWER} ... on {name[0].upper()}{name[1:]}Success {{ targetId position }} }} }}"""


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
    return await clean.enter_async_context(AIOKafkaProducer(bootstrap_servers=platform.stack.kafka, acks="all"))


async def created(me: Made, stream: str, url: str = URL, name: str = "Second site", enabled: bool = True) -> Json:
    made = await me.api.made(CREATE, stream=stream, name=name, url=url, enabled=enabled)
    assert made["__typename"] == "CreatePushTargetSuccess", made
    return {**made["pushTarget"], "position": made["position"]}


async def targets(me: Made, stream: str, at: str | None = None) -> list[Json]:
    found: list[Json] = (await me.api.data(TARGETS, stream=stream, at=at))["stream"]["pushTargets"]
    return found


async def test_a_target_goes_from_its_creation_to_its_end(me: Made) -> None:
    stream = (await me.stream())["id"]
    target = await created(me, stream)
    assert (target["name"], target["url"], target["state"]) == ("Second site", "rtmp://live.example.org/app/…", "WAITING")
    [shown] = await targets(me, stream, target["position"])
    assert shown["id"] == target["id"]
    assert (shown["enabled"], shown["state"], shown["attempt"], shown["since"]) == (True, "WAITING", 0, None)

    done = await me.api.made(of_target("disablePushTarget"), stream=stream, target=target["id"])
    [off] = await targets(me, stream, done["position"])
    assert (off["enabled"], off["state"]) == (False, "STOPPED")
    done = await me.api.made(of_target("enablePushTarget"), stream=stream, target=target["id"])
    [on] = await targets(me, stream, done["position"])
    assert (on["enabled"], on["state"]) == (True, "WAITING")
    done = await me.api.made(of_target("deletePushTarget"), stream=stream, target=target["id"])
    assert await targets(me, stream, done["position"]) == []
    again = await me.api.made(of_target("enablePushTarget"), stream=stream, target=target["id"])
    assert (again["__typename"], again["code"]) == ("NotFoundError", "PUSH_TARGET_NOT_FOUND")


async def test_the_log_has_the_url_sealed(platform: Platform, me: Made) -> None:
    stream = (await me.stream())["id"]
    target = await created(me, stream)
    decisions = [r.value for r in await records(platform.stack.kafka, platform.topics.decisions)]
    commands = [r.value for r in await records(platform.stack.kafka, platform.topics.commands)]
    assert not any(b"live_123_secret" in value for value in (*decisions, *commands) if value)
    said = [decode(value)[0] for value in (*decisions, *commands) if value]
    mine = [e for e in said if isinstance(e, PushTargetCreated | CreatePushTarget) and e.target_id == UUID(target["id"])]
    assert {type(e) for e in mine} == {PushTargetCreated, CreatePushTarget}
    assert {unseal(SECRET, UUID(me.tenant_id), e.target_id, e.sealed_url) for e in mine} == {URL}


async def test_a_client_that_sends_it_again_gets_the_same_target(me: Made) -> None:
    stream = (await me.stream())["id"]
    wish = {"stream": stream, "name": "Second site", "url": URL, "key": "once"}
    one, two = [(await me.api.data(CREATE, **wish))["createPushTarget"] for _ in range(2)]
    assert one["pushTarget"]["id"] == two["pushTarget"]["id"]
    other = (await me.api.data(CREATE, **{**wish, "url": f"{URL}_other"}))["createPushTarget"]
    assert (other["__typename"], other["code"]) == ("ConflictError", "IDEMPOTENCY_KEY_REUSED"), "of another key in the URL, too"
    twice = await me.api.made(CREATE, stream=stream, name="Same place", url=URL)
    assert (twice["__typename"], twice["code"]) == ("ConflictError", "PUSH_TARGET_EXISTS")


@pytest.mark.parametrize(
    "url",
    ["http://live.example.org/a", "rtmp://127.0.0.1/app/key", "rtmp://localhost/app/key", "srt://10.0.0.1:9000", "/etc/passwd"],
)
async def test_a_url_that_leads_to_no_service_is_refused(me: Made, url: str) -> None:
    refused = await me.api.made(CREATE, stream=(await me.stream())["id"], name="Second site", url=url)
    assert (refused["__typename"], refused["code"], refused["field"]) == ("ValidationError", "URL_INVALID", "url")


async def test_targets_of_others_are_out_of_reach(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    stream = (await me.stream())["id"]
    target = await created(me, stream)
    other = await new_tenant(platform, clean, "Other")
    refused = await other.api.made(of_target("deletePushTarget"), stream=stream, target=target["id"])
    assert (refused["__typename"], refused["code"]) == ("NotFoundError", "STREAM_NOT_FOUND")
    refused = await other.api.made(CREATE, stream=stream, name="Mine", url=URL)
    assert refused["code"] == "STREAM_NOT_FOUND"


async def test_recordings_are_asked_for_and_stopped(me: Made) -> None:
    stream = (await me.stream())["id"]
    start = f"""mutation($stream: ID!, $key: String) {{
        startRecording(input: {{streamId: $stream, container: TS, clientMutationId: $key}}) {{
            {ANSWER} ... on StartRecordingSuccess {{ recordingId position }} }} }}"""
    stop = f"""mutation($stream: ID!, $id: ID!, $key: String) {{
        stopRecording(input: {{streamId: $stream, recordingId: $id, clientMutationId: $key}}) {{
            {ANSWER} ... on StopRecordingSuccess {{ recordingId position }} }} }}"""
    started = await me.api.made(start, stream=stream)
    [asked] = (await me.api.data(RECORDINGS, stream=stream, at=started["position"]))["stream"]["recordingRequests"]
    assert (asked["id"], asked["container"], asked["state"], asked["calledOffAt"]) == (
        started["recordingId"],
        "TS",
        "WAITING",
        None,
    )
    stopped = await me.api.made(stop, stream=stream, id=asked["id"])
    [ended] = (await me.api.data(RECORDINGS, stream=stream, at=stopped["position"]))["stream"]["recordingRequests"]
    assert (ended["state"], ended["calledOffAt"] is None) == ("STOPPED", False)
    again = await me.api.made(stop, stream=stream, id=asked["id"])
    assert (again["__typename"], again["code"]) == ("NotFoundError", "RECORDING_NOT_FOUND")


async def test_subscribers_see_what_is_decided_about_a_stream(platform: Platform, me: Made, clean: AsyncExitStack) -> None:
    stream = (await me.stream())["id"]
    follow = """subscription($id: ID!) { streamEvents(streamId: $id) { __typename
        ... on PushTargetCreated { targetId name shownUrl enabled } ... on StreamStopRequested { expiresAt occurredAt } } }"""
    subscription = await Subscription.open(platform, me.token, follow, clean, id=stream)
    assert (await subscription.event())["__typename"] == "StreamSnapshot"
    target = await created(me, stream)
    assert await subscription.event() == {
        "__typename": "PushTargetCreated",
        "targetId": target["id"],
        "name": "Second site",
        "shownUrl": "rtmp://live.example.org/app/…",
        "enabled": True,
    }
    stop = f"""mutation($stream: ID!, $key: String) {{ stopStream(input: {{streamId: $stream, clientMutationId: $key}}) {{
        {ANSWER} ... on StopStreamSuccess {{ streamId position }} }} }}"""
    assert (await me.api.made(stop, stream=stream))["__typename"] == "StopStreamSuccess"
    seen = await subscription.event()
    assert seen["__typename"] == "StreamStopRequested"
    until, asked = (datetime.fromisoformat(seen[name]) for name in ("expiresAt", "occurredAt"))
    assert abs((until - asked).total_seconds() - 60) < 5


def said(target: UUID, state: PushTargetState, at: datetime, request: UUID, **more: object) -> PushTargetStateChanged:
    return PushTargetStateChanged("edge-1", target, PushKind.TARGET, request, state, at, attempt=1, policy_version=3, **more)  # type: ignore[arg-type]


async def test_what_nodes_say_is_shown_in_whatever_order_it_comes(
    platform: Platform, me: Made, producer: AIOKafkaProducer
) -> None:
    stream = (await me.stream())["id"]
    target = await created(me, stream)
    decisions = [decode(r.value) for r in await records(platform.stack.kafka, platform.topics.decisions) if r.value]
    [request] = [m.event_id for e, m in decisions if isinstance(e, PushTargetCreated) and str(e.target_id) == target["id"]]
    now = datetime.now(UTC).replace(microsecond=0)
    story = [
        said(UUID(target["id"]), PushTargetState.CONNECTING, now, request),
        said(UUID(target["id"]), PushTargetState.ACTIVE, now + timedelta(seconds=1), request, sent_bytes=500),
        said(UUID(target["id"]), PushTargetState.BACKING_OFF, now + timedelta(seconds=9), request, reason="connection refused",
             retry_at=now + timedelta(seconds=10)),
    ]  # fmt: skip
    random.Random(7).shuffle(story)
    for fact in (*story, story[0]):
        event_id = ids.derive(request, fact.state.value)
        meta = Meta(event_id, UUID(me.tenant_id), UUID(stream), 0, event_id, event_id, fact.since, "node:edge-1")
        await append(producer, platform.topics.facts, fact, meta)
    async with asyncio.timeout(120):
        while (shown := (await targets(me, stream))[0])["state"] != "BACKING_OFF":
            await asyncio.sleep(0.05)
    assert (shown["reason"], shown["nodeId"], shown["attempt"], shown["sentBytes"]) == ("connection refused", "edge-1", 1, None)
    assert datetime.fromisoformat(shown["retryAt"]) == now + timedelta(seconds=10)
    done = await me.api.made(of_target("disablePushTarget"), stream=stream, target=target["id"])
    [off] = await targets(me, stream, done["position"])
    assert off["state"] == "STOPPED", "nothing runs, and nothing will be tried again"
    done = await me.api.made(of_target("enablePushTarget"), stream=stream, target=target["id"])
    [on] = await targets(me, stream, done["position"])
    assert (on["state"], on["reason"]) == ("WAITING", None), "no node has said anything of this wish yet"
