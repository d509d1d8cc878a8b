"""What the tests of the ingress have in common: settings of one, facts to append, and a reader of what is on the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import grpc
from aiokafka import ConsumerRecord, TopicPartition

from streams import ids
from streams.codec import encode
from streams.generated import BufferChanged, BufferState, Decision, Fact, Meta
from streams.ingress.ingress_pb2 import Batch, BatchAck
from streams.ingress.ingress_pb2_grpc import IngressStub
from streams.kafka import reader
from streams.settings import Listen, Settings
from streams.topics import Topic, Topics

SECRET_KEY = bytes(range(32))
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def ingress_settings(kafka: str, topics: Topics) -> Settings:
    """An ingress on a free port."""
    return Settings(
        kafka_session_seconds=6,
        data_dir=Path("data"),
        kafka=kafka,
        replication_factor=1,
        postgres_url="postgresql://nobody@127.0.0.1:1/none",
        clickhouse_url="http://nobody@127.0.0.1:1/none",
        topics=topics,
        secret_key=SECRET_KEY,
        operator_token="operator",
        metrics_port=0,
        log_level="info",
        otel_endpoint=None,
        gateway=Listen("127.0.0.1", 0),
        ingress=Listen("127.0.0.1", 0),
        geoip_database=None,
    )


def meta(tenant_id: UUID, aggregate_id: UUID, *, event_id: UUID | None = None, version: int = 0, node_id: str = "edge-1") -> Meta:
    event_id = event_id or ids.new_id()
    return Meta(event_id, tenant_id, aggregate_id, version, event_id, event_id, NOON, f"node:{node_id}")


def buffer_changed(n: int, node_id: str = "edge-1") -> BufferChanged:
    """A fact that carries a number, to recognise it by."""
    return BufferChanged(node_id=node_id, state=BufferState.FULL, buffer_ms=n)


def fact(tenant_id: UUID, stream_id: UUID, n: int, node_id: str = "edge-1") -> bytes:
    """The n-th fact of a stream: the same event every time it is asked for."""
    return encode(buffer_changed(n, node_id), meta(tenant_id, stream_id, event_id=ids.derive(stream_id, n), node_id=node_id))


def framed(event: Fact | Decision, tenant_id: UUID, aggregate_id: UUID) -> bytes:
    return encode(event, meta(tenant_id, aggregate_id))


async def records(kafka: str, topic: Topic) -> Sequence[ConsumerRecord[bytes, bytes]]:
    """Everything on a topic, partition after partition."""
    consumer = reader(kafka, "test")
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        found: list[ConsumerRecord[bytes, bytes]] = []
        async with asyncio.timeout(180):
            while any([await consumer.position(tp) < ends[tp] for tp in partitions]):
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += batch
        return sorted(found, key=lambda r: (r.partition, r.offset))
    finally:
        await consumer.stop()


def answers(address: str, batches: Sequence[Batch], authorization: str | None) -> list[BatchAck]:
    """What the ingress says to one connection, until it or we have said everything. Raises grpc.RpcError.

    Through the synchronous client: that of asyncio reports INTERNAL when a write fails before the status of the call has
    arrived, so that what the server said is a matter of luck.
    """
    metadata = () if authorization is None else (("authorization", authorization),)
    with grpc.insecure_channel(address) as channel:
        return list(IngressStub(channel).Publish(iter(batches), metadata=metadata, timeout=180))


def status_of(error: grpc.RpcError) -> grpc.Call:
    """The call that the error is: what the client raises is both."""
    assert isinstance(error, grpc.Call)
    return error
