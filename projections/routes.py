"""What the balancer decided, and what it would have decided under other weights.

A row is a decision with its candidates as arrays. They hold measures, not points, so a score under any weights is computed by the
engine from what is stored: `what_if` decides everything anew, by the same rules (`streams.balancing.score`): the tenant's own
nodes first, then the score, then the smaller node id. Of a decision its best candidates were kept, not all: a node that was not
among those cannot win here, which is said (`truncated`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from projections.clickhouse import AsyncClient, rows
from projections.clickhouse_tables import FactTable
from streams.balancing.score import Weights
from streams.generated import ViewerRouted

ROUTES: Final = FactTable(ViewerRouted)

_POINTS: Final = """arrayMap(
    (cpu, ram, bandwidth, distance, has, tags) ->
        ({cpu:Int64} - intDiv({cpu:Int64} * cpu, 1000000)) + ({ram:Int64} - intDiv({ram:Int64} * ram, 1000000))
        + ({bandwidth:Int64} - intDiv({bandwidth:Int64} * bandwidth, 1000000))
        + if(distance < 0, 0, {geo:Int64} - intDiv({geo:Int64} * distance, 1000000)) + if(has, {bonus:Int64}, 0) + tags,
    arrayMap(x -> toInt64(x), cpu_used_ppm), arrayMap(x -> toInt64(x), ram_used_ppm),
    arrayMap(x -> toInt64(x), bandwidth_used_ppm),
    arrayMap(x -> toInt64(x), distance_ppm), has_stream, arrayMap(x -> toInt64(x), tag_adjustments))"""
_DECIDED: Final = f"""
SELECT ifNull(country, '') AS country, ifNull(node_id, '') AS went, {_POINTS} AS points,
    if(empty(node_ids), '', arraySort(
        (_, own, score, name) -> (not own, -score, name), node_ids, is_own, points, node_ids)[1]) AS would,
    candidates_total > length(node_ids) AS is_truncated
FROM viewer_routed_v
WHERE occurred_at >= fromUnixTimestamp64Milli({{start_ms:Int64}}) AND occurred_at < fromUnixTimestamp64Milli({{end_ms:Int64}})
    AND purpose = {{purpose:String}}"""  # noqa: S608 - our own text; values are bound
_MOVED: Final = f"SELECT country, went, would, count(), countIf(is_truncated) FROM ({_DECIDED}) GROUP BY country, went, would"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Moved:
    """So many decisions for askers of a country went to one node and would have gone to another. Empty: unknown, or to none."""

    country: str
    went: str
    would: str
    decisions: int
    truncated: int  # of them, those whose worse candidates were not kept


async def what_if(ch: AsyncClient, weights: Weights, start: datetime, end: datetime, purpose: str = "VIEWER") -> Sequence[Moved]:
    """Decides every question of [start, end) again under these weights. Raises Transient while there are no tables yet."""
    found = await rows(
        ch,
        _MOVED,
        {
            "cpu": weights.cpu,
            "ram": weights.ram,
            "bandwidth": weights.bandwidth,
            "geo": weights.geo,
            "bonus": weights.bonus,
            "start_ms": int(start.timestamp() * 1000),
            "end_ms": int(end.timestamp() * 1000),
            "purpose": purpose,
        },
    )
    return [Moved(*row) for row in found]
