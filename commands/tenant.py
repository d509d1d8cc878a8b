"""Tenants: who may decide anything at all, by which API tokens they are known, which names are taken among their streams; whether
they may publish and be watched, how much, and with which keys viewers' tokens are signed.

Invariant: a tenant is registered once; a token or a signing key is made once, and never works again once it is revoked; one of
the tokens always works; a slug is taken from the creation of its stream to the deletion of that stream.

The tenant is the boundary of consistency: its state sees every event of the tenant, so a rule over all of a tenant's
streams (unique slugs) is an ordinary rule here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, assert_never, get_args

from immutables import Map

from commands.decider import Decider
from commands.playback import require_signing_key
from commands.text import display_text
from streams.errors import Rejected
from streams.generated import (
    ApiTokenIssued,
    ApiTokenRevoked,
    CreateSigningKey,
    Decision,
    IssueApiToken,
    RegisterTenant,
    ReinstateTenant,
    RevokeApiToken,
    RevokeSigningKey,
    SetTenantLimits,
    SigningKeyCreated,
    SigningKeyRevoked,
    StreamCreated,
    StreamDeleted,
    SuspendTenant,
    SuspensionReason,
    TenantLimitsSet,
    TenantRegistered,
    TenantReinstated,
    TenantSuspended,
)

TenantCommand = (
    RegisterTenant
    | IssueApiToken
    | RevokeApiToken
    | SuspendTenant
    | ReinstateTenant
    | SetTenantLimits
    | CreateSigningKey
    | RevokeSigningKey
)
TenantEvent = (
    TenantRegistered
    | ApiTokenIssued
    | ApiTokenRevoked
    | TenantSuspended
    | TenantReinstated
    | TenantLimitsSet
    | SigningKeyCreated
    | SigningKeyRevoked
)
S = TypeVar("S")

NAME_MAX_CHARACTERS = 100
FIRST_TOKEN_NAME = "first token"  # noqa: S105  # what the tenant sees it called; no secret
MAX_LIVE_STREAMS = 1_000_000
SIGNING_KEYS_AT_ONCE = 20
NO_TOKENS: Map[str, bool] = Map()
NO_SIGNING_KEYS: Map[str, bool] = Map()
NO_SLUGS: Map[str, None] = Map()


@dataclass(frozen=True, slots=True)
class Tenant:
    name: str
    token_prefixes: Map[str, bool] = NO_TOKENS  # all that were ever issued, and whether they still work
    slugs: Map[str, None] = NO_SLUGS  # a set; Map has the persistent update in O(log n)
    suspended: SuspensionReason | None = None
    max_live_streams: int | None = None
    signing_keys: Map[str, bool] = NO_SIGNING_KEYS  # all that were ever made, and whether they are still good


@dataclass(frozen=True, slots=True)
class OfTenant(Generic[S]):
    """What the rules of something that a tenant owns look at: it, once it exists, and the tenant.

    `is_operators`: it belongs to the operator, whose boundary has no tenant and never will.
    """

    own: S | None = None
    tenant: Tenant | None = None
    is_operators: bool = False


def decide(command: TenantCommand, tenant: Tenant | None) -> Sequence[Decision]:
    match command:
        case RegisterTenant():
            return _registered(command, tenant)
        case IssueApiToken():
            return [_issued(command, _existing(tenant))]
        case RevokeApiToken(token_prefix=prefix):
            return [_revoked(prefix, _existing(tenant))]
        case SuspendTenant(reason=reason):
            return _suspended(reason, _existing(tenant))
        case ReinstateTenant():
            return [TenantReinstated()] if _existing(tenant).suspended is not None else []
        case SetTenantLimits(max_live_streams=limit):
            return _limited(limit, _existing(tenant))
        case CreateSigningKey():
            return [_signing_key(command, _existing(tenant))]
        case RevokeSigningKey(key_id=key_id):
            return [_revoked_key(key_id, _existing(tenant))]
        case _:
            assert_never(command)


def _registered(command: RegisterTenant, tenant: Tenant | None) -> Sequence[Decision]:
    if tenant is not None:
        raise Rejected("TENANT_EXISTS", "This tenant exists already: use it, or register one with another id.")
    _require_name(command.name, "A tenant's name")
    token = ApiTokenIssued(FIRST_TOKEN_NAME, command.token_prefix, command.token_hash)
    return [TenantRegistered(command.name, command.contact_email), token]


def _issued(command: IssueApiToken, tenant: Tenant) -> ApiTokenIssued:
    _require_name(command.name, "A token's name")
    if command.token_prefix in tenant.token_prefixes:
        raise Rejected("TOKEN_EXISTS", "The tenant has a token with this prefix already: ask for another one.")
    return ApiTokenIssued(command.name, command.token_prefix, command.token_hash)


def _revoked(prefix: str, tenant: Tenant) -> ApiTokenRevoked:
    if not tenant.token_prefixes.get(prefix, False):
        message = "The tenant has no such token, or it was revoked already: check the prefix."
        raise Rejected("TOKEN_NOT_FOUND", message, "tokenPrefix")
    if sum(tenant.token_prefixes.values()) == 1:
        raise Rejected("LAST_TOKEN", "This is the tenant's last token: make another one first, then revoke this one.")
    return ApiTokenRevoked(prefix)


def _suspended(reason: SuspensionReason, tenant: Tenant) -> Sequence[Decision]:
    if reason is SuspensionReason.OTHER:
        raise Rejected("REASON_INVALID", "Say why the tenant is suspended: SUSPENDED or PAYMENT_REQUIRED.", "reason")
    return [TenantSuspended(reason)] if tenant.suspended is not reason else []


def _limited(limit: int | None, tenant: Tenant) -> Sequence[Decision]:
    if limit is not None and not 0 <= limit <= MAX_LIVE_STREAMS:
        message = f"A tenant may have 0 to {MAX_LIVE_STREAMS:,} live streams; leave the limit out where there shall be none."
        raise Rejected("LIMIT_INVALID", message, "maxLiveStreams")
    return [TenantLimitsSet(limit)] if limit != tenant.max_live_streams else []


def _signing_key(command: CreateSigningKey, tenant: Tenant) -> SigningKeyCreated:
    _require_name(command.name, "A signing key's name")
    require_signing_key(command.algorithm, command.public_key)
    if command.key_id in tenant.signing_keys:
        raise Rejected("SIGNING_KEY_EXISTS", "The tenant has a signing key with this id already: ask for another one.")
    if sum(tenant.signing_keys.values()) >= SIGNING_KEYS_AT_ONCE:
        message = f"The tenant has {SIGNING_KEYS_AT_ONCE} signing keys already: revoke one that is needed no more."
        raise Rejected("TOO_MANY_SIGNING_KEYS", message)
    return SigningKeyCreated(command.key_id, command.name, command.algorithm, command.public_key)


def _revoked_key(key_id: str, tenant: Tenant) -> SigningKeyRevoked:
    if not tenant.signing_keys.get(key_id, False):
        message = "The tenant has no such signing key, or it was revoked already: check its id."
        raise Rejected("SIGNING_KEY_NOT_FOUND", message, "keyId")
    return SigningKeyRevoked(key_id)


def _existing(tenant: Tenant | None) -> Tenant:
    if tenant is None:
        raise Rejected("TENANT_NOT_FOUND", "There is no such tenant: register it first.")
    return tenant


def _require_name(name: str, what: str) -> None:
    if not display_text(name, NAME_MAX_CHARACTERS):
        message = f"{what} has 1 to {NAME_MAX_CHARACTERS} characters, none of them control characters: choose another."
        raise Rejected("NAME_INVALID", message, "name")


def evolve(tenant: Tenant | None, event: Decision) -> Tenant | None:
    if isinstance(event, TenantEvent):
        return _evolve_own(tenant, event)
    if tenant is None:  # decided by nobody; a total fold says nothing about it
        return None
    match event:
        case StreamCreated(slug=slug):
            return replace(tenant, slugs=tenant.slugs.set(slug, None))
        case StreamDeleted(slug=slug):
            if slug not in tenant.slugs:
                return tenant
            return replace(tenant, slugs=tenant.slugs.delete(slug))
        case _:
            # Of what others own it is an index, for the rules over all of it: most events change none of these.
            return tenant


def _evolve_own(tenant: Tenant | None, event: TenantEvent) -> Tenant | None:
    if isinstance(event, TenantRegistered):
        return Tenant(event.name)
    if tenant is None:
        return None
    match event:
        case ApiTokenIssued(token_prefix=prefix):
            return replace(tenant, token_prefixes=tenant.token_prefixes.set(prefix, True))
        case ApiTokenRevoked(token_prefix=prefix):
            return replace(tenant, token_prefixes=tenant.token_prefixes.set(prefix, False))
        case TenantSuspended(reason=reason):
            return replace(tenant, suspended=reason)
        case TenantReinstated():
            return replace(tenant, suspended=None)
        case TenantLimitsSet(max_live_streams=limit):
            return replace(tenant, max_live_streams=limit)
        case SigningKeyCreated(key_id=key_id):
            return replace(tenant, signing_keys=tenant.signing_keys.set(key_id, True))
        case SigningKeyRevoked(key_id=key_id):
            return replace(tenant, signing_keys=tenant.signing_keys.set(key_id, False))
        case _:
            assert_never(event)


TENANT: Decider[TenantCommand, Tenant | None, Decision] = Decider(
    name="tenant",
    initial=None,
    decide=decide,
    evolve=evolve,
    commands=frozenset(get_args(TenantCommand)),
    events=frozenset(get_args(TenantEvent)),
)
