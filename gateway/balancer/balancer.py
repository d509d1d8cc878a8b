"""Answers who serves whom, and remembers: reservations, facts, metrics.

1. a question is asked of the fleet, which is the picture of a moment ago (at most FLEET_SECONDS old)
2. the winner gets a reservation, so the next question sees it fuller: nothing is awaited between 1 and 2
3. the decision is queued as a fact

Other gateways' decisions come back through the log and are reserved for here, too.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from prometheus_client import Counter, Gauge, Histogram

from gateway.balancer.names import Names
from gateway.balancer.picture import NodeState, Picture
from gateway.balancer.reservations import Reservations
from gateway.balancer.routes import Routes, fact, meta_of
from gateway.tail import Record
from projections import routing
from projections.model import Database
from streams.balancing.fleet import Fleet
from streams.balancing.score import NO_TAGS, Ceilings, Choice, Purpose, Question, Weights
from streams.codec import decode, name_of
from streams.errors import Invalid
from streams.generated import Meta, NodeSamples, RoutingPurpose, ViewerJoined, ViewerRouted
from streams.ids import OPERATOR_TENANT, derive
from streams.telemetry import log

FLEET_SECONDS: Final = 0.25
RELOAD_SECONDS: Final = 30.0
FIRST_RELOADS: Final = (1.0, 2.0, 5.0)
"""What the tables lacked when they were first read is in them seconds later."""
VIEWER_BYTES_PER_SECOND: Final = 131_072
VIEWER_LEAST, VIEWER_MOST = 64 << 10, 1 << 20
NO_STREAM: Final = derive(OPERATOR_TENANT, "no stream")
"""What a decision is about that is about no stream."""
HANDLES: Final = frozenset(kind.__name__ for kind in routing.PROJECTION.handles) | {"ViewerJoined", "ViewerRouted"}
logger = log(__name__)
decided = Counter("fw_balancer_decisions_total", "Questions to the balancer, by purpose and outcome", ["purpose", "result"])
deciding = Histogram(
    "fw_balancer_decision_seconds",
    "From a question to its answer",
    buckets=(0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05),
)
reserved = Gauge("fw_balancer_virtual_viewers_waiting", "Viewers who were sent to a node and are not in its numbers yet")
arrived = Counter("fw_balancer_virtual_viewers_total", "Virtual viewers by what became of them", ["result"])
unreadable = Counter("fw_balancer_unreadable_total", "Records that the balancer could not read")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for what. `asking`: nodes that must not be told their own name."""

    purpose: Purpose
    tenant_id: UUID
    stream_id: UUID | None = None
    protocol: str = ""
    cell: str | None = None
    country: str | None = None
    tag_adjust: Mapping[str, int] = field(default_factory=lambda: NO_TAGS)
    asking: frozenset[str] = frozenset()
    needed_cpu_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Routed:
    """What was decided, the nodes that it speaks of, and the weights that held."""

    choice: Choice
    nodes: Mapping[str, NodeState]
    weights: Weights

    @property
    def winner(self) -> NodeState | None:
        return None if self.choice.winner is None else self.nodes[self.choice.winner]


