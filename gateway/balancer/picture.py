"""The nodes and who has which stream, in memory and at most a second old.

Two sources, one meaning (`projections.routing.Rows`): the tables, read at the start and every 30 s, and the ends of the topics,
read as records come. All merges commute, so their order does not matter: what the tables lacked at the start the next reading
brings, and what the tails lost, too. Tails, not polling: a node that fills up within a second is not chosen in the next, and
the database is not asked about every live stream all the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import orjson

from projections import routing
from projections.model import Database
from projections.routing import NODE_STREAMS, NODES, Row, Rows, is_live, is_there
from projections.tables import merged
from streams.balancing.geography import MILLION, cell_of
from streams.balancing.score import Node, Weights
from streams.generated import Meta, NodeMode
from streams.ids import OPERATOR_TENANT

DEFAULT_LIMIT_BYTES_PER_SECOND: Final = 128 << 20  # what a media server assumes
ALIVE_SECONDS: Final = 10
"""Samples so long after a stop say that it was cancelled."""
UNCONFIRMED_MS: Final = 60_000
SKEW_MS: Final = 300_000
"""Clocks of nodes may be so wrong: a sample that arrives within it is as fresh as its arrival, an older one is of a backlog."""
Key = tuple[UUID, UUID]


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as the platform knows it; `node` is what decisions are made with."""

    node: Node
    name: str
    base_url: str | None
    region: str | None
    latitude: float | None
    longitude: float | None
    software_version: str | None
    down_bytes_per_second: int
    viewers: int
    is_registered: bool
    speaks_for: UUID  # tenant of what the node says of itself

    @property
    def host(self) -> str:
        """What media servers call it: a host name without a port."""
        return (urlsplit(self.base_url).hostname if self.base_url else None) or self.node.node_id


