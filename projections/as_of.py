"""Tenants and streams as they were: the journal folded up to a time, by the fold of the live tables (`streams.fold`).

Invariant: there is one meaning of an event. What differs is only where the rows go: filters, order, pages and the computed
columns are those of the live table, in the same statements, over the folded rows (`streams._instead`).

The time is that of the log: a decision counts from when the log took it, a fact from when it was known.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from projections import journal, streams, tenants
from projections.changes import Changes
from projections.clickhouse import AsyncClient, rows
from projections.model import Database, Delivered
from projections.moments import Moment, known
from projections.tenants import TenantRow
from streams.generated import Decision, IngestEnded, IngestStarted, Meta, StreamWentLive, StreamWentOffline

_KNOWN_TABLES: Final = ("stream_went_live", "stream_went_offline", "ingest_started", "ingest_ended")
_OF: Final = "tenant_id = {tenant_id:UUID}"
# The newest of each kind is all that the fold keeps of it.
_FACTS: Final = f"""
SELECT aggregate_id, 'live' AS kind, max(occurred_at) AS at, argMax(node_id, (occurred_at, node_id))
FROM stream_went_live_v WHERE {_OF} AND {known("stream_went_live")} GROUP BY aggregate_id
UNION ALL
SELECT aggregate_id, 'offline', max(coalesce(live_since, occurred_at)), ''
FROM stream_went_offline_v WHERE {_OF} AND {known("stream_went_offline")} GROUP BY aggregate_id
UNION ALL
SELECT aggregate_id, 'started', max(occurred_at), ''
FROM ingest_started_v WHERE {_OF} AND {known("ingest_started")} GROUP BY aggregate_id
UNION ALL
SELECT aggregate_id, 'ended', max(coalesce(started_at, occurred_at)), ''
FROM ingest_ended_v WHERE {_OF} AND {known("ingest_ended")} GROUP BY aggregate_id
"""  # noqa: S608 - our own text; values are bound


async def tenant(db: Database, tenant_id: UUID, as_of: datetime) -> TenantRow | None:
    folded, tokens, keys = Changes(tenants.TENANTS), Changes(tenants.API_TOKENS), Changes(tenants.SIGNING_KEYS)
    tenants.fold(await journal.decided(db, tenant_id, as_of, tenants.PROJECTION.handles, [tenant_id]), folded, tokens, keys)
    row = folded.rows.get((tenant_id,))
    return None if row is None else tenants.tenant_row({"tenant_id": tenant_id, **row})


async def past_streams(db: Database, ch: AsyncClient, tenant_id: UUID, as_of: datetime, stream_id: UUID | None = None) -> Changes:
    """Rows of the tenant's streams (or one of them) as they were. Raises TooMuchHistory."""
    decisions = streams.PROJECTION.handles & _DECISIONS
    wanted = None if stream_id is None else [stream_id]
    folded = Changes(streams.STREAMS)
    streams.fold(await journal.decided(db, tenant_id, as_of, decisions, wanted), folded)
    if folded.rows:
        bound = {"tenant_id": tenant_id, **Moment(known_at=as_of).bound(*_KNOWN_TABLES)}
        facts = [_fact(tenant_id, *row) for row in await rows(ch, _FACTS, bound)]
        streams.fold([fact for fact in facts if (tenant_id, fact.meta.aggregate_id) in folded.rows], folded)
    return folded


def _fact(tenant_id: UUID, stream_id: UUID, kind: str, at: datetime, node_id: str) -> Delivered:
    """The newest fact of a kind, as far as the fold looks at it."""
    meta = Meta(stream_id, tenant_id, stream_id, 0, stream_id, stream_id, at, "")
    match kind:
        case "live":
            return Delivered(StreamWentLive(node_id, ""), meta, "", 0, 0, b"")
        case "offline":
            return Delivered(StreamWentOffline(node_id, ""), meta, "", 0, 0, b"")
        case "started":
            return Delivered(IngestStarted(node_id, stream_id, "", ""), meta, "", 0, 0, b"")
        case _:
            ended = IngestEnded(node_id, stream_id, "", "", end_reason="", started_at=at)
            return Delivered(ended, meta, "", 0, 0, b"")


_DECISIONS: Final = frozenset(Decision.__args__)
