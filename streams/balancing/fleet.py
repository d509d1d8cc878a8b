"""All nodes laid out as arrays, for thousands of decisions a second: the answers of `score.choose`, computed ahead.

Invariants: nodes stand in the order of their ids, so the first of equal sums is the winner. What does not change from question
to question is computed once per set of nodes (`standing`), per tenant (who may serve it) and per cell (how near everybody is);
a reservation changes one node's bandwidth in place. Every fleet is of one moment: make another when nodes, weights or the time
have moved on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add
from typing import Final
from uuid import UUID

from streams.balancing.geography import centre, distance_ppm
from streams.balancing.score import (
    UNKNOWN_DISTANCE,
    Candidate,
    Ceilings,
    Choice,
    Exclusion,
    Measures,
    Node,
    Purpose,
    Question,
    Weights,
    bandwidth_ppm,
    near,
    part,
    standing,
)

OWN: Final = 10**12
"""Added for a tenant's own nodes: more than any score."""
NEVER: Final = -(10**15)
UNFIT: Final = NEVER // 2
CELLS: Final = 4096
TENANTS: Final = 4096
CANDIDATES: Final = 16
"""Of the best so many are told: who was further behind wins under hardly any weights."""
Served = tuple[list[int], list[Exclusion | None]]


class Fleet:
    """The nodes at one moment under one set of weights."""

    def __init__(self, nodes: Sequence[Node], weights: Weights, ceilings: Ceilings, now_ms: int) -> None:
        self.nodes = sorted(nodes, key=lambda node: node.node_id)
        self.weights, self.ceilings, self.now_ms = weights, ceilings, now_ms
        self._place = {node.node_id: n for n, node in enumerate(self.nodes)}
        self._names = [node.node_id for node in self.nodes]
        self._reserved = [node.reserved_bytes_per_second for node in self.nodes]
        self._used = [node.bandwidth_ppm for node in self.nodes]
        self._bandwidth = [self._bandwidth_part(used) for used in self._used]
        self._geo: dict[str, tuple[list[int], list[int]]] = {}
        self._served: dict[tuple[UUID, Purpose], Served] = {}
        self._nowhere = [0] * len(self.nodes), [UNKNOWN_DISTANCE] * len(self.nodes)
        self._by_tag: dict[str, list[int]] = {}
        for n, node in enumerate(self.nodes):
            for tag in node.tags:
                self._by_tag.setdefault(tag, []).append(n)

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._place

    def reserve(self, node_id: str, bytes_per_second: int) -> None:
        """Counts so much more (or, negative, less) of a node's bandwidth as spoken for."""
        n = self._place.get(node_id)
        if n is not None:
            self._reserved[n] = max(0, self._reserved[n] + bytes_per_second)
            self._used[n] = bandwidth_ppm(self.nodes[n], self._reserved[n])
            self._bandwidth[n] = self._bandwidth_part(self._used[n])

    def choose(self, question: Question, limit: int = CANDIDATES) -> Choice:
        """The best nodes for a question, and why others cannot serve it."""
        sums, adjusted, reasons = self._sums(question)
        distances = self._near(question.cell)[1]
        serving = [n for n, value in enumerate(sums) if value > UNFIT]
        serving.sort(key=sums.__getitem__, reverse=True)  # stable: of equals the first by name
        candidates = [self._candidate(n, sums[n], question, distances[n], adjusted.get(n, 0)) for n in serving[:limit]]
        if len(serving) == len(sums):
            return Choice(candidates, len(serving), [])
        others = [n for n, value in enumerate(sums) if value <= UNFIT]
        return Choice(candidates, len(serving), [(self._names[n], reasons[n] or self._momentary(n, question)) for n in others])

    def winner(self, question: Question) -> str | None:
        """Only who it is."""
        sums, _, _ = self._sums(question)
        best = max(sums, default=NEVER)
        return self.nodes[sums.index(best)].node_id if best > UNFIT else None

    def _sums(self, question: Question) -> tuple[list[int], Mapping[int, int], list[Exclusion | None]]:
        """What every node is worth, NEVER where it cannot serve; tag adjustments by place; standing reasons."""
        fixed, reasons = self._may_serve(question.tenant_id, question.purpose)
        sums = list(map(add, map(add, fixed, self._bandwidth), self._near(question.cell)[0]))
        for holder in question.holders:
            if (n := self._place.get(holder)) is not None:
                sums[n] += self.weights.bonus
        adjusted: dict[int, int] = {}
        for tag, points in question.tag_adjust.items():
            for n in self._by_tag.get(tag, ()):
                sums[n] += points
                adjusted[n] = adjusted.get(n, 0) + points
        if question.purpose is Purpose.SOURCE:
            holders = {self._place[h] for h in question.holders if h in self._place}
            sums = [value if n in holders else value + NEVER for n, value in enumerate(sums)]
        if question.needed_cpu_ppm:
            most = self.ceilings.cpu_ppm - question.needed_cpu_ppm
            sums = [value if self.nodes[n].cpu_ppm <= most else value + NEVER for n, value in enumerate(sums)]
        for asking in question.asking:
            if (n := self._place.get(asking)) is not None:
                sums[n] += NEVER
        return sums, adjusted, reasons

    def _may_serve(self, tenant_id: UUID, purpose: Purpose) -> Served:
        """Fixed parts of every node's worth to a tenant, and standing reasons against it."""
        key = tenant_id, purpose
        found = self._served.get(key)
        if found is None:
            fixed: list[int] = []
            reasons: list[Exclusion | None] = []
            for node in self.nodes:
                serves = node.serves(tenant_id)
                reason = Exclusion.NOT_FOR_TENANT if not serves else standing(node, purpose, self.ceilings, self.now_ms)
                own = OWN if node.tenants is not None and tenant_id in node.tenants else 0
                worth = own + part(self.weights.cpu, node.cpu_ppm) + part(self.weights.ram, node.ram_ppm)
                fixed.append(worth if reason is None else worth + NEVER)
                reasons.append(reason)
            if len(self._served) >= TENANTS:
                self._served.clear()
            found = self._served[key] = fixed, reasons
        return found

    def _near(self, cell: str | None) -> tuple[list[int], list[int]]:
        """Of every node, what its nearness to a cell is worth, and its distance."""
        if cell is None:
            return self._nowhere
        found = self._geo.get(cell)
        if found is None:
            here = centre(cell)
            distances = [UNKNOWN_DISTANCE if n.cell is None else distance_ppm(centre(n.cell), here) for n in self.nodes]
            if len(self._geo) >= CELLS:
                self._geo.clear()
            found = self._geo[cell] = [near(self.weights.geo, distance) for distance in distances], distances
        return found

    def _bandwidth_part(self, used_ppm: int) -> int:
        return part(self.weights.bandwidth, used_ppm) + (NEVER if used_ppm > self.ceilings.bandwidth_ppm else 0)

    def _candidate(self, n: int, value: int, question: Question, distance: int, adjustment: int) -> Candidate:
        node = self.nodes[n]
        is_own = value >= OWN // 2
        measured = Measures(
            node.cpu_ppm, node.ram_ppm, self._used[n], distance, node.node_id in question.holders, adjustment, is_own
        )
        return Candidate(node.node_id, measured, value - OWN if is_own else value)

    def _momentary(self, n: int, question: Question) -> Exclusion:
        """Why this question, of all, cannot be answered with a node that serves in general."""
        node = self.nodes[n]
        if self._used[n] > self.ceilings.bandwidth_ppm:
            return Exclusion.BANDWIDTH_FULL
        if question.needed_cpu_ppm and node.cpu_ppm + question.needed_cpu_ppm > self.ceilings.cpu_ppm:
            return Exclusion.CPU_FULL
        if question.purpose is Purpose.SOURCE and node.node_id not in question.holders:
            return Exclusion.NO_STREAM
        return Exclusion.ASKING
