"""Push targets and recordings as the API shows them: what was decided about them, and what their nodes make of them.

Reads decisions and facts, and depends on no order between the two: of what nodes say the newest by its time counts, as a whole,
and a fact that comes before its target makes a row that no reader sees until the target is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple
from uuid import UUID

import asyncpg

from projections.changes import Changes
from projections.model import Database, Delivered, TableProjection
from projections.tables import Column, Index, Merge, Table
from streams.generated import (
    PushKind,
    PushTargetCreated,
    PushTargetDeleted,
    PushTargetDisabled,
    PushTargetEnabled,
    PushTargetStateChanged,
    RecordingCalledOff,
    RecordingRequested,
)

State = Literal["WAITING", "CONNECTING", "ACTIVE", "BACKING_OFF", "STOPPED", "FAILED", "OTHER"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SAID: Final = (Column("said_at", "timestamptz", Merge.GREATEST), Column("said", "text", Merge.FOLLOW, follows="said_at"))
"""What a node said last, as JSON: its parts belong together."""

PUSH_TARGETS: Final = Table(
    "push_targets",
    key=("tenant_id", "target_id"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("target_id", "uuid"),
        Column("stream_id", "uuid"),
        Column("name", "text"),
        Column("shown_url", "text"),
        Column("enabled", "boolean"),
        Column("request_id", "uuid"),  # the decision that enabled it last
        Column("created_at", "timestamptz", Merge.FIRST),
        Column("deleted_at", "timestamptz", Merge.FIRST),
        *_SAID,
    ),
    indexes=(Index("of_stream", "(tenant_id, stream_id, created_at, target_id) WHERE deleted_at IS NULL"),),
)
RECORDING_REQUESTS: Final = Table(
    "recording_requests",
    key=("tenant_id", "recording_id"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("recording_id", "uuid"),
        Column("stream_id", "uuid"),
        Column("container", "text"),
        Column("request_id", "uuid"),
        Column("requested_at", "timestamptz", Merge.FIRST),
        Column("called_off_at", "timestamptz", Merge.FIRST),
        *_SAID,
    ),
    indexes=(Index("of_stream", "(tenant_id, stream_id, requested_at DESC, recording_id)"),),
)


async def apply(batch: Sequence[Delivered], db: Database) -> None:
    targets, recordings = Changes(PUSH_TARGETS), Changes(RECORDING_REQUESTS)
    fold(batch, targets, recordings)
    await targets.upsert(db)
    await recordings.upsert(db)


def fold(batch: Sequence[Delivered], targets: Changes, recordings: Changes) -> None:
    for delivered in batch:
        meta = delivered.meta
        match delivered.event:
            case PushTargetStateChanged() as fact:
                changes = recordings if fact.kind is PushKind.RECORDING else targets
                changes.greatest((meta.tenant_id, fact.target_id), "said_at", meta.occurred_at, said=_said(fact))
            case PushTargetCreated() as made:
                key = (meta.tenant_id, made.target_id)
                targets.put(
                    key,
                    stream_id=meta.aggregate_id,
                    name=made.name,
                    shown_url=made.shown_url,
                    enabled=made.enabled,
                    request_id=meta.event_id,
                )
                targets.first(key, created_at=meta.occurred_at)
            case PushTargetEnabled(target_id=target_id):
                targets.put((meta.tenant_id, target_id), enabled=True, request_id=meta.event_id)
            case PushTargetDisabled(target_id=target_id):
                targets.put((meta.tenant_id, target_id), enabled=False)
            case PushTargetDeleted(target_id=target_id):
                targets.first((meta.tenant_id, target_id), deleted_at=meta.occurred_at)
            case RecordingRequested() as asked:
                key = (meta.tenant_id, asked.recording_id)
                recordings.put(key, stream_id=meta.aggregate_id, container=asked.container, request_id=meta.event_id)
                recordings.first(key, requested_at=meta.occurred_at)
            case RecordingCalledOff(recording_id=recording_id):
                recordings.first((meta.tenant_id, recording_id), called_off_at=meta.occurred_at)
            case _:
                pass


def _said(fact: PushTargetStateChanged) -> str:
    return json.dumps(
        {
            "state": fact.state.value,
            "node_id": fact.node_id,
            "request_id": str(fact.request_id),
            "since": _ms(fact.since),
            "reason": fact.reason,
            "attempt": fact.attempt,
            "retry_at": _ms(fact.retry_at),
            "sent_bytes": fact.sent_bytes,
        }
    )


PROJECTION: Final = TableProjection(
    name="push_targets",
    version=1,
    topics=("decisions", "facts"),
    handles=frozenset(
        {
            PushTargetCreated,
            PushTargetEnabled,
            PushTargetDisabled,
            PushTargetDeleted,
            RecordingRequested,
            RecordingCalledOff,
            PushTargetStateChanged,
        }
    ),
    tables=(PUSH_TARGETS, RECORDING_REQUESTS),
    apply=apply,
    replayable=frozenset({PushTargetStateChanged}),
    linger_seconds=0.05,
)


class Standing(NamedTuple):
    """How it is with a target or recording."""

    state: State
    node_id: str | None = None
    since: datetime | None = None
    reason: str | None = None
    attempt: int = 0
    retry_at: datetime | None = None
    sent_bytes: int | None = None


class PushTargetRow(NamedTuple):
    id: UUID
    name: str
    url: str  # what may be shown of it
    enabled: bool
    created_at: datetime
    standing: Standing


class RecordingRequestRow(NamedTuple):
    id: UUID
    container: str
    requested_at: datetime
    called_off_at: datetime | None
    standing: Standing


_TARGETS = """SELECT target_id, name, shown_url, enabled, created_at, request_id, said, stream_id FROM push_targets
WHERE tenant_id = $1 AND stream_id = ANY($2::uuid[]) AND created_at IS NOT NULL AND deleted_at IS NULL
ORDER BY created_at, target_id"""
_RECORDINGS = """SELECT recording_id, container, requested_at, called_off_at, request_id, said, stream_id
FROM (SELECT *, row_number() OVER (PARTITION BY stream_id ORDER BY requested_at DESC, recording_id) AS place
    FROM recording_requests WHERE tenant_id = $1 AND stream_id = ANY($2::uuid[]) AND requested_at IS NOT NULL) AS newest
