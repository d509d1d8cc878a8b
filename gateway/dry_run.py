"""Dry runs: what an edge would answer, by the very rules that it follows (`streams.playback`), over the policy as it was folded.

Invariant: nothing is asked, counted or written. The policy is the publisher's fold (`projections.policy`) over the journal, so a
version here is the version on the policy topic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from ariadne import QueryType
from graphql import GraphQLResolveInfo

from gateway import derived, reads
from gateway.decisions import history_time
from gateway.errors import ApiError
from gateway.inputs import uuid_or_none
from gateway.runtime import Context
from projections import journal
from projections.journal import TooMuchHistory
from projections.policy import HANDLES, OF_STREAMS, Policies
from streams.generated import IngestRejection, StreamPolicy, TenantPolicy
from streams.playback.origins import PARAMETER
from streams.playback.publishing import SENTENCES, key_refusal, refusal
from streams.playback.rules import Allowed, AskWebhook, Denied, PlaybackRequest, decide_playback
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
query = QueryType()
TYPES: Final = (query,)
MAX_TEXT: Final = 8192
UNKNOWN: Final = IngestRejection.UNKNOWN_KEY


@dataclass(frozen=True, slots=True)
class PlaybackDecision:
    allowed: bool | None
    reason: str
    message: str
    policy_version: int
    tenant_policy_version: int
    viewer: str | None = None


@dataclass(frozen=True, slots=True)
class IngestDecision:
    allowed: bool
    reason: str
    message: str
    stream_id: UUID | None
    policy_version: int
    tenant_policy_version: int


@query.field("playbackDecision")
async def resolve_playback_decision(
    _: None,
    info: Info,
    stream_id: str,
    token: str | None = None,
    origin: str | None = None,
    country: str | None = None,
    address: str | None = None,
    session_id: str | None = None,
    viewers: int | None = None,
    at: datetime | None = None,
    after: Position | None = None,
) -> PlaybackDecision:
    context: Context = info.context
    if any(len(text or "") > MAX_TEXT for text in (token, origin, country, address, session_id)):
        raise ApiError("BAD_USER_INPUT", f"A text has more than {MAX_TEXT} characters.")
    found, now = uuid_or_none(stream_id), at or datetime.now(UTC)
    policies = await _policies(context, at, after, [found] if found else [])
    stream, tenant = policies.get(found) if found else None, _tenant(policies, context)
    if not isinstance(stream, StreamPolicy):
        raise ApiError("STREAM_NOT_FOUND", "There is no such stream, or there was none at that time: check its id.")
    request = PlaybackRequest(
        address=address or "",
        country=country.upper() if country else None,
        token=token or "",
        url=f"https://viewer.invalid/?{urlencode({PARAMETER: origin})}" if origin else "",
        session_id=session_id,
        viewers=max(0, viewers or 0),
    )
    versions = stream.version, tenant.version if tenant else 0
    match decide_playback(stream, tenant, request, now, is_stale=False):
        case Allowed(basis=basis, message=message, viewer=viewer):
            return PlaybackDecision(True, basis.value, message, *versions, viewer)
        case Denied(reason=reason, message=message):
            return PlaybackDecision(False, reason.value, message, *versions)
        case AskWebhook(message=message):
            return PlaybackDecision(None, "ASK_WEBHOOK", message, *versions)


@query.field("ingestDecision")
async def resolve_ingest_decision(
    _: None, info: Info, stream_key: str, at: datetime | None = None, after: Position | None = None
) -> IngestDecision:
    context: Context = info.context
    now, digest = at or datetime.now(UTC), sha256(stream_key.encode("utf-8", "replace")).digest()
    policies = await _policies(context, at, after, None if derived.prefix_of(stream_key) else [])
    tenant = _tenant(policies, context)
    tenant_version = tenant.version if tenant else 0
    for stream in (p for p in map(policies.get, policies) if isinstance(p, StreamPolicy)):
        for key in (k for k in stream.keys if k.hash == digest):
            refused = key_refusal(stream, key, now) or refusal(stream, tenant, None, is_stale=False)
            of = (stream.stream_id, stream.version, tenant_version)
            if refused is None:
                return IngestDecision(True, "KEY_ACCEPTED", "the key opens the stream", *of)
            return IngestDecision(False, refused.value, SENTENCES.get(refused, "refused"), *of)
    return IngestDecision(False, UNKNOWN.value, SENTENCES[UNKNOWN], None, 0, tenant_version)


async def _policies(context: Context, at: datetime | None, after: Position | None, streams: Sequence[UUID] | None) -> Policies:
    """The caller's tenant and these streams of it (None: all of them), as edges are told them. Raises ApiError."""
    tenant_id, runtime = context.tenant_id(), context.runtime
    await reads.wait_for(context, journal.PROJECTION.name, after)
    by = await history_time(context, "at", at) if at is not None else datetime.max.replace(tzinfo=UTC)
    kinds = HANDLES if streams is None or streams else HANDLES - OF_STREAMS.handles
    about = None if streams is None else [tenant_id, *streams]
    policies = Policies()
    try:
        for decided in await journal.decided(runtime.database, tenant_id, by, kinds, about):
            policies.apply(decided.event, decided.meta)
    except TooMuchHistory as too_much:
        raise ApiError("HISTORY_TOO_LONG", str(too_much)) from too_much
    return policies


def _tenant(policies: Policies, context: Context) -> TenantPolicy | None:
    found = policies.get(context.tenant_id())
    return found if isinstance(found, TenantPolicy) else None
