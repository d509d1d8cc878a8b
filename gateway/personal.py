"""Resolvers of personal data: sealed in every store, opened for the tenant whose it is, while the key lives.

Invariant: the tenant is the caller's own; keys of others are not even asked for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from aiodataloader import DataLoader
from ariadne import ObjectType, QueryType
from graphql import GraphQLResolveInfo

from gateway.connections import page_size
from gateway.reads import wait_for
from gateway.runtime import Context
from projections import journal, personal
from projections.ingests import Ingest
from projections.personal import Erasure
from projections.tenants import TenantRow
from projections.viewer_sessions import Session
from streams.privacy.reading import Opened, Sealed, opened
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
Row = tuple[Sealed | None, ...]
NOTHING: Final = Opened(None, is_erased=False)

query = QueryType()
session_type = ObjectType("Session")
ingest_type = ObjectType("Ingest")
tenant_type = ObjectType("Tenant")
TYPES: Final = (query, session_type, ingest_type, tenant_type)


class _Loader(DataLoader[UUID, tuple[Opened, ...]]):
    """All rows of a request whose personal data is asked for: one question to the table, one to the key store."""

    def __init__(self, context: Context, read: Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, Row]]]) -> None:
        super().__init__()
        self._context, self._read = context, read

    async def batch_load_fn(self, keys: list[UUID]) -> list[tuple[Opened, ...]]:
        found = await self._read(keys)
        sealed = [(key, n, value) for key in keys for n, value in enumerate(found.get(key, ())) if value is not None]
        plain = await opened(self._context.runtime.keys, self._context.tenant_id(), [value for _, _, value in sealed])
        by_place = {(key, n): value for (key, n, _), value in zip(sealed, plain, strict=True)}
        return [tuple(by_place.get((key, n), NOTHING) for n in range(2)) for key in keys]


async def _of_session(context: Context, session: Session) -> tuple[Opened, ...]:
    async def read(ids: Sequence[UUID]) -> Mapping[UUID, Row]:
        return await personal.of_viewings(context.runtime.clickhouse, context.tenant_id(), ids)

    return await _loaded(context, "personal of sessions", session.id, read)


async def _of_ingest(context: Context, ingest: Ingest) -> Opened:
    async def read(ids: Sequence[UUID]) -> Mapping[UUID, Row]:
        found = await personal.of_ingests(context.runtime.clickhouse, context.tenant_id(), ids)
        return {key: (value,) for key, value in found.items()}

    return (await _loaded(context, "personal of ingests", ingest.id, read))[0]


async def _loaded(
    context: Context, name: str, key: UUID, read: Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, Row]]]
) -> tuple[Opened, ...]:
    loader = context.loaders.get(name)
    if not isinstance(loader, _Loader):
        loader = context.loaders[name] = _Loader(context, read)
    found: tuple[Opened, ...] = await loader.load(key)
    return found


@session_type.field("address")
async def resolve_session_address(session: Session, info: Info) -> str | None:
    return (await _of_session(info.context, session))[0].text


@session_type.field("subject")
async def resolve_session_subject(session: Session, info: Info) -> str | None:
    return (await _of_session(info.context, session))[1].text


@session_type.field("isErased")
async def resolve_session_erased(session: Session, info: Info) -> bool:
    return any(value.is_erased for value in await _of_session(info.context, session))


@ingest_type.field("address")
async def resolve_ingest_address(ingest: Ingest, info: Info) -> str | None:
    return (await _of_ingest(info.context, ingest)).text


@ingest_type.field("isErased")
async def resolve_ingest_erased(ingest: Ingest, info: Info) -> bool:
    return (await _of_ingest(info.context, ingest)).is_erased


@tenant_type.field("contactEmail")
async def resolve_contact(tenant: TenantRow, info: Info) -> str | None:
    return (await _contact(info.context, tenant)).text


@tenant_type.field("contactIsErased")
async def resolve_contact_erased(tenant: TenantRow, info: Info) -> bool:
    return (await _contact(info.context, tenant)).is_erased


async def _contact(context: Context, tenant: TenantRow) -> Opened:
    sealed = await personal.contact_of(context.runtime.database, tenant.tenant_id)
    return NOTHING if sealed is None else (await opened(context.runtime.keys, tenant.tenant_id, [sealed]))[0]


@query.field("erasures")
async def resolve_erasures(
    _: None, info: Info, first: int | None = None, after_position: Position | None = None
) -> Sequence[Erasure]:
    context: Context = info.context
    tenant_id = context.owner_id()
    await wait_for(context, journal.PROJECTION.name, after_position)
    return await personal.erasures(context.runtime.database, tenant_id, page_size(first))
