"""The embedded servers answer the clients that the platform uses."""

from __future__ import annotations

import contextlib

import asyncpg
import clickhouse_connect
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from infra.embedded.stack import Stack
from streams.topics import Topics


async def test_kafka_commits_a_transaction(stack: Stack, topics: Topics) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.kafka, transactional_id=f"{topics.prefix}t")
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send_and_wait(topics.commands.name, b"kept", partition=0)
        with contextlib.suppress(KeyError):
            async with producer.transaction():
                await producer.send_and_wait(topics.commands.name, b"aborted", partition=0)
                raise KeyError
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka, isolation_level="read_committed", auto_offset_reset="earliest")
    await consumer.start()
    try:
        partition = TopicPartition(topics.commands.name, 0)
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        values = []
        while await consumer.position(partition) < end:
            values += [r.value for r in (await consumer.getmany(partition, timeout_ms=1000)).get(partition, [])]
        assert values == [b"kept"]
    finally:
        await consumer.stop()


async def test_postgres_is_durable_and_empty(database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            assert await connection.fetchval(f"SHOW {setting}") == "on"
    finally:
        await connection.close()


@pytest.mark.parametrize("compression", ["lz4", "zstd", False])
def test_clickhouse_keeps_every_row_of_a_large_insert(clickhouse_database: str, compression: str | bool) -> None:
    # above 16,384 rows the client sends several compressed frames
    with contextlib.closing(clickhouse_connect.get_client(dsn=clickhouse_database, compress=compression)) as client:
        client.command("CREATE TABLE t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
        client.insert("t", [(n, f"row {n}") for n in range(40_000)], column_names=["n", "s"])
        assert client.query("SELECT count(), sum(n) FROM t").result_rows == [(40_000, sum(range(40_000)))]
        assert client.query("SELECT s FROM t WHERE n = {n:UInt64}", parameters={"n": 39_999}).result_rows == [("row 39999",)]


def test_clickhouse_says_what_is_wrong(clickhouse_database: str) -> None:
    with contextlib.closing(clickhouse_connect.get_client(dsn=clickhouse_database)) as client:
        with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="UNKNOWN_TABLE"):
            client.query("SELECT * FROM nowhere")
        client.command("CREATE TABLE src (n UInt64) ENGINE = MergeTree ORDER BY n")
        client.command(
            "CREATE MATERIALIZED VIEW v ENGINE = MergeTree ORDER BY m "
            "AS SELECT toUInt8OrZero(throwIf(n > 1, 'no')::String) AS m FROM src"
        )
        with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError):
            client.insert("src", [(2,)], column_names=["n"])  # a failing view fails the insert


def test_clickhouse_says_what_is_wrong_with_bytes_that_are_no_text(clickhouse_database: str) -> None:
    with contextlib.closing(clickhouse_connect.get_client(dsn=clickhouse_database)) as client:
        client.command("CREATE TABLE t (s String, CONSTRAINT short CHECK length(s) < 2) ENGINE = MergeTree ORDER BY s")
        with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="469"):
            client.raw_insert("t", insert_block=b"\xff\xfe\n", fmt="TSV")


def test_clickhouse_refuses_a_wrong_password(stack: Stack) -> None:
    host = stack.clickhouse.split("@")[1].split("/")[0]
    with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="AUTHENTICATION_FAILED"):
        clickhouse_connect.get_client(dsn=f"http://default:wrong@{host}/default")
