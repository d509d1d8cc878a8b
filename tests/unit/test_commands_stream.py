"""Stories of streams."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from commands.stream import GRACE_MAX_SECONDS, STREAM, Stream, StreamCommand
from commands.tenant import OfTenant
from streams.generated import (
    CreateStream,
    Decision,
    DeleteStream,
    RenameStream,
    RotateStreamKey,
    StreamCreated,
    StreamDeleted,
    StreamKeyRotated,
    StreamRenamed,
    TenantRegistered,
)
from tests.given import Given, given

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
OLD, NEW, NEWEST = b"o" * 32, b"n" * 32, b"w" * 32
TENANT = TenantRegistered("Radio Lobby")


def create(title: str = "Lobby", slug: str = "lobby") -> CreateStream:
    return CreateStream(title, slug, playback_id="play", internal_name="internal", key_prefix="sk_old", key_hash=OLD)


def created(title: str = "Lobby", slug: str = "lobby") -> StreamCreated:
    return StreamCreated(title, slug, playback_id="play", internal_name="internal", key_prefix="sk_old", key_hash=OLD)


def rotate(key_hash: bytes = NEW, grace_seconds: int = 300) -> RotateStreamKey:
    return RotateStreamKey("sk_new", key_hash, grace_seconds=grace_seconds, issued_at=NOON)


def test_a_stream_is_created() -> None:
    given(STREAM, TENANT).when(create()).then(created())


def test_nobody_creates_a_stream_for_a_tenant_who_does_not_exist() -> None:
    given(STREAM).when(create()).then_rejected("TENANT_NOT_FOUND")


def test_a_stream_is_created_once() -> None:
    given(STREAM, TENANT, created()).when(create(slug="other")).then_rejected("STREAM_EXISTS")


def test_a_deleted_stream_is_not_created_again() -> None:
    given(STREAM, TENANT, created(), StreamDeleted("lobby")).when(create()).then_rejected("STREAM_EXISTS")


def another_stream_has(slug: str) -> Given[StreamCommand, OfTenant[Stream], Decision]:
    """A stream that does not exist yet, of a tenant with another that has this slug."""
    state = given(STREAM, TENANT, created(slug=slug)).state
    return Given(STREAM, OfTenant(None, state.tenant))


def test_a_slug_is_unique_among_the_tenants_streams() -> None:
    another_stream_has("lobby").when(create(slug="lobby")).then_rejected("SLUG_TAKEN", "slug")
    another_stream_has("lobby").when(create(slug="lobby-2")).then(created(slug="lobby-2"))


def test_deleting_a_stream_frees_its_slug() -> None:
    state = given(STREAM, TENANT, created(), StreamDeleted("lobby")).state
    Given(STREAM, OfTenant(None, state.tenant)).when(create()).then(created())


@pytest.mark.parametrize("slug", ["", "-", "a-", "-a", "Lobby", "a b", "a_b", "ä", "a" * 65, "a\n"])
def test_a_slug_fits_into_an_address(slug: str) -> None:
    given(STREAM, TENANT).when(create(slug=slug)).then_rejected("SLUG_INVALID", "slug")


@pytest.mark.parametrize("slug", ["a", "7", "a-b", "a--b", "a" * 64])
def test_what_a_slug_may_be(slug: str) -> None:
    given(STREAM, TENANT).when(create(slug=slug)).then(created(slug=slug))


@pytest.mark.parametrize("title", ["", "\t", "a" * 201, "bell\a"])
def test_a_title_is_one_line_that_can_be_read(title: str) -> None:
    given(STREAM, TENANT).when(create(title=title)).then_rejected("TITLE_INVALID", "title")
    given(STREAM, TENANT, created()).when(RenameStream(title)).then_rejected("TITLE_INVALID", "title")


def test_a_stream_is_renamed() -> None:
    given(STREAM, TENANT, created()).when(RenameStream("Stage")).then(StreamRenamed("Stage"))


def test_renaming_to_the_same_title_is_accepted_and_says_nothing() -> None:
    given(STREAM, TENANT, created(), StreamRenamed("Stage")).when(RenameStream("Stage")).then()


def test_the_old_key_works_until_the_grace_ends() -> None:
    given(STREAM, TENANT, created()).when(rotate(grace_seconds=300)).then(
        StreamKeyRotated("sk_new", NEW, old_key_until=NOON + timedelta(minutes=5))
    )


def test_without_grace_the_old_key_ends_at_once() -> None:
    given(STREAM, TENANT, created()).when(rotate(grace_seconds=0)).then(StreamKeyRotated("sk_new", NEW, old_key_until=None))


@pytest.mark.parametrize("grace_seconds", [-1, GRACE_MAX_SECONDS + 1, 2**62])
def test_a_grace_is_at_most_a_week(grace_seconds: int) -> None:
    given(STREAM, TENANT, created()).when(rotate(grace_seconds=grace_seconds)).then_rejected("GRACE_INVALID", "graceSeconds")


def test_a_grace_may_be_a_week() -> None:
    given(STREAM, TENANT, created()).when(rotate(grace_seconds=GRACE_MAX_SECONDS)).then(
        StreamKeyRotated("sk_new", NEW, NOON + timedelta(days=7))
    )


def test_a_key_is_not_rotated_to_itself_nor_to_the_one_before() -> None:
    given(STREAM, TENANT, created()).when(rotate(OLD)).then_rejected("KEY_REUSED")
    rotated = StreamKeyRotated("sk_new", NEW, NOON)
    given(STREAM, TENANT, created(), rotated).when(rotate(OLD)).then_rejected("KEY_REUSED")
    given(STREAM, TENANT, created(), rotated).when(rotate(NEW)).then_rejected("KEY_REUSED")
    assert given(STREAM, TENANT, created(), rotated).when(rotate(NEWEST)).rejected is None


def test_a_stream_is_deleted() -> None:
    given(STREAM, TENANT, created()).when(DeleteStream()).then(StreamDeleted("lobby"))


@pytest.mark.parametrize("command", [RenameStream("Stage"), rotate(), DeleteStream()])
def test_a_deleted_stream_accepts_nothing(command: RenameStream | RotateStreamKey | DeleteStream) -> None:
    given(STREAM, TENANT, created(), StreamDeleted("lobby")).when(command).then_rejected("STREAM_NOT_FOUND", "streamId")
    given(STREAM, TENANT).when(command).then_rejected("STREAM_NOT_FOUND", "streamId")
