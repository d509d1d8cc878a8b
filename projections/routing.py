"""What the balancer knows: media server nodes and how they are, which streams are live on which, names, weights.

Reads decisions, facts, nodes and samples, and depends on no order between them: of samples the newest counts, a stream is live
on a node when it went live there after it last went offline, and so it is with relays of it. A node has a row for every tenant
that anything was said for, and only what was decided says whom an enrolled node serves; so what a tenant's node says changes no
other node.

The balancer serves all tenants: its reads are those of the platform, and no caller's tenant leads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import orjson

from projections.changes import Changes
from projections.model import Database, Delivered, TableProjection
from projections.tables import Column, Index, Merge, Table
from streams.balancing.score import Weights
from streams.generated import (
    BalancerWeightsSet,
    Meta,
    NodeChanged,
    NodeEnrolled,
    NodeMode,
    NodeModeSet,
    NodeRegistered,
    NodeRevoked,
    NodeSamples,
    NodeStarted,
    NodeStopped,
    StreamCreated,
    StreamDeleted,
    StreamKeyRotated,
    StreamRelayEnded,
    StreamRelayStarted,
    StreamWentLive,
    StreamWentOffline,
)

_LONG_MAX: Final = 2**62  # a node may say anything
NODES: Final = Table(
    "nodes",
    key=("tenant_id", "node_uuid"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("node_uuid", "uuid"),
        Column("node_id", "text"),
        Column("name", "text"),
        Column("described", "text"),  # JSON: what was decided of it; one value, so that any part of it can become null again
        Column("mode", "text"),
        Column("is_revoked", "boolean"),
        Column("started_at", "timestamptz", Merge.GREATEST),
        Column("software_version", "text", Merge.FOLLOW, follows="started_at"),
        Column("stopped_at", "timestamptz", Merge.GREATEST),
        Column("sampled_at", "timestamptz", Merge.GREATEST),
        Column("sample", "text", Merge.FOLLOW, follows="sampled_at"),  # JSON
    ),
)
THERE: Final = "(live_at > coalesce(offline_at, '-infinity') OR relay_at > coalesce(relay_ended_at, '-infinity'))"
NODE_STREAMS: Final = Table(
    "node_streams",
    key=("tenant_id", "stream_id", "node_id"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("stream_id", "uuid"),
        Column("node_id", "text"),
        Column("live_at", "timestamptz", Merge.GREATEST),
        Column("offline_at", "timestamptz", Merge.GREATEST),
        Column("relay_at", "timestamptz", Merge.GREATEST),
        Column("relay_ended_at", "timestamptz", Merge.GREATEST),
    ),
    indexes=(Index("there", f"(node_id) WHERE {THERE}"),),
)
STREAM_NAMES: Final = Table(
    "stream_names",
    key=("tenant_id", "stream_id"),
    columns=(
        Column("tenant_id", "uuid"),
        Column("stream_id", "uuid"),
        Column("playback_id", "text"),
        Column("internal_name", "text"),
        Column("key_prefix", "text"),
        Column("key_hash", "bytea"),
        Column("deleted_at", "timestamptz", Merge.FIRST),
    ),
    indexes=(
        Index("by_playback_id", "(playback_id)"),
        Index("by_internal_name", "(internal_name)"),
        Index("by_key", "(key_prefix)"),
    ),
)
WEIGHTS: Final = Table(
    "balancer_weights",
    key=("tenant_id",),
    columns=(Column("tenant_id", "uuid"), *(Column(name, "int") for name in Weights.__dataclass_fields__)),
)


async def apply(batch: Sequence[Delivered], db: Database) -> None:
    rows = Rows()
    for delivered in batch:
        rows.fold(delivered.event, delivered.meta)
    for changes in rows.all():
        await changes.upsert(db)


class Rows:
    """What events change in the tables. The one meaning of these events: of the tables, and of the gateways' memory."""

    def __init__(self) -> None:
        self.nodes, self.streams = Changes(NODES), Changes(NODE_STREAMS)
        self.names, self.weights = Changes(STREAM_NAMES), Changes(WEIGHTS)

    def all(self) -> tuple[Changes, ...]:
        return self.nodes, self.streams, self.names, self.weights

    def fold(self, event: object, meta: Meta) -> None:
        """What happened; what was decided in `_decided`."""
        tenant_id, about, at = meta.tenant_id, meta.aggregate_id, meta.occurred_at
        match event:
            case NodeSamples():
                self._sampled(event, meta)
            case NodeStarted(node_id=node_id, software_version=version):
                self.nodes.put((tenant_id, about), node_id=node_id)
                self.nodes.greatest((tenant_id, about), "started_at", at, software_version=version)
            case NodeStopped(node_id=node_id):
                self.nodes.put((tenant_id, about), node_id=node_id)
                self.nodes.greatest((tenant_id, about), "stopped_at", at)
            case StreamWentLive(node_id=node_id):
                self.streams.greatest((tenant_id, about, node_id), "live_at", at)
            case StreamWentOffline(node_id=node_id):
                self.streams.greatest((tenant_id, about, node_id), "offline_at", at)
            case StreamRelayStarted(node_id=node_id):
                self.streams.greatest((tenant_id, about, node_id), "relay_at", at)
            case StreamRelayEnded(node_id=node_id):
                self.streams.greatest((tenant_id, about, node_id), "relay_ended_at", at)
            case _:
                self._decided(event, meta)

    def _decided(self, event: object, meta: Meta) -> None:
        tenant_id, about = meta.tenant_id, meta.aggregate_id
        match event:
            case StreamCreated() as made:
                self.names.put((tenant_id, about), playback_id=made.playback_id, internal_name=made.internal_name)
                self.names.put((tenant_id, about), key_prefix=made.key_prefix, key_hash=made.key_hash)
            case StreamKeyRotated(key_prefix=prefix, key_hash=digest):
                self.names.put((tenant_id, about), key_prefix=prefix, key_hash=digest)
            case StreamDeleted():
                self.names.first((tenant_id, about), deleted_at=meta.occurred_at)
            case NodeRegistered() as event:
                said = NodeChanged(event.tenants, event.region, event.latitude, event.longitude, event.base_url, event.tags)
                self.nodes.put((tenant_id, about), node_id=event.node_id, name=event.name, mode=str(NodeMode.ACTIVE))
                self.nodes.put((tenant_id, about), described=_described(said))
            case NodeChanged() as event:
                self.nodes.put((tenant_id, about), described=_described(event))
            case NodeModeSet(mode=mode):
                self.nodes.put((tenant_id, about), mode=str(mode))
            case NodeEnrolled():
                self.nodes.put((tenant_id, about), is_revoked=False)
            case NodeRevoked():
                self.nodes.put((tenant_id, about), is_revoked=True)
            case BalancerWeightsSet():
                self.weights.put((tenant_id,), **{name: getattr(event, name) for name in Weights.__dataclass_fields__})
            case _:
                pass

    def _sampled(self, event: NodeSamples, meta: Meta) -> None:
        if event.sampled_at:
            newest = max(range(len(event.sampled_at)), key=lambda n: (event.sampled_at[n], n))
            key = meta.tenant_id, meta.aggregate_id
            self.nodes.put(key, node_id=event.node_id)
            self.nodes.greatest(key, "sampled_at", event.sampled_at[newest], sample=_sample(event, newest))


