"""What is acknowledged is on the log; what is refused is answered with a reason; a cut connection loses and reorders nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID, uuid4

import grpc.aio
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from infra.embedded.stack import Stack
from infra.kafka.cluster import admin
from infra.processes.ingress import SERVICE, Running, running
from streams.codec import decode
from streams.generated import BufferChanged, NodeStarted, StreamDeleted
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.ingress.client import Outgoing, Publisher
from streams.ingress.credentials import issue
from streams.ingress.ingress_pb2 import Batch, BatchAck, Item
from streams.ingress.ingress_pb2_grpc import IngressStub
from streams.ingress.limits import MAX_BATCH_BYTES, MAX_BATCH_ITEMS, MAX_ITEM_BYTES
from streams.ingress.line import open_channel
from streams.topics import Topics, partition_of
from tests.cut import Cut
from tests.ingress import SECRET_KEY, answers, buffer_changed, fact, framed, ingress_settings, records, status_of

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TENANT, OTHER_TENANT = uuid4(), uuid4()


@pytest.fixture
async def ingress(stack: Stack, topics: Topics) -> AsyncIterator[Running]:
    async with running(ingress_settings(stack.kafka, topics)) as ingress:
        async with asyncio.timeout(180):
            await ingress.ready()
        yield ingress


def publisher(port: int, *tenants: UUID, node_id: str = "edge-1") -> Publisher:
    """Of a node that is bound to these tenants; to none: of the operator."""
    return Publisher(f"127.0.0.1:{port}", lambda: issue(SECRET_KEY, node_id, tenants or None))


async def test_what_is_acknowledged_is_on_the_log_with_key_and_headers(stack: Stack, topics: Topics, ingress: Running) -> None:
    stream_id, node = uuid4(), node_uuid("edge-1")
    of_stream, of_node = fact(TENANT, stream_id, 1), framed(NodeStarted("edge-1", "3.10"), OPERATOR_TENANT, node)
    async with publisher(ingress.port) as node_publisher:
        receipt = await node_publisher.publish([Outgoing(of_stream, TRACEPARENT), Outgoing(of_node, "no traceparent")])
        assert await receipt == ()
    [record] = await records(stack.kafka, topics.facts)
    assert (record.value, record.key, record.partition) == (of_stream, stream_id.bytes, partition_of(stream_id))
    headers = [("tenant_id", str(TENANT).encode()), ("event_type", b"BufferChanged"), ("traceparent", TRACEPARENT.encode())]
    assert list(record.headers) == headers
    [record] = await records(stack.kafka, topics.nodes)
    assert (record.value, record.key, record.partition) == (of_node, node.bytes, partition_of(node))
    assert list(record.headers) == [("tenant_id", str(OPERATOR_TENANT).encode()), ("event_type", b"NodeStarted")]


async def test_every_refusal_has_its_reason_and_stops_nothing(stack: Stack, topics: Topics, ingress: Running) -> None:
    stream_id = uuid4()
    good = fact(TENANT, stream_id, 0)
    nil = good[:43] + b"00000000-0000-0000-0000-000000000000" + good[79:]
    bad = {
        "UNKNOWN_SCHEMA": b"\x00\x7f\xff\xff\xff" + good[5:],
        "NOT_A_FACT": framed(StreamDeleted("lobby"), TENANT, stream_id),
        "MISSING_TENANT": nil,
        "FOREIGN_TENANT": fact(OTHER_TENANT, stream_id, 1),
        "TOO_LARGE": good + bytes(MAX_ITEM_BYTES),
        "MALFORMED": b"hello",
    }
    also_bad = {"MALFORMED": good[:100], "MISSING_TENANT": good[:42] + b"\x00" + good[79:]}
    items = [good, *bad.values(), fact(TENANT, stream_id, 2), *also_bad.values(), fact(TENANT, stream_id, 3)]
    async with publisher(ingress.port, TENANT) as node_publisher:
        refused = await (await node_publisher.publish([Outgoing(i) for i in items]))
    codes = [*bad, None, *also_bad]
    assert [(r.index, r.code) for r in refused] == [(n, code) for n, code in enumerate(codes, 1) if code]
    assert all(r.reason for r in refused)
    assert str(OTHER_TENANT) in refused[3].reason
    on_log = [decode(r.value)[0] for r in await records(stack.kafka, topics.facts)]
    assert on_log == [buffer_changed(n) for n in (0, 2, 3)]


async def test_a_node_says_of_itself_what_belongs_to_no_tenant_only_where_it_serves_several(ingress: Running) -> None:
    of_itself = Outgoing(framed(NodeStarted("edge-1", "3.10"), OPERATOR_TENANT, node_uuid("edge-1")))
    of_another = Outgoing(framed(NodeStarted("edge-2", "3.10"), OPERATOR_TENANT, node_uuid("edge-2")))
    async with publisher(ingress.port, TENANT, OTHER_TENANT) as node_publisher:
        refused = await (await node_publisher.publish([of_itself, of_another]))
        assert [(r.index, r.code) for r in refused] == [(1, "FOREIGN_TENANT")]
    async with publisher(ingress.port, TENANT) as node_publisher:
        refused = await (await node_publisher.publish([of_itself]))
        assert [(r.index, r.code) for r in refused] == [(0, "FOREIGN_TENANT")]


async def test_items_and_batches_up_to_their_limits_pass(stack: Stack, topics: Topics, ingress: Running) -> None:
    stream_id = uuid4()
    small = framed(buffer_changed(0), TENANT, stream_id)
    large = framed(replace(buffer_changed(0), node_id="edge-1" + "x" * (MAX_ITEM_BYTES - len(small) - 2)), TENANT, stream_id)
    assert len(large) == MAX_ITEM_BYTES  # the length itself takes two bytes more
    async with publisher(ingress.port, TENANT) as node_publisher:
        assert await (await node_publisher.publish([Outgoing(large)] * 3)) == ()
        with pytest.raises(ValueError, match="at most 4194304 bytes"):
            await node_publisher.publish([Outgoing(large)] * 4)
        with pytest.raises(ValueError, match="1 to 10000 items"):
            await node_publisher.publish([])
    assert [r.value == large for r in await records(stack.kafka, topics.facts)] == [True] * 3


@pytest.mark.parametrize(
    "batch",
    [Batch(items=[Item(value=bytes(MAX_BATCH_BYTES))]), Batch(items=[Item()] * (MAX_BATCH_ITEMS + 1))],
    ids=["bytes", "items"],
)
async def test_an_oversize_batch_ends_the_connection(ingress: Running, batch: Batch) -> None:
    credential = f"Bearer {issue(SECRET_KEY, 'edge-1', None)}"
    with pytest.raises(grpc.RpcError) as refused:
        await asyncio.to_thread(answers, f"127.0.0.1:{ingress.port}", [batch], credential)
    assert status_of(refused.value).code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("authorization", [None, "Bearer x", "Basic eDp5"])
async def test_without_a_credential_there_is_a_sentence(ingress: Running, authorization: str | None) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        await asyncio.to_thread(answers, f"127.0.0.1:{ingress.port}", [Batch()], authorization)
    assert status_of(refused.value).code() is grpc.StatusCode.UNAUTHENTICATED
    assert "credential" in (status_of(refused.value).details() or "")


async def test_a_refused_node_knows_why_and_sends_everything_once_it_may(stack: Stack, topics: Topics, ingress: Running) -> None:
    credentials = [issue(bytes(32), "edge-1", None)]
    async with Publisher(f"127.0.0.1:{ingress.port}", lambda: credentials[0]) as node_publisher:
        receipt = await node_publisher.publish([Outgoing(fact(TENANT, uuid4(), 1))])
        async with asyncio.timeout(180):
            while "UNAUTHENTICATED" not in (node_publisher.line.problem or ""):
                await asyncio.sleep(0.01)
        assert not node_publisher.line.is_up
        credentials[0] = issue(SECRET_KEY, "edge-1", None)
        async with asyncio.timeout(180):
            assert await receipt == ()
        assert node_publisher.line.is_up


async def test_leaving_the_publisher_cancels_what_is_not_acknowledged() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        async with publisher(nobody_listens.getsockname()[1], TENANT, OTHER_TENANT) as node_publisher:
            receipt = await node_publisher.publish([Outgoing(fact(TENANT, uuid4(), 1))])
            async with asyncio.timeout(180):
                while "UNAVAILABLE" not in (node_publisher.line.problem or ""):
                    await asyncio.sleep(0.01)
    assert receipt.cancelled()
    with pytest.raises(RuntimeError, match="does not run"):
        await node_publisher.publish([Outgoing(fact(TENANT, uuid4(), 1))])


async def test_a_line_that_is_cut_again_and_again_loses_nothing_and_keeps_the_order(
    stack: Stack, topics: Topics, ingress: Running
) -> None:
    streams, count, cuts = [uuid4() for _ in range(20)], 150, 8
    async with Cut(ingress.port) as line, publisher(line.port, TENANT) as node_publisher:
        receipts, cut_total = [], 0
        for n in range(count):
            receipts.append(await node_publisher.publish([Outgoing(fact(TENANT, s, n)) for s in streams]))
            if n % (count // cuts) == count // cuts - 1:
                while not node_publisher.line.is_up:
                    await asyncio.sleep(0.005)
                cut_total += await line.cut()
        async with asyncio.timeout(180):
            assert await asyncio.gather(*receipts) == [()] * count
        assert cut_total >= cuts - 1
        assert node_publisher.line.lost_total >= 1
    first: dict[UUID, list[int | None]] = defaultdict(list)
    seen: dict[UUID, bytes] = {}
    for record in await records(stack.kafka, topics.facts):
        event, meta = decode(record.value)
        assert isinstance(event, BufferChanged)
        if meta.event_id not in seen:
            first[meta.aggregate_id].append(event.buffer_ms)
        assert seen.setdefault(meta.event_id, record.value) == record.value  # a resend says the same again
    assert dict(first) == {s: list(range(count)) for s in streams}


async def test_what_kafka_does_not_take_is_sent_again_in_order(stack: Stack, topics: Topics, ingress: Running) -> None:
    stream_id, size = uuid4(), "max.message.bytes"
    async with admin(stack.kafka) as cluster, publisher(ingress.port, TENANT) as node_publisher:
        assert await (await node_publisher.publish([Outgoing(fact(TENANT, stream_id, 0))])) == ()
        facts = topics.facts.name
        await cluster.alter_configs([ConfigResource(ConfigResourceType.TOPIC, facts, {size: "60"})])
        receipts = [await node_publisher.publish([Outgoing(fact(TENANT, stream_id, n))]) for n in range(1, 20)]
        async with asyncio.timeout(180):
            while "Kafka" not in (node_publisher.line.problem or ""):
                await asyncio.sleep(0.01)
        assert not any(r.done() for r in receipts)
        await cluster.alter_configs([ConfigResource(ConfigResourceType.TOPIC, facts, {size: str(2 << 20)})])
        async with asyncio.timeout(180):
            assert await asyncio.gather(*receipts) == [()] * 19
    on_log = [decode(r.value)[0] for r in await records(stack.kafka, topics.facts)]
    assert list(dict.fromkeys(on_log)) == [buffer_changed(n) for n in range(20)]


async def test_a_stop_answers_what_was_read(stack: Stack, topics: Topics) -> None:
    stream_id, answered = uuid4(), list[int]()
    async with contextlib.AsyncExitStack() as ending:
        ingress = await ending.enter_async_context(running(ingress_settings(stack.kafka, topics)))
        await ingress.appender.ready.wait()
        async with open_channel(f"127.0.0.1:{ingress.port}") as channel:
            metadata = (("authorization", f"Bearer {issue(SECRET_KEY, 'edge-1', None)}"),)
            call = IngressStub(channel).Publish(metadata=metadata)  # type: ignore[call-arg]  # the stub wants an iterator
            for n in range(40):
                await call.write(Batch(number=n, items=[Item(value=fact(TENANT, stream_id, n))]))
            stop = asyncio.create_task(ending.aclose())
            async with asyncio.timeout(180):
                while isinstance(ack := await call.read(), BatchAck):
                    answered.append(ack.number)
                assert await call.code() is grpc.StatusCode.OK
                await stop
    on_log = [decode(r.value)[0] for r in await records(stack.kafka, topics.facts)]
    assert on_log == [buffer_changed(n) for n in answered]
    assert answered == list(range(len(answered)))


async def test_health_and_reflection_answer(ingress: Running) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ingress.port}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(180):
            async for answer in health.Watch(health_pb2.HealthCheckRequest(service=SERVICE)):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
        listed = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        answer = await listed.read()
        assert SERVICE in [s.name for s in answer.list_services_response.service]
