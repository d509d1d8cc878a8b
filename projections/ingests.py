"""What comes into a stream and what goes out of it besides viewers: publishers, pushes, recordings, and who was refused.

A publishing is a start and an end with the same ingest id, a push likewise; either may be missing, and an end that the edge
concluded (`synthesized`) gives way to a real one. Depends on no order between the facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from projections.clickhouse import AsyncClient, page, rows
from projections.clickhouse_tables import FactTable
from projections.model import FactProjection
from projections.moments import NOW, Moment, known
from projections.pages import Key, Page
from streams.generated import (
    IngestEnded,
    IngestRejected,
    IngestStarted,
    PushEnded,
    PushStarted,
    RecordingEnded,
    StreamTotals,
    ViewerRejected,
)

VERSION: Final = 2
PROJECTION: Final = FactProjection(
    name="ingests",
    version=VERSION,
    topics=("facts", "nodes"),
    tables=tuple(
        FactTable(record)
        for record in (
            IngestStarted,
            IngestEnded,
            IngestRejected,
            ViewerRejected,
            PushStarted,
            PushEnded,
            RecordingEnded,
            StreamTotals,
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Ingest:
    """One publishing. `bytes` are those received from the publisher; None where nobody can tell.

    `totals_event` is the fact that tells them where the end does not.
    """

    id: UUID
    started_at: datetime | None
    ended_at: datetime | None
    protocol: str
    node_id: str
    end_reason: str | None
    end_detail: str | None
    bytes: int | None
    synthesized: bool
    seconds: int | None = None
    started_event: UUID | None = field(default=None, compare=False)
    ended_event: UUID | None = field(default=None, compare=False)
    totals_event: UUID | None = field(default=None, compare=False)
    stream_id: UUID | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A publisher (INGEST) or viewer (VIEWER) who was refused; `stream_id` is the node's id where no stream is known."""

    id: UUID
    at: datetime
    kind: str
    stream_id: UUID
    reason: str
    key_redacted: str | None
    node_id: str


@dataclass(frozen=True, slots=True)
class Push:
    """One push or recording process. What is only known at its end is None before."""

    id: UUID
    target: str
    started_at: datetime | None
    ended_at: datetime | None
    seconds: int | None
    sent_bytes: int | None
    media_ms: int | None
    end_reason: str | None
    end_detail: str | None
    node_id: str
    synthesized: bool
    started_event: UUID | None = field(default=None, compare=False)
    ended_event: UUID | None = field(default=None, compare=False)
    stream_id: UUID | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Recording:
    """One complete recording file."""

    id: UUID
    push_id: UUID | None
    path: str
    connector: str
    size_bytes: int
    seconds: int
    media_ms: int
    started_at: datetime
    ended_at: datetime
    end_reason: str
    end_detail: str | None
    node_id: str
    event_id: UUID | None = field(default=None, compare=False)
    stream_id: UUID | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class IngestTotals:
    """Publishings of a stream, their seconds and bytes as far as known; `upto`: the last offsets behind it, by table."""

    count: int
    seconds: int
    bytes: int
    upto: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Totals:
    """What a stream came to between two times when nobody was connected to it."""

    id: UUID
    at: datetime
    up_bytes: int
    down_bytes: int
    viewers: int
    inputs: int
    outputs: int
    viewer_seconds: int
    node_id: str


_OF_STREAM: Final = "tenant_id = {tenant_id:UUID} AND aggregate_id = {stream_id:UUID}"
_HAPPENED: Final = "toUnixTimestamp64Milli(occurred_at) <= {at_ms:Int64}"

