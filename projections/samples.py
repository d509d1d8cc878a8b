"""Samples of sessions and nodes: batches of parallel arrays, unfolded by the engine to one row a sample; and what the balancer
decided (`routes.py`), which lies on the same topic and stays an array a candidate.

Counters are the media server's, since the session or node started; rates are its own. Sums and averages belong to whoever
reads: a row is what was measured, never an average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from projections.clickhouse import AsyncClient, rows
from projections.clickhouse_tables import ArrayTable
from projections.model import FactProjection
from projections.routes import ROUTES
from streams.generated import ClientSamples, NodeSamples

VERSION: Final = 3
PROJECTION: Final = FactProjection(
    name="samples",
    version=VERSION,
    topics=("samples",),
    batch_bytes=16 << 20,  # about 1,400 records of 100 samples
    tables=(
        ArrayTable(
            ClientSamples,
            key=("aggregate_id", "sampled_at"),  # nearly the order in which they come: sorting costs more than all else
            singular={"session_ids": "session_id", "connectors": "connector"},
        ),
        ArrayTable(NodeSamples, key=("aggregate_id", "sampled_at")),
        ROUTES,
    ),
)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Traffic of a stream's sessions in [at, at + step): the sum over the sessions of what each moved on average."""

    at: datetime
    sessions: int
    up_bytes_per_second: int
    down_bytes_per_second: int


async def traffic(
    ch: AsyncClient, tenant_id: UUID, stream_id: UUID, start: datetime, end: datetime, step_seconds: int
) -> Sequence[Traffic]:
    """Traffic of a stream from `start` up to and without `end`, for steps in which it was sampled. ValueError: no such series."""
    if step_seconds <= 0 or end <= start:
        raise ValueError("the step must be positive and the end after the start")
    found = await rows(
        ch,
        """
        SELECT at, count(), toInt64(sum(up)), toInt64(sum(down)) FROM (
            SELECT intDiv(toUnixTimestamp64Milli(sampled_at) - {start_ms:Int64}, {step_ms:Int64}) AS step,
                fromUnixTimestamp64Milli({start_ms:Int64} + step * {step_ms:Int64}, 'UTC') AS at,
                session_id, avg(up_bytes_per_second) AS up, avg(down_bytes_per_second) AS down
            FROM client_samples_v
            WHERE tenant_id = {tenant_id:UUID} AND aggregate_id = {stream_id:UUID}
                AND sampled_at >= fromUnixTimestamp64Milli({start_ms:Int64})
                AND sampled_at < fromUnixTimestamp64Milli({end_ms:Int64})
            GROUP BY step, session_id
        ) GROUP BY at ORDER BY at""",
        {
            "tenant_id": tenant_id,
            "stream_id": stream_id,
            "start_ms": int(start.timestamp() * 1000),
            "end_ms": int(end.timestamp() * 1000),
            "step_ms": step_seconds * 1000,
        },
    )
    return [Traffic(*row) for row in found]


@dataclass(frozen=True, slots=True)
class Sessions:
    """Of a stream, when each of its nodes was last asked: how many watch, and what their sessions moved so far."""

    viewers: int
    up_bytes_per_second: int
    up_bytes: int
    down_bytes: int


NO_SESSIONS: Final = Sessions(0, 0, 0, 0)
CURRENT_SECONDS: Final = 60


async def sessions_now(ch: AsyncClient, streams: Sequence[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], Sessions]:
    """By (tenant, stream): sessions as of each node's newest sample, if that is of the last minute.

    Publishers and pushes are no viewers: the media server begins their ids with a letter (CONTRACT 6.4).
    """
    found = await rows(
        ch,
        """
        SELECT tenant_id, aggregate_id, countIf(is_viewer), toInt64(sumIf(rate, is_viewer)), toInt64(sum(up)), toInt64(sum(down))
        FROM (
            SELECT tenant_id, aggregate_id, node_id, session_id, max(sampled_at) AS seen_at,
                max(seen_at) OVER (PARTITION BY tenant_id, aggregate_id, node_id) AS newest_at,
                left(session_id, 1) NOT IN ('I', 'O', 'U') AS is_viewer,
                argMax(up_bytes_per_second, sampled_at) AS rate, max(up_bytes) AS up, max(down_bytes) AS down
            FROM client_samples_v
            WHERE tenant_id IN {tenants:Array(UUID)} AND aggregate_id IN {streams:Array(UUID)}
                AND sampled_at > now64(3) - {seconds:UInt32}
            GROUP BY tenant_id, aggregate_id, node_id, session_id
        ) WHERE seen_at = newest_at GROUP BY tenant_id, aggregate_id""",
        {
            "tenants": sorted({tenant_id for tenant_id, _ in streams}),
            "streams": [stream_id for _, stream_id in streams],
            "seconds": CURRENT_SECONDS,
        },
    )
    return {(tenant_id, stream_id): Sessions(*numbers) for tenant_id, stream_id, *numbers in found}
