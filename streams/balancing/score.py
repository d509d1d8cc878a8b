"""What a node is worth to somebody who asks: the rules, one node at a time. `fleet.py` gives the same answers faster.

A score is cpu + ram + bandwidth + geo + bonus + tag adjustments. Of each resource a node gets the weight times what is free of
it; of geo the weight times how near it is, nothing where either place is unknown; the bonus where it has the stream.

Invariants: a node that may not serve is never chosen, whatever its score. A tenant's own nodes come before the operator's. Of
equal scores the smaller node id wins, so all gateways choose alike. Measures are millionths, so other weights can be applied to
what was recorded and give what they would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from streams.balancing.geography import MILLION, centre, distance_ppm
from streams.generated import NodeMode

WEIGHT_MAX: Final = 100_000
UNKNOWN_DISTANCE: Final = -1
NO_TAGS: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Weights:
    """What counts how much."""

    cpu: int = 500
    ram: int = 500
    bandwidth: int = 1000
    geo: int = 1000
    bonus: int = 50


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What a node may use before nobody new is sent to it, in millionths; and how old its last sample may be."""

    cpu_ppm: int = 900_000
    ram_ppm: int = 900_000
    bandwidth_ppm: int = 950_000
    stale_seconds: float = 45.0


class Purpose(StrEnum):
    """What a node is asked for."""

    VIEWER = "VIEWER"
    INGEST = "INGEST"
    SOURCE = "SOURCE"  # another node wants to pull the stream


class Exclusion(StrEnum):
    """Why a node was not chosen from."""

    NOT_FOR_TENANT = "NOT_FOR_TENANT"
    REVOKED = "REVOKED"
    STOPPED = "STOPPED"
    DRAINING = "DRAINING"
    MAINTENANCE = "MAINTENANCE"
    NO_ADDRESS = "NO_ADDRESS"
    STALE = "STALE"
    CPU_FULL = "CPU_FULL"
    RAM_FULL = "RAM_FULL"
    BANDWIDTH_FULL = "BANDWIDTH_FULL"
    NO_STREAM = "NO_STREAM"
    ASKING = "ASKING"


@dataclass(frozen=True, slots=True)
class Node:
    """A media server as a decision sees it."""

    node_id: str
    tenants: frozenset[UUID] | None  # None: a node of the operator, which serves every tenant
    has_address: bool = True  # viewers and publishers can be sent to it
    mode: NodeMode = NodeMode.ACTIVE
    is_revoked: bool = False
    is_stopped: bool = False
    tags: frozenset[str] = frozenset()
    cell: str | None = None
    sampled_at_ms: int | None = None
    cpu_ppm: int = 0
    ram_ppm: int = 0
    up_bytes_per_second: int = 0
    reserved_bytes_per_second: int = 0  # of viewers who were sent there and have not come yet
    limit_bytes_per_second: int = 128 << 20

    @property
    def bandwidth_ppm(self) -> int:
        return bandwidth_ppm(self, self.reserved_bytes_per_second)

    def serves(self, tenant_id: UUID) -> bool:
        return self.tenants is None or tenant_id in self.tenants


def bandwidth_ppm(node: Node, reserved_bytes_per_second: int) -> int:
    """How much of a node's bandwidth is used, with so much of it spoken for."""
    return (node.up_bytes_per_second + reserved_bytes_per_second) * MILLION // max(1, node.limit_bytes_per_second)


@dataclass(frozen=True, slots=True)
class Question:
    """Who asks for what. `holders`: nodes that have the stream; where a source is asked for, from its publisher."""

    tenant_id: UUID
    purpose: Purpose = Purpose.VIEWER
    holders: frozenset[str] = frozenset()
    cell: str | None = None
    tag_adjust: Mapping[str, int] = field(default_factory=lambda: NO_TAGS)
    asking: frozenset[str] = frozenset()  # nodes that ask for themselves and must not be told their own name
    needed_cpu_ppm: int = 0


class Measures(NamedTuple):
    """What was measured of a node when it was a candidate: a score is this and weights. A tuple: a hundred thousand a second."""

    cpu_ppm: int
    ram_ppm: int
    bandwidth_ppm: int
    distance_ppm: int  # UNKNOWN_DISTANCE: not known
    has_stream: bool
    tag_adjustment: int
    is_own: bool  # of the tenant


@dataclass(frozen=True, slots=True)
class Parts:
    """A score in its parts."""

    cpu: int
    ram: int
    bandwidth: int
    geo: int
    bonus: int
    tags: int

    @property
    def total(self) -> int:
        return self.cpu + self.ram + self.bandwidth + self.geo + self.bonus + self.tags


