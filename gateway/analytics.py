"""A stream's fields about what happened: audience, sessions, publishers, health; at which time, as known when, and why.

Every number has an `explain` beside it: a token that opens the facts behind it (`gateway/explain.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from ariadne import ObjectType, QueryType
from graphql import GraphQLResolveInfo

from gateway import explain, reads
from gateway.connections import Connection
from gateway.errors import ApiError
from gateway.explain import Explanation
from gateway.limits import MAX_STEPS
from gateway.runtime import Context
from gateway.times import checked, moment_of
from projections import explanations, ingests, viewer_sessions
from projections.clickhouse import AsyncClient
from projections.explanations import Part, Question
from projections.ingests import Ingest, IngestTotals, Push, Recording, Rejection
from projections.moments import Moment
from projections.pages import Key, Page
from projections.stream_health import Health
from projections.streams import StreamRow
from projections.viewer_sessions import Audience, Session

Info = GraphQLResolveInfo[Context]
Row = TypeVar("Row")
query = QueryType()
stream_type = ObjectType("Stream")
counts_type = ObjectType("ViewerCounts")
viewers_at_type = ObjectType("ViewersAt")
session_type = ObjectType("Session")
ingest_type = ObjectType("Ingest")
ingest_totals_type = ObjectType("IngestTotals")
push_type = ObjectType("Push")
recording_type = ObjectType("Recording")
health_type = ObjectType("StreamHealth")
explained_type = ObjectType("ExplainedEvent")
TYPES: Final = (
    query,
    stream_type,
    counts_type,
    viewers_at_type,
    session_type,
    ingest_type,
    ingest_totals_type,
    push_type,
    recording_type,
    health_type,
    explained_type,
)


@dataclass(frozen=True, slots=True)
class Counts:
    """The audience of a stream with the moment that it is of. Its numbers are `audience`'s."""

    audience: Audience
    stream_id: UUID
    moment: Moment


@dataclass(frozen=True, slots=True)
class Totals:
    """Likewise of its publishers."""

    totals: IngestTotals
    stream_id: UUID
    moment: Moment


@dataclass(frozen=True, slots=True)
class ViewersAt:
    at: datetime
    viewers: int
    stream_id: UUID
    moment: Moment


@stream_type.field("viewers")
async def resolve_viewers(stream: StreamRow, info: Info, at: datetime | None = None, known_at: datetime | None = None) -> Counts:
    moment = moment_of(at, known_at)
    found = await reads.audience(info.context, stream.tenant_id, stream.stream_id, moment)
    return Counts(found, stream.stream_id, replace(moment, upto=found.upto))


@stream_type.field("health")
async def resolve_health(
    stream: StreamRow, info: Info, at: datetime | None = None, known_at: datetime | None = None
) -> Health | None:
    return await reads.health(info.context, stream.tenant_id, stream.stream_id, moment_of(at, known_at))


Read = Callable[[AsyncClient, UUID, UUID, int, Key | None, Moment], Awaitable[Page[Row]]]


def _listed(kind: str, read: Read[Row]) -> None:
    """A field of a stream that is a list of what happened."""

    async def resolve(
        stream: StreamRow,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        at: datetime | None = None,
        known_at: datetime | None = None,
    ) -> Connection[Row]:
        moment, clickhouse = moment_of(at, known_at), info.context.runtime.clickhouse

        async def rows(size: int, start: Key | None) -> Page[Row]:
            return await read(clickhouse, stream.tenant_id, stream.stream_id, size, start, moment)

        return await reads.connection(kind, first, after, rows)

    stream_type.set_field(kind, resolve)


async def _rejections(
    ch: AsyncClient, tenant_id: UUID, stream_id: UUID, first: int, after: Key | None, moment: Moment
) -> Page[Rejection]:
    return await ingests.rejections(ch, tenant_id, stream_id, first, after, moment)


_listed("sessions", viewer_sessions.sessions)
_listed("ingests", ingests.ingests)
_listed("rejections", _rejections)
_listed("pushes", ingests.pushes)
_listed("recordings", ingests.recordings)


@stream_type.field("ingestTotals")
async def resolve_ingest_totals(
    stream: StreamRow, info: Info, at: datetime | None = None, known_at: datetime | None = None
) -> Totals:
    moment = moment_of(at, known_at)
    found = await reads.ingest_totals(info.context, stream.tenant_id, stream.stream_id, moment)
    return Totals(found, stream.stream_id, replace(moment, upto=found.upto))


@stream_type.field("viewersOverTime")
async def resolve_viewers_over_time(
    stream: StreamRow,
    info: Info,
    to: datetime,
    step: int | None = None,
    known_at: datetime | None = None,
    **renamed: datetime,
) -> Sequence[ViewersAt]:
    start = renamed["from_"]  # `from` is a Python keyword
    step_seconds = step or 0
    if step_seconds < 1 or to <= start:
        raise ApiError("BAD_USER_INPUT", "`to` must lie behind `from`, and `step` be at least 1 second.")
    if (to - start).total_seconds() > step_seconds * MAX_STEPS:
        raise ApiError("BAD_USER_INPUT", f"That are more than {MAX_STEPS:,} steps: take a longer step or a shorter range.")
    if known_at is not None:
        checked("knownAt", known_at)
    found = await viewer_sessions.viewers_over_time(
        info.context.runtime.clickhouse, stream.tenant_id, stream.stream_id, start, to, step_seconds, known_at
    )
    return [ViewersAt(at, n, stream.stream_id, Moment(at, known_at, found.upto)) for at, n in found.points]


