"""The API over real Kafka, Postgres and ClickHouse, with the real command worker and projections as processes."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from aiokafka import TopicPartition

from streams.codec import decode
from streams.generated import (
    CommandHandled,
    StreamCreated,
)
from streams.kafka import reader
from streams.recorded import Position
from streams.topics import partition_of
from tests.gateway_platform import (
    CREATE_STREAM,
    CREATE_TENANT,
    OPERATOR_TOKEN,
    Api,
    Json,
    Made,
    Platform,
    new_tenant,
)

RENAME = """mutation($id: ID!, $title: String!, $key: String) {
  renameStream(input: {streamId: $id, title: $title, clientMutationId: $key}) {
    __typename ... on RenameStreamSuccess { stream { title } position } ... on Error { code message }
    ... on ValidationError { field } } }"""
ROTATE = """mutation($id: ID!, $grace: Int, $key: String) {
  rotateStreamKey(input: {streamId: $id, graceSeconds: $grace, clientMutationId: $key}) {
    __typename ... on RotateStreamKeySuccess { stream { id keyPrefix } streamKey position } ... on Error { code message }
    ... on ValidationError { field } } }"""
DELETE = """mutation($id: ID!) { deleteStream(input: {streamId: $id}) {
    __typename ... on DeleteStreamSuccess { streamId position } ... on Error { code message } } }"""


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


async def test_a_tenants_token_works_at_once(platform: Platform, me: Made) -> None:
    assert me.token.startswith("fwt_")
    found = await me.api.data("{ viewer { kind tenant { id name } } tenant { name } }")
    assert found == {
        "viewer": {"kind": "TENANT", "tenant": {"id": me.tenant_id, "name": "Lighthouse"}},
        "tenant": {"name": "Lighthouse"},
    }


async def test_a_resent_mutation_answers_the_same_and_does_nothing_twice(me: Made, operator: Api) -> None:
    first = payload(await me.api.data(CREATE_STREAM, title="Pier", key="k1"))
    again = payload(await me.api.data(CREATE_STREAM, title="Pier", key="k1"))
    assert first["__typename"] == "CreateStreamSuccess"
    assert {k: v for k, v in again.items() if k != "position"} == {k: v for k, v in first.items() if k != "position"}
    counted = "query($at: Position) { streams(afterPosition: $at) { totalCount } }"
    assert await me.api.data(counted, at=again["position"]) == {"streams": {"totalCount": 1}}
    other = payload(await me.api.data(CREATE_STREAM, title="Another wish", key="k1"))
    assert (other["__typename"], other["code"]) == ("ConflictError", "IDEMPOTENCY_KEY_REUSED")
    one, two = [payload(await operator.data(CREATE_TENANT, name="Twin", key="twin")) for _ in range(2)]
    assert (one["tenant"], one["apiToken"]) == (two["tenant"], two["apiToken"])


async def test_the_same_mutation_at_once_from_many_makes_one_stream(me: Made) -> None:
    answers = await asyncio.gather(*[me.api.data(CREATE_STREAM, title="Once", key="same") for _ in range(10)])
    assert len({payload(a)["streamKey"] for a in answers}) == 1
    at = max((payload(a)["position"] for a in answers), key=lambda text: Position.parse(text).offset)
    found = await me.api.data("query($at: Position) { streams(afterPosition: $at) { totalCount } }", at=at)
    assert found == {"streams": {"totalCount": 1}}


async def test_one_key_for_two_wishes_at_once_is_a_conflict_for_one_of_them(me: Made) -> None:
    titles = ["Bow", "Stern"]
    for n in range(20):
        wishes = titles * 2 if n % 2 else titles
        data = await asyncio.gather(*[me.api.data(CREATE_STREAM, title=title, key=f"at-once-{n}") for title in wishes])
        answers = list(zip(wishes, map(payload, data), strict=True))
        made = {title for title, answer in answers if answer["__typename"] == "CreateStreamSuccess"}
        assert len(made) == 1, answers
        for title, answer in answers:
            if title in made:
                assert answer["stream"]["title"] == title
            else:
                assert (answer["__typename"], answer["code"]) == ("ConflictError", "IDEMPOTENCY_KEY_REUSED")
    stream = await me.stream()
    renamed = await asyncio.gather(*[me.api.data(RENAME, id=stream["id"], title=title, key="name") for title in titles])
    assert sorted(payload(answer)["__typename"] for answer in renamed) == ["ConflictError", "RenameStreamSuccess"]


async def test_the_log_knows_the_key_only_by_its_hash(platform: Platform, me: Made) -> None:
    stream = await me.stream()
    position = Position.parse(stream["position"])
    consumer = reader(platform.stack.kafka, "test")
    await consumer.start()
    tp = TopicPartition(platform.topics.decisions.name, position.partition)
    consumer.assign([tp])
    consumer.seek(tp, 0)
    found: list[object] = []
    read_to = -1
    while read_to < position.offset:
        for record in (await consumer.getmany(timeout_ms=500)).get(tp, []):
            read_to = record.offset
            assert stream["streamKey"].encode() not in record.value
            event, meta = decode(record.value)
            if str(meta.aggregate_id) == stream["id"]:
                found.append(event)
    await consumer.stop()
    created = found[0]
    assert isinstance(created, StreamCreated)
    assert created.key_hash == hashlib.sha256(stream["streamKey"].encode()).digest()
    assert created.key_prefix == stream["streamKey"].rpartition("_")[0]
    assert isinstance(found[1], CommandHandled)


async def test_the_trace_of_a_request_goes_on_with_its_command(platform: Platform, me: Made) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    partition = partition_of(UUID(me.tenant_id))
    commands, decisions = (
        TopicPartition(topic.name, partition) for topic in (platform.topics.commands, platform.topics.decisions)
    )
    consumer = reader(platform.stack.kafka, "test")
    await consumer.start()
    consumer.assign([commands, decisions])
    for tp, end in (await consumer.end_offsets([commands, decisions])).items():
        consumer.seek(tp, end)
    made = await me.api.data(CREATE_STREAM, {"traceparent": trace}, title="Traced")
    assert payload(made)["__typename"] == "CreateStreamSuccess"
    await me.api.data(CREATE_STREAM, {"traceparent": "nonsense"}, title="Untraced")
    found: dict[str, list[bytes | None]] = {commands.topic: [], decisions.topic: []}
    while len(found[commands.topic]) < 2 or len(found[decisions.topic]) < 4:
        for tp, records in (await consumer.getmany(timeout_ms=500)).items():
            for record in records:
                assert dict(record.headers)["tenant_id"].decode() == me.tenant_id
                found[tp.topic].append(dict(record.headers).get("traceparent"))
    await consumer.stop()
    assert found[commands.topic] == [trace.encode(), None]
    assert found[decisions.topic] == [trace.encode()] * 2 + [None] * 2


async def test_rename_rotate_delete(me: Made) -> None:
    stream = await me.stream("Before")
    renamed = payload(await me.api.data(RENAME, id=stream["id"], title="  After "))
    assert renamed["stream"] == {"title": "After"}
    rotated = payload(await me.api.data(ROTATE, id=stream["id"], grace=60))
    assert rotated["streamKey"] != stream["streamKey"]
    assert rotated["stream"] == {"id": stream["id"], "keyPrefix": rotated["streamKey"].rpartition("_")[0]}
    deleted = payload(await me.api.data(DELETE, id=stream["id"]))
    assert deleted["streamId"] == stream["id"]
    gone = "query($id: ID!, $at: Position) { stream(id: $id, after: $at) { id } }"
    assert await me.api.data(gone, id=stream["id"], at=deleted["position"]) == {"stream": None}
    assert payload(await me.api.data(RENAME, id=stream["id"], title="x"))["code"] == "STREAM_NOT_FOUND"


async def test_slugs_are_unique_per_tenant_and_free_again_after_deletion(
    platform: Platform, me: Made, clean: AsyncExitStack
) -> None:
    first = payload(await me.api.data(CREATE_STREAM, title="A", slug="my-show"))
    taken = payload(await me.api.data(CREATE_STREAM, title="B", slug="my-show"))
    assert (taken["__typename"], taken["code"]) == ("ConflictError", "SLUG_TAKEN")
    other = await new_tenant(platform, clean, "Other")
    assert payload(await other.api.data(CREATE_STREAM, title="A", slug="my-show"))["__typename"] == "CreateStreamSuccess"
    await me.api.data(DELETE, id=first["stream"]["id"])
    assert payload(await me.api.data(CREATE_STREAM, title="B", slug="my-show"))["__typename"] == "CreateStreamSuccess"


@pytest.mark.parametrize(
    ("title", "slug", "field", "code"),
    [
        ("", None, "title", "TITLE_INVALID"),
        (" \t ", None, "title", "TITLE_INVALID"),
        ("x" * 201, None, "title", "TITLE_INVALID"),
        ("a\x00b", None, "title", "TITLE_INVALID"),
        ("line\nbreak", None, "title", "TITLE_INVALID"),
        ("ok", "Not A Slug", "slug", "SLUG_INVALID"),
        ("ok", "-edge", "slug", "SLUG_INVALID"),
        ("ok", "x" * 65, "slug", "SLUG_INVALID"),
    ],
)
async def test_bad_input_is_refused_with_its_field(me: Made, title: str, slug: str | None, field: str, code: str) -> None:
    refused = payload(await me.api.data(CREATE_STREAM, title=title, slug=slug))
    assert (refused["__typename"], refused["field"], refused["code"]) == ("ValidationError", field, code)
    assert refused["message"]


async def test_who_may_do_what(platform: Platform, me: Made, operator: Api, clean: AsyncExitStack) -> None:
    nobody, wrong = Api(platform, None), Api(platform, "fwt_aaaaaaaa_" + "a" * 32)
    for api in (nobody, wrong):
        clean.push_async_callback(api.close)
        assert payload(await api.data(CREATE_STREAM, title="x"))["code"] == "UNAUTHENTICATED"
        assert payload(await api.data(CREATE_TENANT, name="x"))["code"] == "UNAUTHENTICATED"
        assert error_code(await api("{ streams { totalCount } }")) == "UNAUTHENTICATED"
    assert payload(await me.api.data(CREATE_TENANT, name="x"))["code"] == "FORBIDDEN"
    assert payload(await operator.data(CREATE_STREAM, title="x"))["code"] == "FORBIDDEN"
    assert error_code(await operator("{ streams { totalCount } }")) == "FORBIDDEN"
    stream, other = await me.stream(), await new_tenant(platform, clean, "Other")
    assert await other.api.data("query($id: ID!) { stream(id: $id) { id } }", id=stream["id"]) == {"stream": None}
    for mutation in (RENAME, ROTATE, DELETE):
        refused = payload(await other.api.data(mutation, id=stream["id"], title="mine"))
        assert (refused["__typename"], refused["code"]) == ("NotFoundError", "STREAM_NOT_FOUND")


async def test_pages_are_complete_and_stable(me: Made) -> None:
    made = [await me.stream(f"Show {n}") for n in range(7)]
    page = """query($after: String, $title: String) { streams(first: 3, after: $after, title: $title) {
        totalCount pageInfo { hasNextPage hasPreviousPage endCursor } edges { cursor node { id } } } }"""
    found: list[str] = []
    after: str | None = None
    while True:
        streams = payload(await me.api.data(page, after=after))
        edges, info = streams["edges"], streams["pageInfo"]
        assert streams["totalCount"] == 7
        assert info["hasPreviousPage"] is (after is not None)
        found += [edge["node"]["id"] for edge in edges]
        assert info["endCursor"] == edges[-1]["cursor"]
        if not info["hasNextPage"]:
            break
        after = info["endCursor"]
    assert found == [s["id"] for s in reversed(made)]
    assert payload(await me.api.data(page, title="SHOW 3"))["totalCount"] == 1
    assert error_code(await me.api(page, after="nonsense")) == "BAD_CURSOR"
    assert error_code(await me.api("{ streams(first: 101) { totalCount } }")) == "BAD_USER_INPUT"
    assert error_code(await me.api("{ streams(first: 0) { totalCount } }")) == "BAD_USER_INPUT"


async def test_an_outcome_that_does_not_come_is_pending_and_can_be_asked_for_again(platform: Platform, me: Made) -> None:
    frozen = platform.processes["commands"]
    frozen.send_signal(signal.SIGSTOP)
    pending_query = CREATE_STREAM.replace("... on Error", "... on PendingResult { commandId } ... on Error")
    try:
        pending = payload(await me.api.data(pending_query, title="Late", key="late"))
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert pending["__typename"] == "PendingResult"
    assert UUID(pending["commandId"])
    async with asyncio.timeout(180):
        while (answer := payload(await me.api.data(pending_query, title="Late", key="late")))["__typename"] == "PendingResult":
            pass
    assert answer["__typename"] == "CreateStreamSuccess", answer
    counted = await me.api.data("query($at: Position) { streams(afterPosition: $at) { totalCount } }", at=answer["position"])
    assert counted == {"streams": {"totalCount": 1}}


async def test_reading_ones_own_write_by_header(me: Made) -> None:
    for n in range(5):
        made = payload(await me.api.data(CREATE_STREAM, title=f"S{n}"))
        found = await me.api.data("{ streams { totalCount } }", {"X-FW-After": made["position"]})
        assert found == {"streams": {"totalCount": n + 1}}
    assert error_code(await me.api("{ streams { totalCount } }", {"X-FW-After": "nonsense"})) == "BAD_USER_INPUT"
