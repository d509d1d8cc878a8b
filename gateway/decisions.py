"""What was decided, and refused: history for people, and the objects as they were (`asOf`).

Invariant: who did it and why is what stands on the log; nothing is guessed. A refused command is an entry like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from ariadne import QueryType
from graphql import GraphQLResolveInfo

from gateway import reads
from gateway.connections import Connection, page_size, page_start
from gateway.cursors import BadCursor
from gateway.errors import ApiError
from gateway.inputs import uuid_or_none
from gateway.runtime import Context
from gateway.times import checked
from projections import as_of as past
from projections import differences, journal, tenants
from projections.changes import Changes
from projections.differences import Change
from projections.journal import Entry, TooMuchHistory, Wanted
from projections.tenants import TenantRow
from streams.generated import CommandHandled
from streams.recorded import Position

Info = GraphQLResolveInfo[Context]
query = QueryType()
TYPES: Final = (query,)
MAX_TYPES: Final = 50
REJECTED: Final = "CommandRejected"


@dataclass(frozen=True, slots=True)
class Actor:
    kind: str
    name: str
    token_prefix: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    command: str
    code: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    event_id: UUID
    type: str
    object_id: UUID
    version: int | None
    occurred_at: datetime
    appended_at: datetime
    actor: Actor
    changes: Sequence[Change]
    refusal: Refusal | None
    command_id: UUID
    correlation_id: UUID
    traceparent: str | None
    position: Position


async def history_time(context: Context, name: str, moment: datetime) -> datetime:
    """A time that the caller's tenant was there. Raises ApiError with the range."""
    began_at = await journal.began_at(context.runtime.database, context.tenant_id())
    return checked(name, moment, began_at)


async def tenant_as_of(context: Context, as_of: datetime) -> TenantRow | None:
    await reads.wait_for(context, journal.PROJECTION.name, None)
    as_of = await history_time(context, "asOf", as_of)
    return await past.tenant(context.runtime.database, context.tenant_id(), as_of)


async def streams_as_of(
    context: Context, as_of: datetime, stream_id: UUID | None = None, after: Position | None = None
) -> Changes:
    """The caller's streams, or one of them, as they were."""
    await reads.wait_for(context, journal.PROJECTION.name, after)
    as_of = await history_time(context, "asOf", as_of)
    runtime = context.runtime
    try:
        return await past.past_streams(runtime.database, runtime.clickhouse, context.tenant_id(), as_of, stream_id)
    except TooMuchHistory as too_much:
        raise ApiError("HISTORY_TOO_LONG", str(too_much)) from too_much


@query.field("history")
async def resolve_history(
    _: None,
    info: Info,
    id: str | None = None,
    first: int | None = None,
    after: str | None = None,
    until: datetime | None = None,
    types: Sequence[str] | None = None,
    correlation_id: str | None = None,
    after_position: Position | None = None,
    **renamed: datetime | None,
) -> Connection[HistoryEntry]:
    context: Context = info.context
    tenant_id = context.tenant_id()
    start = renamed.get("from_")  # `from` is a Python keyword
    if start is not None and until is not None and until <= start:
        raise ApiError("BAD_USER_INPUT", "`until` must lie behind `from`.")
    if start is not None:
        checked("from", start)
    if types is not None and (len(types) > MAX_TYPES or any("\0" in name for name in types)):
        raise ApiError("BAD_USER_INPUT", f"`types` takes up to {MAX_TYPES} names of events, such as StreamRenamed.")
    wanted = Wanted(_id("id", id), start, until, _records(types), _id("correlationId", correlation_id))
    size, key = page_size(first), page_start("history", after, (int, int))
    if key is not None and not all(
        isinstance(part, int) and 0 <= part < 1 << bits for part, bits in zip(key, (31, 63), strict=True)
    ):
        raise BadCursor
    await reads.wait_for(context, journal.PROJECTION.name, after_position)
    database = context.runtime.database
    page = await journal.history(database, tenant_id, wanted, first=size, after=key)
    try:
        changed = await differences.differences(database, tenant_id, page.items)
    except TooMuchHistory as too_much:
        raise ApiError("HISTORY_TOO_LONG", str(too_much)) from too_much
    prefixes = {prefix for entry in page.items if (prefix := _token_prefix(entry.actor))}
    names = await tenants.token_names(database, tenant_id, sorted(prefixes))
    entries = [_shown(entry, changed[entry.event_id], names) for entry in page.items]
    return Connection("history", entries, page.keys, page.has_next, key is not None, page.total_count)


def _id(name: str, text: str | None) -> UUID | None:
    if text is None:
        return None
    found = uuid_or_none(text)
    if found is None:
        raise ApiError("BAD_USER_INPUT", f"`{name}` is not an id: take one from an answer.")
    return found


def _records(types: Sequence[str] | None) -> Sequence[str] | None:
    """A refusal is a CommandHandled on the log; clients know it as CommandRejected."""
    return None if types is None else [CommandHandled.__name__ if name == REJECTED else name for name in types]


def _token_prefix(actor: str) -> str | None:
    kind, _, name = actor.partition(":")
    return name if kind == "token" else None


def _actor(actor: str, names: Mapping[str, str]) -> Actor:
    kind, _, name = actor.partition(":")
    match kind:
        case "token":
            return Actor("API_TOKEN", names.get(name, name), name)
        case "operator":
            return Actor("OPERATOR", "operator", None)
        case "node":
            return Actor("NODE", name, None)
        case _:
            return Actor("PLATFORM", actor, None)


def _shown(entry: Entry, changes: Sequence[Change], names: Mapping[str, str]) -> HistoryEntry:
    refusal, kind = None, entry.event_type
    if isinstance(entry.event, CommandHandled):
        event = entry.event
        refusal = Refusal(event.command_type, event.code or "REJECTED", event.message or "The command was rejected.", event.field)
        kind = REJECTED
    return HistoryEntry(
        event_id=entry.event_id,
        type=kind,
        object_id=entry.aggregate_id,
        version=entry.version or None,
        occurred_at=entry.occurred_at,
        appended_at=entry.appended_at,
        actor=_actor(entry.actor, names),
        changes=[Change(_field(c.field), c.before, c.after) for c in changes],
        refusal=refusal,
        command_id=entry.causation_id,
        correlation_id=entry.correlation_id,
        traceparent=entry.traceparent,
        position=entry.position,
    )


def _field(name: str) -> str:
    """As the API calls it."""
    return re.sub(r"_([a-z])", lambda letter: letter[1].upper(), name) if " " not in name else name
