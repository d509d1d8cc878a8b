"""Poison on the log, from a stranger and from a node with a good credential: buried with its bytes; figures right behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import grpc
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from streams.codec import encode
from streams.generated import BufferChanged, BufferState, Fact, Meta, StreamRenamed, StreamWentLive, StreamWentOffline
from streams.ingress.credentials import issue
from streams.ingress.ingress_pb2 import Batch, Item, Refusal
from streams.kafka import reader
from streams.topics import Topics, partition_of
from tests.ingress import answers, status_of
from tests.platform import Platform, until
from tests.stack import blocking

STREAM = "query ($id: ID!) { tenant { id } stream(id: $id) { title state health { bufferMs } } }"


def meta(tenant_id: UUID, stream_id: UUID, at: datetime | None = None) -> Meta:
    event_id = uuid4()
    return Meta(event_id, tenant_id, stream_id, 0, event_id, event_id, at or datetime.now(UTC), "node:hostile")


def live(about: Meta, node_id: str = "hostile") -> bytes:
    return encode(StreamWentLive(node_id=node_id, internal_name="x"), about)


def topics_of(platform: Platform) -> Topics:
    return Topics(f"{platform.up['postgres'].rpartition('/')[2]}.")  # the fixture names both alike


def tenant_of(platform: Platform, token: str) -> UUID:
    return UUID(platform.query("{ tenant { id } }", token=token)["tenant"]["id"])


def healthy(platform: Platform, token: str, stream_id: UUID, tenant_id: UUID, number: int) -> None:
    """Returns when every projection of facts has read a good fact that comes now."""

    async def say() -> None:
        facts: list[Fact] = [
            BufferChanged(node_id="n", state=BufferState.FULL, buffer_ms=number),
            StreamWentLive(node_id="n", internal_name="x"),
        ]
        await append(platform, stream_id, [encode(fact, meta(tenant_id, stream_id)) for fact in facts])

    blocking(say())

    def known() -> bool:
        stream = platform.query(STREAM, {"id": str(stream_id)}, token)["stream"]
        return bool(stream["state"] == "LIVE" and stream["health"] and stream["health"]["bufferMs"] == number)

    until(known, 180, "what was said behind the poison")


async def append(platform: Platform, stream_id: UUID, values: Sequence[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=platform.up["kafka"], acks="all")
    await producer.start()
    try:
        for value in values:
            topic = topics_of(platform).facts.name
            await producer.send_and_wait(topic, value, stream_id.bytes, partition=partition_of(stream_id))
    finally:
        await producer.stop()


async def letters(platform: Platform, partition: int) -> set[bytes]:
    topic = TopicPartition(topics_of(platform).dead_letters.name, partition)
    consumer = reader(platform.up["kafka"], "test-letters")
    await consumer.start()
    try:
        consumer.assign([topic])
        await consumer.seek_to_beginning(topic)
        end, found = (await consumer.end_offsets([topic]))[topic], set[bytes]()
        while await consumer.position(topic) < end:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found |= {record.value for record in records if record.value is not None}
        return found
    finally:
        await consumer.stop()


def test_poison_on_the_log_is_buried_with_its_bytes_and_the_line_goes_on(platform: Platform) -> None:
    token = platform.create_tenant()
    stream_id = UUID(platform.create_stream(token)[0])
    tenant_id = tenant_of(platform, token)
    good = live(meta(tenant_id, stream_id))
    poison = [
        b"garbage",
        b"\0",
        good[:5],
        good[:-1],
        good + b"behind",
        good[:-3] + b"\x04\xff\xfe",  # no UTF-8
        b"\0\x00\x4c\x4b\x40" + good[5:],  # a schema id far from ours
        live(meta(tenant_id, stream_id), "a\0b"),  # PostgreSQL takes no zero byte
    ]
    blocking(append(platform, stream_id, poison))
    # before anything good is said: in one batch with it, what PostgreSQL refuses would be superseded and never get there
    until(lambda: poison[7] in blocking(letters(platform, partition_of(stream_id))), 180, "the refused fact to be buried")
    healthy(platform, token, stream_id, tenant_id, 4711)
    assert blocking(letters(platform, partition_of(stream_id))) >= {*poison[:4], poison[7]}
    assert platform.query(STREAM, {"id": str(stream_id)}, token)["stream"]["title"] == "Lobby"


def published(platform: Platform, credential: str, values: Sequence[bytes]) -> list[int]:
    """Codes of the refusals. Raises grpc.RpcError."""
    batch = Batch(number=1, items=[Item(value=value) for value in values])
    [ack] = answers(platform.up["ingress"], [batch], f"Bearer {credential}")
    return [refusal.code for refusal in ack.refusals]


def secret_key(platform: Platform) -> bytes:
    return bytes.fromhex(json.loads((platform.data_dir / "secrets.json").read_text())["secret_key"])


def test_a_node_with_a_good_credential_can_neither_speak_for_others_nor_stop_the_line(platform: Platform) -> None:
    token, rival = platform.create_tenant(), platform.create_tenant("Rival")
    stream_id, rival_stream = UUID(platform.create_stream(token)[0]), UUID(platform.create_stream(rival)[0])
    tenant_id, rival_id = tenant_of(platform, token), tenant_of(platform, rival)
    credential = issue(secret_key(platform), "hostile", [tenant_id])
    mine = meta(tenant_id, stream_id)
    codes = published(
        platform,
        credential,
        [
            live(meta(rival_id, rival_stream)),
            live(meta(UUID(int=0), stream_id)),
            encode(StreamRenamed(title="hacked"), mine),
            b"\0\x7f\0\0\0" + live(mine)[5:],
            b"garbage",
            b"\0" + bytes(1 << 20),
            live(meta(tenant_id, rival_stream)),  # their stream, under one's own tenant: changes nothing of theirs
            live(mine) + b"behind\xff",
            live(mine, "a\0b"),
            encode(
                StreamWentOffline(node_id="n", internal_name="x"),
                meta(tenant_id, stream_id, datetime(1970, 1, 1, tzinfo=UTC)),
            ),
        ],
    )
    assert codes == [
        Refusal.FOREIGN_TENANT,
        Refusal.MISSING_TENANT,
        Refusal.NOT_A_FACT,
        Refusal.UNKNOWN_SCHEMA,
        Refusal.MALFORMED,
        Refusal.TOO_LARGE,
        Refusal.MALFORMED,
        Refusal.MALFORMED,
    ]
    healthy(platform, token, stream_id, tenant_id, 815)
    theirs = platform.query(STREAM, {"id": str(rival_stream)}, rival)["stream"]
    assert (theirs["title"], theirs["state"], theirs["health"]) == ("Lobby", "IDLE", None)


@pytest.mark.parametrize("credential", ["", "garbage", "x" * 6000, "of another platform", "operator", "tampered"])
def test_nobody_publishes_without_a_credential_that_was_issued_here(platform: Platform, credential: str) -> None:
    known = issue(secret_key(platform), "edge-1", None)
    made = {
        "of another platform": issue(bytes(32), "edge-1", None),
        "operator": platform.up["operator_token"],
        "tampered": f"{known[:10]}{'A' if known[10] != 'A' else 'B'}{known[11:]}",
    }
    with pytest.raises(grpc.RpcError) as refused:
        published(platform, made.get(credential, credential), [])
    assert status_of(refused.value).code() is grpc.StatusCode.UNAUTHENTICATED


def test_no_secret_is_in_a_log_or_a_metric(platform: Platform) -> None:
    token = platform.create_tenant()
    _, key = platform.create_stream(token)
    viewer, url_secret = "198.51.100.77", "tok-5b1c9e"
    edge = f"{platform.up['edge']}/trigger"
    answer = platform.http.post(f"{edge}/PUSH_REWRITE", content=f"rtmp://h/live/{key}\n{viewer}\n{key}").text
    assert answer.startswith("live+")
    session = f"{answer}\n{viewer}\n{url_secret}\nHLS\nhttp://h/x?{url_secret}\n{'ab' * 32}\nfalse"
    for name, body in (
        ("USER_NEW", session),
        ("USER_NEW", f"{session}\nmore"),
        ("PUSH_REWRITE", f"rtmp://h/live/{key}\n\n{viewer}\n{key}"),
        ("PUSH_REWRITE", f"rtmp://h/live/{key}x\n{viewer}\n{key}x"),
    ):
        assert platform.http.post(f"{edge}/{name}", content=body).status_code == 200
    platform.http.post(
        platform.up["graphql"], json={"query": "{ streams { totalCount } "}, headers={"Authorization": f"Bearer {token}"}
    )
    hidden = [key, key.rpartition("_")[2], token, platform.up["operator_token"], viewer, url_secret]
    hidden += [secret_key(platform).hex(), platform.up["postgres"].split(":")[2].partition("@")[0]]
    texts = {path.name: path.read_text(errors="replace") for path in (platform.data_dir / "logs").iterdir()}
    for name, process in platform.up["processes"].items():
        if process["metrics"]:
            texts[f"metrics of {name}"] = platform.http.get(process["metrics"]).text
    assert len(texts) > 10
    assert [(where, secret) for where, text in texts.items() for secret in hidden if secret in text] == []
