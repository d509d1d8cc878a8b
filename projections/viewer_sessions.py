"""Who watched, how long and how many bytes: viewings, and the audience that they add up to.

A viewing is a join and a leave with the same viewing id. Where the media server never said that a viewer left, the edge
concluded it (`synthesized`); if the real leave comes later, it wins. A leave whose join was not seen is a viewing too: it
began when the leave says, or no later than its seconds before the end. Depends on no order between the facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any, Final, NamedTuple
from uuid import UUID

from projections.clickhouse import AsyncClient, page, rows
from projections.clickhouse_tables import FactTable
from projections.model import FactProjection
from projections.moments import FOR_EVER, NOW, Moment, known, milliseconds
from projections.pages import Key, Page
from streams.generated import ViewerJoined, ViewerLeft

VERSION: Final = 2
PROJECTION: Final = FactProjection(
    name="viewer_sessions",
    version=VERSION,
    topics=("facts",),
    tables=(FactTable(ViewerJoined), FactTable(ViewerLeft)),
)
MAX_POINTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Audience:
    """`now` viewers at the moment, at most `peak` at once up to it (since `peak_at_ms`), `total` viewings by `unique` viewers.

    Seconds and bytes are those of the viewings that had ended. `upto`: the last offsets that it was computed from, by table.
    """

    now: int
    peak: int
    total: int
    unique: int = 0
    viewer_seconds: int = 0
    up_bytes: int = 0
    down_bytes: int = 0
    peak_at_ms: int = 0
    upto: Mapping[str, int] = field(default_factory=dict)


class Series(NamedTuple):
    """Viewers at moments, and the last offsets that they were computed from, by table."""

    points: Sequence[tuple[datetime, int]]
    upto: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Session:
    """One viewing. What is only known at its end is None before; `seconds` and bytes are the media server's count.

    `joined_event` and `left_event` are the facts that say so.
    """

    id: UUID
    session_id: str
    joined_at: datetime | None
    left_at: datetime | None
    seconds: int | None
    up_bytes: int | None
    down_bytes: int | None
    connector: str
    node_id: str
    country: str | None
    end_reason: str | None
    synthesized: bool
    joined_event: UUID | None = field(default=None, compare=False)
    left_event: UUID | None = field(default=None, compare=False)
    stream_id: UUID | None = field(default=None, compare=False)


# One row a viewing. `began_at` always has a value. An end behind `at` is not told, though it is known.
_VIEWINGS: Final = f"""
SELECT stream_id, viewing_id,
    coalesce(j_session, l_session, '') AS session_id,
    coalesce(j_at, l_joined) AS joined_at,
    ifNull(toUnixTimestamp64Milli(l_at) <= {{at_ms:Int64}}, false) AS over,
    if(over, l_at, NULL) AS left_at, if(over, l_seconds, NULL) AS seconds,
    if(over, l_up, NULL) AS up_bytes, if(over, l_down, NULL) AS down_bytes,
    coalesce(nullIf(l_connector, ''), j_connector, '') AS connector,
    coalesce(j_node, l_node, '') AS node_id,
    coalesce(j_country, l_country) AS country,
    if(over, l_reason, NULL) AS end_reason,
    over AND ifNull(l_synthesized, false) AS synthesized,
    j_event AS joined_event, if(over, l_event, NULL) AS left_event,
    assumeNotNull(coalesce(j_at, l_joined, l_at - toIntervalSecond(greatest(l_seconds, 0)))) AS began_at
