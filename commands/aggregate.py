"""Where the state of an aggregate lies: one tenant with everything that its decisions are about.

Invariant: an event changes the aggregate that it is about, and the tenant; versions of an aggregate are contiguous from 1.
`root` and `owned` put a decider into its place and check its types; behind them every aggregate looks the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from immutables import Map

from commands.decider import Decider
from commands.tenant import OfTenant, Tenant
from streams.generated import Command, Decision
from streams.ids import OPERATOR_TENANT

C = TypeVar("C")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Boundary:
    """Within it rules hold and order is kept."""

    tenant: Tenant | None
    owned: Map[UUID, object]  # each of a type that only its own decider knows
    versions: Map[UUID, int]
    is_operators: bool = False  # of what belongs to the operator: there is no tenant in it

    def version(self, aggregate_id: UUID) -> int:
        """Version of the newest event of an aggregate; 0 when there is none."""
        return self.versions.get(aggregate_id, 0)


EMPTY = Boundary(None, Map(), Map())
OPERATORS = Boundary(None, Map(), Map(), is_operators=True)


def beginning(tenant_id: UUID) -> Boundary:
    """The boundary of a tenant, or of the operator, before anything was decided in it."""
    return OPERATORS if tenant_id == OPERATOR_TENANT else EMPTY


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A kind of aggregate, as the writer of a partition uses it."""

    name: str
    commands: frozenset[type]
    events: frozenset[type]
    is_tenant: bool
    decide: Callable[[Boundary, UUID, Command], Sequence[Decision]]
    evolve: Callable[[Boundary, UUID, Decision], Boundary]  # all but the version


def root(decider: Decider[C, Tenant | None, Decision]) -> Aggregate:
    """The tenant itself."""

    def decide(boundary: Boundary, _: UUID, command: Command) -> Sequence[Decision]:
        assert decider.takes(command)
        return decider.decide(command, boundary.tenant)

    def evolve(boundary: Boundary, _: UUID, event: Decision) -> Boundary:
        return Boundary(decider.evolve(boundary.tenant, event), boundary.owned, boundary.versions, boundary.is_operators)

    return Aggregate(decider.name, decider.commands, decider.events, True, decide, evolve)


def owned(decider: Decider[C, OfTenant[S], Decision], kind: type[S]) -> Aggregate:
    """Something that a tenant has many of, each with a state of this kind."""

    def state(boundary: Boundary, aggregate_id: UUID) -> OfTenant[S]:
        own = boundary.owned.get(aggregate_id)
        # The id of something of another kind finds nothing: the decider says so in its own words.
        return OfTenant(own if isinstance(own, kind) else None, boundary.tenant, boundary.is_operators)

    def decide(boundary: Boundary, aggregate_id: UUID, command: Command) -> Sequence[Decision]:
        assert decider.takes(command)
        return decider.decide(command, state(boundary, aggregate_id))

    def evolve(boundary: Boundary, aggregate_id: UUID, event: Decision) -> Boundary:
        after = decider.evolve(state(boundary, aggregate_id), event)
        if after.own is None:  # an event before the creation of what it is about: decided by nobody
            return Boundary(after.tenant, boundary.owned, boundary.versions, boundary.is_operators)
        owned = boundary.owned.set(aggregate_id, after.own)
        return Boundary(after.tenant, owned, boundary.versions, boundary.is_operators)

    return Aggregate(decider.name, decider.commands, decider.events, False, decide, evolve)
