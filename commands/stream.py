"""Streams: what a tenant may decide about one live stream.

Invariant: a deleted stream accepts nothing any more; a key is known only by its hash; no two streams of a tenant that
exist at the same time have the same slug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import assert_never, get_args

from commands import push_target
from commands.decider import Decider
from commands.playback import require_block_seconds, require_playback, require_session_id
from commands.push_target import NO_TASKS, TaskCommand, TaskEvent, Tasks
from commands.tenant import OfTenant, Tenant
from commands.tenant import evolve as evolve_tenant
from commands.text import display_text, is_slug
from streams.errors import Rejected
from streams.generated import (
    CreateStream,
    Decision,
    DeleteStream,
    DisableStream,
    EnableStream,
    KickViewer,
    PlaybackPolicy,
    PlaybackPolicySet,
    RenameStream,
    RotateStreamKey,
    SetPlaybackPolicy,
    StreamCreated,
    StreamDeleted,
    StreamDisabled,
    StreamEnabled,
    StreamKeyRotated,
    StreamRenamed,
    ViewerKicked,
)

StreamChange = RenameStream | RotateStreamKey | DeleteStream | DisableStream | EnableStream | SetPlaybackPolicy | KickViewer
StreamCommand = CreateStream | StreamChange | TaskCommand
StreamEvent = (
    StreamCreated
    | StreamRenamed
    | StreamKeyRotated
    | StreamDeleted
    | StreamDisabled
    | StreamEnabled
    | PlaybackPolicySet
    | ViewerKicked
    | TaskEvent
)

TITLE_MAX_CHARACTERS = 200
GRACE_MAX_SECONDS = 7 * 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class Stream:
    title: str
    slug: str
    key_hash: bytes
    old_key_hash: bytes | None = None
    is_deleted: bool = False
    is_disabled: bool = False
    playback: PlaybackPolicy | None = None
    internal_name: str = ""
    tasks: Tasks = NO_TASKS


def decide(command: StreamCommand, state: OfTenant[Stream]) -> Sequence[Decision]:
    stream, tenant = state.own, state.tenant
    if tenant is None:
        raise Rejected("TENANT_NOT_FOUND", "There is no such tenant: register it first.")
    if isinstance(command, CreateStream):
        if stream is not None:
            raise Rejected("STREAM_EXISTS", "A stream with this id exists already: use it, or create one with another id.")
        return [_created(command, tenant)]
    if stream is None or stream.is_deleted:
        raise Rejected(
            "STREAM_NOT_FOUND", "There is no such stream: check the id; a deleted stream does not come back.", "streamId"
        )
    if isinstance(command, TaskCommand):
        return push_target.decide(command, stream.tasks, stream.internal_name)
    return _changed(command, stream)


def _changed(command: StreamChange, stream: Stream) -> Sequence[Decision]:
    match command:
        case RenameStream(title=title):
            _require_title(title)
            return [StreamRenamed(title)] if title != stream.title else []
        case RotateStreamKey():
            return [_rotated(command, stream)]
        case DeleteStream():
            return [StreamDeleted(stream.slug)]
        case DisableStream():
            return [] if stream.is_disabled else [StreamDisabled()]
        case EnableStream():
            return [StreamEnabled()] if stream.is_disabled else []
        case SetPlaybackPolicy(playback=playback):
            require_playback(playback)
            return [PlaybackPolicySet(playback)] if playback != stream.playback else []
        case KickViewer():
            return [_kicked(command)]
        case _:
            assert_never(command)


def _created(command: CreateStream, tenant: Tenant) -> StreamCreated:
    _require_title(command.title)
    if not is_slug(command.slug):
        message = "A slug has 1 to 64 lower-case letters, digits and hyphens, with no hyphen at its ends: choose another."
        raise Rejected("SLUG_INVALID", message, "slug")
    if command.slug in tenant.slugs:
        raise Rejected(
            "SLUG_TAKEN", "Another of your streams has this slug: choose another, or delete that stream first.", "slug"
        )
    return StreamCreated(
        title=command.title,
        slug=command.slug,
        playback_id=command.playback_id,
        internal_name=command.internal_name,
        key_prefix=command.key_prefix,
        key_hash=command.key_hash,
    )


def _rotated(command: RotateStreamKey, stream: Stream) -> StreamKeyRotated:
    grace_seconds = command.grace_seconds
    if not 0 <= grace_seconds <= GRACE_MAX_SECONDS:
        message = f"The old key may stay good for 0 to {GRACE_MAX_SECONDS} seconds (7 days): choose a time in between."
        raise Rejected("GRACE_INVALID", message, "graceSeconds")
    if command.key_hash in (stream.key_hash, stream.old_key_hash):
        raise Rejected("KEY_REUSED", "This is, or was just now, the key of the stream: rotate to a new one.")
    until = command.issued_at + timedelta(seconds=grace_seconds) if grace_seconds else None
    return StreamKeyRotated(command.key_prefix, command.key_hash, until)


def _kicked(command: KickViewer) -> ViewerKicked:
    require_session_id(command.session_id)
    require_block_seconds(command.block_seconds)
    return ViewerKicked(command.session_id, command.issued_at + timedelta(seconds=command.block_seconds))


def _require_title(title: str) -> None:
    if not display_text(title, TITLE_MAX_CHARACTERS):
        message = f"A title has 1 to {TITLE_MAX_CHARACTERS} characters, none of them control characters: choose another."
        raise Rejected("TITLE_INVALID", message, "title")


def evolve(state: OfTenant[Stream], event: Decision) -> OfTenant[Stream]:
    stream = _evolve_stream(state.own, event) if isinstance(event, StreamEvent) else state.own
    return OfTenant(stream, evolve_tenant(state.tenant, event))


def _evolve_stream(stream: Stream | None, event: StreamEvent) -> Stream | None:
    if isinstance(event, StreamCreated):
        return Stream(event.title, event.slug, event.key_hash, internal_name=event.internal_name)
    if stream is None:
        return None
    if isinstance(event, TaskEvent):
        return replace(stream, tasks=push_target.evolve(stream.tasks, event))
    match event:
        case StreamRenamed(title=title):
            return replace(stream, title=title)
        case StreamKeyRotated(key_hash=key_hash):
            return replace(stream, key_hash=key_hash, old_key_hash=stream.key_hash)
        case StreamDeleted():
            return replace(stream, is_deleted=True, tasks=NO_TASKS)
        case StreamDisabled():
            return replace(stream, is_disabled=True)
        case StreamEnabled():
            return replace(stream, is_disabled=False)
        case PlaybackPolicySet(playback=playback):
            return replace(stream, playback=playback)
        case ViewerKicked():
            return stream
        case _:
            assert_never(event)


STREAM: Decider[StreamCommand, OfTenant[Stream], Decision] = Decider(
    name="stream",
    initial=OfTenant(),
    decide=decide,
    evolve=evolve,
    commands=frozenset(get_args(StreamCommand)),
    events=frozenset(get_args(StreamEvent)),
)
