"""Every decision, and every command that was refused: the audit log, the time machine, and the alarm.

Invariant: the versions of an aggregate are 1, 2, 3, … without a gap and without two of one. A breach stops the line: it means
that the single writer was not single, and nothing built on top can be trusted until a person has looked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, get_args
from uuid import UUID

import asyncpg

from projections.model import Database, Delivered, TableProjection
from projections.moments import from_milliseconds
from projections.pages import Key, Page
from projections.tables import Column, Index, Table, insert
from streams.codec import decode
from streams.faust_batches.fetched import Halted
from streams.generated import CommandHandled, CommandStatus, Decision, Event
from streams.recorded import Position

JOURNAL: Final = Table(
    "journal",
    key=("tenant_id", "aggregate_id", "log_partition", "log_offset"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("aggregate_id", "uuid"),
        Column("log_partition", "int"),
        Column("log_offset", "bigint"),
        Column("version", "int"),
        Column("event_id", "uuid"),
        Column("event_type", "text"),
        Column("occurred_at", "timestamptz"),
        Column("actor", "text"),
        Column("causation_id", "uuid"),
        Column("correlation_id", "uuid"),
        Column("value", "bytea"),  # the framed Avro record
        Column("appended_at", "timestamptz"),  # when the log took it: what `as_of` goes by
        Column("traceparent", "text"),
    ),
    indexes=(
        Index("versions", "(aggregate_id, version) WHERE version > 0", unique=True),
        Index("log", "(tenant_id, log_partition, log_offset)"),
    ),
)

_KNOWN = f"""
SELECT id AS aggregate_id, (SELECT max(version) FROM {JOURNAL.name} j WHERE j.aggregate_id = id AND version > 0) AS version
FROM unnest($1::uuid[]) AS id"""  # noqa: S608 - names from our own code


async def apply(batch: Sequence[Delivered], db: Database) -> None:
    kept = [r for r in batch if not (isinstance(r.event, CommandHandled) and r.event.status is CommandStatus.ACCEPTED)]
    if not kept:
        return
    await _check_versions(kept, db)
    rows = [
        (
            r.meta.tenant_id,
            r.meta.aggregate_id,
            r.partition,
            r.offset,
            r.meta.version,
            r.meta.event_id,
            type(r.event).__name__,
            r.meta.occurred_at,
            r.meta.actor,
            r.meta.causation_id,
            r.meta.correlation_id,
            r.value,
            from_milliseconds(r.appended_at_ms),
            _traceparent(r.headers),
        )
        for r in kept
    ]
    await db.execute(insert(JOURNAL), *map(list, zip(*rows, strict=True)))


def _traceparent(headers: Sequence[tuple[str, bytes]]) -> str | None:
    """The trace that a command came with, where it says one that a text can hold."""
    return next((v.decode("ascii", "replace").replace("\0", "") for k, v in headers if k == "traceparent"), None)


async def _check_versions(batch: Sequence[Delivered], db: Database) -> None:
    """Raises Halted unless every decision is the next one of its aggregate."""
    decisions = [r for r in batch if not isinstance(r.event, CommandHandled)]
    stored = await db.fetch(_KNOWN, list({r.meta.aggregate_id for r in decisions}))
    known = {row["aggregate_id"]: row["version"] or 0 for row in stored}
    for r in decisions:
        expected = known[r.meta.aggregate_id] + 1
        if r.meta.version != expected:
            raise Halted(
                f"{r.topic}/{r.partition} at {r.offset}: {type(r.event).__name__} of {r.meta.aggregate_id} has version "
                f"{r.meta.version}, but {expected} comes next. Two writers decided, or a record is lost: stop the command "
                "workers and compare the topic with the journal."
            )
        known[r.meta.aggregate_id] = expected


PROJECTION: Final = TableProjection(
    name="journal",
    version=2,
    topics=("decisions",),
    handles=frozenset(get_args(Decision)) | {CommandHandled},
    tables=(JOURNAL,),
    apply=apply,
)


class Entry(NamedTuple):
    """One thing that was decided about an aggregate, or refused."""

    position: Position
    aggregate_id: UUID
    version: int  # 0: a refusal
    event_id: UUID
    event_type: str
    occurred_at: datetime
    appended_at: datetime
    actor: str
    causation_id: UUID
    correlation_id: UUID
    traceparent: str | None
    event: Event
    delivered: Delivered


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries of a tenant: of one aggregate, in [start, end) of the log's time, of some types, of one cause."""

    aggregate_id: UUID | None = None
    start: datetime | None = None
    end: datetime | None = None
    types: Sequence[str] | None = None
    correlation_id: UUID | None = None


