"""What a decision changed: the fold of the live tables, one decision at a time, and the rows before and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import Enum
from typing import Any, Final
from uuid import UUID

from projections import journal, streams, tenants
from projections.changes import Changes
from projections.journal import Entry
from projections.model import Database, Delivered
from streams.generated import CommandHandled, Event

# What clients see of a row: hashes are nobody's business, times of creation stand beside every entry.
_STREAM: Final = (
    "title",
    "slug",
    "playback_id",
    "internal_name",
    "key_prefix",
    "deleted_at",
    "disabled",
    "playback_policy",
)
_UNSAID: Final = {"disabled": "false", "standing": "ACTIVE"}  # of what is new: as everything begins
_FOLDED: Final = (streams.PROJECTION.handles | tenants.PROJECTION.handles) & frozenset(journal.PROJECTION.handles)


@dataclass(frozen=True, slots=True)
class Change:
    field: str
    before: str | None
    after: str | None


class _Rows:
    """Everything that a client can see of a tenant and its streams, as texts."""

    def __init__(self) -> None:
        self._streams, self._tenants = Changes(streams.STREAMS), Changes(tenants.TENANTS)
        self._tokens, self._keys = Changes(tenants.API_TOKENS), Changes(tenants.SIGNING_KEYS)

    def fold(self, delivered: Delivered) -> None:
        streams.fold([delivered], self._streams)
        tenants.fold([delivered], self._tenants, self._tokens, self._keys)

    def of(self, delivered: Delivered) -> Mapping[str, str | None]:
        tenant_id, aggregate_id = delivered.meta.tenant_id, delivered.meta.aggregate_id
        seen = {name: _text(v) for name, v in self._streams.rows.get((tenant_id, aggregate_id), {}).items() if name in _STREAM}
        if aggregate_id == tenant_id:
            seen |= self._of_tenant(tenant_id)
            prefix = getattr(delivered.event, "token_prefix", None)
            token = self._tokens.rows.get((tenant_id, prefix), {})
            seen |= {f"apiToken {prefix}": token.get("name") if token.get("token_hash") else None} if prefix else {}
            key_id = getattr(delivered.event, "key_id", None)
            key = self._keys.rows.get((tenant_id, key_id), {})
            seen |= {f"signingKey {key_id}": None if key.get("revoked_at") else key.get("name")} if key_id else {}
        return seen

    def _of_tenant(self, tenant_id: UUID) -> Mapping[str, str | None]:
        row = self._tenants.rows.get((tenant_id,))
        if row is None:
            return {}
        limit = row.get("max_live_streams")
        told = {"name": row.get("name"), "standing": row.get("standing")}
        return {**told, "max_live_streams": None if limit in (None, tenants.NO_LIMIT) else str(limit)}


async def differences(db: Database, tenant_id: UUID, entries: Sequence[Entry]) -> Mapping[UUID, Sequence[Change]]:
    """What each of the entries changed, by event id. Raises TooMuchHistory."""
    if not entries:
        return {}
    wanted = {e.event_id for e in entries}
    newest = max(e.appended_at for e in entries)
    aggregates = list({e.aggregate_id for e in entries})
    rows, out = _Rows(), dict[UUID, Sequence[Change]]()
    for delivered in await journal.decided(db, tenant_id, newest, _FOLDED, aggregates):
        before = rows.of(delivered)
        rows.fold(delivered)
        if delivered.meta.event_id in wanted:
            after = rows.of(delivered)
            changed = [Change(name, before.get(name), v) for name, v in after.items() if before.get(name, _UNSAID.get(name)) != v]
            out[delivered.meta.event_id] = changed
    return {e.event_id: out[e.event_id] if e.event_id in out else _said(e.event) for e in entries}


def _said(event: Event) -> Sequence[Change]:
    """Of a decision that no table shows: what it says, as far as it is readable. A refusal changed nothing."""
    if isinstance(event, CommandHandled):
        return ()
    told = {f.name: getattr(event, f.name) for f in fields(event)}
    return [Change(name, None, _text(v)) for name, v in told.items() if v is not None and not isinstance(v, bytes)]


def _text(value: Any) -> str | None:
    match value:
        case None:
            return None
        case datetime():
            return value.isoformat(timespec="milliseconds")[:-6] + "Z"
        case Enum():
            return str(value.value)
        case bool():
            return str(value).lower()
        case _:
            return str(value)
