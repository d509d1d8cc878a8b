"""The command worker on a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka.errors import ProducerFenced

from infra.embedded.stack import Stack
from streams import codec, ids
from streams.generated import (
    ApiTokenIssued,
    BufferChanged,
    BufferState,
    CommandHandled,
    CommandStatus,
    CreateStream,
    Event,
    Meta,
    RegisterTenant,
    RenameStream,
    RotateStreamKey,
    StreamCreated,
    TenantRegistered,
)
from streams.kafka import transactional_producer
from streams.topics import PARTITIONS, Topics, partition_of
from tests.command_worker import Client, WorkerStarter, client, equals_model, meta, tenants, traffic, workers

TENANT = tenants(1)[0]
PARTITION = partition_of(TENANT)
REGISTER = RegisterTenant("Radio", "fwt_abc", b"t" * 32)
CREATE = CreateStream("Lobby", "lobby", "play", "internal", "sk_abc", b"k" * 32)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def starter(stack: Stack, topics: Topics, tmp_path: Path) -> Iterator[WorkerStarter]:
    with workers(stack.kafka, topics, tmp_path) as starter:
        yield starter


@pytest.fixture
async def sender(stack: Stack, topics: Topics) -> AsyncIterator[Client]:
    async with client(stack.kafka, topics) as sender:
        yield sender


def outcomes(log: list[tuple[Event, Meta]]) -> list[CommandHandled]:
    return [event for event, _ in log if isinstance(event, CommandHandled)]


async def test_decides_commands_and_writes_events_before_their_outcome(starter: WorkerStarter, sender: Client) -> None:
    worker = starter.start().wait_ready()
    stream = ids.new_id()
    register, create = meta(TENANT), meta(TENANT, stream)
    await sender.send(REGISTER, register)
    await sender.send(CREATE, create, traceparent=TRACE)
    assert await sender.answers(2) == 2

    records = (await sender.read(sender.topics.decisions))[PARTITION]
    log = [codec.decode(r.value) for r in records]
    assert [type(e) for e, _ in log] == [TenantRegistered, ApiTokenIssued, CommandHandled, StreamCreated, CommandHandled]
    assert [(m.aggregate_id, m.version) for _, m in log] == [(TENANT, 1), (TENANT, 2), (TENANT, 0), (stream, 1), (stream, 0)]
    assert all(r.key == TENANT.bytes for r in records)
    event, of_event = log[3]
    assert event == StreamCreated("Lobby", "lobby", "play", "internal", "sk_abc", b"k" * 32)
    assert of_event.causation_id == create.event_id
    assert of_event.event_id == ids.event_id(ids.wish_id(create.event_id, create.occurred_at), 0)
    assert dict(records[3].headers) == {
        "tenant_id": str(TENANT).encode(),
        "event_type": b"StreamCreated",
        "traceparent": TRACE.encode(),
    }
    assert dict(records[2].headers) == {"tenant_id": str(TENANT).encode(), "event_type": b"CommandHandled"}

    assert worker.metrics()['fw_commands_total{result="accepted"}'] == 2
    assert worker.metrics()["fw_commands_partitions_owned"] == PARTITIONS
    worker.signal(signal.SIGTERM)
    assert worker.process.wait(180) == 0


async def test_a_resent_command_is_answered_again_also_by_the_next_worker(starter: WorkerStarter, sender: Client) -> None:
    first = starter.start().wait_ready()
    register = meta(TENANT)
    for _ in range(3):
        await sender.send(REGISTER, register)
    assert await sender.answers(3) == 3
    first.signal(signal.SIGTERM)
    assert first.process.wait(180) == 0

    second = starter.start().wait_ready()
    await sender.send(REGISTER, register)
    await sender.send(replace(REGISTER, name="Another"), register)
    assert await sender.answers(5) == 5
    log = await sender.decisions(PARTITION)
    assert [type(e).__name__ for e, _ in log[:2]] == ["TenantRegistered", "ApiTokenIssued"]
    handled = outcomes(log)
    assert len(log) == 2 + 5
    assert handled[0] == handled[1] == handled[2] == handled[3]
    assert (handled[4].status, handled[4].code) == (CommandStatus.REJECTED, "IDEMPOTENCY_KEY_REUSED")
    assert second.metrics()['fw_commands_total{result="repeated"}'] == 1


async def test_poison_goes_to_the_dead_letters_with_its_bytes_and_the_line_goes_on(
    starter: WorkerStarter, sender: Client
) -> None:
    worker = starter.start().wait_ready()
    fact, of_fact = BufferChanged("node", BufferState.FULL), meta(TENANT)
    cut = codec.encode(REGISTER, meta(TENANT))[:-3]
    elsewhere = codec.encode(REGISTER, meta(tenants(2)[1]))
    poison = [b"", b"garbage", b"\0\xff\xff\xff\xffx", codec.encode(fact, of_fact), cut, elsewhere]
    for value in poison:
        await sender.raw(PARTITION, value)
    await sender.send(REGISTER, meta(TENANT))
    assert await sender.answers(1) == 1

    assert [type(e).__name__ for e, _ in await sender.decisions(PARTITION)] == [
        "TenantRegistered",
        "ApiTokenIssued",
        "CommandHandled",
    ]
    letters = (await sender.read(sender.topics.dead_letters))[PARTITION]
    assert [r.value or b"" for r in letters] == poison
    headers = [dict(r.headers) for r in letters]
    assert [h["offset"] for h in headers] == [str(n).encode() for n in range(len(poison))]
    assert {h["topic"] for h in headers} == {sender.topics.commands.name.encode()}
    assert {h["partition"] for h in headers} == {str(PARTITION).encode()}
    assert headers[3]["reason"] == b"Invalid: BufferChanged is no command"
    assert worker.metrics()["fw_commands_dead_letters_total"] == len(poison)
    assert worker.metrics()['fw_commands_total{result="invalid"}'] == len(poison)


async def test_folding_ends_also_when_the_end_of_the_log_is_aborted(starter: WorkerStarter, sender: Client) -> None:
    first = starter.start().wait_ready()
    await sender.send(REGISTER, meta(TENANT))
    assert await sender.answers(1) == 1
    first.signal(signal.SIGTERM)
    assert first.process.wait(180) == 0
    name = sender.topics.decisions.name
    stray = transactional_producer(sender.kafka, f"stray-{name}")
    await stray.start()
    for _ in range(3):
        await stray.begin_transaction()
        await stray.send_and_wait(name, b"aborted", partition=PARTITION)
        await stray.abort_transaction()
    # ... and a transaction of the writer itself that was never ended: the next start ends it
    killed = transactional_producer(sender.kafka, f"decide-{name}-{PARTITION}")
    await killed.start()
    await killed.begin_transaction()
    await killed.send_and_wait(name, b"never ended", partition=PARTITION)

    starter.start().wait_ready()
    await sender.send(CREATE, meta(TENANT, ids.new_id()))
    assert await sender.answers(2) == 2
    assert [e.code for e in outcomes(await sender.decisions(PARTITION))] == [None, None]
    await stray.stop()
    with pytest.raises(ProducerFenced):
        await killed.commit_transaction()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(killed.stop(), 2)


async def test_a_log_that_no_writer_may_have_written_stops_the_worker(starter: WorkerStarter, sender: Client) -> None:
    of_gap = replace(meta(TENANT), version=7)
    value = codec.encode(TenantRegistered("Radio"), of_gap)
    await sender.producer.send_and_wait(sender.topics.decisions.name, value, partition=PARTITION)
    worker = starter.start()
    assert worker.process.wait(180) == 70
    assert "has version 7, not 1" in worker.log.read_text()


async def test_many_commands_of_many_tenants_equal_the_model(starter: WorkerStarter, sender: Client) -> None:
    starter.start()
    commands = traffic(5_000, seed=1, of=tenants(24))
    await sender.send_all(commands)
    assert await sender.answers(len(commands)) == len(commands)
    counted, written = await equals_model(sender)
    assert counted == len(commands)
    assert written > len(commands)


async def test_settings_that_are_missing_are_named(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("FW_")} | {"FW_DATA_DIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-m", "commands"], env=env, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 1
    assert "FW_KAFKA_BOOTSTRAP is not set" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_command_that_trips_over_a_bug_is_answered_and_set_aside(starter: WorkerStarter, sender: Client) -> None:
    """A date beyond what Python can add a grace to: the decider raises OverflowError."""
    worker = starter.start().wait_ready()
    await sender.send(REGISTER, meta(TENANT))
    stream = ids.new_id()
    await sender.send(CREATE, meta(TENANT, stream))
    rotate = RotateStreamKey("sk_x", b"x" * 32, 86400, datetime(9999, 12, 31, 12, tzinfo=UTC))
    await sender.send(rotate, meta(TENANT, stream))
    await sender.send(RenameStream("Stage"), meta(TENANT, stream))
    assert await sender.answers(4) == 4
    assert [e.code for e in outcomes(await sender.decisions(PARTITION))] == [None, None, "COMMAND_FAILED", None]
    letters = (await sender.read(sender.topics.dead_letters))[PARTITION]
    assert [codec.decode(r.value)[0] for r in letters] == [rotate]
    assert worker.metrics()['fw_commands_total{result="failed"}'] == 1