def _described(event: NodeChanged) -> str:
    return orjson.dumps(
        {
            "tenants": None if event.tenants is None else [str(tenant_id) for tenant_id in event.tenants],
            "region": event.region,
            "latitude": event.latitude,
            "longitude": event.longitude,
            "base_url": event.base_url,
            "tags": list(event.tags),
        }
    ).decode()


def _sample(event: NodeSamples, newest: int) -> str:
    """The newest sample of a record. Rates are what was counted since the record's first sample; null where it has only one."""
    first = min(range(len(event.sampled_at)), key=lambda n: (event.sampled_at[n], n))
    seconds = (event.sampled_at[newest] - event.sampled_at[first]).total_seconds()

    def rate(counted: Sequence[int]) -> int | None:
        moved = counted[newest] - counted[first]
        return min(int(moved / seconds), _LONG_MAX) if seconds > 0 and moved >= 0 else None

    return orjson.dumps(
        {
            "cpu_permille": event.cpu_permille[newest],
            "memory_used_bytes": event.memory_used_bytes[newest],
            "memory_total_bytes": event.memory_total_bytes[newest],
            "shm_used_bytes": event.shm_used_bytes[newest],
            "shm_total_bytes": event.shm_total_bytes[newest],
            "up_bytes": event.up_bytes[newest],
            "down_bytes": event.down_bytes[newest],
            "up_bytes_per_second": rate(event.up_bytes),
            "down_bytes_per_second": rate(event.down_bytes),
            "bandwidth_limit_bytes_per_second": event.bandwidth_limit_bytes_per_second,
            "viewers": event.viewers[newest],
            "inputs": event.inputs[newest],
            "outputs": event.outputs[newest],
        }
    ).decode()