# Totals do not say what each publisher sent. They tell it where one publishing alone lies between them and the totals before:
# it began and ended there, nobody else did, and nobody who began before was still there. Zero means that the media server did
# not count (it leaves out private addresses by default). An end behind `at` is not told, though it is known.
INGESTS: Final = f"""
SELECT toUnixTimestamp64Milli(began_at) AS key_ms, ingest_id AS key_id, ingest_id, started_at, if(over, end_at, NULL) AS ended_at,
    protocol, node_id, if(over, reason, NULL) AS end_reason, if(over, detail, NULL) AS end_detail,
    if(
        end_at <= totals_at
            AND count() OVER (PARTITION BY totals_id) = 1
            AND max(ifNull(end_at, toDateTime64('2200-01-01', 3, 'UTC')))
                OVER (PARTITION BY node_id ORDER BY began_at, ingest_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
                <= totals_since,
        nullIf(totals_bytes, 0),
        NULL
    ) AS counted,
    if(over, coalesce(received_bytes, counted), NULL) AS bytes,
    over AND concluded AS synthesized,
    if(over, coalesce(said_seconds, dateDiff('second', started_at, end_at)), NULL) AS seconds,
    started_event, if(over, end_event, NULL) AS ended_event,
    coalesce(started_event, end_event) AS first_event,
    if(over AND received_bytes IS NULL AND counted IS NOT NULL, totals_id, NULL) AS totals_event
FROM (
    SELECT ingest_id,
        coalesce(s_at, e_started) AS started_at, e_at AS end_at,
        ifNull(toUnixTimestamp64Milli(e_at) <= {{at_ms:Int64}}, false) AS over,
        coalesce(s_protocol, e_protocol, '') AS protocol, assumeNotNull(coalesce(s_node, e_node)) AS node_id,
        e_reason AS reason, e_detail AS detail, e_bytes AS received_bytes, ifNull(e_synthesized, false) AS concluded,
        assumeNotNull(coalesce(s_at, e_started, e_at)) AS began_at,
        e_seconds AS said_seconds, s_event AS started_event, e_event AS end_event
    FROM (
        SELECT ingest_id, argMin((occurred_at, protocol, node_id, event_id), (occurred_at, event_id)) AS t,
            t.1 AS s_at, t.2 AS s_protocol, t.3 AS s_node, t.4 AS s_event
        FROM ingest_started_v WHERE {_OF_STREAM} AND {known("ingest_started")} GROUP BY ingest_id
    ) AS s FULL JOIN (
        SELECT ingest_id,
            argMax(
                (occurred_at, started_at, protocol, node_id, end_reason, end_detail,
                    received_bytes, synthesized, seconds, event_id),
                (NOT synthesized, occurred_at, event_id)
            ) AS t,
            t.1 AS e_at, t.2 AS e_started, t.3 AS e_protocol, t.4 AS e_node, t.5 AS e_reason, t.6 AS e_detail, t.7 AS e_bytes,
            t.8 AS e_synthesized, t.9 AS e_seconds, t.10 AS e_event
        FROM ingest_ended_v WHERE {_OF_STREAM} AND {known("ingest_ended")} GROUP BY ingest_id
    ) AS e USING (ingest_id)
    WHERE toUnixTimestamp64Milli(began_at) <= {{at_ms:Int64}}
    SETTINGS join_use_nulls = 1
) AS i ASOF LEFT JOIN (
    SELECT node_id AS totals_node, occurred_at AS totals_at, toNullable(event_id) AS totals_id,
        toNullable(down_bytes) AS totals_bytes,
        lagInFrame(occurred_at) OVER (
            PARTITION BY node_id ORDER BY occurred_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS totals_since
    FROM stream_totals_v WHERE {_OF_STREAM} AND {known("stream_totals")} AND {_HAPPENED}
) AS t ON i.node_id = t.totals_node AND i.began_at <= t.totals_at
SETTINGS join_use_nulls = 1
"""  # noqa: S608 - our own text; values are bound
TABLES: Final = ("ingest_started", "ingest_ended", "stream_totals")

