"""Resolvers of queries about what was decided. Of what happened: `analytics.py`. The rest are attributes (`executable.py`)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ariadne import ObjectType, QueryType
from graphql import GraphQLResolveInfo

from gateway import decisions, reads
from gateway.auth import Anonymous, Operator, Tenant
from gateway.connections import Connection
from gateway.inputs import uuid_or_none
from gateway.runtime import Context
from gateway.times import moment_of
from projections.ingests import Rejection
from projections.streams import StreamRow, StreamState
from projections.tenants import TenantRow
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
query = QueryType()
viewer_type = ObjectType("Viewer")
TYPES: Final = (query, viewer_type)


@dataclass(frozen=True, slots=True)
class Viewer:
    kind: str


@query.field("viewer")
def resolve_viewer(_: None, info: Info) -> Viewer:
    match info.context.caller:
        case Operator():
            return Viewer("OPERATOR")
        case Anonymous():
            return Viewer("ANONYMOUS")
        case _:
            return Viewer("TENANT")


@query.field("tenant")
async def resolve_tenant(_: object, info: Info, as_of: datetime | None = None) -> TenantRow | None:
    context: Context = info.context
    if as_of is not None:
        return await decisions.tenant_as_of(context, as_of)
    return await reads.tenant(context, context.tenant_id())


@viewer_type.field("tenant")
async def resolve_viewer_tenant(_: Viewer, info: Info) -> TenantRow | None:
    context: Context = info.context
    return await reads.tenant(context, context.caller.tenant_id) if isinstance(context.caller, Tenant) else None


@query.field("stream")
async def resolve_stream(
    _: None, info: Info, id: str, after: Position | None = None, as_of: datetime | None = None
) -> StreamRow | None:
    if as_of is None:
        return await reads.stream(info.context, id, after)
    stream_id = uuid_or_none(id)
    if stream_id is None:
        return None
    past = await decisions.streams_as_of(info.context, as_of, stream_id, after)
    return await reads.stream(info.context, id, None, past)


@query.field("streams")
async def resolve_streams(
    _: None,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    title: str | None = None,
    state: StreamState | None = None,
    after_position: Position | None = None,
    as_of: datetime | None = None,
) -> Connection[StreamRow]:
    past = None if as_of is None else await decisions.streams_as_of(info.context, as_of, None, after_position)
    position = None if as_of is not None else after_position
    return await reads.streams_page(info.context, first, after, title, state, position, past)


@query.field("rejections")
async def resolve_rejections(
    _: None,
    info: Info,
    first: int | None = None,
    after: str | None = None,
    at: datetime | None = None,
    known_at: datetime | None = None,
) -> Connection[Rejection]:
    context: Context = info.context
    return await reads.rejections(context, context.owner_id(), first, after, moment_of(at, known_at))
