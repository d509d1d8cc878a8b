"""What is behind a number: the facts that it was computed from, each with its share.

Invariant: the shares add up to the number, over all pages, and go on doing so while facts arrive: a question carries the offsets
up to which it was answered (`Moment.upto`), or the facts themselves. The fold is that of the number (`viewer_sessions.INTERVALS`,
`ingests.INGESTS`): there is no second one that could count otherwise.

A viewing's (or publishing's) share stands at the one fact that says it; the others of the same viewing are listed with 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from projections import ingests, viewer_sessions
from projections.clickhouse import AsyncClient, page
from projections.moments import FOR_EVER, NOW, Moment, known
from projections.pages import Key, Page


@dataclass(frozen=True, slots=True)
class Question:
    """A number of a stream. `events`: the facts (table, id) of a number that one fact says, which comes first."""

    number: str
    stream_id: UUID
    value: int
    moment: Moment = NOW
    peak_at_ms: int = 0
    events: Sequence[tuple[str, UUID]] = field(default=())


@dataclass(frozen=True, slots=True)
class Part:
    """A fact behind a number. `subject_id` is the viewing, publishing, push or recording that it is about."""

    event_id: UUID
    type: str
    subject_id: UUID
    partition: int
    offset: int
    occurred_at: datetime
    appended_at: datetime
    share: int


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which viewings or publishings count, how much, and which of their facts says it; SQL over their fold's columns."""

    counts: str
    share: str
    said_by: str


_FIRST: Final = f"if(join_ms = {FOR_EVER}, left_event, join_event)"
_OVER: Final = "ended <= {at_ms:Int64}"
AUDIENCE: Final[Mapping[str, _Rule]] = {
    "VIEWERS_NOW": _Rule("ended > {at_ms:Int64}", "1", _FIRST),
    "VIEWERS_PEAK": _Rule("began <= {peak_at_ms:Int64} AND ended > {peak_at_ms:Int64}", "1", _FIRST),
    "VIEWINGS": _Rule("true", "1", _FIRST),
    "VIEWERS_UNIQUE": _Rule("true", "row_number() OVER (PARTITION BY session_id ORDER BY began, viewing_id) = 1", _FIRST),
    "VIEWER_SECONDS": _Rule(_OVER, "seconds", "left_event"),
    "VIEWER_UP_BYTES": _Rule(_OVER, "up_bytes", "left_event"),
    "VIEWER_DOWN_BYTES": _Rule(_OVER, "down_bytes", "left_event"),
}
PUBLISHING: Final[Mapping[str, _Rule]] = {
    "INGESTS": _Rule("true", "1", "assumeNotNull(first_event)"),
    "INGEST_SECONDS": _Rule("seconds IS NOT NULL", "assumeNotNull(seconds)", "assumeNotNull(ended_event)"),
    "INGEST_BYTES": _Rule("bytes IS NOT NULL", "assumeNotNull(bytes)", "assumeNotNull(coalesce(totals_event, ended_event))"),
}
# Facts that can be opened by themselves: the column that names what they are about.
SUBJECTS: Final[Mapping[str, str]] = {
    "viewer_joined": "viewing_id",
    "viewer_left": "viewing_id",
    "ingest_started": "ingest_id",
    "ingest_ended": "ingest_id",
    "stream_totals": "aggregate_id",
    "push_started": "push_id",
    "push_ended": "push_id",
    "recording_ended": "recording_id",
    "buffer_changed": "aggregate_id",
}
_OF: Final = "tenant_id = {tenant_id:UUID} AND aggregate_id = {stream_id:UUID}"


def _facts(table: str) -> str:
    """Rows of one table as the facts of an explanation."""
    record = "".join(word.title() for word in table.split("_"))
    return (
        f"SELECT event_id, '{record}' AS record, {SUBJECTS[table]} AS subject_id, _partition, _offset, occurred_at, _appended_at"  # noqa: S608
        f" FROM {table}_v WHERE {_OF}"
    )