_PUSHES: Final = f"""
SELECT toUnixTimestamp64Milli(assumeNotNull(coalesce(s_at, e_started, e_at))) AS key_ms, push_id AS key_id, push_id,
    coalesce(e_target, s_target, ''), coalesce(s_at, e_started),
    ifNull(toUnixTimestamp64Milli(e_at) <= {{at_ms:Int64}}, false) AS over, if(over, e_at, NULL), if(over, e_seconds, NULL),
    if(over, e_bytes, NULL), if(over, e_media, NULL), if(over, e_reason, NULL), if(over, e_detail, NULL),
    coalesce(s_node, e_node, ''), over AND ifNull(e_synthesized, false), s_event, if(over, e_event, NULL)
FROM (
    SELECT push_id, argMin((occurred_at, target, node_id, event_id), (occurred_at, event_id)) AS t,
        t.1 AS s_at, t.2 AS s_target, t.3 AS s_node, t.4 AS s_event
    FROM push_started_v WHERE {_OF_STREAM} AND {known("push_started")} GROUP BY push_id
) AS s FULL JOIN (
    SELECT push_id,
        argMax(
            (occurred_at, started_at, target_used, seconds, sent_bytes, media_ms, end_reason, end_detail,
                node_id, synthesized, event_id),
            (NOT synthesized, occurred_at, event_id)
        ) AS t,
        t.1 AS e_at, t.2 AS e_started, t.3 AS e_target, t.4 AS e_seconds, t.5 AS e_bytes, t.6 AS e_media, t.7 AS e_reason,
        t.8 AS e_detail, t.9 AS e_node, t.10 AS e_synthesized, t.11 AS e_event
    FROM push_ended_v WHERE {_OF_STREAM} AND {known("push_ended")} GROUP BY push_id
) AS e USING (push_id)
WHERE key_ms <= {{at_ms:Int64}}
SETTINGS join_use_nulls = 1
"""  # noqa: S608 - our own text; values are bound

_RECORDINGS: Final = f"""
SELECT toUnixTimestamp64Milli(started_at) AS key_ms, recording_id AS key_id, recording_id, push_id, path, connector,
    size_bytes, seconds, media_ms, started_at, ended_at, end_reason, end_detail, node_id, event_id,
    {{stream_id:UUID}} AS stream_id
FROM recording_ended_v WHERE {_OF_STREAM} AND {known("recording_ended")} AND {_HAPPENED}
ORDER BY occurred_at, event_id LIMIT 1 BY recording_id
"""  # noqa: S608 - our own text; values are bound

_TOTALS: Final = f"""
SELECT toUnixTimestamp64Milli(occurred_at) AS key_ms, event_id AS key_id, event_id, occurred_at, up_bytes, down_bytes, viewers,
    inputs, outputs, viewer_seconds, node_id
FROM stream_totals_v WHERE {_OF_STREAM} AND {known("stream_totals")} AND {_HAPPENED}
"""  # noqa: S608 - our own text; values are bound

_REJECTIONS: Final = f"""
SELECT toUnixTimestamp64Milli(occurred_at) AS key_ms, event_id AS key_id, event_id, occurred_at, 'INGEST' AS kind, aggregate_id,
    reason, key_redacted, node_id
FROM ingest_rejected_v WHERE {{of}} AND {known("ingest_rejected")} AND {_HAPPENED}
UNION ALL
SELECT toUnixTimestamp64Milli(occurred_at), event_id, event_id, occurred_at, 'VIEWER', aggregate_id,
    reason, NULL, node_id
FROM viewer_rejected_v WHERE {{of}} AND {known("viewer_rejected")} AND {_HAPPENED}
"""  # noqa: S608 - our own text; values are bound
_REJECTIONS_OF_STREAM: Final = _REJECTIONS.replace("{of}", _OF_STREAM)
_REJECTIONS_OF_TENANT: Final = _REJECTIONS.replace("{of}", "tenant_id = {tenant_id:UUID}")