PROJECTION: Final = TableProjection(
    name="routing",
    version=2,
    topics=("decisions", "facts", "nodes", "samples"),
    handles=frozenset(
        {
            BalancerWeightsSet,
            NodeChanged,
            NodeEnrolled,
            NodeModeSet,
            NodeRegistered,
            NodeRevoked,
            NodeSamples,
            NodeStarted,
            NodeStopped,
            StreamCreated,
            StreamDeleted,
            StreamKeyRotated,
            StreamRelayEnded,
            StreamRelayStarted,
            StreamWentLive,
            StreamWentOffline,
        }
    ),
    tables=(NODES, NODE_STREAMS, STREAM_NAMES, WEIGHTS),
    apply=apply,
    linger_seconds=0.05,
    replayable=frozenset(
        {NodeSamples, NodeStarted, NodeStopped, StreamRelayEnded, StreamRelayStarted, StreamWentLive, StreamWentOffline}
    ),
)


class StreamName(NamedTuple):
    """What a stream is called: by viewers, and on media servers behind `live+`."""

    tenant_id: UUID
    stream_id: UUID
    playback_id: str
    internal_name: str


Row = Mapping[str, Any]
_EVERY: Final = {table: f"SELECT {', '.join(c.name for c in table.columns)} FROM {table.name}" for table in (NODES, WEIGHTS)}  # noqa: S608
_LIVE: Final = """SELECT tenant_id, stream_id, node_id, live_at, offline_at FROM node_streams
    WHERE live_at > coalesce(offline_at, '-infinity')"""
_THERE: Final = f"SELECT {', '.join(c.name for c in NODE_STREAMS.columns)} FROM node_streams WHERE {THERE}"  # noqa: S608
_NAMED: Final = f"SELECT {', '.join(StreamName._fields)} FROM stream_names WHERE deleted_at IS NULL AND"  # noqa: S608
_BY_PLAYBACK_ID: Final = f"{_NAMED} playback_id = $1 LIMIT 1"
_BY_INTERNAL_NAME: Final = f"{_NAMED} internal_name = $1 LIMIT 1"
_BY_KEY: Final = f"{_NAMED} key_prefix = $1 AND key_hash = $2 LIMIT 1"
_BY_ID: Final = f"{_NAMED} tenant_id = $1 AND stream_id = $2"
_OF: Final = f"{_NAMED} stream_id = ANY($1::uuid[])"


async def node_rows(db: Database) -> Sequence[asyncpg.Record]:
    """Every node, as rows of NODES."""
    return await db.fetch(_EVERY[NODES])


async def node_stream_rows(db: Database) -> Sequence[asyncpg.Record]:
    """Which streams are live or relayed on which nodes, as rows of NODE_STREAMS."""
    try:
        return await db.fetch(_THERE)
    except asyncpg.UndefinedColumnError:  # version 1 is still shown, while the worker makes this one
        return await db.fetch(_LIVE)


async def weights_rows(db: Database) -> Sequence[asyncpg.Record]:
    """At most one row: the operator's weights."""
    return await db.fetch(_EVERY[WEIGHTS])


async def stream_by_playback_id(db: Database, playback_id: str) -> StreamName | None:
    row = await db.fetchrow(_BY_PLAYBACK_ID, playback_id)
    return StreamName(*row) if row else None


async def stream_by_internal_name(db: Database, internal_name: str) -> StreamName | None:
    row = await db.fetchrow(_BY_INTERNAL_NAME, internal_name)
    return StreamName(*row) if row else None


async def stream_by_key(db: Database, prefix: str, digest: bytes) -> StreamName | None:
    """The stream that this key is the newest of. A key in its days of grace finds nothing: it is to be replaced."""
    row = await db.fetchrow(_BY_KEY, prefix, digest)
    return StreamName(*row) if row else None


async def stream_by_id(db: Database, tenant_id: UUID, stream_id: UUID) -> StreamName | None:
    row = await db.fetchrow(_BY_ID, tenant_id, stream_id)
    return StreamName(*row) if row else None


async def stream_names(db: Database, stream_ids: Sequence[UUID]) -> Mapping[UUID, StreamName]:
    return {name.stream_id: name for name in map(StreamName._make, await db.fetch(_OF, stream_ids))}


LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


def is_live(row: Row) -> bool:
    """Whether a row of NODE_STREAMS says that the stream is live there, from its publisher."""
    return _lasts(row, "live_at", "offline_at")


def is_there(row: Row) -> bool:
    """Whether the node can serve the stream at once: live, or relayed from where it is."""
    return is_live(row) or _lasts(row, "relay_at", "relay_ended_at")


def _lasts(row: Row, began: str, ended: str) -> bool:
    began_at: datetime | None = row.get(began)
    return began_at is not None and began_at > (row.get(ended) or LONG_AGO)
