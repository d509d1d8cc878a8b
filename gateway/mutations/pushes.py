"""Push targets, recordings and stops of a stream: input to command, outcome to payload.

Invariant: a push target's URL leaves this process sealed, or without what is secret in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypedDict, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from ariadne import MutationType

from gateway import derived, inputs
from gateway.inputs import BadInput
from gateway.mutations.answers import AuthError, Info, NotFoundError, Refusal, command_id_of, payload_of, refusal, tenant_of
from gateway.runtime import Context
from gateway.send import issued_at
from projections.push_targets import PushTargetRow, Standing
from streams import ids, push_urls
from streams.generated import (
    Command,
    CreatePushTarget,
    DeletePushTarget,
    DisablePushTarget,
    EnablePushTarget,
    StartRecording,
    StopRecording,
    StopStream,
)
from streams.public_addresses import is_public, resolve
from streams.recorded import Position
from streams.sealed_secret import seal

RESOLVE_SECONDS: Final = 2.0
C = TypeVar("C", bound=Command)
Success = TypeVar("Success")
Make: TypeAlias = Callable[[UUID, UUID], Awaitable[C]]  # (command id, tenant id); raises BadInput

mutation = MutationType()


@dataclass(frozen=True, slots=True)
class CreatePushTargetSuccess:
    push_target: PushTargetRow
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class EnablePushTargetSuccess:
    target_id: UUID
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class DisablePushTargetSuccess:
    target_id: UUID
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class DeletePushTargetSuccess:
    target_id: UUID
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class StartRecordingSuccess:
    recording_id: UUID
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class StopRecordingSuccess:
    recording_id: UUID
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class StopStreamSuccess:
    stream_id: UUID
    position: Position
    client_mutation_id: str | None


class OfStreamInput(TypedDict):
    stream_id: str
    client_mutation_id: str | None


class CreatePushTargetInput(OfStreamInput):
    name: str
    url: str
    enabled: bool | None


class TargetInput(OfStreamInput):
    target_id: str


class StartRecordingInput(OfStreamInput):
    container: str | None


class StopRecordingInput(OfStreamInput):
    recording_id: str


@mutation.field("createPushTarget")
async def create_push_target(_: None, info: Info, input: CreatePushTargetInput) -> CreatePushTargetSuccess | Refusal:
    context: Context = info.context
    made_at = issued_at()

    async def command(command_id: UUID, tenant_id: UUID) -> CreatePushTarget:
        target_id = ids.derive(command_id, "push target")
        name = inputs.line_of_text(input["name"], "name", "NAME_INVALID", inputs.NAME_MAX_LENGTH)
        url = await checked_url(input["url"], allows_private=context.runtime.allows_private_pushes)
        enabled = input.get("enabled")
        return CreatePushTarget(
            target_id=target_id,
            name=name,
            shown_url=push_urls.shown(url),
            url_digest=derived.url_digest(context.runtime.secret_key, tenant_id, url),
            sealed_url=seal(context.runtime.secret_key, tenant_id, target_id, url),
            enabled=enabled is not False,
        )

    def success(made: CreatePushTarget, _: UUID, at: Position, key: str | None) -> CreatePushTargetSuccess:
        standing = Standing("WAITING" if made.enabled else "STOPPED")
        row = PushTargetRow(made.target_id, made.name, made.shown_url, made.enabled, made_at, standing)
        return CreatePushTargetSuccess(row, at, key)

    return await _sent(info, input, command, success)


async def checked_url(url: str, *, allows_private: bool) -> str:
    """A URL that a stream may be pushed to. Raises BadInput.

    Its host's addresses are looked at here so that a mistake is told at once; the node looks again before it pushes.
    """
    problem = push_urls.problem(url, allows_private=allows_private)
    if problem is None and not allows_private:
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                addresses = await resolve(urlsplit(url).hostname or "")
        except TimeoutError:
            addresses = ()
        if not all(map(is_public, addresses)):
            problem = "url points into a private network: name a host of the public internet"
    if problem:
        raise BadInput("URL_INVALID", "url", problem)
    return url


@mutation.field("enablePushTarget")
async def enable_push_target(_: None, info: Info, input: TargetInput) -> EnablePushTargetSuccess | Refusal:
    def success(made: EnablePushTarget, _: UUID, at: Position, key: str | None) -> EnablePushTargetSuccess:
        return EnablePushTargetSuccess(made.target_id, at, key)

    return await _sent(info, input, _of_target(input, EnablePushTarget), success)


@mutation.field("disablePushTarget")
async def disable_push_target(_: None, info: Info, input: TargetInput) -> DisablePushTargetSuccess | Refusal:
    def success(made: DisablePushTarget, _: UUID, at: Position, key: str | None) -> DisablePushTargetSuccess:
        return DisablePushTargetSuccess(made.target_id, at, key)

    return await _sent(info, input, _of_target(input, DisablePushTarget), success)


@mutation.field("deletePushTarget")
async def delete_push_target(_: None, info: Info, input: TargetInput) -> DeletePushTargetSuccess | Refusal:
    def success(made: DeletePushTarget, _: UUID, at: Position, key: str | None) -> DeletePushTargetSuccess:
        return DeletePushTargetSuccess(made.target_id, at, key)

    return await _sent(info, input, _of_target(input, DeletePushTarget), success)


@mutation.field("startRecording")
async def start_recording(_: None, info: Info, input: StartRecordingInput) -> StartRecordingSuccess | Refusal:
    async def command(command_id: UUID, _: UUID) -> StartRecording:
        return StartRecording(ids.derive(command_id, "recording"), (input.get("container") or "MKV").lower())

    def success(made: StartRecording, _: UUID, at: Position, key: str | None) -> StartRecordingSuccess:
        return StartRecordingSuccess(made.recording_id, at, key)

    return await _sent(info, input, command, success)


@mutation.field("stopRecording")
async def stop_recording(_: None, info: Info, input: StopRecordingInput) -> StopRecordingSuccess | Refusal:
    async def command(_: UUID, __: UUID) -> StopRecording:
        recording_id = inputs.uuid_or_none(input["recording_id"])
        if recording_id is None:
            raise BadInput("RECORDING_NOT_FOUND", "recordingId", "The stream has no such recording: check its id.")
        return StopRecording(recording_id)

    def success(made: StopRecording, _: UUID, at: Position, key: str | None) -> StopRecordingSuccess:
        return StopRecordingSuccess(made.recording_id, at, key)

    return await _sent(info, input, command, success)


@mutation.field("stopStream")
async def stop_stream(_: None, info: Info, input: OfStreamInput) -> StopStreamSuccess | Refusal:
    async def command(_: UUID, __: UUID) -> StopStream:
        return StopStream(issued_at())

    def success(_: StopStream, stream_id: UUID, at: Position, key: str | None) -> StopStreamSuccess:
        return StopStreamSuccess(stream_id, at, key)

    return await _sent(info, input, command, success)


def _of_target(input: TargetInput, kind: Callable[[UUID], C]) -> Make[C]:
    async def make(_: UUID, __: UUID) -> C:
        target_id = inputs.uuid_or_none(input["target_id"])
        if target_id is None:
            raise BadInput("PUSH_TARGET_NOT_FOUND", "targetId", "The stream has no such push target: check its id.")
        return kind(target_id)

    return make


async def _sent(
    info: Info, input: OfStreamInput, make: Make[C], success: Callable[[C, UUID, Position, str | None], Success]
) -> Success | Refusal:
    """The steps that all of these share: who asks, about which stream, what, and what became of it."""
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key = input.get("client_mutation_id")
    stream_id = inputs.uuid_or_none(input["stream_id"])
    if stream_id is None:
        return NotFoundError("STREAM_NOT_FOUND", "There is no such stream: check its id.")
    try:
        command_id = command_id_of(caller.tenant_id, key)
        command = await make(command_id, caller.tenant_id)
    except BadInput as bad:
        return refusal(bad.code, bad.message, bad.field)
    answer = await context.send(command, command_id, caller.tenant_id, stream_id, caller.actor)
    return payload_of(answer, lambda at: success(command, stream_id, at, key))


TYPES: Final = (mutation,)
