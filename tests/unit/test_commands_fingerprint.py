"""What makes two commands the same wish: what the client says, and nothing that the gateway adds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codec import decode, encode
from streams.fingerprint import WISHES, Wish, fingerprint
from streams.generated import Command, CreateStream, DeleteStream, Meta, RegisterTenant, RenameStream, RotateStreamKey
from streams.ids import derive
from tests.arbitrary import records

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT = UUID("018f3b6e-0000-7000-8000-000000000001")
LOBBY, STAGE = derive(TENANT, "lobby"), derive(TENANT, "stage")
CREATE = CreateStream("Lobby", "lobby", "play", "internal", "sk_abc", b"k" * 32)
REGISTER = RegisterTenant("Radio", "fwt_abc", b"t" * 32)
ROTATE = RotateStreamKey("sk_abc", b"k" * 32, 300, NOON)

SAME = [
    (CREATE, replace(CREATE, playback_id="p2", internal_name="i2", key_prefix="sk_xyz", key_hash=b"x" * 32)),
    (REGISTER, replace(REGISTER, token_prefix="fwt_xyz", token_hash=b"x" * 32)),
    (ROTATE, replace(ROTATE, key_prefix="sk_xyz", key_hash=b"x" * 32, issued_at=NOON + timedelta(seconds=2))),
]
OTHER = [
    (CREATE, replace(CREATE, title="Stage")),
    (CREATE, replace(CREATE, slug="stage")),
    (REGISTER, replace(REGISTER, name="Radio 2")),
    (ROTATE, replace(ROTATE, grace_seconds=0)),
    (RenameStream("Lobby"), RenameStream("Lobby ")),
    (CreateStream("a", "b", "", "", "", b""), CreateStream("ab", "", "", "", "", b"")),
    (CreateStream("a', 'b", "c", "", "", "", b""), CreateStream("a", "b', 'c", "", "", "", b"")),
    (DeleteStream(), RenameStream("")),
]


@pytest.mark.parametrize(("one", "another"), SAME, ids=lambda c: type(c).__name__)
def test_what_the_gateway_adds_does_not_count(one: Command, another: Command) -> None:
    assert fingerprint(one, LOBBY) == fingerprint(another, LOBBY)


@pytest.mark.parametrize(("one", "another"), OTHER, ids=lambda c: type(c).__name__)
def test_what_the_client_says_counts(one: Command, another: Command) -> None:
    assert fingerprint(one, LOBBY) != fingerprint(another, LOBBY)


@pytest.mark.parametrize("command", [CREATE, REGISTER])
def test_the_id_of_something_new_does_not_count(command: Command) -> None:
    assert fingerprint(command, LOBBY) == fingerprint(command, STAGE)


@pytest.mark.parametrize("command", [RenameStream("x"), ROTATE, DeleteStream()])
def test_what_a_command_is_about_counts(command: Command) -> None:
    assert fingerprint(command, LOBBY) != fingerprint(command, STAGE)


def test_it_stays_what_it_is() -> None:
    """Answers of the last day are compared with it after an upgrade, too."""
    assert fingerprint(RenameStream("Bühne"), LOBBY).hex() == "813e3515ae36eddf44a1be573705788d68bf43faaf646ac3e6af6a8c304188f6"


@given(st.sampled_from([c.__name__ for c in get_args(Command)]).flatmap(records), st.uuids())
def test_the_sender_and_the_decider_see_the_same_wish(command: Command, aggregate_id: UUID) -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    meta = Meta(TENANT, TENANT, aggregate_id, 0, TENANT, TENANT, at, "user")
    read, meta_read = decode(encode(command, meta))
    assert fingerprint(read, meta_read.aggregate_id) == fingerprint(command, aggregate_id)  # type: ignore[arg-type]  # a command


def test_a_field_that_came_with_a_default_counts_only_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a gateway which does not know it yet and a worker which does agree, and the answers of yesterday hold."""
    before = fingerprint(CREATE, LOBBY)
    wish = WISHES[CreateStream]
    assert wish.values is not None
    for default, same in (("play", True), ("", False)):
        monkeypatch.setitem(dict_of_wishes(), CreateStream, replace(wish, with_default=[("playback_id", default)]))
        assert (fingerprint(CREATE, LOBBY) == before) is same


def dict_of_wishes() -> dict[type, Wish]:
    assert isinstance(WISHES, dict)
    return WISHES


def test_every_command_has_one() -> None:
    assert set(WISHES) == set(get_args(Command))