class TooMuchHistory(Exception):
    """More decisions than one question may fold. The text is a sentence for whoever asked."""


FOLDED_AT_ONCE: Final = 20_000
_FIELDS = """log_partition, log_offset, aggregate_id, version, event_id, event_type, occurred_at, appended_at, actor,
    causation_id, correlation_id, traceparent, value"""
_MATCH = """FROM journal WHERE tenant_id = $1 AND ($2::uuid IS NULL OR aggregate_id = $2)
    AND ($3::timestamptz IS NULL OR appended_at >= $3) AND ($4::timestamptz IS NULL OR appended_at < $4)
    AND ($5::text[] IS NULL OR event_type = ANY($5)) AND ($6::uuid IS NULL OR correlation_id = $6)"""
_COUNT = f"SELECT count(*) {_MATCH}"
_HISTORY = f"""
SELECT {_FIELDS} {_MATCH} AND ($7::int IS NULL OR (log_partition, log_offset) < ($7, $8))
ORDER BY log_partition DESC, log_offset DESC LIMIT $9"""
_DECIDED = """
SELECT log_partition, log_offset, value, appended_at FROM journal
WHERE tenant_id = $1 AND version > 0 AND appended_at <= $2 AND event_type = ANY($3::text[])
    AND ($4::uuid[] IS NULL OR aggregate_id = ANY($4)) ORDER BY log_partition, log_offset LIMIT $5"""
_BEGAN = "SELECT appended_at FROM journal WHERE tenant_id = $1 ORDER BY log_partition, log_offset LIMIT 1"


async def history(db: Database, tenant_id: UUID, wanted: Wanted, *, first: int, after: Key | None = None) -> Page[Entry]:
    """What was decided or refused, newest first. `after` is a key of an earlier page; ValueError when it is none."""
    match after:
        case None:
            partition, offset = None, None
        case (int(partition), int(offset)):
            pass
        case _:
            raise ValueError("not a key of this list")
    which = (tenant_id, wanted.aggregate_id, wanted.start, wanted.end, wanted.types, wanted.correlation_id)
    found = await db.fetch(_HISTORY, *which, partition, offset, first + 1)
    entries = [_entry(row) for row in found[:first]]
    keys: list[Key] = [(e.position.partition, e.position.offset) for e in entries]
    total = (await db.fetch(_COUNT, *which))[0][0]
    return Page(entries, keys, has_next=len(found) > first, total_count=total)


def _entry(row: asyncpg.Record) -> Entry:
    fields = {name: row[name] for name in Entry._fields if name not in ("position", "event", "delivered")}
    delivered = _delivered(row)
    return Entry(position=Position(row["log_partition"], row["log_offset"]), event=delivered.event, delivered=delivered, **fields)


def _delivered(row: asyncpg.Record) -> Delivered:
    event, meta = decode(row["value"])
    return Delivered(event, meta, "", row["log_partition"], row["log_offset"], row["value"])


async def decided(
    db: Database, tenant_id: UUID, by: datetime, types: Collection[type], aggregate_ids: Sequence[UUID] | None = None
) -> Sequence[Delivered]:
    """Decisions of these types that the log had by then, in its order. Raises TooMuchHistory."""
    names = [kind.__name__ for kind in types]
    found = await db.fetch(_DECIDED, tenant_id, by, names, aggregate_ids, FOLDED_AT_ONCE + 1)
    if len(found) > FOLDED_AT_ONCE:
        raise TooMuchHistory(
            f"That are more than {FOLDED_AT_ONCE:,} decisions, too many to fold for one answer: ask for one stream by its id, "
            "or for an earlier time."
        )
    out: list[Delivered] = []
    for n, row in enumerate(found):
        if n % 500 == 499:
            await asyncio.sleep(0)  # decoding must not hold up who else is served
        out.append(_delivered(row))
    return out


async def began_at(db: Database, tenant_id: UUID) -> datetime | None:
    """When the log took the tenant's first decision; None: it has none."""
    row = await db.fetchrow(_BEGAN, tenant_id)
    return None if row is None else row["appended_at"]
