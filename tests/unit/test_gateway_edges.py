"""Cursors, origins, credentials, outcomes and queues: the small parts on their own."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from gateway import derived, inputs, origins
from gateway.auth import NO_CREDENTIAL, OPERATOR, Anonymous, Credentials, Tenant
from gateway.cursors import BadCursor, LogCursor, event_cursor, page_cursor, parse_event_cursor, parse_page_cursor
from gateway.errors import format_error
from gateway.fanout import QUEUE_LENGTH, Delivered, Gap, Listener
from gateway.mutations.answers import ConflictError, NotFoundError, ValidationError, refusal
from gateway.send import Accepted, Declined, Outcomes
from streams import ids
from streams.generated import CommandHandled, CommandStatus, Meta, ViewerJoined
from streams.recorded import Position
from streams.telemetry import configure_logs

offsets = st.integers(0, (1 << 63) - 1)


@given(st.uuids(), offsets, offsets)
def test_event_cursors_come_back(stream_id: UUID, facts: int, decisions: int) -> None:
    cursor = LogCursor(facts, decisions)
    text = event_cursor(stream_id, cursor)
    assert parse_event_cursor(stream_id, text) == cursor
    assert text.isascii()
    assert len(text) == 28


@given(st.text(max_size=60))
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        parse_event_cursor(uuid4(), text)
    with pytest.raises(BadCursor):
        parse_page_cursor("streams", text)


@given(st.tuples(st.integers(-(1 << 53), 1 << 53), st.uuids().map(str)))
def test_page_cursors_come_back_to_their_own_list_only(key: tuple[int, str]) -> None:
    assert parse_page_cursor("sessions", page_cursor("sessions", key)) == key
    with pytest.raises(BadCursor):
        parse_page_cursor("ingests", page_cursor("sessions", key))


def test_a_cursor_of_another_stream_is_refused() -> None:
    with pytest.raises(BadCursor):
        parse_event_cursor(UUID(int=2), event_cursor(UUID(int=1), LogCursor(1, 2)))


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        (None, "api.example:443", True),
        ("https://api.example", "api.example", True),
        ("https://api.example:8443", "api.example:8443", True),
        ("https://evil.example", "api.example", False),
        ("http://localhost:5173", "127.0.0.1:18000", True),
        ("http://localhost:5173", "api.example", False),
        ("null", "127.0.0.1:18000", False),
        ("http://127.0.0.1.evil.example", "127.0.0.1:18000", False),
        ("http://[::1]:3000", "localhost:18000", True),
        ("http://[bad", "localhost", False),
    ],
)
def test_which_pages_may_connect(origin: str | None, host: str, expected: bool) -> None:
    assert origins.allowed(origin, host) is expected


class Tokens:
    """Who owns which token, and how often that was asked."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[UUID, bytes]] = {}
        self.asked = 0

    async def owner_of(self, prefix: str) -> tuple[UUID, bytes] | None:
        self.asked += 1
        return self.known.get(prefix)


async def test_callers() -> None:
    tokens, now = Tokens(), [0.0]
    credentials = Credentials("the operator", tokens.owner_of, lambda: now[0])
    token = derived.secret(bytes(32), derived.API_TOKEN, uuid4())
    tenant_id = uuid4()
    assert await credentials.caller(None) == NO_CREDENTIAL
    assert await credentials.caller("Bearer the operator") == OPERATOR
    for text in ("the operator", "Basic abc", "Bearer ", "Bearer x y", "Bearer ünknown", f"Bearer {token.text}"):
        assert isinstance(await credentials.caller(text), Anonymous), text
    assert tokens.asked == 1
    tokens.known[token.prefix] = (tenant_id, token.hash)
    assert isinstance(await credentials.caller(f"Bearer {token.text}"), Anonymous)  # remembered for a second
    now[0] = 2
    assert await credentials.caller(f"bearer {token.text}") == Tenant(tenant_id, f"token:{token.prefix}")
    forged = token.prefix + "_" + "a" * 32
    assert isinstance(await credentials.caller(f"Bearer {forged}"), Anonymous)
    asked = tokens.asked
    await credentials.caller(f"bearer {token.text}")
    assert tokens.asked == asked
    now[0] = 60
    await credentials.caller(f"bearer {token.text}")
    assert tokens.asked == asked + 1


WISH, OTHER_WISH = (hashlib.sha256(text).digest() for text in (b"", b"other"))


def outcome(command_id: UUID, status: CommandStatus, code: str | None = None, wish: bytes = WISH) -> CommandHandled:
    return CommandHandled(command_id, "CreateStream", wish, status, 1, code=code, message="no", field="slug")


