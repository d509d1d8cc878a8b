"""A batch of records of the command topic: every one of them leaves a trace."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord

from commands.batch import NewerCommand, Written, decide_batch
from commands.dead_letters import VALUE_MAX_BYTES, dead_letter
from commands.state import PartitionState
from streams import codec, ids
from streams.generated import CommandHandled, CreateStream, Meta, RegisterTenant, RotateStreamKey
from streams.registry import by_id
from streams.topics import partition_of

TENANT = UUID("018f3b6e-0000-7000-8000-000000000001")
PARTITION = partition_of(TENANT)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def record(value: bytes | None, offset: int = 0, headers: tuple[codec.Header, ...] = ()) -> ConsumerRecord:
    return ConsumerRecord(
        topic="fw.commands",
        partition=PARTITION,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=None,
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=len(value or b""),
        headers=headers,
    )


def command(body: RegisterTenant | CreateStream | RotateStreamKey, aggregate: UUID = TENANT) -> bytes:
    command_id = ids.new_id()
    return codec.encode(body, Meta(command_id, TENANT, aggregate, 0, command_id, command_id, datetime.now(UTC), "operator"))


REGISTER = RegisterTenant("Radio", "fwt_abc", b"t" * 32)


async def test_results_positions_and_traces() -> None:
    state, written, stream = PartitionState(PARTITION), Written(), ids.new_id()
    overflows = RotateStreamKey("sk_x", b"x" * 32, 60, datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC))
    create = CreateStream("Lobby", "lobby", "play", "internal", "sk_a", b"k" * 32)
    values = [command(REGISTER), b"poison", command(REGISTER), command(create, stream), command(overflows, stream), None]
    traced = (("traceparent", TRACE.encode()),)
    await decide_batch(
        state, [record(v, 7 + n, traced if n == 0 else ()) for n, v in enumerate(values)], written, datetime.now(UTC)
    )

    assert dict(written.results) == {"accepted": 2, "invalid": 2, "rejected": 1, "failed": 1}
    assert (written.commands, written.position, written.events) == (6, 13, 3)
    assert [codec.name_of(line.value or b"") for line in written.decisions] == [
        "TenantRegistered",
        "ApiTokenIssued",
        "CommandHandled",
        "CommandHandled",
        "StreamCreated",
        "CommandHandled",
        "CommandHandled",
    ]
    assert [dict(line.headers).get("traceparent") for line in written.decisions[:4]] == [TRACE.encode()] * 3 + [None]
    assert [dict(line.headers)["offset"] for line in written.dead_letters] == [b"8", b"11", b"12"]
    handled = [
        event for event, _ in (codec.decode(line.value or b"") for line in written.decisions) if isinstance(event, CommandHandled)
    ]
    assert [h.code for h in handled] == [None, "TENANT_EXISTS", None, "COMMAND_FAILED"]


async def test_a_command_of_a_newer_platform_stops_the_line_and_is_not_set_aside() -> None:
    state, written = PartitionState(PARTITION), Written()
    newer = codec.frame(len(by_id()) + 1, command(REGISTER)[5:])
    with pytest.raises(NewerCommand, match=rf"fw\.commands-{PARTITION} at 8: schema id {len(by_id()) + 1} is not known here"):
        await decide_batch(state, [record(command(REGISTER), 7), record(newer, 8)], written, datetime.now(UTC))
    assert not written.dead_letters


async def test_a_command_that_failed_changes_nothing_and_may_come_again() -> None:
    state, stream = PartitionState(PARTITION), ids.new_id()
    create = CreateStream("Lobby", "lobby", "play", "internal", "sk_a", b"k" * 32)
    await decide_batch(state, [record(command(REGISTER)), record(command(create, stream))], Written(), datetime.now(UTC))
    before, answers = state.boundaries[TENANT], len(state.answers)
    overflows = command(RotateStreamKey("sk_x", b"x" * 32, 60, datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC)), stream)
    for _ in range(2):
        written = Written()
        await decide_batch(state, [record(overflows)], written, datetime.now(UTC))
        assert written.results["failed"] == 1
    assert state.boundaries[TENANT] is before
    assert len(state.answers) == answers


def test_a_dead_letter_keeps_the_bytes_unless_they_fill_the_limit() -> None:
    assert dead_letter(record(b"x" * VALUE_MAX_BYTES), "why").value == b"x" * VALUE_MAX_BYTES
    too_large = dead_letter(record(b"x" * (VALUE_MAX_BYTES + 1)), "why" * 1000)
    assert too_large.value is None
    assert dict(too_large.headers)["value_omitted_bytes"] == str(VALUE_MAX_BYTES + 1).encode()
    assert len(dict(too_large.headers)["reason"]) == 500