WHERE place <= 50 ORDER BY requested_at DESC, recording_id"""


async def targets_of(db: Database, tenant_id: UUID, stream_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[PushTargetRow]]:
    """Targets of each stream, oldest first."""
    found: dict[UUID, list[PushTargetRow]] = {stream_id: [] for stream_id in stream_ids}
    for row in await db.fetch(_TARGETS, tenant_id, stream_ids):
        standing = _standing(row, is_wanted=row["enabled"])
        made = PushTargetRow(
            row["target_id"], row["name"], row["shown_url"], row["enabled"], created_at=row["created_at"], standing=standing
        )
        found[row["stream_id"]].append(made)
    return found


async def recordings_of(
    db: Database, tenant_id: UUID, stream_ids: Sequence[UUID]
) -> Mapping[UUID, Sequence[RecordingRequestRow]]:
    """Recordings that were asked for, of each stream the newest 50, newest first."""
    found: dict[UUID, list[RecordingRequestRow]] = {stream_id: [] for stream_id in stream_ids}
    for row in await db.fetch(_RECORDINGS, tenant_id, stream_ids):
        standing = _standing(row, is_wanted=row["called_off_at"] is None)
        asked = RecordingRequestRow(
            row["recording_id"], row["container"].upper(), row["requested_at"], row["called_off_at"], standing
        )
        found[row["stream_id"]].append(asked)
    return found


def _standing(row: asyncpg.Record, *, is_wanted: bool) -> Standing:
    """What a node said, where it still holds: of an earlier wish it holds only while something runs."""
    if row["said"] is not None:
        said = json.loads(row["said"])
        runs = said["state"] in ("CONNECTING", "ACTIVE")
        if runs or (is_wanted and said["request_id"] == str(row["request_id"])):
            return Standing(
                said["state"],
                said["node_id"],
                _time(said["since"]),
                said["reason"],
                said["attempt"],
                _time(said["retry_at"]),
                said["sent_bytes"],
            )
        if not is_wanted:
            return Standing("STOPPED", said["node_id"], _time(said["since"]), said["reason"], 0, None, said["sent_bytes"])
    return Standing("WAITING" if is_wanted else "STOPPED")


def _ms(at: datetime | None) -> int | None:
    return None if at is None else (at - _EPOCH) // _MILLISECOND


def _time(ms: int | None) -> datetime | None:
    return None if ms is None else _EPOCH + ms * _MILLISECOND
