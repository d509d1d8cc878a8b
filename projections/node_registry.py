"""Media server nodes as their owners registered them: what each serves, how it is enrolled, what it is for.

Reads decisions. An enrolment token is known by its hash; its prefix finds the node that it is for. What was decided stands
here, not what a node does at the moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple
from uuid import UUID

import msgspec

from projections.changes import Changes
from projections.model import Database, Delivered, TableProjection
from projections.pages import Key, Page
from projections.tables import Column, Index, Merge, Table
from streams.generated import (
    EnrolmentTokenIssued,
    NodeCertificateIssued,
    NodeChanged,
    NodeEnrolled,
    NodeMode,
    NodeModeSet,
    NodeRegistered,
    NodeRevoked,
)

Enrolment = Literal["NEVER", "INVITED", "ENROLLED", "REVOKED"]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_NOT_ENROLLED: Final = UUID(int=0)

NODES: Final = Table(
    "registered_nodes",
    key=("tenant_id", "node_uuid"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("node_uuid", "uuid"),
        Column("node_id", "text"),
        Column("name", "text"),
        Column("registered_at", "timestamptz", Merge.FIRST),
        Column("described", "text"),  # NodeChanged as JSON: as a whole, because a value may also go away again
        Column("mode", "text"),
        Column("mode_at", "timestamptz"),
        Column("enrolment_id", "uuid"),  # nil: none
        Column("enrolled_at", "timestamptz"),
        Column("key_fingerprint", "bytea"),
        Column("certificate_serial", "text"),
        Column("certificate_until", "timestamptz"),
        Column("token_prefix", "text"),
        Column("token_hash", "bytea"),  # empty: used, or none
        Column("token_until", "timestamptz"),
        Column("token_command", "uuid"),  # the command that issued it: whoever has the master secret makes the token anew of it
        Column("revoked", "boolean"),
        Column("revoked_at", "timestamptz"),
    ),
    # Not unique: two nodes with one prefix must not stop the line.
    indexes=(
        Index("by_token", "(token_prefix)"),
        Index("by_node", "(node_uuid)"),
        Index("newest", "(tenant_id, registered_at, node_uuid)"),
    ),
)


async def apply(batch: Sequence[Delivered], db: Database) -> None:
    nodes = Changes(NODES)
    fold(batch, nodes)
    await nodes.upsert(db)


def fold(batch: Sequence[Delivered], nodes: Changes) -> None:
    """The one meaning of these events."""
    for delivered in batch:
        meta = delivered.meta
        key, at = (meta.tenant_id, meta.aggregate_id), meta.occurred_at
        match delivered.event:
            case NodeRegistered() as event:
                said = NodeChanged(event.tenants, event.region, event.latitude, event.longitude, event.base_url, event.tags)
                nodes.put(key, node_id=event.node_id, name=event.name, described=_json(said), mode=str(NodeMode.ACTIVE))
                nodes.first(key, registered_at=at)
            case NodeChanged() as event:
                nodes.put(key, described=_json(event))
            case EnrolmentTokenIssued(token_prefix=prefix, token_hash=digest, expires_at=until):
                nodes.put(key, token_prefix=prefix, token_hash=digest, token_until=until, token_command=meta.causation_id)
            case NodeEnrolled(enrolment_id=enrolment_id):
                nodes.put(key, enrolment_id=enrolment_id, enrolled_at=at, revoked=False)
            case NodeCertificateIssued(certificate_serial=serial, key_fingerprint=fingerprint, not_after=until):
                nodes.put(key, certificate_serial=serial, key_fingerprint=fingerprint, certificate_until=until)
            case NodeModeSet(mode=mode):
                nodes.put(key, mode=str(mode), mode_at=at)
            case NodeRevoked():
                nodes.put(key, enrolment_id=_NOT_ENROLLED, token_hash=b"", revoked=True, revoked_at=at)
            case _:
                pass


def _json(described: NodeChanged) -> str:
    return msgspec.json.encode(described).decode()


PROJECTION: Final = TableProjection(
    name="node_registry",
    version=1,
    topics=("decisions",),
    handles=frozenset(
        {NodeRegistered, NodeChanged, EnrolmentTokenIssued, NodeEnrolled, NodeCertificateIssued, NodeModeSet, NodeRevoked}
    ),
    tables=(NODES,),
    apply=apply,
)


class NodeRow(NamedTuple):
    tenant_id: UUID
    node_uuid: UUID
    node_id: str
    name: str
    registered_at: datetime
    described: NodeChanged
    mode: str
    mode_at: datetime | None
    enrolment_id: UUID | None
    enrolled_at: datetime | None
    certificate_serial: str | None
    certificate_until: datetime | None
    token_prefix: str | None
    token_hash: bytes | None
    token_until: datetime | None
    token_command: UUID | None
    revoked: bool | None
    revoked_at: datetime | None

    @property
    def tenants(self) -> Sequence[UUID] | None:
        return self.described.tenants

    @property
    def enrolment(self) -> Enrolment:
        if self.enrolment_id not in (None, _NOT_ENROLLED):
            return "ENROLLED"
        if self.token_hash:
            return "INVITED"
        return "REVOKED" if self.revoked else "NEVER"


_SELECT = f"SELECT {', '.join(NodeRow._fields)} FROM registered_nodes WHERE "  # noqa: S608 - names from our own code
_THERE = "tenant_id = $1 AND registered_at IS NOT NULL"
_COUNT = f"SELECT count(*) FROM registered_nodes WHERE {_THERE}"  # noqa: S608 - names from our own code
_COUNTED = _SELECT.replace("SELECT", f"SELECT ({_COUNT}),", 1)
_NEWEST = "ORDER BY registered_at DESC, node_uuid DESC LIMIT $2"
_BEHIND = "(registered_at, node_uuid) < ($3, $4)"


async def node_by_uuid(db: Database, tenant_id: UUID, node_uuid: UUID) -> NodeRow | None:
    """One node of an owner; None where there is none, or it is another's."""
    row = await db.fetchrow(f"{_SELECT}{_THERE} AND node_uuid = $2", tenant_id, node_uuid)
    return _row(tuple(row)) if row else None


