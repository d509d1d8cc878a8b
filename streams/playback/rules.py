"""Whether a viewer may watch: one pure function, the same on every edge and in the gateway's dry run.

Invariants
* What forbids is looked at before what allows: a deleted stream, a suspended tenant, a kicked session, a forbidden country are
  refused whatever token comes.
* A policy that is out of date opens what is public. What is protected it opens only where the policy says so; then a good token
  still counts as one, and a webhook is still asked, for it knows better than what is old here.
* Nothing is asked here: where the tenant's server has to say, `AskWebhook` is the answer, and `after_webhook` what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from streams.generated import (
    AdmissionBasis,
    PlaybackKind,
    PlaybackPolicy,
    StreamPolicy,
    TenantPolicy,
    TenantStanding,
    ViewerRejection,
)
from streams.playback.origins import is_allowed, told_origin
from streams.playback.tokens import Bearer, TokenFault, TokenRefused, Verified, offered_tokens, verify_any

PUBLIC: Final = PlaybackPolicy(kind=PlaybackKind.PUBLIC)
_FAULTS: Final = {
    TokenFault.MISSING: ViewerRejection.TOKEN_MISSING,
    TokenFault.INVALID: ViewerRejection.TOKEN_INVALID,
    TokenFault.EXPIRED: ViewerRejection.TOKEN_EXPIRED,
    TokenFault.MISMATCH: ViewerRejection.TOKEN_MISMATCH,
}


@dataclass(frozen=True, slots=True)
class PlaybackRequest:
    """What is known of a viewer who asks to watch."""

    address: str = ""
    country: str | None = None  # ISO 3166-1 alpha-2, where known
    token: str = ""  # the media server's token line: a JWT, or anything
    url: str = ""  # as the media server tells it: its query may have a token, and the origin of the page
    session_id: str | None = None
    viewers: int = 0  # who watch the stream on the node now, this one not counted
    is_trusted: bool = False  # the media server verified a token of its own and does not ask (CONTRACT 6.8)


@dataclass(frozen=True, slots=True)
class Allowed:
    basis: AdmissionBasis
    message: str
    viewer: str | None = None  # who the tenant's token says it is; only of a token that was verified


@dataclass(frozen=True, slots=True)
class Denied:
    reason: ViewerRejection
    message: str


@dataclass(frozen=True, slots=True)
class AskWebhook:
    """The tenant's server decides. Where it does not answer: `open_when_unavailable`."""

    url: str
    open_when_unavailable: bool
    message: str


@dataclass(frozen=True, slots=True)
class WebhookSaid:
    """What came of asking the tenant's server. None: no answer that is one, and why not."""

    is_allowed: bool | None
    problem: str = ""


Decision: TypeAlias = Allowed | Denied | AskWebhook


def decide_playback(
    stream: StreamPolicy, tenant: TenantPolicy | None, request: PlaybackRequest, now: datetime, is_stale: bool
) -> Decision:
    """What is to be answered to a viewer. `tenant` None: nothing is known against it, and no key of it."""
    policy = stream.playback or PUBLIC
    refusal = forbidden(stream, tenant) or wrong_country(stream, request.country) or _kicked(stream, request, now)
    if refusal:
        return refusal
    if request.is_trusted:
        return Allowed(AdmissionBasis.MEDIA_SERVER, "the media server verified a token that its operator gave out")
    if is_stale and policy.kind is not PlaybackKind.PUBLIC and not policy.open_when_unavailable:
        return Denied(ViewerRejection.POLICY_STALE, "the node has been cut off for too long to open what is protected")
    match policy.kind:
        case PlaybackKind.PUBLIC:
            decided: Decision = Allowed(AdmissionBasis.PUBLIC, "everybody may watch it")
            origins = None
        case PlaybackKind.JWT:
            decided, origins = _by_token(stream, tenant, request, now, is_stale)
        case PlaybackKind.WEBHOOK if policy.webhook_url:
            decided = AskWebhook(policy.webhook_url, policy.open_when_unavailable, "the tenant's server decides")
            origins = None
        case PlaybackKind.WEBHOOK | PlaybackKind.OTHER:
            decided = _unavailable(policy.open_when_unavailable, "there is nobody to ask: no webhook, or a kind unknown here")
            origins = None
    if isinstance(decided, Denied):
        return decided
    return _wrong_page(policy, request, origins) or _too_many(policy, request) or decided