class Balancer:
    """One per gateway. `clock_ms` is the time of day."""

    def __init__(
        self,
        database: Database,
        routes: Routes,
        ceilings: Ceilings,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.picture, self.names = Picture(), Names(database)
        self.reservations = Reservations(self._reserve)
        self.ceilings = ceilings
        self._database, self._routes, self._clock_ms = database, routes, clock_ms
        self._actor = f"gateway:{secrets.token_hex(4)}"
        self._nodes: Mapping[str, NodeState] = {}
        self._fleet = Fleet((), Weights(), ceilings, 0)
        self._fleet_version = -1

    # --- questions -------------------------------------------------------------------------------------------------------

    def route(self, asked: Asked) -> Routed:
        """Decides, reserves, records."""
        with deciding.time():
            routed = self._decide(asked)
        choice, winner = routed.choice, routed.choice.winner
        decided.labels(asked.purpose, "none" if winner is None else "chosen").inc()
        now_ms = self._clock_ms()
        about = asked.stream_id or NO_STREAM
        if winner is not None and asked.purpose is Purpose.VIEWER:
            self.reservations.reserve(winner, (asked.tenant_id, about), self._viewer_bytes(winner), now_ms)
        event = fact(asked.purpose, asked.protocol, asked.country, asked.cell, routed.weights, choice)
        self._routes.record(event, meta_of(asked.tenant_id, about, self._actor, now_ms))
        return routed

    def _decide(self, asked: Asked) -> Routed:
        fleet = self.fleet()
        holders = frozenset[str]()
        if asked.stream_id is not None:
            # Two relays that take a stream from each other would keep it alive for ever, without a picture.
            of = self.picture.origins if asked.purpose is Purpose.SOURCE else self.picture.holders
            holders = of(asked.tenant_id, asked.stream_id)
        question = Question(
            asked.tenant_id, asked.purpose, holders, asked.cell, asked.tag_adjust, asked.asking, asked.needed_cpu_ppm
        )
        return Routed(fleet.choose(question), self._nodes, fleet.weights)

    def fleet(self) -> Fleet:
        """The nodes of now, or of a moment ago."""
        now_ms = self._clock_ms()
        arrived.labels("expired").inc(self.reservations.expire(now_ms))
        age_ms = now_ms - self._fleet.now_ms
        is_same = self._fleet_version == self.picture.version and age_ms < 1000  # nodes grow stale by themselves
        if not is_same and (age_ms >= FLEET_SECONDS * 1000 or age_ms < 0 or self._fleet_version < 0):
            self._nodes = self.picture.nodes()
            self._fleet = Fleet([state.node for state in self._nodes.values()], self.picture.weights, self.ceilings, now_ms)
            self._fleet_version = self.picture.version
            for node_id in self._nodes:
                self._fleet.reserve(node_id, self.reservations.bytes_per_second(node_id))
            reserved.set(len(self.reservations))
        return self._fleet

    def nodes(self) -> Mapping[str, NodeState]:
        self.fleet()
        return self._nodes

    def _viewer_bytes(self, node_id: str) -> int:
        """What a viewer more will use of a node: as much as those who are there do, within reason."""
        state = self._nodes[node_id]
        if state.viewers <= 0:
            return VIEWER_BYTES_PER_SECOND
        return min(VIEWER_MOST, max(VIEWER_LEAST, state.node.up_bytes_per_second // state.viewers))

    def _reserve(self, node_id: str, bytes_per_second: int) -> None:
        self._fleet.reserve(node_id, bytes_per_second)

    # --- what happens ------------------------------------------------------------------------------------------------------

    def record(self, record: Record) -> None:
        """A record of one of the topics, from its tail."""
        value = record.value or b""
        try:
            if name_of(value) not in HANDLES:
                return
            event, meta = decode(value)
        except Invalid as error:  # projections dead-letter it
            unreadable.inc()
            logger.warning("unreadable record", partition=record.partition, offset=record.offset, error=str(error))
            return
        self.take(event, meta)

    def take(self, event: object, meta: Meta) -> None:
        now_ms = self._clock_ms()
        match event:
            case ViewerJoined(node_id=node_id, viewing_id=viewing_id):
                stream = meta.tenant_id, meta.aggregate_id
                if self.reservations.joined(node_id, stream, viewing_id, int(meta.occurred_at.timestamp() * 1000)):
                    arrived.labels("joined").inc()
            case ViewerRouted(purpose=RoutingPurpose.VIEWER, node_id=str(node_id)) if meta.actor != self._actor:
                self._elsewhere(node_id, meta, now_ms)
            case ViewerRouted():
                pass
            case _:
                self.picture.take(event, meta, now_ms)
                if isinstance(event, NodeSamples) and event.sampled_at:
                    self._sampled(event, meta)

    def _sampled(self, event: NodeSamples, meta: Meta) -> None:
        """A node's numbers have those who joined before. Of a node only its own credential may say so."""
        state = self._nodes.get(event.node_id)
        if state is not None and state.speaks_for == meta.tenant_id:
            self.reservations.sampled(event.node_id, int(max(event.sampled_at).timestamp() * 1000))

    def _elsewhere(self, node_id: str, meta: Meta, now_ms: int) -> None:
        """Another gateway sent a viewer somewhere."""
        at_ms = int(meta.occurred_at.timestamp() * 1000)
        if node_id in self._nodes and 0 <= now_ms - at_ms < 10_000:
            self.reservations.reserve(node_id, (meta.tenant_id, meta.aggregate_id), self._viewer_bytes(node_id), now_ms)

    # --- running -----------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        await self.picture.reload(self._database, self._clock_ms())

    async def run(self) -> None:
        """Reads the tables again now and then. A database that does not answer leaves the picture to the tails."""
        pauses = [*FIRST_RELOADS]
        while True:
            await asyncio.sleep(pauses[0] if pauses else RELOAD_SECONDS)
            try:
                await self.load()
                del pauses[:1]
            except Exception as error:  # noqa: BLE001 - whatever it is, the tails go on
                logger.warning("the nodes could not be read again", error=repr(error))