FROM (
    SELECT aggregate_id AS stream_id, viewing_id,
        argMin(
            (occurred_at, session_id, connector, node_id, country, event_id), (occurred_at, event_id)
        ) AS t,
        t.1 AS j_at, t.2 AS j_session, t.3 AS j_connector, t.4 AS j_node, t.5 AS j_country, t.6 AS j_event
    FROM viewer_joined_v
    WHERE tenant_id = {{tenant_id:UUID}} AND aggregate_id IN {{stream_ids:Array(UUID)}} AND {known("viewer_joined")}
    GROUP BY stream_id, viewing_id
) AS j FULL JOIN (
    SELECT aggregate_id AS stream_id, viewing_id,
        argMax(
            (occurred_at, seconds, up_bytes, down_bytes, end_reason, synthesized, joined_at,
                session_id, connector, node_id, country, event_id),
            (NOT synthesized, occurred_at, event_id)
        ) AS t,
        t.1 AS l_at, t.2 AS l_seconds, t.3 AS l_up, t.4 AS l_down, t.5 AS l_reason, t.6 AS l_synthesized, t.7 AS l_joined,
        t.8 AS l_session, t.9 AS l_connector, t.10 AS l_node, t.11 AS l_country, t.12 AS l_event
    FROM viewer_left_v
    WHERE tenant_id = {{tenant_id:UUID}} AND aggregate_id IN {{stream_ids:Array(UUID)}} AND {known("viewer_left")}
    GROUP BY stream_id, viewing_id
) AS l USING (stream_id, viewing_id)
WHERE toUnixTimestamp64Milli(began_at) <= {{at_ms:Int64}}
SETTINGS join_use_nulls = 1
"""  # noqa: S608 - our own text; values are bound


# The same viewings as intervals [began, ended) in milliseconds, with what sums need: a third of the cost.
_NOBODY: Final = "toUUID('00000000-0000-0000-0000-000000000000')"
INTERVALS: Final = f"""
SELECT stream_id, viewing_id, session_id, join.1 AS join_ms, join.2 AS join_event, joined_upto, left_upto,
    left.3 AS seconds, left.4 AS up_bytes, left.5 AS down_bytes, left.6 AS left_event,
    if(join_ms = {FOR_EVER}, left.1, join_ms) AS began, if(left.2 = -1, {FOR_EVER}, greatest(left.2, began)) AS ended
FROM (
    SELECT stream_id, viewing_id, min((joined, event_id)) AS join, argMax(end, rank) AS left,
        argMin(session_id, (joined, event_id)) AS session_id,
        maxIf(_offset, joined <> {FOR_EVER}) AS joined_upto, maxIf(_offset, joined = {FOR_EVER}) AS left_upto
    FROM (
        SELECT aggregate_id AS stream_id, viewing_id, session_id, event_id, _offset,
            toUnixTimestamp64Milli(occurred_at) AS joined,
            (toInt64(-1), toInt64(-1), toInt64(0), toInt64(0), toInt64(0), {_NOBODY}) AS end,
            (false, toInt64(-1), {_NOBODY}) AS rank
        FROM viewer_joined_v
        WHERE tenant_id = {{tenant_id:UUID}} AND aggregate_id IN {{stream_ids:Array(UUID)}} AND {known("viewer_joined")}
        UNION ALL
        SELECT aggregate_id, viewing_id, session_id, event_id, _offset, {FOR_EVER},
            (
                ifNull(toUnixTimestamp64Milli(joined_at), toUnixTimestamp64Milli(occurred_at) - 1000 * greatest(seconds, 0)),
                toUnixTimestamp64Milli(occurred_at), seconds, up_bytes, down_bytes, event_id
            ),
            (NOT synthesized, toUnixTimestamp64Milli(occurred_at), event_id)
        FROM viewer_left_v
        WHERE tenant_id = {{tenant_id:UUID}} AND aggregate_id IN {{stream_ids:Array(UUID)}} AND {known("viewer_left")}
    )
    GROUP BY stream_id, viewing_id
)
WHERE began <= {{at_ms:Int64}}
"""  # noqa: S608 - our own text; values are bound
TABLES: Final = ("viewer_joined", "viewer_left")
_AUDIENCE: Final = f"""
SELECT stream_id, countIf(ended > {{at_ms:Int64}}), maxIntersections(began, ended), count(), uniqExact(session_id),
    sumIf(seconds, ended <= {{at_ms:Int64}}), sumIf(up_bytes, ended <= {{at_ms:Int64}}),
    sumIf(down_bytes, ended <= {{at_ms:Int64}}),
    toInt64(maxIntersectionsPosition(began, ended)), max(joined_upto), max(left_upto)