def after_webhook(stream: StreamPolicy, request: PlaybackRequest, asked: AskWebhook, said: WebhookSaid) -> Allowed | Denied:
    """What follows from the answer of the tenant's server, or from its silence. Viewers may have come meanwhile."""
    if said.is_allowed is None:
        decided = _unavailable(asked.open_when_unavailable, said.problem)
    elif said.is_allowed:
        decided = Allowed(AdmissionBasis.WEBHOOK, "the tenant's server says yes")
    else:
        decided = Denied(ViewerRejection.WEBHOOK_DENIED, "the tenant's server says no")
    if isinstance(decided, Denied):
        return decided
    return _too_many(stream.playback or PUBLIC, request) or decided


def forbidden(stream: StreamPolicy, tenant: TenantPolicy | None) -> Denied | None:
    """What forbids watching to everybody, whoever it is."""
    if stream.deleted:
        return Denied(ViewerRejection.STREAM_DELETED, "the stream was deleted")
    if stream.disabled:
        return Denied(ViewerRejection.STREAM_DISABLED, "the stream is disabled")
    if tenant is not None and tenant.standing is not TenantStanding.ACTIVE:
        if tenant.standing is TenantStanding.PAYMENT_REQUIRED:
            return Denied(ViewerRejection.PAYMENT_REQUIRED, "the owner of the stream has to pay first")
        return Denied(ViewerRejection.TENANT_SUSPENDED, "the owner of the stream is suspended")
    return None


def wrong_country(stream: StreamPolicy, country: str | None) -> Denied | None:
    policy = stream.playback or PUBLIC
    if country is not None and country in policy.blocked_countries:
        return Denied(ViewerRejection.COUNTRY_NOT_ALLOWED, f"not to be watched from {country}")
    if policy.allowed_countries and country not in policy.allowed_countries:
        where = f"from {country}" if country else "from where it is not known"
        return Denied(ViewerRejection.COUNTRY_NOT_ALLOWED, f"not to be watched {where}")
    return None


def _kicked(stream: StreamPolicy, request: PlaybackRequest, now: datetime) -> Denied | None:
    if any(kick.session_id == request.session_id and kick.until > now for kick in stream.kicked):
        return Denied(ViewerRejection.KICKED, "the session was ended by the owner of the stream")
    return None


def _by_token(
    stream: StreamPolicy,
    tenant: TenantPolicy | None,
    request: PlaybackRequest,
    now: datetime,
    is_stale: bool,
) -> tuple[Allowed | Denied, tuple[str, ...] | None]:
    """What the token says, and for which pages it was made."""
    audience = stream.playback.audience if stream.playback else None
    bearer = Bearer(names_of(stream), audience, request.address, request.country)
    try:
        keys = tenant.signing_keys if tenant else ()
        found: Verified = verify_any(offered_tokens(request.token, request.url), keys, bearer, now)
    except TokenRefused as refused:
        if is_stale:  # and open: otherwise it was refused before
            return _unavailable(True, "the policy is out of date"), None
        return Denied(_FAULTS[refused.fault], refused.message), None
    return Allowed(AdmissionBasis.JWT, "the token is good", found.viewer), found.origins


def names_of(stream: StreamPolicy) -> frozenset[str]:
    """What a token may call the stream."""
    return frozenset({stream.playback_id, str(stream.stream_id), stream.internal_name, f"live+{stream.internal_name}"} - {""})


def _unavailable(is_open: bool, why: str) -> Allowed | Denied:
    if is_open:
        return Allowed(AdmissionBasis.OPEN_WHEN_UNAVAILABLE, f"let in because nobody could say: {why}")
    return Denied(ViewerRejection.WEBHOOK_UNAVAILABLE, why)


def _wrong_page(policy: PlaybackPolicy, request: PlaybackRequest, signed: tuple[str, ...] | None) -> Denied | None:
    """`signed`: the pages that a good token was made for, which count before what the player says of itself."""
    told = told_origin(request.url)
    if signed is not None and told is not None and not is_allowed(told, signed):
        return Denied(ViewerRejection.ORIGIN_NOT_ALLOWED, "the token was made for another page (`origin`)")
    if not policy.allowed_origins:
        return None
    pages = signed if signed is not None else (told,) if told else ()
    if not pages:
        return Denied(ViewerRejection.ORIGIN_NOT_ALLOWED, "the player does not say on which page it is: `?origin=` in the URL")
    if not all(is_allowed(page, policy.allowed_origins) for page in pages):
        return Denied(ViewerRejection.ORIGIN_NOT_ALLOWED, "not to be shown on that page")
    return None


def _too_many(policy: PlaybackPolicy, request: PlaybackRequest) -> Denied | None:
    if policy.max_viewers is not None and request.viewers >= policy.max_viewers:
        return Denied(ViewerRejection.VIEWER_LIMIT_REACHED, f"{policy.max_viewers} watch it on this node, and no more may")
    return None
