"""Streams: input to command, outcome to payload."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypedDict
from uuid import UUID

from ariadne import MutationType, ObjectType

from gateway import derived, inputs, reads
from gateway.inputs import BadInput
from gateway.mutations.answers import AuthError, Info, NotFoundError, Refusal, command_id_of, invalid, payload_of, tenant_of
from gateway.runtime import Context
from gateway.send import issued_at
from projections.streams import StreamRow
from streams.generated import CreateStream, DeleteStream, RenameStream, RotateStreamKey
from streams.recorded import Position

mutation = MutationType()


@dataclass(frozen=True, slots=True)
class CreateStreamSuccess:
    stream: StreamRow
    stream_key: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class RenameStreamSuccess:
    stream_id: UUID
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class RotateStreamKeySuccess:
    stream_id: UUID
    stream_key: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class DeleteStreamSuccess:
    stream_id: UUID
    position: Position
    client_mutation_id: str | None


class CreateStreamInput(TypedDict):
    title: str
    slug: str | None
    client_mutation_id: str | None


class RenameStreamInput(TypedDict):
    stream_id: str
    title: str
    client_mutation_id: str | None


class RotateStreamKeyInput(TypedDict):
    stream_id: str
    grace_seconds: int | None
    client_mutation_id: str | None


class DeleteStreamInput(TypedDict):
    stream_id: str
    client_mutation_id: str | None


@mutation.field("createStream")
async def create_stream(_: None, info: Info, input: CreateStreamInput) -> CreateStreamSuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key, given_slug = input.get("client_mutation_id"), input.get("slug")
    try:
        command_id = command_id_of(caller.tenant_id, key)
        title = inputs.title(input["title"])
        slug = derived.slug(title, command_id) if given_slug is None else inputs.slug(given_slug)
    except BadInput as bad:
        return invalid(bad)
    stream_key = derived.secret(context.runtime.secret_key, derived.STREAM_KEY, command_id)
    command = CreateStream(
        title=title,
        slug=slug,
        playback_id=derived.playback_id(command_id),
        internal_name=derived.internal_name(command_id),
        key_prefix=stream_key.prefix,
        key_hash=stream_key.hash,
    )
    stream_id = derived.stream_id(command_id)
    created_at = issued_at()
    answer = await context.send(command, command_id, caller.tenant_id, stream_id, caller.actor)
    stream = StreamRow(
        tenant_id=caller.tenant_id,
        stream_id=stream_id,
        title=title,
        slug=slug,
        playback_id=command.playback_id,
        internal_name=command.internal_name,
        key_prefix=command.key_prefix,
        key_rotated_at=None,
        created_at=created_at,
        live_at=None,
        offline_at=None,
        live_node_id=None,
        state="IDLE",
    )
    return payload_of(answer, lambda at: CreateStreamSuccess(stream, stream_key.text, at, key))


@mutation.field("renameStream")
async def rename_stream(_: None, info: Info, input: RenameStreamInput) -> RenameStreamSuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key = input.get("client_mutation_id")
    try:
        command_id = command_id_of(caller.tenant_id, key)
        title = inputs.title(input["title"])
    except BadInput as bad:
        return invalid(bad)
    stream_id = inputs.uuid_or_none(input["stream_id"])
    if stream_id is None:
        return _no_stream()
    answer = await context.send(RenameStream(title=title), command_id, caller.tenant_id, stream_id, caller.actor)
    return payload_of(answer, lambda at: RenameStreamSuccess(stream_id, at, key))


@mutation.field("rotateStreamKey")
async def rotate_stream_key(_: None, info: Info, input: RotateStreamKeyInput) -> RotateStreamKeySuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key = input.get("client_mutation_id")
    try:
        command_id = command_id_of(caller.tenant_id, key)
        grace_seconds = inputs.grace_seconds(input.get("grace_seconds"))
    except BadInput as bad:
        return invalid(bad)
    stream_id = inputs.uuid_or_none(input["stream_id"])
    if stream_id is None:
        return _no_stream()
    stream_key = derived.secret(context.runtime.secret_key, derived.STREAM_KEY, command_id)
    command = RotateStreamKey(
        key_prefix=stream_key.prefix, key_hash=stream_key.hash, grace_seconds=grace_seconds, issued_at=issued_at()
    )
    answer = await context.send(command, command_id, caller.tenant_id, stream_id, caller.actor)
    return payload_of(answer, lambda at: RotateStreamKeySuccess(stream_id, stream_key.text, at, key))


@mutation.field("deleteStream")
async def delete_stream(_: None, info: Info, input: DeleteStreamInput) -> DeleteStreamSuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key = input.get("client_mutation_id")
    try:
        command_id = command_id_of(caller.tenant_id, key)
    except BadInput as bad:
        return invalid(bad)
    stream_id = inputs.uuid_or_none(input["stream_id"])
    if stream_id is None:
        return _no_stream()
    answer = await context.send(DeleteStream(), command_id, caller.tenant_id, stream_id, caller.actor)
    return payload_of(answer, lambda at: DeleteStreamSuccess(stream_id, at, key))


async def changed_stream(success: RenameStreamSuccess | RotateStreamKeySuccess, info: Info) -> StreamRow | None:
    """The stream as it is behind the change; read only where it is selected."""
    return await reads.stream(info.context, str(success.stream_id), success.position)


def _no_stream() -> NotFoundError:
    return NotFoundError("STREAM_NOT_FOUND", "There is no such stream: check its id.")


rename_success = ObjectType("RenameStreamSuccess")
rename_success.set_field("stream", changed_stream)
rotate_success = ObjectType("RotateStreamKeySuccess")
rotate_success.set_field("stream", changed_stream)
TYPES: Final = (mutation, rename_success, rotate_success)