class Picture:
    """What is known. `version` moves with every change."""

    def __init__(self) -> None:
        self.version = 0
        self.weights = Weights()
        self._weighed_ms: int | None = None  # when the tail told of weights: the table may be behind it for a while
        self._nodes: dict[Key, dict[str, Any]] = {}
        self._rates: dict[Key, tuple[datetime, int, int, int, int]] = {}  # newest sample: when, up, down, and the rates up to it
        self._fresh_ms: dict[Key, int] = {}  # when a node was last well, by our own clock
        self._streams: dict[Key, dict[str, tuple[dict[str, Any], int]]] = {}  # rows by node, and when each was heard of

    def take(self, event: object, meta: Meta, now_ms: int) -> None:
        """Something happened, and we hear of it now."""
        rows = Rows()
        rows.fold(event, meta)
        self._merge(rows.nodes.rows, rows.streams.rows, now_ms, SKEW_MS)
        for (tenant_id,), row in rows.weights.rows.items():
            self._weigh({"tenant_id": tenant_id, **row})
            self._weighed_ms = now_ms

    async def reload(self, database: Database, now_ms: int) -> None:
        """Reads the tables. What the tails said and the tables do not say after a minute is not so."""
        nodes = {(r["tenant_id"], r["node_uuid"]): dict(r) for r in await routing.node_rows(database)}
        there = {(r["tenant_id"], r["stream_id"], r["node_id"]): dict(r) for r in await routing.node_stream_rows(database)}
        for row in await routing.weights_rows(database):
            if self._weighed_ms is None or self._weighed_ms < now_ms - UNCONFIRMED_MS:
                self._weigh(dict(row))
        self._merge(nodes, {key: row for key, row in there.items() if not self._has(*key, row)}, now_ms, 0)
        for (tenant_id, stream_id), of_nodes in list(self._streams.items()):
            for node_id, (_, heard) in list(of_nodes.items()):
                if heard < now_ms - UNCONFIRMED_MS and (tenant_id, stream_id, node_id) not in there:
                    del of_nodes[node_id]
                    self.version += 1
            if not of_nodes:
                del self._streams[tenant_id, stream_id]

    def _has(self, tenant_id: UUID, stream_id: UUID, node_id: str, row: Row) -> bool:
        """Whether a row of the table, of a node that has the stream, says nothing new: live it may be besides being a relay."""
        known, _ = self._streams.get((tenant_id, stream_id), {}).get(node_id, ({}, 0))
        return is_there(known) and is_live(known) >= is_live(row)

    def holders(self, tenant_id: UUID, stream_id: UUID) -> frozenset[str]:
        """Nodes that have the stream: its publisher's, and those that relay it."""
        of_nodes = self._streams.get((tenant_id, stream_id))
        return frozenset(n for n, (row, _) in of_nodes.items() if is_there(row)) if of_nodes else frozenset()

    def origins(self, tenant_id: UUID, stream_id: UUID) -> frozenset[str]:
        """Those of them that have it from its publisher."""
        of_nodes = self._streams.get((tenant_id, stream_id))
        return frozenset(n for n, (row, _) in of_nodes.items() if is_live(row)) if of_nodes else frozenset()

    def live_streams(self) -> Mapping[Key, frozenset[str]]:
        """Every stream that a node has, and which nodes."""
        found = {key: self.holders(*key) for key in self._streams}
        return {key: nodes for key, nodes in found.items() if nodes}

    def nodes(self) -> Mapping[str, NodeState]:
        """Every node by its id.

        A node that was registered is what was decided of it, and how it is comes from the tenant that its credential speaks
        for. One that nobody registered is shown, too, without an address to send anybody to.
        """
        registered = {key: row for key, row in self._nodes.items() if "described" in row}
        taken = {node_uuid for _, node_uuid in registered}
        found: dict[str, NodeState] = {}
        for key, row in registered.items():
            state = self._registered(key, row)
            found[state.node.node_id] = state
        for key, row in self._nodes.items():
            if key[1] not in taken and row.get("node_id") and row["node_id"] not in found:
                serves = None if key[0] == OPERATOR_TENANT else frozenset({key[0]})
                found[row["node_id"]] = self._state(key, row, row, {}, serves)
        return found

    def _registered(self, key: Key, row: Row) -> NodeState:
        described: dict[str, Any] = orjson.loads(row["described"])
        tenants = described.get("tenants")
        serves = None if tenants is None else frozenset(map(UUID, tenants))
        speaks_for = next(iter(serves)) if serves is not None and len(serves) == 1 else OPERATOR_TENANT
        of_facts = (speaks_for, key[1])
        return self._state(of_facts, self._nodes.get(of_facts, {}), row, described, serves)

    def _state(
        self, key: Key, said: Row, decided: Row, described: Mapping[str, Any], serves: frozenset[UUID] | None
    ) -> NodeState:
        """`said`: the row with its facts, known under `key`; `decided`: the one with the decisions."""
        sample: dict[str, Any] = orjson.loads(said.get("sample") or b"{}")
        _, _, _, up, down = self._rates.get(key, (None, 0, 0, 0, 0))
        latitude, longitude = described.get("latitude"), described.get("longitude")
        node = Node(
            node_id=decided["node_id"],
            tenants=serves,
            has_address=described.get("base_url") is not None,
            mode=NodeMode(decided.get("mode") or NodeMode.ACTIVE),
            is_revoked=bool(decided.get("is_revoked")),
            is_stopped=_is_stopped(said),
            tags=frozenset(described.get("tags", ())),
            cell=None if latitude is None or longitude is None else cell_of(latitude, longitude),
            sampled_at_ms=self._fresh_ms.get(key),
            cpu_ppm=min(MILLION, max(0, sample.get("cpu_permille", 0) * 1000)),
            ram_ppm=_share(sample.get("memory_used_bytes", 0), sample.get("memory_total_bytes", 0)),
            up_bytes_per_second=up,
            limit_bytes_per_second=max(0, sample.get("bandwidth_limit_bytes_per_second") or DEFAULT_LIMIT_BYTES_PER_SECOND),
        )
        return NodeState(
            node,
            name=decided.get("name") or decided["node_id"],
            base_url=described.get("base_url"),
            region=described.get("region"),
            latitude=latitude,
            longitude=longitude,
            software_version=said.get("software_version"),
            down_bytes_per_second=down,
            viewers=sample.get("viewers", 0),
            is_registered=bool(described),
            speaks_for=key[0],
        )

    def _merge(self, nodes: Mapping[Any, Row], streams: Mapping[Any, Row], now_ms: int, skew_ms: int) -> None:
        for key, row in nodes.items():
            self._nodes[key] = merged(NODES, self._nodes.get(key, {}), row)
            self._measure(key, self._nodes[key], now_ms, skew_ms)
        for (tenant_id, stream_id, node_id), row in streams.items():
            of_nodes = self._streams.setdefault((tenant_id, stream_id), {})
            before, since = of_nodes.get(node_id, ({}, now_ms))
            of_nodes[node_id] = merged(NODE_STREAMS, before, row), max(since, now_ms)
        if nodes or streams:
            self.version += 1

    def _measure(self, key: Key, row: Row, now_ms: int, skew_ms: int) -> None:
        """Rates up to a node's newest sample: its own where it says them, else since the sample before."""
        sampled_at: datetime | None = row.get("sampled_at")
        before = self._rates.get(key)
        if sampled_at is None or (before is not None and before[0] >= sampled_at):
            return
        sample: dict[str, Any] = orjson.loads(row["sample"])
        up, down = sample["up_bytes"], sample["down_bytes"]
        rates = sample["up_bytes_per_second"], sample["down_bytes_per_second"]
        if before is not None and None in rates:
            seconds = (sampled_at - before[0]).total_seconds()
            rates = max(0, up - before[1]) / seconds, max(0, down - before[2]) / seconds
        self._rates[key] = sampled_at, up, down, int(rates[0] or 0), int(rates[1] or 0)
        sampled_ms = int(sampled_at.timestamp() * 1000)
        self._fresh_ms[key] = now_ms if abs(now_ms - sampled_ms) <= skew_ms else min(now_ms, sampled_ms)

    def _weigh(self, row: Row) -> None:
        if row["tenant_id"] == OPERATOR_TENANT:
            self.weights = Weights(**{name: row[name] for name in Weights.__dataclass_fields__})
            self.version += 1


def _is_stopped(row: Row) -> bool:
    """A stop that no start follows, nor a sign of life: a stop may be cancelled."""
    stopped_at: datetime | None = row.get("stopped_at")
    if stopped_at is None:
        return False
    started_at, sampled_at = row.get("started_at") or stopped_at, row.get("sampled_at") or stopped_at
    return started_at <= stopped_at and (sampled_at - stopped_at).total_seconds() < ALIVE_SECONDS


def _share(used: int, total: int) -> int:
    return min(MILLION, max(0, used) * MILLION // total) if total > 0 else 0


def by_host(states: Iterable[NodeState]) -> dict[str, NodeState]:
    """By what media servers call them. Two on one host collide, as they do there: the later by id is shown."""
    return {state.host: state for state in sorted(states, key=lambda state: state.node.node_id)}
