"""Resolvers of endpoints: where to watch and where to publish, decided by the balancer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

from ariadne import QueryType
from graphql import GraphQLResolveInfo

from gateway import derived
from gateway.auth import Operator, Tenant
from gateway.balancer.balancer import Asked, Routed
from gateway.balancer.endpoints import ingest_url, playback_url
from gateway.balancer.names import MEDIA_PREFIX
from gateway.errors import ApiError
from gateway.inputs import uuid_or_none
from gateway.runtime import Context
from projections import routing
from projections.routing import StreamName
from streams.balancing.geography import cell_of
from streams.balancing.score import Exclusion, Purpose, Weights, parts

ALTERNATIVES: Final = 4
Info = GraphQLResolveInfo[Context]
query = QueryType()
TYPES: Final = (query,)


@dataclass(frozen=True, slots=True)
class Score:
    total: int
    cpu: int
    ram: int
    bandwidth: int
    geo: int
    bonus: int
    tags: int
    is_own: bool


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str
    node_id: str
    node_name: str
    region: str | None
    score: Score


@dataclass(frozen=True, slots=True)
class Excluded:
    node_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """A ViewerEndpoint or an IngestEndpoint."""

    url: str
    protocol: str
    node: Endpoint
    alternatives: Sequence[Endpoint]
    excluded: Sequence[Excluded]


@query.field("resolveViewerEndpoint")
async def resolve_viewer_endpoint(
    _: None, info: Info, playback_id: str, protocol: str, latitude: float | None = None, longitude: float | None = None
) -> Resolved:
    context: Context = info.context
    _limit(context)
    balancer = context.runtime.balancer
    # The media servers' own name is no answer to a viewer: it would tell whether a guess is right.
    stream = None if playback_id.startswith(MEDIA_PREFIX) else await balancer.names.find(playback_id)
    if stream is None:
        raise ApiError("NOT_FOUND", "There is no such stream: check its playback id.")
    asked = _asked(context, Purpose.VIEWER, stream, protocol, latitude, longitude)
    return _resolved(context, balancer.route(asked), stream, protocol, lambda base: playback_url(base, protocol, playback_id))


@query.field("resolveIngestEndpoint")
async def resolve_ingest_endpoint(
    _: None,
    info: Info,
    protocol: str,
    stream_key: str | None = None,
    stream_id: str | None = None,
    latitude: float | None = None,
    longitude: float | None = None,
) -> Resolved:
    context: Context = info.context
    _limit(context)
    stream = await _published(context, stream_key, stream_id)
    asked = _asked(context, Purpose.INGEST, stream, protocol, latitude, longitude)
    routed = context.runtime.balancer.route(asked)
    return _resolved(context, routed, stream, protocol, lambda base: ingest_url(base, protocol, stream_key or ""))


@query.field("balancerWeights")
def resolve_balancer_weights(_: None, info: Info) -> Weights:
    context: Context = info.context
    if not isinstance(context.caller, Operator):
        raise ApiError("FORBIDDEN", "Only the operator's token may ask for the balancer's weights.")
    return context.runtime.balancer.picture.weights


def _limit(context: Context) -> None:
    """Raises ApiError for an address without a credential that asks too often."""
    if not isinstance(context.caller, Operator | Tenant) and not context.runtime.resolving.take(context.address):
        raise ApiError("RATE_LIMITED", "This address asks too often: wait a second.")


async def _published(context: Context, stream_key: str | None, stream_id: str | None) -> StreamName:
    """The stream of a key, or the caller's of this id. Raises ApiError."""
    database = context.runtime.database
    if (stream_key is None) == (stream_id is None):
        raise ApiError("BAD_USER_INPUT", "Give either `streamKey` or `streamId`.")
    if stream_key is not None:
        prefix = derived.prefix_of(stream_key)
        found = None if prefix is None else await routing.stream_by_key(database, prefix, derived.secret_hash(stream_key))
    else:
        wanted = uuid_or_none(stream_id or "")
        found = None if wanted is None else await routing.stream_by_id(database, context.tenant_id(), wanted)
    if found is None:
        raise ApiError("NOT_FOUND", "There is no such stream: check its key or id.")
    return found


def _asked(
    context: Context, purpose: Purpose, stream: StreamName, protocol: str, latitude: float | None, longitude: float | None
) -> Asked:
    if (latitude is None) != (longitude is None):
        raise ApiError("BAD_USER_INPUT", "Give both `latitude` and `longitude`, or neither.")
    place = context.runtime.place_of(context.address)
    if latitude is None or longitude is None:
        latitude, longitude = place.latitude, place.longitude
    elif not (isfinite(latitude) and isfinite(longitude)) or cell_of(latitude, longitude) is None:
        raise ApiError("BAD_USER_INPUT", "`latitude` is from -90 to 90, `longitude` from -180 to 180.")
    cell = None if latitude is None or longitude is None else cell_of(latitude, longitude)
    return Asked(purpose, stream.tenant_id, stream.stream_id, protocol, cell, place.country)


def _resolved(
    context: Context, routed: Routed, stream: StreamName, protocol: str, url_of: Callable[[str], str | None]
) -> Resolved:
    endpoints = [_endpoint(routed, n, url_of) for n in range(min(1 + ALTERNATIVES, len(routed.choice.candidates)))]
    if not endpoints:
        raise ApiError("NO_NODE", "No node can serve this at the moment: try again in some seconds.")
    caller = context.caller
    may_see = isinstance(caller, Operator) or (isinstance(caller, Tenant) and caller.tenant_id == stream.tenant_id)
    excluded = [
        Excluded(node_id, str(reason))
        for node_id, reason in routed.choice.excluded
        if may_see and reason is not Exclusion.NOT_FOR_TENANT
    ]
    return Resolved(endpoints[0].url, protocol, endpoints[0], endpoints[1:], excluded)


def _endpoint(routed: Routed, n: int, url_of: Callable[[str], str | None]) -> Endpoint:
    candidate = routed.choice.candidates[n]
    state, points = routed.nodes[candidate.node_id], parts(routed.weights, candidate.measures)
    assert state.base_url is not None, "a candidate has an address"
    url = url_of(state.base_url)
    assert url is not None, "the schema names the protocols that there are"
    score = Score(
        points.total,
        points.cpu,
        points.ram,
        points.bandwidth,
        points.geo,
        points.bonus,
        points.tags,
        candidate.measures.is_own,
    )
    return Endpoint(url, candidate.node_id, state.name, state.region, score)
