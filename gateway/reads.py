"""Read models for resolvers: whose they are comes from the context, pages become connections.

Invariant: every read passes the caller's tenant id first. A query that names a position reads nothing that is older.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar
from uuid import UUID

from aiodataloader import DataLoader

from gateway.connections import Connection, page_size, page_start
from gateway.cursors import BadCursor, LogCursor
from gateway.errors import ApiError
from gateway.inputs import uuid_or_none
from gateway.runtime import Context
from gateway.subscriptions import Snapshot
from projections import ingests, platform, positions, stream_health, streams, tenants, viewer_sessions
from projections.changes import Changes
from projections.ingests import IngestTotals, Rejection
from projections.model import TP
from projections.moments import NOW, Moment
from projections.pages import Key, Page
from projections.stream_health import Health
from projections.streams import StreamRow, StreamState
from projections.tenants import TenantRow
from projections.viewer_sessions import Audience
from streams.recorded import Position

WAIT_SECONDS: Final = 5.0
_END_OF_TIME_MS: Final = 253_402_300_800_000  # the year 10000
Row = TypeVar("Row")


async def wait_for(context: Context, projection: str, position: Position | None) -> None:
    """Until the projection has passed the position, or the request's X-FW-After. Raises ApiError after 5 s."""
    wanted = position or context.after
    if wanted is None:
        return
    if not await positions.passed(context.runtime.database, projection, wanted, WAIT_SECONDS):
        raise ApiError("NOT_READ_YET", f"Position {wanted} cannot be read yet: try again in some seconds.")


async def tenant(context: Context, tenant_id: UUID) -> TenantRow | None:
    await wait_for(context, tenants.PROJECTION.name, None)
    return await tenants.tenant_by_id(context.runtime.database, tenant_id)


async def stream(
    context: Context, stream_id: str, after: Position | None = None, past: Changes | None = None
) -> StreamRow | None:
    """The caller's stream with this id; None where there is none. `past`: rows to look in instead of the table's."""
    tenant_id = context.tenant_id()
    if past is None:
        await wait_for(context, streams.PROJECTION.name, after)
    found = uuid_or_none(stream_id)
    return None if found is None else await streams.stream_by_id(context.runtime.database, tenant_id, found, past)


async def streams_page(
    context: Context,
    first: int | None,
    after: str | None,
    title: str | None,
    state: StreamState | None,
    position: Position | None,
    past: Changes | None = None,
) -> Connection[StreamRow]:
    tenant_id = context.tenant_id()
    if title and "\0" in title:  # no title has one, and the database takes none
        raise ApiError("BAD_USER_INPUT", "`title` has a zero character: remove it.")
    if past is None:
        await wait_for(context, streams.PROJECTION.name, position)

    async def read(size: int, start: Key | None) -> Page[StreamRow]:
        return await streams.streams_page(
            context.runtime.database, tenant_id, first=size, after=start, title=title or None, state=state, past=past
        )

    return await connection("streams", first, after, read)


async def connection(
    kind: str, first: int | None, after: str | None, read: Callable[[int, Key | None], Awaitable[Page[Row]]]
) -> Connection[Row]:
    """A page as a connection; keys of all our lists are (milliseconds, id)."""
    size = page_size(first)
    start = page_start(kind, after, (int, str))
    if start is not None and not _is_key(*start):
        raise BadCursor
    found = await read(size, start)
    return Connection(kind, found.items, found.keys, found.has_next, start is not None, found.total_count)


def _is_key(at_ms: object, row_id: object) -> bool:
    """Whether a list may have such a key: what is none must not reach a store, which would fail over it."""
    return isinstance(at_ms, int) and 0 <= at_ms < _END_OF_TIME_MS and uuid_or_none(str(row_id)) is not None


async def rejections(
    context: Context, tenant_id: UUID, first: int | None, after: str | None, moment: Moment
) -> Connection[Rejection]:
    """Who was refused anywhere at the tenant."""

    async def read(size: int, start: Key | None) -> Page[Rejection]:
        return await ingests.rejections(context.runtime.clickhouse, tenant_id, None, size, start, moment)

    return await connection("rejections", first, after, read)


class _OfStreams(DataLoader[UUID, Row | None]):
    """All streams of a request of which the same is asked: one query."""

    def __init__(self, read: Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, Row]]]) -> None:
        super().__init__()
        self._read = read

    async def batch_load_fn(self, keys: list[UUID]) -> list[Row | None]:
        found = await self._read(keys)
        return [found.get(key) for key in keys]


async def of_streams(
    context: Context, name: str, stream_id: UUID, read: Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, Row]]]
) -> Row | None:
    """What is read of a stream, together with the same of the request's others; `name` says what, and of when."""
    loader = context.loaders.get(name)
    if not isinstance(loader, _OfStreams):
        loader = context.loaders[name] = _OfStreams(read)
    found: Row | None = await loader.load(stream_id)
    return found


async def _of_stream(
    context: Context,
    name: str,
    moment: Moment,
    stream_id: UUID,
    read: Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, Row]]],
) -> Row | None:
    return await of_streams(context, f"{name} {moment.at} {moment.known_at}", stream_id, read)


async def audience(context: Context, tenant_id: UUID, stream_id: UUID, moment: Moment = NOW) -> Audience:
    async def read(stream_ids: Sequence[UUID]) -> Mapping[UUID, Audience]:
        return await viewer_sessions.audience(context.runtime.clickhouse, tenant_id, stream_ids, moment)

    found = await _of_stream(context, "audience", moment, stream_id, read)
    assert found is not None, "every stream has an audience"
    return found


async def health(context: Context, tenant_id: UUID, stream_id: UUID, moment: Moment = NOW) -> Health | None:
    async def read(stream_ids: Sequence[UUID]) -> Mapping[UUID, Health]:
        return await stream_health.healths(context.runtime.clickhouse, tenant_id, stream_ids, moment)

    return await _of_stream(context, "health", moment, stream_id, read)


async def ingest_totals(context: Context, tenant_id: UUID, stream_id: UUID, moment: Moment = NOW) -> IngestTotals:
    return await ingests.ingest_totals(context.runtime.clickhouse, tenant_id, stream_id, moment)


async def snapshot(context: Context, row: StreamRow) -> Snapshot:
    """How a stream is, and up to where on the log that is known to be included.

    Positions are read before rows, so the rows include at least everything below them; what they include beyond is delivered
    again as events. The audience comes from another projection: the smaller position counts.
    """
    runtime = context.runtime
    facts_partition, decisions_partition = runtime.fanout.partitions(row.tenant_id, row.stream_id)
    facts = TP(runtime.fanout.facts.topic.name, facts_partition)
    decisions = TP(runtime.fanout.decisions.topic.name, decisions_partition)
    of_streams = await platform.active_offsets(runtime.database, streams.PROJECTION.name, (facts, decisions))
    of_viewers = await platform.active_offsets(runtime.database, viewer_sessions.PROJECTION.name, (facts,))
    upto = LogCursor(min(of_streams[facts] or 0, of_viewers[facts] or 0), of_streams[decisions] or 0)
    fresh = await streams.stream_by_id(runtime.database, row.tenant_id, row.stream_id) or row
    viewers = await viewer_sessions.audience(runtime.clickhouse, row.tenant_id, [row.stream_id])
    return Snapshot(fresh.state, viewers[row.stream_id].now, fresh, upto)