def _token(info: Info, question: Question) -> str:
    context: Context = info.context
    return explain.token_of(context.runtime.secret_key, context.tenant_id(), question)


_AUDIENCE: Final = {
    "NOW": ("VIEWERS_NOW", "now"),
    "PEAK": ("VIEWERS_PEAK", "peak"),
    "TOTAL": ("VIEWINGS", "total"),
    "UNIQUE": ("VIEWERS_UNIQUE", "unique"),
    "VIEWER_SECONDS": ("VIEWER_SECONDS", "viewer_seconds"),
    "UP_BYTES": ("VIEWER_UP_BYTES", "up_bytes"),
    "DOWN_BYTES": ("VIEWER_DOWN_BYTES", "down_bytes"),
}
_PUBLISHING: Final = {"COUNT": "INGESTS", "SECONDS": "INGEST_SECONDS", "BYTES": "INGEST_BYTES"}


@counts_type.field("explain")
def explain_audience(counts: Counts, info: Info, number: str) -> str:
    name, attribute = _AUDIENCE[number]
    found = counts.audience
    return _token(info, Question(name, counts.stream_id, getattr(found, attribute), counts.moment, found.peak_at_ms))


@viewers_at_type.field("explain")
def explain_viewers_at(point: ViewersAt, info: Info) -> str:
    return _token(info, Question("VIEWERS_NOW", point.stream_id, point.viewers, point.moment))


@ingest_totals_type.field("explain")
def explain_ingest_totals(found: Totals, info: Info, number: str) -> str:
    value: int = getattr(found.totals, number.lower())
    return _token(info, Question(_PUBLISHING[number], found.stream_id, value, found.moment))


def _of_row(info: Info, number: str, stream_id: UUID | None, value: int | None, *said: tuple[str, UUID | None]) -> str | None:
    """A token for a number of one row; None where the number is not known."""
    if value is None or stream_id is None:
        return None
    return _token(info, explain.of_facts(number, stream_id, value, said))


@session_type.field("explain")
def explain_session(row: Session, info: Info, number: str) -> str | None:
    said = ("viewer_left", row.left_event), ("viewer_joined", row.joined_event)
    return _of_row(info, f"SESSION_{number}", row.stream_id, getattr(row, number.lower()), *said)


@ingest_type.field("explain")
def explain_ingest(row: Ingest, info: Info, number: str) -> str | None:
    said = [("ingest_ended", row.ended_event), ("ingest_started", row.started_event)]
    if number == "BYTES":
        said.insert(0, ("stream_totals", row.totals_event))
    return _of_row(info, f"INGEST_{number}", row.stream_id, getattr(row, number.lower()), *said)


@push_type.field("explain")
def explain_push(row: Push, info: Info, number: str) -> str | None:
    value = row.seconds if number == "SECONDS" else row.sent_bytes
    said = ("push_ended", row.ended_event), ("push_started", row.started_event)
    return _of_row(info, f"PUSH_{number}", row.stream_id, value, *said)


@recording_type.field("explain")
def explain_recording(row: Recording, info: Info, number: str) -> str | None:
    value = row.seconds if number == "SECONDS" else row.size_bytes
    return _of_row(info, f"RECORDING_{number}", row.stream_id, value, ("recording_ended", row.event_id))


@health_type.field("explain")
def explain_health(row: Health, info: Info, number: str) -> str | None:
    value: int | None = getattr(row, number.lower())
    return _of_row(info, f"HEALTH_{number}", row.stream_id, value, ("buffer_changed", row.buffer_event))


@query.field("explain")
async def resolve_explain(_: None, info: Info, token: str, first: int | None = None, after: str | None = None) -> Explanation:
    context: Context = info.context
    tenant_id = context.tenant_id()
    question, asked_at = explain.opened(context.runtime.secret_key, tenant_id, token)

    async def read(size: int, start: Key | None) -> Page[Part]:
        return await explanations.parts(context.runtime.clickhouse, tenant_id, question, size, start)

    page = await reads.connection("explain", first, after, read)
    return Explanation(
        page.kind,
        page.nodes,
        page.keys,
        page.has_next,
        page.has_previous,
        page.total_count,
        number=question.number,
        value=question.value,
        stream_id=question.stream_id,
        at=question.moment.at,
        known_at=question.moment.known_at or asked_at,
    )


@explained_type.field("topic")
def resolve_topic(_: Part, info: Info) -> str:
    context: Context = info.context
    return context.runtime.fanout.facts.topic.name