# One row, and the offsets that everything in it was known at: rows of one partition come into a table in the log's order.
_INGEST_TOTALS: Final = f"""
SELECT count(), sum(ifNull(seconds, 0)), sum(ifNull(bytes, 0)) FROM ({INGESTS})"""  # noqa: S608 - our own text; values are bound
_NEWEST: Final = " UNION ALL ".join(
    f"SELECT '{table}', if(count() = 0, -1, max(_offset)) FROM {table}_v WHERE {_OF_STREAM} AND {known(table)}"  # noqa: S608
    for table in TABLES
)


async def ingest_totals(ch: AsyncClient, tenant_id: UUID, stream_id: UUID, moment: Moment = NOW) -> IngestTotals:
    """What a stream's publishings add up to."""
    of = _of(tenant_id, stream_id)
    upto = {str(table): int(offset) for table, offset in await rows(ch, _NEWEST, {**of, **moment.bound(*TABLES)})}
    fixed = replace(moment, upto=upto)
    ((count, seconds, size),) = await rows(ch, _INGEST_TOTALS, {**of, **fixed.bound(*TABLES)})
    return IngestTotals(count, seconds, size, upto)


async def ingests(
    ch: AsyncClient, tenant_id: UUID, stream_id: UUID, first: int, after: Key | None = None, moment: Moment = NOW
) -> Page[Ingest]:
    """Publishings of a stream, the newest first."""
    hidden = "counted, first_event"
    listed = f"SELECT * EXCEPT ({hidden}), {{stream_id:UUID}} AS stream_id FROM ({INGESTS})"  # noqa: S608 - our own text
    bound = {**_of(tenant_id, stream_id), **moment.bound(*TABLES)}
    return await page(ch, listed, bound, first, after, lambda row: Ingest(*row))


async def rejections(
    ch: AsyncClient, tenant_id: UUID, stream_id: UUID | None, first: int, after: Key | None = None, moment: Moment = NOW
) -> Page[Rejection]:
    """Who was refused at a stream, or (None) anywhere at the tenant, the newest first."""
    listed = _REJECTIONS_OF_TENANT if stream_id is None else _REJECTIONS_OF_STREAM
    bound = {**_of(tenant_id, stream_id), **moment.bound("ingest_rejected", "viewer_rejected")}
    return await page(ch, listed, bound, first, after, lambda row: Rejection(*row))


async def pushes(
    ch: AsyncClient, tenant_id: UUID, stream_id: UUID, first: int, after: Key | None = None, moment: Moment = NOW
) -> Page[Push]:
    """Pushes and recording processes of a stream, the newest first."""
    listed = f"SELECT * EXCEPT (over), {{stream_id:UUID}} AS stream_id FROM ({_PUSHES})"  # noqa: S608 - our own text; values are bound
    bound = {**_of(tenant_id, stream_id), **moment.bound("push_started", "push_ended")}
    return await page(ch, listed, bound, first, after, lambda row: Push(*row))


async def recordings(
    ch: AsyncClient, tenant_id: UUID, stream_id: UUID, first: int, after: Key | None = None, moment: Moment = NOW
) -> Page[Recording]:
    """Complete recording files of a stream, the newest first."""
    bound = {**_of(tenant_id, stream_id), **moment.bound("recording_ended")}
    return await page(ch, _RECORDINGS, bound, first, after, lambda row: Recording(*row))


async def totals(ch: AsyncClient, tenant_id: UUID, stream_id: UUID, first: int, after: Key | None = None) -> Page[Totals]:
    """What the media server counted for a stream, the newest first."""
    bound = {**_of(tenant_id, stream_id), **NOW.bound("stream_totals")}
    return await page(ch, _TOTALS, bound, first, after, lambda row: Totals(*row))


def _of(tenant_id: UUID, stream_id: UUID | None) -> Mapping[str, object]:
    return {"tenant_id": tenant_id} | ({"stream_id": stream_id} if stream_id else {})
