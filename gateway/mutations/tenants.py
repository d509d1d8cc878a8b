"""Tenants and their API tokens: input to command, outcome to payload."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypedDict
from uuid import UUID

from ariadne import MutationType
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway import derived, inputs
from gateway.auth import Anonymous, Tenant
from gateway.inputs import BadInput
from gateway.mutations.answers import AuthError, Info, NotFoundError, Refusal, command_id_of, invalid, payload_of, tenant_of
from gateway.runtime import Context
from gateway.send import Accepted, Answer
from projections import positions, tenants
from streams import ids
from streams.generated import IssueApiToken, PersonalKind, RegisterTenant, RevokeApiToken, TenantStanding
from streams.privacy.key_store import NewKey
from streams.privacy.people import Whose
from streams.privacy.sealing import new_key, seal
from streams.recorded import Position

TOKEN_WAIT_SECONDS: Final = 5.0
mutation = MutationType()


@dataclass(frozen=True, slots=True)
class NamedTenant:
    tenant_id: UUID
    name: str
    standing: str = TenantStanding.ACTIVE.value
    max_live_streams: int | None = None


@dataclass(frozen=True, slots=True)
class CreateTenantSuccess:
    tenant: NamedTenant
    api_token: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class CreateApiTokenSuccess:
    api_token: str
    token_prefix: str
    position: Position
    client_mutation_id: str | None


@dataclass(frozen=True, slots=True)
class RevokeApiTokenSuccess:
    token_prefix: str
    position: Position
    client_mutation_id: str | None


class CreateTenantInput(TypedDict):
    name: str
    contact_email: str | None
    client_mutation_id: str | None


class CreateApiTokenInput(TypedDict):
    name: str
    client_mutation_id: str | None


class RevokeApiTokenInput(TypedDict):
    token_prefix: str
    client_mutation_id: str | None


@mutation.field("createTenant")
async def create_tenant(_: None, info: Info, input: CreateTenantInput) -> CreateTenantSuccess | Refusal:
    context: Context = info.context
    caller = context.caller
    match caller:
        case Anonymous(problem=problem):
            return AuthError("UNAUTHENTICATED", problem)
        case Tenant():
            return AuthError("FORBIDDEN", "Only the operator's token may make tenants.")
    key = input.get("client_mutation_id")
    try:
        command_id = command_id_of(caller.tenant_id, key)
        name = inputs.tenant_name(input["name"])
        contact = inputs.email(input.get("contact_email"), "contactEmail")
    except BadInput as bad:
        return invalid(bad)
    tenant_id = derived.tenant_id(command_id)
    token = derived.secret(context.runtime.secret_key, derived.API_TOKEN, command_id)
    sealed = None if contact is None else await _sealed_contact(context, tenant_id, contact)
    command = RegisterTenant(name=name, token_prefix=token.prefix, token_hash=token.hash, contact_email=sealed)
    answer = await context.send(command, command_id, tenant_id, tenant_id, caller.actor)
    await _token_known(context, answer)
    return payload_of(answer, lambda at: CreateTenantSuccess(NamedTenant(tenant_id, name), token.text, at, key))


@mutation.field("createApiToken")
async def create_api_token(_: None, info: Info, input: CreateApiTokenInput) -> CreateApiTokenSuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key = input.get("client_mutation_id")
    try:
        command_id = command_id_of(caller.tenant_id, key)
        name = inputs.line_of_text(input["name"], "name", "NAME_INVALID", inputs.NAME_MAX_LENGTH)
    except BadInput as bad:
        return invalid(bad)
    token = derived.secret(context.runtime.secret_key, derived.API_TOKEN, command_id)
    command = IssueApiToken(name=name, token_prefix=token.prefix, token_hash=token.hash)
    answer = await context.send(command, command_id, caller.tenant_id, caller.tenant_id, caller.actor)
    await _token_known(context, answer)
    return payload_of(answer, lambda at: CreateApiTokenSuccess(token.text, token.prefix, at, key))


@mutation.field("revokeApiToken")
async def revoke_api_token(_: None, info: Info, input: RevokeApiTokenInput) -> RevokeApiTokenSuccess | Refusal:
    context: Context = info.context
    caller = tenant_of(context)
    if isinstance(caller, AuthError):
        return caller
    key, prefix = input.get("client_mutation_id"), input["token_prefix"]
    try:
        command_id = command_id_of(caller.tenant_id, key)
    except BadInput as bad:
        return invalid(bad)
    if not derived.is_token_prefix(prefix):
        return NotFoundError("TOKEN_NOT_FOUND", "There is no such token: give the part before the second underscore.")
    answer = await context.send(RevokeApiToken(prefix), command_id, caller.tenant_id, caller.tenant_id, caller.actor)
    return payload_of(answer, lambda at: RevokeApiTokenSuccess(prefix, at, key))


async def _sealed_contact(context: Context, tenant_id: UUID, contact: str) -> bytes:
    """Under a key of its own, which is kept before anything is sealed with it."""
    key, key_id, made_at = new_key(), ids.new_id(), datetime.now(UTC)
    whose = Whose(tenant_id, PersonalKind.CONTACT)
    await context.runtime.keys.register([NewKey(key_id, key, whose, made_at, expires_at=None)])
    # Which event will say it is decided later: it is bound to the tenant, which has one contact.
    return seal(AESGCM(key), key_id, contact.encode(), tenant_id=tenant_id, event_id=tenant_id, field="contact_email")


async def _token_known(context: Context, answer: Answer) -> None:
    """A token must work at once. Where the projection is late it will work a little later; the answer is the same."""
    if isinstance(answer, Accepted):
        await positions.passed(context.runtime.database, tenants.PROJECTION.name, answer.position, TOKEN_WAIT_SECONDS)


TYPES: Final = (mutation,)