async def test_the_first_outcome_is_everybodys_answer_and_nothing_is_kept() -> None:
    outcomes, command_id = Outcomes(), uuid4()
    waiting = [outcomes.expect(command_id, WISH) for _ in range(3)]
    outcomes.handled(outcome(uuid4(), CommandStatus.ACCEPTED), Position(0, 1))
    outcomes.handled(outcome(command_id, CommandStatus.ACCEPTED), Position(3, 7))
    outcomes.handled(outcome(command_id, CommandStatus.REJECTED, "LATE"), Position(3, 8))
    assert await asyncio.gather(*waiting) == [Accepted(Position(3, 7))] * 3
    assert len(outcomes) == 0
    refused = outcomes.expect(command_id, WISH)
    outcomes.handled(outcome(command_id, CommandStatus.REJECTED, "SLUG_TAKEN"), Position(3, 9))
    assert await refused == Declined("SLUG_TAKEN", "no", "slug")
    gone = outcomes.expect(command_id, WISH)
    outcomes.forget(command_id, WISH, gone)
    assert len(outcomes) == 0


async def test_of_two_wishes_with_one_key_each_gets_its_own_outcome() -> None:
    outcomes, command_id = Outcomes(), uuid4()
    winner, loser = outcomes.expect(command_id, WISH), outcomes.expect(command_id, OTHER_WISH)
    outcomes.handled(outcome(command_id, CommandStatus.ACCEPTED), Position(3, 7))
    assert await winner == Accepted(Position(3, 7))
    assert not loser.done()
    outcomes.handled(outcome(command_id, CommandStatus.REJECTED, "IDEMPOTENCY_KEY_REUSED", OTHER_WISH), Position(3, 8))
    assert await loser == Declined("IDEMPOTENCY_KEY_REUSED", "no", "slug")
    assert len(outcomes) == 0


def test_codes_say_their_family() -> None:
    assert refusal("STREAM_NOT_FOUND", "m", None) == NotFoundError("STREAM_NOT_FOUND", "m")
    assert refusal("TITLE_INVALID", "m", "title") == ValidationError("TITLE_INVALID", "m", "title")
    for code in ("SLUG_TAKEN", "TENANT_EXISTS", "IDEMPOTENCY_KEY_REUSED", "ANYTHING"):
        assert refusal(code, "m", "f") == ConflictError(code, "m")


def delivered(n: int) -> Delivered:
    event_id = ids.new_id()
    meta = Meta(event_id, event_id, event_id, 0, event_id, event_id, datetime.now(UTC), "t")
    return Delivered(ViewerJoined("n", f"s{n}", event_id, "HLS"), meta, True, n + 1)


async def test_a_full_queue_becomes_a_gap_behind_what_it_holds() -> None:
    at = [LogCursor(0, 0)]
    listener = Listener(uuid4(), uuid4(), lambda: at[0])
    for n in range(QUEUE_LENGTH + 5):
        at[0] = LogCursor(n + 1, 0)
        listener.offer(delivered(n))
    assert listener.drained() is None
    for n in range(QUEUE_LENGTH):
        item = await listener.next()
        assert isinstance(item, Delivered)
        assert item.next_offset == n + 1
    assert await listener.next() == Gap("SLOW_READER", LogCursor(QUEUE_LENGTH + 5, 0))
    assert listener.drained() == LogCursor(QUEUE_LENGTH + 5, 0)
    later = asyncio.create_task(listener.next())
    await asyncio.sleep(0)
    listener.offer(delivered(QUEUE_LENGTH + 5))
    assert isinstance(await later, Delivered)


@pytest.mark.parametrize("text", ["", "  ", "a\x1bb", "a\u2028b", "\ud800"])
def test_lines_of_text_are_visible_lines(text: str) -> None:
    with pytest.raises(inputs.BadInput):
        inputs.title(text)


def test_titles_are_trimmed_and_composed() -> None:
    assert inputs.title("  Cafe\u0301 👩‍🎤 ") == "Café 👩‍🎤"


def test_nothing_of_an_unexpected_error_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("test", "info")
    shown = format_error(GraphQLError("x", original_error=ValueError("postgresql://user:password@host")))
    assert "password" not in str(shown)
    extensions = shown["extensions"]
    assert isinstance(extensions, dict)
    assert extensions["code"] == "INTERNAL"
    assert extensions["correlationId"] in capsys.readouterr().err
    lost = format_error(GraphQLError("x", original_error=ConnectionRefusedError("10.0.0.1")))
    assert lost["extensions"] == {"code": "UNAVAILABLE"}
    assert "10.0.0.1" not in str(lost)


@pytest.mark.parametrize(
    "cause",
    [
        asyncpg.UndefinedTableError("relation streams does not exist"),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.InterfaceError("connection is closed"),
        DatabaseError("Code: 60. DB::Exception: Unknown table. (UNKNOWN_TABLE)"),
        OperationalError("refused"),
        KafkaConnectionError("gone"),
    ],
)
def test_a_part_that_is_not_there_yet_is_no_error_of_ours(cause: Exception) -> None:
    shown = format_error(GraphQLError("x", original_error=cause))
    assert shown["extensions"] == {"code": "UNAVAILABLE"}
