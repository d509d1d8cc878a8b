"""What edges decide by, tenants' standing and limits, signing keys, who may watch: input to command, outcome to payload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypedDict, TypeVar
from uuid import UUID

from ariadne import MutationType, ObjectType

from gateway import derived, inputs, reads
from gateway.auth import Anonymous, Operator, Tenant
from gateway.inputs import BadInput
from gateway.mutations.answers import AuthError, Info, NotFoundError, Refusal, command_id_of, invalid, payload_of, tenant_of
from gateway.runtime import Context
from gateway.send import issued_at
from projections.streams import StreamRow
from projections.tenants import SigningKeyRow
from streams.generated import (
    Command,
    CreateSigningKey,
    DisableStream,
    EnableStream,
    KickViewer,
    PlaybackKind,
    PlaybackPolicy,
    ReinstateTenant,
    RevokeSigningKey,
    SetPlaybackPolicy,
    SetTenantLimits,
    SigningAlgorithm,
    SuspendTenant,
    SuspensionReason,
)
from streams.recorded import Position

BLOCK_SECONDS: Final = 60
mutation = MutationType()
Success = TypeVar("Success")


@dataclass(frozen=True, slots=True)
class _OfTenant:
    tenant_id: UUID
    position: Position
    client_mutation_id: str | None


class SuspendTenantSuccess(_OfTenant):
    __slots__ = ()


class ReinstateTenantSuccess(_OfTenant):
    __slots__ = ()


class SetTenantLimitsSuccess(_OfTenant):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class _OfStream:
    stream_id: UUID
    position: Position
    client_mutation_id: str | None


class DisableStreamSuccess(_OfStream):
    __slots__ = ()


class EnableStreamSuccess(_OfStream):
    __slots__ = ()


class SetPlaybackPolicySuccess(_OfStream):
    __slots__ = ()


@dataclass(frozen=True, slots=True)
class KickViewerSuccess:
    stream_id: UUID
    session_id: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class CreateSigningKeySuccess:
    signing_key: SigningKeyRow
    private_key_pem: str | None
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class RevokeSigningKeySuccess:
    key_id: str
    position: Position
    client_mutation_id: str | None


class _TenantInput(TypedDict):
    tenant_id: str
    client_mutation_id: str | None


class SuspendTenantInput(_TenantInput):
    reason: str


class SetTenantLimitsInput(_TenantInput):
    max_live_streams: int | None


class _StreamInput(TypedDict):
    stream_id: str
    client_mutation_id: str | None


class SetPlaybackPolicyInput(_StreamInput):
    kind: str
    allowed_origins: list[str] | None
    allowed_countries: list[str] | None
    blocked_countries: list[str] | None
    max_viewers: int | None
    audience: str | None
    webhook_url: str | None
    open_when_unavailable: bool | None


class KickViewerInput(_StreamInput):
    session_id: str
    block_seconds: int | None


class CreateSigningKeyInput(TypedDict):
    name: str
    algorithm: str
    public_key_pem: str | None
    client_mutation_id: str | None


class RevokeSigningKeyInput(TypedDict):
    key_id: str
    client_mutation_id: str | None


@mutation.field("suspendTenant")
async def suspend_tenant(_: None, info: Info, input: SuspendTenantInput) -> SuspendTenantSuccess | Refusal:
    return await _about_tenant(info.context, input, SuspendTenant(SuspensionReason(input["reason"])), SuspendTenantSuccess)


@mutation.field("reinstateTenant")
async def reinstate_tenant(_: None, info: Info, input: _TenantInput) -> ReinstateTenantSuccess | Refusal:
    return await _about_tenant(info.context, input, ReinstateTenant(), ReinstateTenantSuccess)


@mutation.field("setTenantLimits")
async def set_tenant_limits(_: None, info: Info, input: SetTenantLimitsInput) -> SetTenantLimitsSuccess | Refusal:
    return await _about_tenant(info.context, input, SetTenantLimits(input.get("max_live_streams")), SetTenantLimitsSuccess)


@mutation.field("disableStream")
async def disable_stream(_: None, info: Info, input: _StreamInput) -> DisableStreamSuccess | Refusal:
    return await _about_stream(info.context, input, DisableStream(), DisableStreamSuccess)


@mutation.field("enableStream")
async def enable_stream(_: None, info: Info, input: _StreamInput) -> EnableStreamSuccess | Refusal:
    return await _about_stream(info.context, input, EnableStream(), EnableStreamSuccess)


@mutation.field("setPlaybackPolicy")
async def set_playback_policy(_: None, info: Info, input: SetPlaybackPolicyInput) -> SetPlaybackPolicySuccess | Refusal:
    policy = PlaybackPolicy(
        kind=PlaybackKind(input["kind"]),
        allowed_origins=tuple(origin.strip().lower().rstrip("/") for origin in input.get("allowed_origins") or ()),
        allowed_countries=tuple(country.upper() for country in input.get("allowed_countries") or ()),
        blocked_countries=tuple(country.upper() for country in input.get("blocked_countries") or ()),
        max_viewers=input.get("max_viewers"),
        audience=input.get("audience"),
        webhook_url=input.get("webhook_url"),
        open_when_unavailable=bool(input.get("open_when_unavailable")),
    )
    return await _about_stream(info.context, input, SetPlaybackPolicy(policy), SetPlaybackPolicySuccess)


@mutation.field("kickViewer")
async def kick_viewer(_: None, info: Info, input: KickViewerInput) -> KickViewerSuccess | Refusal:
    session_id, seconds = input["session_id"], input.get("block_seconds")
    command = KickViewer(session_id, BLOCK_SECONDS if seconds is None else seconds, issued_at())

    def success(stream_id: UUID, position: Position, key: str | None) -> KickViewerSuccess:
        return KickViewerSuccess(stream_id, session_id, position, key)

    return await _about_stream(info.context, input, command, success)


@mutation.field("createSigningKey")
async def create_signing_key(_: None, info: Info, input: CreateSigningKeyInput) -> CreateSigningKeySuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key, pem, algorithm = input.get("client_mutation_id"), input.get("public_key_pem"), SigningAlgorithm(input["algorithm"])
    private: str | None = None
    try:
        command_id = command_id_of(caller.tenant_id, key)
        name = inputs.line_of_text(input["name"], "name", "NAME_INVALID", inputs.NAME_MAX_LENGTH)
        if pem is None:
            public, private = derived.signing_key_pair(context.runtime.secret_key, algorithm, command_id)
        else:
            public = inputs.public_key(pem, algorithm)
    except BadInput as bad:
        return invalid(bad)
    command = CreateSigningKey(derived.signing_key_id(command_id), name, algorithm, public)
    made = SigningKeyRow(command.key_id, name, algorithm.value, public, issued_at(), None)
    answer = await context.send(command, command_id, caller.tenant_id, caller.tenant_id, caller.actor)
    return payload_of(answer, lambda at: CreateSigningKeySuccess(made, private, at, key))


@mutation.field("revokeSigningKey")
async def revoke_signing_key(_: None, info: Info, input: RevokeSigningKeyInput) -> RevokeSigningKeySuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key, key_id = input.get("client_mutation_id"), input["key_id"]
    try:
        command_id = command_id_of(caller.tenant_id, key)
    except BadInput as bad:
        return invalid(bad)
    if not derived.is_signing_key_id(key_id):
        return NotFoundError("SIGNING_KEY_NOT_FOUND", "There is no such signing key: check its id.")
    answer = await context.send(RevokeSigningKey(key_id), command_id, caller.tenant_id, caller.tenant_id, caller.actor)
    return payload_of(answer, lambda at: RevokeSigningKeySuccess(key_id, at, key))


async def _about_tenant(
    context: Context, wanted: _TenantInput, command: Command, success: Callable[[UUID, Position, str | None], Success]
) -> Success | Refusal:
    """A decision of the operator about a tenant."""
    match context.caller:
        case Anonymous(problem=problem):
            return AuthError("UNAUTHENTICATED", problem)
        case Tenant():
            return AuthError("FORBIDDEN", "Only the operator's token may do this to a tenant.")
        case Operator() as operator:
            pass
    key, tenant_id = wanted.get("client_mutation_id"), inputs.uuid_or_none(wanted["tenant_id"])
    if tenant_id is None:
        return NotFoundError("TENANT_NOT_FOUND", "There is no such tenant: check its id.")
    try:
        command_id = command_id_of(operator.tenant_id, key)
    except BadInput as bad:
        return invalid(bad)
    answer = await context.send(command, command_id, tenant_id, tenant_id, operator.actor)
    return payload_of(answer, lambda at: success(tenant_id, at, key))


async def _about_stream(
    context: Context, wanted: _StreamInput, command: Command, success: Callable[[UUID, Position, str | None], Success]
) -> Success | Refusal:
    """A decision of a tenant about one of its streams."""
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key, stream_id = wanted.get("client_mutation_id"), inputs.uuid_or_none(wanted["stream_id"])
    if stream_id is None:
        return NotFoundError("STREAM_NOT_FOUND", "There is no such stream: check its id.")
    try:
        command_id = command_id_of(caller.tenant_id, key)
    except BadInput as bad:
        return invalid(bad)
    answer = await context.send(command, command_id, caller.tenant_id, stream_id, caller.actor)
    return payload_of(answer, lambda at: success(stream_id, at, key))


async def changed_stream(success: _OfStream, info: Info) -> StreamRow | None:
    """The stream as it is behind the change; read only where it is selected."""
    return await reads.stream(info.context, str(success.stream_id), success.position)


_SUCCESSES: Final = tuple(map(ObjectType, ("DisableStreamSuccess", "EnableStreamSuccess", "SetPlaybackPolicySuccess")))
for _type in _SUCCESSES:
    _type.set_field("stream", changed_stream)
TYPES: Final = (mutation, *_SUCCESSES)