class Candidate(NamedTuple):
    node_id: str
    measures: Measures
    score: int


@dataclass(frozen=True, slots=True)
class Choice:
    """`candidates`: the best first, at most as many as were asked for; of `candidates_total`. Nobody: there is no winner."""

    candidates: Sequence[Candidate]
    candidates_total: int
    excluded: Sequence[tuple[str, Exclusion]]

    @property
    def winner(self) -> str | None:
        return self.candidates[0].node_id if self.candidates else None


def part(weight: int, used_ppm: int) -> int:
    """What a resource of which so much is used contributes."""
    return weight - weight * used_ppm // MILLION


def near(weight: int, distance: int) -> int:
    """What nearness contributes."""
    return 0 if distance == UNKNOWN_DISTANCE else part(weight, distance)


def parts(weights: Weights, measures: Measures) -> Parts:
    """The score of a candidate under these weights."""
    return Parts(
        part(weights.cpu, measures.cpu_ppm),
        part(weights.ram, measures.ram_ppm),
        part(weights.bandwidth, measures.bandwidth_ppm),
        near(weights.geo, measures.distance_ppm),
        weights.bonus if measures.has_stream else 0,
        measures.tag_adjustment,
    )


def standing(node: Node, purpose: Purpose, ceilings: Ceilings, now_ms: int) -> Exclusion | None:
    """Why a node serves nobody of this purpose at the moment, bandwidth aside; None where it does."""
    if node.is_revoked:
        return Exclusion.REVOKED
    if node.is_stopped:
        return Exclusion.STOPPED
    if node.mode is NodeMode.MAINTENANCE:
        return Exclusion.MAINTENANCE
    if node.mode is NodeMode.DRAINING and purpose is not Purpose.SOURCE:
        return Exclusion.DRAINING
    if not node.has_address:
        return Exclusion.NO_ADDRESS
    if node.sampled_at_ms is None or now_ms - node.sampled_at_ms > ceilings.stale_seconds * 1000:
        return Exclusion.STALE
    if node.cpu_ppm > ceilings.cpu_ppm:
        return Exclusion.CPU_FULL
    if node.ram_ppm > ceilings.ram_ppm:
        return Exclusion.RAM_FULL
    return None


def excluded(node: Node, question: Question, ceilings: Ceilings, now_ms: int) -> Exclusion | None:
    """Why a node cannot be the answer; None where it can."""
    if not node.serves(question.tenant_id):
        return Exclusion.NOT_FOR_TENANT
    if (reason := standing(node, question.purpose, ceilings, now_ms)) is not None:
        return reason
    if node.bandwidth_ppm > ceilings.bandwidth_ppm:
        return Exclusion.BANDWIDTH_FULL
    if question.needed_cpu_ppm and node.cpu_ppm + question.needed_cpu_ppm > ceilings.cpu_ppm:
        return Exclusion.CPU_FULL
    if question.purpose is Purpose.SOURCE and node.node_id not in question.holders:
        return Exclusion.NO_STREAM
    return Exclusion.ASKING if node.node_id in question.asking else None


def measures(node: Node, question: Question) -> Measures:
    """What counts of a node for this question."""
    unknown = node.cell is None or question.cell is None
    return Measures(
        node.cpu_ppm,
        node.ram_ppm,
        node.bandwidth_ppm,
        UNKNOWN_DISTANCE if unknown else distance_ppm(centre(node.cell or ""), centre(question.cell or "")),
        node.node_id in question.holders,
        sum(question.tag_adjust.get(tag, 0) for tag in node.tags),
        node.tenants is not None and question.tenant_id in node.tenants,
    )


def order(candidate: Candidate) -> tuple[bool, int, str]:
    """What the best candidate is the least of."""
    return not candidate.measures.is_own, -candidate.score, candidate.node_id


def choose(
    nodes: Sequence[Node], question: Question, weights: Weights, ceilings: Ceilings, now_ms: int, limit: int | None = None
) -> Choice:
    """The rules, plainly: every node is excluded or a candidate, and the best candidate wins."""
    candidates: list[Candidate] = []
    out: list[tuple[str, Exclusion]] = []
    for node in sorted(nodes, key=lambda node: node.node_id):
        if (reason := excluded(node, question, ceilings, now_ms)) is not None:
            out.append((node.node_id, reason))
            continue
        measured = measures(node, question)
        candidates.append(Candidate(node.node_id, measured, parts(weights, measured).total))
    return Choice(sorted(candidates, key=order)[:limit], len(candidates), out)
