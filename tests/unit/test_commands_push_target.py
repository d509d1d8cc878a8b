"""Stories of push targets, recordings and stops of a stream."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from commands.push_target import CONTAINERS, RECORDINGS_MAX, STOP_SECONDS, TARGETS_MAX
from commands.stream import STREAM
from streams.generated import (
    CreatePushTarget,
    Decision,
    DeletePushTarget,
    DisablePushTarget,
    EnablePushTarget,
    PushTargetCreated,
    PushTargetDeleted,
    PushTargetDisabled,
    PushTargetEnabled,
    RecordingCalledOff,
    RecordingRequested,
    StartRecording,
    StopRecording,
    StopStream,
    StreamCreated,
    StreamDeleted,
    StreamStopRequested,
    TenantRegistered,
)
from tests.given import given

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TENANT = TenantRegistered("Radio Lobby")
STREAM_CREATED = StreamCreated("Lobby", "lobby", "play", "internal", key_prefix="sk_a", key_hash=b"k" * 32)
ONE, TWO = UUID(int=1), UUID(int=2)
SHOWN = "rtmp://live.example.org/app/…"


def create(
    target_id: UUID = ONE, *, digest: bytes = b"d" * 32, name: str = "Second site", enabled: bool = True
) -> CreatePushTarget:
    return CreatePushTarget(target_id, name, SHOWN, digest, b"sealed", enabled)


def created(target_id: UUID = ONE, *, digest: bytes = b"d" * 32, enabled: bool = True) -> PushTargetCreated:
    return PushTargetCreated(target_id, "Second site", SHOWN, digest, b"sealed", enabled, "internal")


def test_a_target_is_created_with_the_name_that_media_servers_know() -> None:
    given(STREAM, TENANT, STREAM_CREATED).when(create()).then(created())


def test_a_target_may_be_created_switched_off() -> None:
    given(STREAM, TENANT, STREAM_CREATED).when(create(enabled=False)).then(created(enabled=False))


@pytest.mark.parametrize("command", [create(), EnablePushTarget(ONE), StartRecording(ONE, "mkv"), StopStream(NOON)])
def test_nothing_is_done_with_a_stream_that_is_not_there(command: CreatePushTarget) -> None:
    given(STREAM, TENANT).when(command).then_rejected("STREAM_NOT_FOUND", "streamId")
    deleted = given(STREAM, TENANT, STREAM_CREATED, StreamDeleted("lobby"))
    deleted.when(command).then_rejected("STREAM_NOT_FOUND", "streamId")


def test_a_url_is_a_target_once() -> None:
    given(STREAM, TENANT, STREAM_CREATED, created()).when(create(TWO)).then_rejected("PUSH_TARGET_EXISTS", "url")


def test_the_url_of_a_deleted_target_is_free() -> None:
    story = given(STREAM, TENANT, STREAM_CREATED, created(), PushTargetDeleted(ONE))
    story.when(create(TWO)).then(created(TWO))


def test_a_target_needs_a_name() -> None:
    given(STREAM, TENANT, STREAM_CREATED).when(create(name="  ")).then_rejected("NAME_INVALID", "name")


def test_a_stream_has_so_many_targets_and_no_more() -> None:
    targets = [created(UUID(int=n), digest=bytes([n]) * 32) for n in range(TARGETS_MAX)]
    full = given(STREAM, TENANT, STREAM_CREATED, *targets)
    full.when(create(UUID(int=99))).then_rejected("TOO_MANY_PUSH_TARGETS")
    given(STREAM, TENANT, STREAM_CREATED, *targets[1:]).when(create(UUID(int=99))).then(created(UUID(int=99)))


def test_a_target_is_switched_off_and_on_and_keeps_its_url() -> None:
    story = (TENANT, STREAM_CREATED, created())
    given(STREAM, *story).when(EnablePushTarget(ONE)).then()
    given(STREAM, *story).when(DisablePushTarget(ONE)).then(PushTargetDisabled(ONE))
    given(STREAM, *story, PushTargetDisabled(ONE)).when(DisablePushTarget(ONE)).then()
    again = PushTargetEnabled(ONE, b"sealed", "internal")
    given(STREAM, *story, PushTargetDisabled(ONE)).when(EnablePushTarget(ONE)).then(again)
    given(STREAM, *story, PushTargetDisabled(ONE), again).when(DisablePushTarget(ONE)).then(PushTargetDisabled(ONE))


@pytest.mark.parametrize("command", [EnablePushTarget(TWO), DisablePushTarget(TWO), DeletePushTarget(TWO)])
def test_a_target_that_is_not_there_is_not_found(command: EnablePushTarget) -> None:
    given(STREAM, TENANT, STREAM_CREATED, created()).when(command).then_rejected("PUSH_TARGET_NOT_FOUND", "targetId")


def test_a_target_is_deleted_once() -> None:
    given(STREAM, TENANT, STREAM_CREATED, created()).when(DeletePushTarget(ONE)).then(PushTargetDeleted(ONE))
    story = given(STREAM, TENANT, STREAM_CREATED, created(), PushTargetDeleted(ONE))
    story.when(DeletePushTarget(ONE)).then_rejected("PUSH_TARGET_NOT_FOUND", "targetId")


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_recording_is_asked_for_and_called_off(container: str) -> None:
    requested = RecordingRequested(ONE, container, "internal")
    given(STREAM, TENANT, STREAM_CREATED).when(StartRecording(ONE, container)).then(requested)
    given(STREAM, TENANT, STREAM_CREATED, requested).when(StopRecording(ONE)).then(RecordingCalledOff(ONE))
    story = given(STREAM, TENANT, STREAM_CREATED, requested, RecordingCalledOff(ONE))
    story.when(StopRecording(ONE)).then_rejected("RECORDING_NOT_FOUND", "recordingId")


def test_a_recording_has_a_container_that_there_is() -> None:
    given(STREAM, TENANT, STREAM_CREATED).when(StartRecording(ONE, "exe")).then_rejected("CONTAINER_INVALID", "container")


def test_a_stream_has_so_many_recordings_and_no_more() -> None:
    running: list[Decision] = [RecordingRequested(UUID(int=n), "ts", "internal") for n in range(RECORDINGS_MAX)]
    full = given(STREAM, TENANT, STREAM_CREATED, *running)
    full.when(StartRecording(UUID(int=99), "ts")).then_rejected("TOO_MANY_RECORDINGS")
    freed = given(STREAM, TENANT, STREAM_CREATED, *running, RecordingCalledOff(UUID(int=0)))
    freed.when(StartRecording(UUID(int=99), "ts")).then(RecordingRequested(UUID(int=99), "ts", "internal"))


def test_a_stop_counts_for_a_minute() -> None:
    until = NOON + timedelta(seconds=STOP_SECONDS)
    given(STREAM, TENANT, STREAM_CREATED).when(StopStream(NOON)).then(StreamStopRequested(until, "internal"))