async def node_of_token(db: Database, token_prefix: str) -> NodeRow | None:
    """The node that an enrolment token with this prefix was issued for, by whomever; compare the hash in constant time."""
    query = f"{_SELECT}token_prefix = $1 AND registered_at IS NOT NULL ORDER BY token_until DESC LIMIT 1"
    row = await db.fetchrow(query, token_prefix)
    return _row(tuple(row)) if row else None


async def node_anywhere(db: Database, node_uuid: UUID) -> NodeRow | None:
    """The node, whoever owns it: ids of nodes are unique among all owners."""
    row = await db.fetchrow(f"{_SELECT}node_uuid = $1 AND registered_at IS NOT NULL ORDER BY registered_at LIMIT 1", node_uuid)
    return _row(tuple(row)) if row else None


async def nodes_page(db: Database, tenant_id: UUID, *, first: int, after: Key | None = None) -> Page[NodeRow]:
    """An owner's nodes, the newest first. `after` is a key of an earlier page. Raises ValueError when it is none."""
    if after is None:
        found = await db.fetch(f"{_COUNTED}{_THERE} {_NEWEST}", tenant_id, first + 1)
    else:
        found = await db.fetch(f"{_COUNTED}{_THERE} AND {_BEHIND} {_NEWEST}", tenant_id, first + 1, *_parse(after))
    total = found[0][0] if found else (await db.fetch(_COUNT, tenant_id))[0][0]
    rows = [_row(tuple(row)[1:]) for row in found[:first]]
    keys: list[Key] = [((row.registered_at - _EPOCH) // _MILLISECOND, str(row.node_uuid)) for row in rows]
    return Page(rows, keys, has_next=len(found) > first, total_count=total)


def _row(values: Sequence[object]) -> NodeRow:
    row = NodeRow(*values)  # type: ignore[arg-type]  # as the columns are
    return row._replace(described=msgspec.json.decode(str(row.described), type=NodeChanged))


def _parse(key: Key) -> tuple[datetime, UUID]:
    match key:
        case (int(at), str(node_uuid)):
            return _EPOCH + at * _MILLISECOND, UUID(node_uuid)
    raise ValueError("not a key of this list")
