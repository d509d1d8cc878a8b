"""Resolvers of queries about media server nodes, as they were registered."""

from __future__ import annotations

from typing import Final

from ariadne import QueryType
from graphql import GraphQLResolveInfo

from gateway import reads
from gateway.connections import Connection
from gateway.runtime import Context
from projections import node_registry
from projections.node_registry import NodeRow
from projections.pages import Key, Page
from streams.ids import node_uuid
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
query = QueryType()
TYPES: Final = (query,)


@query.field("nodes")
async def resolve_nodes(
    _: None, info: Info, first: int | None = None, after: str | None = None, after_position: Position | None = None
) -> Connection[NodeRow]:
    context: Context = info.context
    tenant_id = context.owner_id()
    await reads.wait_for(context, node_registry.PROJECTION.name, after_position)

    async def read(size: int, start: Key | None) -> Page[NodeRow]:
        return await node_registry.nodes_page(context.runtime.database, tenant_id, first=size, after=start)

    return await reads.connection("nodes", first, after, read)


@query.field("node")
async def resolve_node(_: None, info: Info, id: str, after: Position | None = None) -> NodeRow | None:
    context: Context = info.context
    tenant_id = context.owner_id()
    await reads.wait_for(context, node_registry.PROJECTION.name, after)
    return await node_registry.node_by_uuid(context.runtime.database, tenant_id, node_uuid(id))
