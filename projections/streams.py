"""Streams as the API shows them: what was decided about them, and whether they are live.

Reads decisions and facts, and depends on no order between the two: live state is the greatest time of each kind of fact, and
a fact that comes before its stream makes a row that no reader sees until the stream is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from projections.changes import Changes
from projections.model import Database, Delivered, TableProjection
from projections.pages import Key, Page
from projections.tables import Column, Index, Merge, Table
from streams.generated import (
    Event,
    IngestEnded,
    IngestStarted,
    PlaybackKind,
    PlaybackPolicy,
    PlaybackPolicySet,
    StreamCreated,
    StreamDeleted,
    StreamDisabled,
    StreamEnabled,
    StreamKeyRotated,
    StreamRenamed,
    StreamWentLive,
    StreamWentOffline,
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)  # events know no shorter time
StreamState = Literal["IDLE", "CONNECTING", "LIVE"]

# GREATEST passes over NULL; a comparison with NULL is not true. So a fact that never came has no say.
# An end speaks of its own publishing: one that comes late, when the next publisher is there already, does not end that one. So it
# is with going offline: on which node a stream went off the air says nothing of another, where it has been live since.
STATE: Final = """CASE
    WHEN live_at > coalesce(offline_at, '-infinity') THEN 'LIVE'
    WHEN ingest_started_at > greatest(offline_at, ended_ingest_started_at, '-infinity') THEN 'CONNECTING'
    ELSE 'IDLE' END"""

STREAMS: Final = Table(
    "streams",
    key=("tenant_id", "stream_id"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("stream_id", "uuid"),
        Column("title", "text"),
        Column("slug", "text"),
        Column("playback_id", "text"),
        Column("internal_name", "text"),
        Column("key_prefix", "text"),
        Column("key_rotated_at", "timestamptz"),
        Column("created_at", "timestamptz", Merge.FIRST),
        Column("deleted_at", "timestamptz", Merge.FIRST),
        Column("ingest_started_at", "timestamptz", Merge.GREATEST),
        Column("ended_ingest_started_at", "timestamptz", Merge.GREATEST),
        Column("live_at", "timestamptz", Merge.GREATEST),
        Column("offline_at", "timestamptz", Merge.GREATEST),  # when what is over had begun; its end, if that was unseen
        Column("live_node_id", "text", Merge.FOLLOW, follows="live_at"),
        Column("disabled", "boolean"),
        Column("playback_policy", "text"),  # a PlaybackPolicy as JSON; null: everybody may watch
        Column("state", "text", generated=STATE),
    ),
    indexes=(
        Index("newest", "(tenant_id, created_at DESC, stream_id DESC) WHERE created_at IS NOT NULL AND deleted_at IS NULL"),
        Index("by_slug", "(tenant_id, slug) WHERE deleted_at IS NULL"),
    ),
)


async def apply(batch: Sequence[Delivered], db: Database) -> None:
    streams = Changes(STREAMS)
    fold(batch, streams)
    await streams.upsert(db)


def fold(batch: Sequence[Delivered], streams: Changes) -> None:
    """The one meaning of these events: of the table, of the past (`as_of`), and of what a decision changed (`differences`)."""
    for delivered in batch:
        meta = delivered.meta
        key, at = (meta.tenant_id, meta.aggregate_id), meta.occurred_at
        match delivered.event:
            case IngestStarted():
                streams.greatest(key, "ingest_started_at", at)
            case IngestEnded(started_at=started_at):
                streams.greatest(key, "ended_ingest_started_at", started_at or at)
            case StreamWentLive(node_id=node_id):
                streams.greatest(key, "live_at", at, live_node_id=node_id)
            case StreamWentOffline(live_since=live_since):
                streams.greatest(key, "offline_at", live_since or at)
            case event:
                _decided(event, key, at, streams)


def _decided(event: Event, key: tuple[UUID, UUID], at: datetime, streams: Changes) -> None:
    match event:
        case StreamCreated() as made:
            streams.put(
                key,
                title=made.title,
                slug=made.slug,
                playback_id=made.playback_id,
                internal_name=made.internal_name,
                key_prefix=made.key_prefix,
                created_at=at,
                disabled=False,
            )
        case StreamDisabled():
            streams.put(key, disabled=True)
        case StreamEnabled():
            streams.put(key, disabled=False)
        case PlaybackPolicySet(playback=playback):
            streams.put(key, playback_policy=msgspec.json.encode(playback).decode())
        case StreamRenamed(title=title):
            streams.put(key, title=title)
        case StreamKeyRotated(key_prefix=key_prefix):
            streams.put(key, key_prefix=key_prefix, key_rotated_at=at)
        case StreamDeleted():
            streams.first(key, deleted_at=at)
        case _:
            pass


PROJECTION: Final = TableProjection(
    name="streams",
    version=2,
    topics=("decisions", "facts"),
    handles=frozenset(
        {
            StreamCreated,
            StreamRenamed,
            StreamKeyRotated,
            StreamDeleted,
            StreamDisabled,
            StreamEnabled,
            PlaybackPolicySet,
            IngestStarted,
            IngestEnded,
            StreamWentLive,
            StreamWentOffline,
        }
    ),
    tables=(STREAMS,),
    apply=apply,
    replayable=frozenset({IngestStarted, IngestEnded, StreamWentLive, StreamWentOffline}),
)


class StreamRow(NamedTuple):
    tenant_id: UUID
    stream_id: UUID
    title: str
    slug: str
    playback_id: str
    internal_name: str
    key_prefix: str
    key_rotated_at: datetime | None
    created_at: datetime
    live_at: datetime | None
    offline_at: datetime | None
    live_node_id: str | None
    state: StreamState
    disabled: bool = False
    playback_policy: str | None = None  # as JSON

    @property
    def playback(self) -> PlaybackPolicy:
        """Who may watch."""
        if self.playback_policy is None:
            return PlaybackPolicy(PlaybackKind.PUBLIC)
        return msgspec.json.decode(self.playback_policy, type=PlaybackPolicy)


_THERE = "tenant_id = $1 AND created_at IS NOT NULL AND deleted_at IS NULL"
_MATCH = f"{_THERE} AND ($2::text IS NULL OR strpos(lower(title), lower($2)) > 0) AND ($3::text IS NULL OR state = $3)"
_SELECT = f"SELECT {', '.join(StreamRow._fields)} FROM streams WHERE "  # noqa: S608 - names from our own code
_ONE = f"{_SELECT}{_THERE} AND stream_id = $2"
_SOME = f"{_SELECT}{_THERE} AND stream_id = ANY($2::uuid[])"
_COUNT = f"SELECT count(*) FROM streams WHERE {_MATCH}"  # noqa: S608 - names from our own code
_COUNTED = _SELECT.replace("SELECT", f"SELECT ({_COUNT}),", 1)
_NEWEST = "ORDER BY created_at DESC, stream_id DESC LIMIT $4"
_FIRST_PAGE = f"{_COUNTED}{_MATCH} {_NEWEST}"
_NEXT_PAGE = f"{_COUNTED}{_MATCH} AND (created_at, stream_id) < ($5, $6) {_NEWEST}"


def _instead(sql: str, past: Changes | None, known: int) -> tuple[str, Sequence[object]]:
    """The statement over folded rows instead of the table, and their arrays; `known` parameters stand before them."""
    if past is None:
        return sql, ()
    columns = STREAMS.written
    arrays = ", ".join(f"${n}::{c.type}[]" for n, c in enumerate(columns, known + 1))
    names = ", ".join(c.name for c in columns)
    rows = f"SELECT *, {STATE} AS state FROM unnest({arrays}) AS folded ({names})"  # noqa: S608 - names from our own code
    return f"WITH streams AS ({rows}) {sql}", past.arrays()


async def stream_by_id(db: Database, tenant_id: UUID, stream_id: UUID, past: Changes | None = None) -> StreamRow | None:
    """One stream of a tenant; None where it does not exist, is deleted, or belongs to another. `past`: rows to look in."""
    sql, rows = _instead(_ONE, past, 2)
    row = await db.fetchrow(sql, tenant_id, stream_id, *rows)
    return StreamRow(*row) if row else None


async def stream_by_ids(db: Database, tenant_id: UUID, stream_ids: Sequence[UUID]) -> Mapping[UUID, StreamRow]:
    """Those of the streams that the tenant has."""
    return {row.stream_id: row for row in map(StreamRow._make, await db.fetch(_SOME, tenant_id, stream_ids))}


async def streams_page(
    db: Database,
    tenant_id: UUID,
    *,
    first: int,
    after: Key | None = None,
    title: str | None = None,
    state: StreamState | None = None,
    past: Changes | None = None,
) -> Page[StreamRow]:
    """A tenant's streams, the newest first. `title`: those whose title contains it, in any case. `state`: those in it.

    `after` is a key of an earlier page. Raises ValueError when it is none. `past`: rows to look in instead of the table's.
    """
    filters = (tenant_id, title, state)
    given = (*filters, first + 1) if after is None else (*filters, first + 1, *_parse(after))
    sql, folded = _instead(_FIRST_PAGE if after is None else _NEXT_PAGE, past, len(given))
    found = await db.fetch(sql, *given, *folded)
    if not (counted := found):
        sql, folded = _instead(_COUNT, past, len(filters))
        counted = await db.fetch(sql, *filters, *folded)
    rows = [StreamRow(*row[1:]) for row in found[:first]]
    return Page(rows, [_key(row) for row in rows], has_next=len(found) > first, total_count=counted[0][0])


def _key(row: StreamRow) -> Key:
    return (row.created_at - _EPOCH) // _MILLISECOND, str(row.stream_id)


def _parse(key: Key) -> tuple[datetime, UUID]:
    match key:
        case (int(at), str(stream_id)):
            return _EPOCH + at * _MILLISECOND, UUID(stream_id)
    raise ValueError("not a key of this list")
