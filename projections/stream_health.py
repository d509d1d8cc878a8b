"""How a stream is doing at its media server: state of its buffer, what is wrong with it, its tracks.

Each is what the newest fact of its kind says, by `occurred_at`; depends on no order between the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from projections.clickhouse import AsyncClient, rows
from projections.clickhouse_tables import FactTable
from projections.model import FactProjection
from projections.moments import NOW, Moment, known
from streams.generated import (
    BufferChanged,
    NodeStarted,
    NodeStopped,
    StreamWentLive,
    StreamWentOffline,
    TracksChanged,
    TriggerInvalid,
)

VERSION: Final = 2
PROJECTION: Final = FactProjection(
    name="stream_health",
    version=VERSION,
    topics=("facts", "nodes"),
    tables=tuple(
        FactTable(record)
        for record in (
            BufferChanged,
            TracksChanged,
            StreamWentLive,
            StreamWentOffline,
            NodeStarted,
            NodeStopped,
            TriggerInvalid,
        )
    ),
)


@dataclass(frozen=True, slots=True)
class MediaTrack:
    name: str
    kind: str
    codec: str
    bitrate_bps: int
    width: int | None
    height: int | None
    frame_rate: float | None
    channels: int | None
    sample_rate_hz: int | None


@dataclass(frozen=True, slots=True)
class Health:
    """`at` is when the newest of it was said. `state` is None where no buffer was ever seen.

    `buffer_event` is the fact that says what the buffer is like.
    """

    at: datetime
    state: str | None
    buffer_ms: int | None
    jitter_ms: int | None
    max_keepaway_ms: int | None
    bitrate_bps: int | None
    issues: str | None
    node_id: str | None
    tracks: Sequence[MediaTrack]
    buffer_event: UUID | None = field(default=None, compare=False)
    stream_id: UUID | None = field(default=None, compare=False)


_OF_STREAMS: Final = (
    "tenant_id = {tenant_id:UUID} AND aggregate_id IN {stream_ids:Array(UUID)}"
    " AND toUnixTimestamp64Milli(occurred_at) <= {at_ms:Int64}"
)
_HEALTH: Final = f"""
SELECT stream_id, greatest(b_at, t_at), if(b_at > toDateTime64(0, 3, 'UTC'), b_state, NULL), b_buffer, b_jitter, b_keepaway,
    b_bitrate, b_issues, if(b_at > t_at, b_node, t_node), t_tracks, if(b_at > toDateTime64(0, 3, 'UTC'), b_event, NULL)
FROM (
    SELECT aggregate_id AS stream_id,
        argMax(
            (occurred_at, state, buffer_ms, jitter_ms, max_keepaway_ms, bitrate_bps, issues, node_id, event_id),
            (occurred_at, event_id)
        ) AS b,
        b.1 AS b_at, b.2 AS b_state, b.3 AS b_buffer, b.4 AS b_jitter, b.5 AS b_keepaway, b.6 AS b_bitrate, b.7 AS b_issues,
        b.8 AS b_node, b.9 AS b_event
    FROM buffer_changed_v WHERE {_OF_STREAMS} AND {known("buffer_changed")} GROUP BY stream_id
) AS b FULL JOIN (
    SELECT aggregate_id AS stream_id,
        argMax((occurred_at, tracks, node_id), (occurred_at, event_id)) AS t,
        t.1 AS t_at, t.2 AS t_tracks, t.3 AS t_node
    FROM tracks_changed_v WHERE {_OF_STREAMS} AND {known("tracks_changed")} GROUP BY stream_id
) AS t USING (stream_id)
SETTINGS join_use_nulls = 0
"""  # noqa: S608 - our own text; values are bound


async def health(ch: AsyncClient, tenant_id: UUID, stream_id: UUID) -> Health | None:
    """How a stream is doing; None where nothing was ever said about it."""
    return (await healths(ch, tenant_id, [stream_id])).get(stream_id)


async def healths(ch: AsyncClient, tenant_id: UUID, stream_ids: Sequence[UUID], moment: Moment = NOW) -> Mapping[UUID, Health]:
    """How streams are doing; those that nothing was ever said about are left out. One query for all of them."""
    if not stream_ids:
        return {}
    bound = {"tenant_id": tenant_id, "stream_ids": list(stream_ids), **moment.bound("buffer_changed", "tracks_changed")}
    found = await rows(ch, _HEALTH, bound)
    return {row[0]: Health(*[*row[1:9], tuple(_track(track) for track in row[9]), row[10], row[0]]) for row in found}


def _track(value: Mapping[str, Any]) -> MediaTrack:
    return MediaTrack(**value)