def _listed(facts: str, counted: str) -> str:
    """A fact that stands under one id with two times is one: the first."""
    return f"""
    SELECT toUnixTimestamp64Milli(occurred_at) AS key_ms, event_id AS key_id, event_id, record, subject_id, _partition, _offset,
        occurred_at, _appended_at, if(event_id = said_by, share, 0) AS part
    FROM (SELECT * FROM ({facts}) ORDER BY _offset LIMIT 1 BY event_id) AS f
    INNER JOIN ({counted}) AS c USING (subject_id)"""  # noqa: S608 - our own text; values are bound


def _of_audience(rule: _Rule) -> str:
    facts = " UNION ALL ".join(f"{_facts(table)} AND {known(table)}" for table in viewer_sessions.TABLES)
    counted = (
        f"SELECT viewing_id AS subject_id, toInt64({rule.share}) AS share, {rule.said_by} AS said_by"  # noqa: S608
        f" FROM ({viewer_sessions.INTERVALS}) WHERE {rule.counts}"
    )
    return _listed(facts, counted)


def _of_publishing(number: str, rule: _Rule) -> str:
    facts = " UNION ALL ".join(f"{_facts(table)} AND {known(table)}" for table in ("ingest_started", "ingest_ended"))
    if number == "INGEST_BYTES":  # the facts of a publishing whose bytes only the totals tell
        totals = _facts("stream_totals").replace("aggregate_id AS subject_id", "ingest_id AS subject_id", 1)
        told = f"SELECT ingest_id, totals_event AS event_id FROM ({ingests.INGESTS}) WHERE totals_event IS NOT NULL"  # noqa: S608
        facts += " UNION ALL " + totals.replace(
            "stream_totals_v", f"stream_totals_v INNER JOIN ({told}) AS told USING (event_id)"
        )
    counted = (
        f"SELECT ingest_id AS subject_id, toInt64({rule.share}) AS share, {rule.said_by} AS said_by"  # noqa: S608
        f" FROM ({ingests.INGESTS}) WHERE {rule.counts}"
    )
    return _listed(facts, counted)


def _of_facts(tables: Sequence[str]) -> str:
    facts = " UNION ALL ".join(f"{_facts(table)} AND event_id IN {{events:Array(UUID)}}" for table in dict.fromkeys(tables))
    return f"""
    SELECT toUnixTimestamp64Milli(occurred_at) AS key_ms, event_id AS key_id, event_id, record, subject_id, _partition, _offset,
        occurred_at, _appended_at, if(event_id = {{said_by:UUID}}, {{value:Int64}}, 0) AS part
    FROM ({facts}) ORDER BY _offset LIMIT 1 BY event_id"""  # noqa: S608 - our own text; values are bound


async def parts(ch: AsyncClient, tenant_id: UUID, question: Question, first: int, after: Key | None = None) -> Page[Part]:
    """The facts behind a number, the newest first. ValueError: there is no such number."""
    bound: dict[str, object] = {"tenant_id": tenant_id, "stream_id": question.stream_id, "stream_ids": [question.stream_id]}
    if question.events:
        listed = _of_facts([table for table, _ in question.events])
        ids = [event_id for _, event_id in question.events]
        bound |= {"events": ids, "said_by": ids[0], "value": question.value}
    elif rule := AUDIENCE.get(question.number):
        listed = _of_audience(rule)
        bound |= {**question.moment.bound(*viewer_sessions.TABLES), "peak_at_ms": question.peak_at_ms}
    elif rule := PUBLISHING.get(question.number):
        listed = _of_publishing(question.number, rule)
        bound |= question.moment.bound(*ingests.TABLES)
    else:
        raise ValueError(f"there is no number {question.number}")
    return await page(ch, listed, bound, first, after, _part)


def _part(row: Sequence[Any]) -> Part:
    return Part(*row)
