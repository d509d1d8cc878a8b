"""Media server nodes: input to command, outcome to payload. Of the operator or of a tenant: whose follows from the credential."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypedDict
from uuid import UUID

from ariadne import MutationType

from gateway import derived, inputs
from gateway.auth import Anonymous, Operator, Tenant
from gateway.inputs import BadInput
from gateway.mutations.answers import (
    AuthError,
    ConflictError,
    Info,
    Refusal,
    Success,
    command_id_of,
    invalid,
    payload_of,
)
from gateway.runtime import Context
from gateway.send import Accepted, issued_at
from projections import node_registry, positions
from streams.generated import ChangeNode, Command, IssueEnrolmentToken, NodeMode, RegisterNode, RevokeNode, SetNodeMode
from streams.ids import OPERATOR_TENANT, node_uuid
from streams.pki.messages import EnrolmentToken
from streams.recorded import Position

TOKEN_SECONDS: Final = 3600
TOKEN_WAIT_SECONDS: Final = 5.0
mutation = MutationType()


@dataclass(frozen=True, slots=True)
class RegisterNodeSuccess:
    node_id: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class ChangeNodeSuccess:
    node_id: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class IssueEnrolmentTokenSuccess:
    node_id: str
    token: str = field(repr=False)
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class SetNodeModeSuccess:
    node_id: str
    mode: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class RevokeNodeSuccess:
    node_id: str
    position: Position
    client_mutation_id: str | None


class DescribedInput(TypedDict):
    tenants: list[str] | None
    region: str | None
    latitude: float | None
    longitude: float | None
    base_url: str | None
    tags: list[str] | None
    client_mutation_id: str | None


class RegisterNodeInput(DescribedInput):
    name: str


class ChangeNodeInput(DescribedInput):
    node_id: str


class IssueEnrolmentTokenInput(TypedDict):
    node_id: str
    valid_seconds: int | None
    client_mutation_id: str | None


class SetNodeModeInput(TypedDict):
    node_id: str
    mode: str
    client_mutation_id: str | None


class RevokeNodeInput(TypedDict):
    node_id: str
    reason: str
    client_mutation_id: str | None


class _Described(TypedDict):
    """Fields that RegisterNode and ChangeNode have in common."""

    tenants: tuple[UUID, ...] | None
    region: str | None
    latitude: float | None
    longitude: float | None
    base_url: str | None
    tags: tuple[str, ...]


@mutation.field("registerNode")
async def register_node(_: None, info: Info, input: RegisterNodeInput) -> RegisterNodeSuccess | Refusal:
    context: Context = info.context
    owner = _owner(context)
    if isinstance(owner, AuthError):
        return owner
    node_id = derived.node_id(owner.tenant_id, input["name"])
    key = input.get("client_mutation_id")

    def command() -> Command:
        return RegisterNode(node_id, input["name"], **_described(owner, input))

    return await _sent(context, owner, node_id, key, command, lambda at: RegisterNodeSuccess(node_id, at, key))


@mutation.field("changeNode")
async def change_node(_: None, info: Info, input: ChangeNodeInput) -> ChangeNodeSuccess | Refusal:
    context: Context = info.context
    owner = _owner(context)
    if isinstance(owner, AuthError):
        return owner
    node_id, key = input["node_id"], input.get("client_mutation_id")
    return await _sent(
        context,
        owner,
        node_id,
        key,
        lambda: ChangeNode(**_described(owner, input)),
        lambda at: ChangeNodeSuccess(node_id, at, key),
    )


@mutation.field("issueEnrolmentToken")
async def issue_enrolment_token(_: None, info: Info, input: IssueEnrolmentTokenInput) -> IssueEnrolmentTokenSuccess | Refusal:
    context: Context = info.context
    owner = _owner(context)
    if isinstance(owner, AuthError):
        return owner
    runtime = context.runtime
    if runtime.enrolment is None:
        message = "The platform has no certificate authority: set FW_CA_CERT and FW_CA_KEY (`fw node authority` makes them)."
        return ConflictError("NO_AUTHORITY", message)
    node_id, key = input["node_id"], input.get("client_mutation_id")
    try:
        command_id = command_id_of(owner.tenant_id, key)
    except BadInput as bad:
        return invalid(bad)
    secret = derived.secret(runtime.secret_key, derived.ENROLMENT_TOKEN, command_id)
    given = input.get("valid_seconds")
    command = IssueEnrolmentToken(secret.prefix, secret.hash, TOKEN_SECONDS if given is None else given, issued_at())
    answer = await context.send(command, command_id, owner.tenant_id, node_uuid(node_id), owner.actor)
    if isinstance(answer, Accepted):  # the node may come with it at once
        await positions.passed(runtime.database, node_registry.PROJECTION.name, answer.position, TOKEN_WAIT_SECONDS)
    token = str(EnrolmentToken(secret.text, runtime.enrolment.pin))
    return payload_of(answer, lambda at: IssueEnrolmentTokenSuccess(node_id, token, at, key))


@mutation.field("setNodeMode")
async def set_node_mode(_: None, info: Info, input: SetNodeModeInput) -> SetNodeModeSuccess | Refusal:
    context: Context = info.context
    owner = _owner(context)
    if isinstance(owner, AuthError):
        return owner
    node_id, mode, key = input["node_id"], NodeMode(input["mode"]), input.get("client_mutation_id")
    return await _sent(
        context, owner, node_id, key, lambda: SetNodeMode(mode), lambda at: SetNodeModeSuccess(node_id, mode.value, at, key)
    )


@mutation.field("revokeNode")
async def revoke_node(_: None, info: Info, input: RevokeNodeInput) -> RevokeNodeSuccess | Refusal:
    context: Context = info.context
    owner = _owner(context)
    if isinstance(owner, AuthError):
        return owner
    node_id, key = input["node_id"], input.get("client_mutation_id")

    def command() -> Command:
        return RevokeNode(inputs.line_of_text(input["reason"], "reason", "REASON_INVALID", inputs.TITLE_MAX_LENGTH))

    return await _sent(context, owner, node_id, key, command, lambda at: RevokeNodeSuccess(node_id, at, key))


def _owner(context: Context) -> Operator | Tenant | AuthError:
    """Whose nodes the caller may decide about."""
    if isinstance(context.caller, Anonymous):
        return AuthError("UNAUTHENTICATED", context.caller.problem)
    return context.caller


async def _sent(
    context: Context,
    owner: Operator | Tenant,
    node_id: str,
    key: str | None,
    command: Callable[[], Command],
    success: Callable[[Position], Success],
) -> Success | Refusal:
    try:
        command_id, made = command_id_of(owner.tenant_id, key), command()
    except BadInput as bad:
        return invalid(bad)
    return payload_of(await context.send(made, command_id, owner.tenant_id, node_uuid(node_id), owner.actor), success)


def _described(owner: Operator | Tenant, said: DescribedInput) -> _Described:
    """Raises BadInput. A tenant's node serves that tenant, and nobody has to say so."""
    return {
        "tenants": _tenants(owner, said.get("tenants")),
        "region": said.get("region"),
        "latitude": said.get("latitude"),
        "longitude": said.get("longitude"),
        "base_url": said.get("base_url"),
        "tags": tuple(said.get("tags") or ()),
    }


def _tenants(owner: Operator | Tenant, named: list[str] | None) -> tuple[UUID, ...] | None:
    if owner.tenant_id != OPERATOR_TENANT:
        if named is not None and named != [str(owner.tenant_id)]:
            raise BadInput("TENANTS_INVALID", "tenants", "your nodes serve your tenant alone: leave tenants out")
        return (owner.tenant_id,)
    if named is None:
        return None
    found = [inputs.uuid_or_none(text) for text in named]
    if None in found:
        raise BadInput("TENANTS_INVALID", "tenants", "tenants are ids of tenants, as createTenant gives them")
    return tuple(t for t in found if t is not None)


TYPES: Final = (mutation,)
