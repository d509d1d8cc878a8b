"""Push targets and recordings of a stream: where it goes while it is live.

Invariant: no two targets of a stream have the same URL, for the media server keeps one push for each; a target that is disabled
keeps its URL; how many there are of each is bounded. All of it is part of the stream, and ends with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, assert_never
from uuid import UUID

from immutables import Map

from commands.text import display_text
from streams.errors import Rejected
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
    StreamStopRequested,
)

TaskCommand = (
    CreatePushTarget | EnablePushTarget | DisablePushTarget | DeletePushTarget | StartRecording | StopRecording | StopStream
)
TaskEvent = (
    PushTargetCreated
    | PushTargetEnabled
    | PushTargetDisabled
    | PushTargetDeleted
    | RecordingRequested
    | RecordingCalledOff
    | StreamStopRequested
)

NAME_MAX_CHARACTERS: Final = 100
TARGETS_MAX: Final = 20
RECORDINGS_MAX: Final = 4
CONTAINERS: Final = ("mkv", "ts", "mp4")
STOP_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class PushTarget:
    url_digest: bytes
    sealed_url: bytes
    is_enabled: bool


NO_TARGETS: Map[UUID, PushTarget] = Map()
NO_RECORDINGS: Map[UUID, str] = Map()


@dataclass(frozen=True, slots=True)
class Tasks:
    """What is to be done with a stream."""

    targets: Map[UUID, PushTarget] = NO_TARGETS
    recordings: Map[UUID, str] = NO_RECORDINGS  # containers of those that were asked for and not called off


NO_TASKS: Final = Tasks()


def decide(command: TaskCommand, tasks: Tasks, internal_name: str) -> Sequence[Decision]:
    """Of a stream that exists."""
    match command:
        case CreatePushTarget():
            return [_created(command, tasks, internal_name)]
        case EnablePushTarget(target_id=target_id):
            target = _existing(tasks, target_id)
            return [] if target.is_enabled else [PushTargetEnabled(target_id, target.sealed_url, internal_name)]
        case DisablePushTarget(target_id=target_id):
            return [PushTargetDisabled(target_id)] if _existing(tasks, target_id).is_enabled else []
        case DeletePushTarget(target_id=target_id):
            _existing(tasks, target_id)
            return [PushTargetDeleted(target_id)]
        case StartRecording():
            return [_requested(command, tasks, internal_name)]
        case StopRecording(recording_id=recording_id):
            if recording_id not in tasks.recordings:
                raise Rejected(
                    "RECORDING_NOT_FOUND", "The stream has no such recording, or it was stopped: check the id.", "recordingId"
                )
            return [RecordingCalledOff(recording_id)]
        case StopStream(issued_at=issued_at):
            return [StreamStopRequested(issued_at + timedelta(seconds=STOP_SECONDS), internal_name)]
        case _:
            assert_never(command)


def _created(command: CreatePushTarget, tasks: Tasks, internal_name: str) -> PushTargetCreated:
    if not display_text(command.name, NAME_MAX_CHARACTERS):
        message = f"A name has 1 to {NAME_MAX_CHARACTERS} characters, none of them control characters: choose another."
        raise Rejected("NAME_INVALID", message, "name")
    if len(tasks.targets) >= TARGETS_MAX:
        raise Rejected("TOO_MANY_PUSH_TARGETS", f"A stream has at most {TARGETS_MAX} push targets: delete one first.")
    if command.target_id in tasks.targets:
        raise Rejected("PUSH_TARGET_EXISTS", "The stream has this push target already: use it, or take another id.")
    if any(target.url_digest == command.url_digest for target in tasks.targets.values()):
        raise Rejected("PUSH_TARGET_EXISTS", "The stream has a push target with this URL already: use that one.", "url")
    return PushTargetCreated(
        target_id=command.target_id,
        name=command.name,
        shown_url=command.shown_url,
        url_digest=command.url_digest,
        sealed_url=command.sealed_url,
        enabled=command.enabled,
        internal_name=internal_name,
    )


def _requested(command: StartRecording, tasks: Tasks, internal_name: str) -> RecordingRequested:
    if command.container not in CONTAINERS:
        message = f"A recording's container is one of {', '.join(CONTAINERS)}: choose one of them."
        raise Rejected("CONTAINER_INVALID", message, "container")
    if command.recording_id in tasks.recordings:
        raise Rejected("RECORDING_EXISTS", "The stream has this recording already: stop it, or take another id.")
    if len(tasks.recordings) >= RECORDINGS_MAX:
        raise Rejected("TOO_MANY_RECORDINGS", f"A stream has at most {RECORDINGS_MAX} recordings at a time: stop one first.")
    return RecordingRequested(command.recording_id, command.container, internal_name)


def _existing(tasks: Tasks, target_id: UUID) -> PushTarget:
    target = tasks.targets.get(target_id)
    if target is None:
        raise Rejected("PUSH_TARGET_NOT_FOUND", "The stream has no such push target: check the id.", "targetId")
    return target


def evolve(tasks: Tasks, event: TaskEvent) -> Tasks:
    match event:
        case PushTargetCreated():
            target = PushTarget(event.url_digest, event.sealed_url, event.enabled)
            return replace(tasks, targets=tasks.targets.set(event.target_id, target))
        case PushTargetEnabled(target_id=target_id):
            return _switched(tasks, target_id, is_enabled=True)
        case PushTargetDisabled(target_id=target_id):
            return _switched(tasks, target_id, is_enabled=False)
        case PushTargetDeleted(target_id=target_id):
            return replace(tasks, targets=tasks.targets.delete(target_id)) if target_id in tasks.targets else tasks
        case RecordingRequested(recording_id=recording_id, container=container):
            return replace(tasks, recordings=tasks.recordings.set(recording_id, container))
        case RecordingCalledOff(recording_id=recording_id):
            known = recording_id in tasks.recordings
            return replace(tasks, recordings=tasks.recordings.delete(recording_id)) if known else tasks
        case StreamStopRequested():
            return tasks
        case _:
            assert_never(event)


def _switched(tasks: Tasks, target_id: UUID, *, is_enabled: bool) -> Tasks:
    target = tasks.targets.get(target_id)
    if target is None:
        return tasks
    return replace(tasks, targets=tasks.targets.set(target_id, replace(target, is_enabled=is_enabled)))
