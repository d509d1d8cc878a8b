"""Dead letters from the log to the person and back: listed, shown, retried, dropped; and what is never buried."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from typer.testing import CliRunner, Result

from infra.cli.dlq import app
from infra.embedded.stack import Stack
from projections import halts, streams
from projections.clickhouse import AsyncClient
from projections.model import TP, ConsumerRecord
from projections.platform import connect
from streams.codec import encode, headers
from streams.faust_batches.fetched import Halted
from streams.generated import StreamRenamed, StreamWentLive, ViewerJoined
from streams.ids import new_id
from streams.topics import Topic, Topics
from tests.fact_log import at, fact_meta, fresh
from tests.ingress import records
from tests.integration.test_clickhouse_projections_worker import Start, ch, producer, start, until, viewing
from tests.integration.test_postgres_projections_store import feed, migrated, opened

__all__ = ["ch", "migrated", "producer", "start"]

Dlq = Callable[..., Result]


def command_line(stack: Stack, database: str, topics: Topics) -> Dlq:
    env = {"FW_KAFKA_BOOTSTRAP": stack.kafka, "FW_POSTGRES_URL": database, "FW_TOPIC_PREFIX": topics.prefix}
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], env=env)


@pytest.fixture
def dlq(stack: Stack, migrated: str, topics: Topics) -> Dlq:
    """`fw dlq …`, as a person calls it."""
    return command_line(stack, migrated, topics)


def lines(result: Result) -> Sequence[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


async def appended(producer: AIOKafkaProducer, topic: Topic, value: bytes | None, key: bytes = b"k") -> None:
    await producer.send_and_wait(topic.name, value, key, 3, headers=[("tenant_id", b"t")])


async def on(stack: Stack, topic: Topic) -> list[ConsumerRecord]:
    return list(await records(stack.kafka, topic))


async def test_a_letter_is_listed_shown_and_retried_without_changing_what_is_known(
    stack: Stack, topics: Topics, migrated: str, dlq: Dlq, producer: AIOKafkaProducer
) -> None:
    """As when a version that could not store a fact is replaced by one that can."""
    tenant, stream = fresh()
    live = StreamWentLive(node_id="n", internal_name="x")
    value = encode(live, fact_meta(tenant, stream, at(5)))
    await appended(producer, topics.facts, value)
    await appended(producer, topics.facts, value[:-1])
    where = TP(topics.facts.name, 3)
    async with opened(streams.PROJECTION, migrated, topics, stack.kafka) as store:
        first = await on(stack, topics.facts)
        await store.letters.bury(where, [(first[0], "the database refused it")])
        await feed(store, first)

        letter = f"streams/{topics.facts.name}/3/0"
        (whole, cut) = lines(await asyncio.to_thread(dlq, "list", "--json"))
        assert (whole["letter"], whole["reason"], whole["record"]) == (letter, "the database refused it", "StreamWentLive")
        assert whole["tenant_id"] == str(tenant)
        assert "does not follow its schema" in cut["reason"]
        for narrow in ("--projection", "tenants"), ("--topic", "fw.nodes"), ("--partition", "4"), ("--since", "2100-01-01"):
            assert lines(await asyncio.to_thread(dlq, "list", "--json", *narrow)) == []
        assert len(lines(await asyncio.to_thread(dlq, "list", "--json", "--topic", "fw.facts", "--since", "1h"))) == 2
        (shown,) = lines(await asyncio.to_thread(dlq, "show", letter, "--json"))
        assert bytes.fromhex(shown["value_hex"]) == value
        assert shown["headers"] == {"tenant_id": "t"}
        page = await asyncio.to_thread(dlq, "show", letter)
        assert value[:16].hex(" ") in page.output

        again = await asyncio.to_thread(dlq, "retry", "--projection", "streams", "--json")
        assert again.exit_code == 1  # one of them is cut short, today and for ever
        said = json.loads(again.output)
        assert said["retried"] == [letter]
        assert list(said["refused"]) == [f"streams/{topics.facts.name}/3/1"]
        second = await on(stack, topics.facts)
        assert len(second) == 3
        assert (second[2].key, second[2].value, second[2].headers) == (first[0].key, value, first[0].headers)
        before = await store.pool.fetch("SELECT * FROM streams")
        await feed(store, second)
        assert await store.pool.fetch("SELECT * FROM streams") == before
    assert [x["state"] for x in lines(await asyncio.to_thread(dlq, "list", "--all", "--json"))] == ["retried", "buried"]
    once_more = await asyncio.to_thread(dlq, "retry", letter)
    assert "0 retried" in once_more.output


async def test_what_is_dropped_leaves_a_trace_and_makes_room(
    stack: Stack, topics: Topics, migrated: str, dlq: Dlq, producer: AIOKafkaProducer
) -> None:
    for n in range(7):
        await appended(producer, topics.facts, b"noise %d" % n)
    async with opened(streams.PROJECTION, migrated, topics, stack.kafka, cap=3) as store:
        said = await on(stack, topics.facts)
        tp = TP(topics.facts.name, 3)
        for settled in (3, 6):
            with pytest.raises(Halted, match=r"the cap is 3.*fw dlq list --projection streams"):
                await feed(store, said)
            assert (await store.load_offsets([tp]))[tp] is None
            waiting = lines(await asyncio.to_thread(dlq, "list", "--json"))
            assert [x["offset"] for x in waiting] == list(range(settled - 3, settled))
            done = await asyncio.to_thread(dlq, "drop", "--projection", "streams", "--reason", "load test")
            assert (done.exit_code, done.output.strip()) == (0, "3 dropped: load test")
        await feed(store, said)
        assert (await store.load_offsets([tp]))[tp] == 7
    every = lines(await asyncio.to_thread(dlq, "list", "--all", "--json"))
    assert [(x["state"], x["settled_reason"]) for x in every] == [("dropped", "load test")] * 6 + [("buried", None)]
    assert all(x["settled_by"] and x["settled_at"] for x in every[:6])


async def test_what_lies_on_the_wrong_topic_is_buried_and_not_folded(
    stack: Stack, topics: Topics, migrated: str, dlq: Dlq, producer: AIOKafkaProducer
) -> None:
    tenant, stream = fresh()
    await appended(producer, topics.facts, encode(StreamRenamed("Mine now"), fact_meta(tenant, stream, at(1))))
    joined = ViewerJoined(node_id="n", session_id="s", viewing_id=new_id(), connector="HLS")
    await appended(producer, topics.nodes, encode(joined, fact_meta(tenant, stream, at(1))))
    async with opened(streams.PROJECTION, migrated, topics, stack.kafka) as store:
        await feed(store, await on(stack, topics.facts))
        assert await store.pool.fetchval("SELECT count(*) FROM streams") == 0
        await feed(store, await on(stack, topics.nodes))
    reasons = [x["reason"] for x in lines(await asyncio.to_thread(dlq, "list", "--json"))]
    assert reasons == [
        "StreamRenamed does not belong here: it lies on fw.decisions",
        "ViewerJoined does not belong here: it lies on fw.facts",
    ]


async def test_letters_of_the_command_worker_are_listed_too(
    stack: Stack, topics: Topics, dlq: Dlq, producer: AIOKafkaProducer
) -> None:
    about = {"reason": "Invalid: nonsense", "topic": topics.commands.name, "partition": "3", "offset": "17"}
    written = [(name, text.encode()) for name, text in about.items()]
    await producer.send_and_wait(topics.dead_letters.name, b"{}", b"commands", 3, headers=written)
    (letter,) = lines(await asyncio.to_thread(dlq, "list", "--json"))
    assert (letter["letter"], letter["reason"]) == (f"commands/{topics.commands.name}/3/17", "Invalid: nonsense")
    dropped = await asyncio.to_thread(dlq, "drop", letter["letter"], "--reason", "a test", "--json")
    assert json.loads(dropped.output) == {"dropped": [letter["letter"]]}
    assert lines(await asyncio.to_thread(dlq, "list", "--json")) == []


async def test_a_billing_fact_that_cannot_be_read_stops_the_line_until_a_person_opens_it(
    start: Start, ch: AsyncClient, producer: AIOKafkaProducer, stack: Stack, topics: Topics, database: str
) -> None:
    tenant, stream = fresh()
    joined, left = viewing(1)
    broken = encode(left, fact_meta(tenant, stream, at(9)))[:-3]
    about = fact_meta(tenant, stream, at(1))
    await producer.send_and_wait(topics.facts.name, encode(joined, about), partition=3, headers=headers(joined, about))
    first = await start("viewer_sessions")
    await until(ch, "viewer_joined_v", 1)
    for value in (broken, encode(left, fact_meta(tenant, stream, at(10)))):
        await producer.send_and_wait(topics.facts.name, value, partition=3)
    async with asyncio.timeout(180):
        assert await first.wait() == 70
    pool = await connect(database)
    try:
        (halt,) = await halts.halts(pool)
        assert (halt.projection, halt.topic, halt.partition) == ("viewer_sessions", topics.facts.name, 3)
        assert f"{topics.facts.name}/3 at 1: a ViewerLeft cannot be read, and bills are computed from it" in halt.reason

        dlq = command_line(stack, database, topics)
        assert lines(await asyncio.to_thread(dlq, "list", "--json")) == []  # it is not buried
        position = ("--projection", "viewer_sessions", "--topic", "fw.facts", "--partition", 3, "--reason", "credited by hand")
        elsewhere = await asyncio.to_thread(dlq, "drop", *position, "--offset", 2)
        assert elsewhere.exit_code == 1
        assert "no projection stands still at it" in elsewhere.output
        opened_by_hand = await asyncio.to_thread(dlq, "drop", *position, "--offset", 1)
        assert opened_by_hand.exit_code == 0, opened_by_hand.output

        await start("viewer_sessions")
        await until(ch, "viewer_left_v", 1)
        async with asyncio.timeout(180):
            while await halts.halts(pool):  # forgotten after the batch
                await asyncio.sleep(0.02)
        (kept,) = lines(await asyncio.to_thread(dlq, "show", f"viewer_sessions/{topics.facts.name}/3/1", "--json"))
        assert (kept["state"], kept["settled_reason"]) == ("dropped", "credited by hand")
        assert bytes.fromhex(kept["value_hex"]) == broken
    finally:
        await pool.close()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("show", "streams/fw.facts/3/1"), "there is no letter streams/fw.facts/3/1"),
        (("show", "nonsense"), "nonsense names no letter"),
        (("retry",), "say which letters to retry"),
        (("drop", "--reason", "x"), "say which letters to drop"),
        (("drop", "streams/fw.facts/3/1", "--reason", " "), "say why"),
        (("drop", "streams/fw.facts/3/1", "--reason", "x"), "there is no letter streams/"),
        (("list", "--since", "yesterday"), "--since is an age"),
    ],
)
async def test_what_is_not_there_or_not_meant_gets_a_sentence(dlq: Dlq, words: Sequence[str], sentence: str) -> None:
    result = await asyncio.to_thread(dlq, *words)
    assert result.exit_code != 0
    assert sentence in " ".join(result.output.replace("│", " ").split())