FROM ({INTERVALS}) GROUP BY stream_id"""  # noqa: S608 - our own text; values are bound


async def audience(ch: AsyncClient, tenant_id: UUID, stream_ids: Sequence[UUID], moment: Moment = NOW) -> Mapping[UUID, Audience]:
    """The audience of each of the streams. One query for all of them."""
    if not stream_ids:
        return {}
    bound = {"tenant_id": tenant_id, "stream_ids": list(stream_ids), **moment.bound(*TABLES)}
    found = await rows(ch, _AUDIENCE, bound)
    nobody = Audience(0, 0, 0, upto=dict.fromkeys(TABLES, -1))
    seen = {row[0]: replace(Audience(*row[1:9]), upto=dict(zip(TABLES, row[9:], strict=True))) for row in found}
    return {stream_id: seen.get(stream_id, nobody) for stream_id in stream_ids}


async def sessions(
    ch: AsyncClient, tenant_id: UUID, stream_id: UUID, first: int, after: Key | None = None, moment: Moment = NOW
) -> Page[Session]:
    """Viewings of a stream, the newest first."""
    listed = f"""
        SELECT toUnixTimestamp64Milli(began_at) AS key_ms, viewing_id AS key_id, viewing_id, session_id, joined_at, left_at,
            seconds, up_bytes, down_bytes, connector, node_id, country, end_reason, synthesized, joined_event, left_event,
            stream_id
        FROM ({_VIEWINGS})"""  # noqa: S608 - our own text; values are bound
    bound = {"tenant_id": tenant_id, "stream_ids": [stream_id], **moment.bound(*TABLES)}
    return await page(ch, listed, bound, first, after, _session)


async def viewers_over_time(
    ch: AsyncClient,
    tenant_id: UUID,
    stream_id: UUID,
    start: datetime,
    end: datetime,
    step_seconds: int,
    known_at: datetime | None = None,
) -> Series:
    """How many watched at `start` and every step after it, up to and without `end`. ValueError: no such series."""
    if step_seconds <= 0 or end <= start:
        raise ValueError("the step must be positive and the end after the start")
    points = -(-int((end - start) / timedelta(milliseconds=1)) // (step_seconds * 1000))
    if points > MAX_POINTS:
        raise ValueError(f"{points} points are more than {MAX_POINTS}: take a longer step")
    # A viewing counts at every point in [began, ended): one up at the first such point, one down at the first behind it.
    # What began behind the end counts at no point, so `at` need not keep it out; and -1 is no point, it carries the offsets.
    found = await rows(
        ch,
        f"""
        WITH viewings AS ({INTERVALS})
        SELECT n, sum(change), max(joined), max(left) FROM (
            SELECT arrayJoin([(began, 1), (ended, -1), ({-FOR_EVER}, 0)]) AS edge, edge.2 AS change,
                if(edge.2 = 0, -1,
                    greatest(intDiv(edge.1 - {{start_ms:Int64}} + {{step_ms:Int64}} - 1, {{step_ms:Int64}}), 0)) AS n,
                joined_upto AS joined, left_upto AS left
            FROM viewings
        ) WHERE n < {{points:Int64}} GROUP BY n""",  # noqa: S608 - our own text; values are bound
        {
            "tenant_id": tenant_id,
            "stream_ids": [stream_id],
            "start_ms": milliseconds(start),
            "step_ms": step_seconds * 1000,
            "points": points,
            **Moment(known_at=known_at).bound(*TABLES),
        },
    )
    changes = {int(n): int(change) for n, change, _, _ in found}
    viewers = accumulate(changes.get(n, 0) for n in range(points))
    upto = next(((joined, left) for n, _, joined, left in found if n == -1), (-1, -1))
    series = [(start + timedelta(seconds=step_seconds * n), count) for n, count in enumerate(viewers)]
    return Series(series, dict(zip(TABLES, upto, strict=True)))


def _session(row: Sequence[Any]) -> Session:
    return Session(*row)
